"""Find the files below a folder. Links to folders are followed, loops and dead links are named."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from qmsam_core.data.archive import CaseError

_LONGEST_PATH = 1024  # bytes


@dataclass(frozen=True)
class Found:
    """Files below a folder.

    Attributes:
        files: sorted by path. Hidden files and folders (".name") are left out.
        errors: links that lead nowhere and folders that cannot be opened.
        loops: links to a folder that they lie in, or to one above. They are not followed.
    """

    files: list[Path] = field(default_factory=list)
    errors: list[CaseError] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)


def files_below(folder: str | os.PathLike) -> Found:
    """List the files in and below `folder`."""
    found = Found()
    # A folder that is a link itself lies in two places.
    _descend(Path(folder), (os.path.realpath(folder), os.path.abspath(folder)), found)
    found.files.sort()
    return found


def _descend(folder: Path, above: tuple[str, ...], found: Found) -> None:
    try:
        inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        found.errors.append(CaseError(folder, f"cannot be opened ({error.strerror}); check its permissions"))
        return
    for path in inside:
        if path.is_dir():
            real = os.path.realpath(path)
            if any(os.path.commonpath([real, folder]) == real for folder in above):
                found.loops.append(path)
            else:
                _descend(path, (*above, real), found)
        elif path.is_file():
            if target := _unmade_link(path):
                problem = (
                    f"is a text that names the folder {target}, as git leaves a link that it cannot make"
                )
                found.errors.append(CaseError(path, f"{problem}; put the folder in its place"))
            else:
                found.files.append(path)
        elif path.is_symlink():
            target = os.readlink(path)
            found.errors.append(
                CaseError(path, f"is a link to {target}, which is not there; mend or remove it")
            )


def _unmade_link(path: Path) -> str:
    """Name of the folder that a small file without ending consists of. "" for all other files."""
    if path.suffix or path.stat().st_size > _LONGEST_PATH:
        return ""
    try:
        text = path.read_text(encoding="utf-8").strip()
        return text if text and "\0" not in text and (path.parent / text).is_dir() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def in_utf8(text: str) -> str:
    """Return a text in which bytes of a file name that are no UTF-8 are written as \\udcfc."""
    return text.encode(errors="backslashreplace").decode()


def is_utf8(path: str | os.PathLike) -> bool:
    """Whether a path can be given to the libraries that read images and volumes."""
    return in_utf8(os.fspath(path)) == os.fspath(path)


def check_name(path: str | os.PathLike) -> None:
    """Raise `CaseError` if the libraries cannot open a path, because its name is no UTF-8. OpenCV crashes."""
    if not is_utf8(path):
        raise CaseError(path, "has a name that is no UTF-8 and cannot be opened; rename it")
