"""Find the case files of a data folder, `<root>/<Modality>/**/*.npz`, and list what is wrong with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

EXPECTED = "expected <root>/<Modality>/**/*.npz, e.g. <root>/CT/MyHospital/3DBox_CT_0001.npz"


class DataFolderError(ValueError):
    """A data folder cannot be used. The message names the folder and the expected layout."""

    def __init__(self, root: str | os.PathLike, message: str):
        super().__init__(f"{root}: {message}; {EXPECTED}")


@dataclass(frozen=True)
class FoundFile:
    """A candidate file: path relative to the root with forward slashes, bytes, time of change in ns."""

    name: str
    size: int
    mtime_ns: int


def find_cases(root: str | os.PathLike) -> tuple[list[FoundFile], list[tuple[Path, str]]]:
    """Find the case files below `root`, sorted by name, and the files left out with the reason.

    Hidden files are ignored. Left out are files outside a modality's folder, links that lead outside the
    root, and files that vanish or cannot be read. Of two files of one name the second is left out, since
    predictions are written under the file's name.

    Raises:
        DataFolderError: `root` does not exist, is no folder, or holds no npz file.
    """
    root = Path(root)
    if not root.exists():
        raise DataFolderError(root, "there is no such folder")
    if not root.is_dir():
        raise DataFolderError(root, "is not a folder")
    found: list[FoundFile] = []
    problems: list[tuple[Path, str]] = []
    _walk(root, "", os.path.realpath(root), found, problems)
    if not found and not problems:
        raise DataFolderError(root, "holds no npz file")
    found.sort(key=lambda file: file.name)
    return _unique(root, found, problems), problems


def _walk(root: Path, below: str, real_root: str, found: list, problems: list) -> None:
    try:
        entries = list(os.scandir(root / below))
    except OSError as error:
        problems.append((root / below, f"folder cannot be read ({error.strerror})"))
        return
    for entry in entries:
        name = f"{below}{entry.name}"
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and not _inside(entry.path, real_root):
            if entry.name.endswith(".npz") or entry.is_dir():
                problems.append(
                    (
                        Path(entry.path),
                        "is a link that leaves the data folder; "
                        "copy the data in or point to the folder itself",
                    )
                )
        elif entry.is_dir(follow_symlinks=False):
            _walk(root, f"{name}/", real_root, found, problems)
        elif entry.name.endswith(".npz"):
            _add(entry, name, found, problems)


def _add(entry: os.DirEntry, name: str, found: list, problems: list) -> None:
    if "/" not in name:
        problems.append((Path(entry.path), f"lies in no modality's folder; {EXPECTED}"))
        return
    try:
        status = entry.stat()
    except OSError as error:
        problems.append((Path(entry.path), f"cannot be looked at ({error.strerror})"))
        return
    found.append(FoundFile(name, status.st_size, status.st_mtime_ns))


def _inside(path: str, real_root: str) -> bool:
    return os.path.commonpath([os.path.realpath(path), real_root]) == real_root


def _unique(root: Path, found: list[FoundFile], problems: list) -> list[FoundFile]:
    first: dict[str, FoundFile] = {}
    for file in found:
        kept = first.setdefault(PurePosixPath(file.name).name, file)
        if kept is not file:
            problems.append(
                (
                    root / file.name,
                    f"has the same file name as {kept.name}, and predictions are written under it; "
                    "rename one",
                )
            )
    return list(first.values())
