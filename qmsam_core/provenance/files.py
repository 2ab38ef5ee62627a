"""Hash files, and write files that appear under their name only when complete."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FINISHED = "finished.json"
"""File beside a model that says which training made it, so that it is not run again (`train.progress`)."""


def sha256(path: str | Path) -> str:
    """SHA-256 of a file in hex. For a folder: of the sorted relative paths and hashes of its files."""
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        listing = "".join(f"{p.relative_to(path).as_posix()} {sha256(p)}\n" for p in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield the name of a hidden file beside `path` with the same ending; it replaces `path` on success.

    If the block fails, the hidden file is removed and `path` stays as it was. Readers never see half a file.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_atomic(path: Path, write: Callable[[Path], Any]) -> Path:
    """Let `write` fill the file of `atomic_path`, and return `path`."""
    with atomic_path(path) as partial:
        write(partial)
    return path


def write_json(path: Path, content: Any) -> Path:
    """Write `content` as indented JSON, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_atomic(path, lambda partial: partial.write_text(text, encoding="utf-8"))


class atomic_file:
    """Binary file, written beside its path and renamed to it only if the block succeeds."""

    def __init__(self, path: str | os.PathLike):
        self._path = Path(path)

    def __enter__(self) -> io.BufferedWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, self._temporary = tempfile.mkstemp(
            dir=self._path.parent, prefix=f".{self._path.name}.", suffix=".part"
        )
        self._stream = os.fdopen(handle, "wb")
        return self._stream

    def __exit__(self, kind, *rest) -> None:
        try:
            self._stream.close()  # a full disk may raise only here
            if kind is None:
                os.chmod(self._temporary, 0o666 & ~_umask())
                os.replace(self._temporary, self._path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)


def remove_partial(path: Path) -> None:
    """Remove what `atomic_file` of a killed process left beside `path`, a file or a folder."""
    name = re.sub(r"([\[*?])", r"[\1]", path.name)
    for part in path.parent.glob(f".{name}.*.part"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
