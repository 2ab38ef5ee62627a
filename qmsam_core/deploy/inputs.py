"""Find what can be segmented below a folder: cases, volumes, DICOM series and images.

A folder of DICOM slices is one input. Linked folders are followed. What is none of these is named, not left
out in silence.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ..data.archive import CaseError
from ..data.importers.grids import VOLUME_SUFFIXES
from ..data.importers.pairing import stem
from ..data.importers.planar import IMAGE_SUFFIXES

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_BESIDE = {"dicomdir", "thumbs.db", "desktop.ini"}  # written by programs, never an image

Kind = Literal["npz", "volume", "dicom", "image"]


@dataclass(frozen=True)
class Input:
    """One thing to segment.

    Attributes:
        path: the file, or the folder of a DICOM series.
        name: its path below the input folder with forward slashes. It names outputs and rows of tables.
        kind: a case of the challenge's format, a NIfTI, NRRD or MetaImage file, a series, or a 2-D image.
        files: the files that are read.
    """

    path: Path
    name: str
    kind: Kind
    files: tuple[Path, ...]

    @classmethod
    def case(cls, path: Path, name: str = "") -> Input:
        """A case file of the challenge's format."""
        return cls(path, name or path.name, "npz", (path,))

    def state(self) -> str:
        """Describe size and time of the input's files. Raises `OSError` if one is gone."""
        stats = [(path, path.stat()) for path in self.files]
        if len(stats) == 1:
            return f"{stats[0][1].st_size} bytes, {stats[0][1].st_mtime_ns} ns"
        text = "".join(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n" for path, stat in stats)
        return f"{len(stats)} files, {hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def in_shard(self, shard: tuple[int, int]) -> bool:
        """Whether the input belongs to shard k of n, (k, n) with k from 1. Its name alone decides."""
        number, count = shard
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % count == number - 1


def find_inputs(root: Path, without: Collection[Path] = ()) -> list[Input | CaseError]:
    """List what lies at or below `root`, sorted by name.

    Args:
        root: a file, or a folder that is searched in depth.
        without: files and folders to pass over, such as the output folder and the masks.

    Returns:
        The inputs. A file that is none is a `CaseError` that names it.

    Raises:
        CaseError: there is no such file or folder.
    """
    root = Path(root)
    if not root.exists():
        raise CaseError(root, "there is no such file or folder; expected the input of -i")
    if root.is_file():
        return [_of_file(root, root.name)]
    passed = {os.path.realpath(path) for path in without}
    found = [one for folder, files in _folders(root, passed) for one in _in_folder(root, folder, files)]
    return sorted(found, key=lambda one: one.name if isinstance(one, Input) else str(one.path))


def _folders(root: Path, passed: set[str]) -> Iterator[tuple[Path, list[Path]]]:
    """Yield every folder and its files. A folder that is reached twice, through a link, is searched once."""
    seen = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        paths = [Path(folder, name) for name in sorted(files)]
        yield Path(folder), [path for path in paths if _counts(path) and os.path.realpath(path) not in passed]
        inner[:] = sorted(
            name
            for name in inner
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) not in passed
        )


def _counts(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower() not in _BESIDE


def _in_folder(root: Path, folder: Path, files: list[Path]) -> Iterator[Input | CaseError]:
    belonging = _data_files(files)
    slices = []
    for path in files:
        if path in belonging:
            continue
        one = _of_file(path, path.relative_to(root).as_posix())
        if isinstance(one, Input) and one.kind == "dicom":
            slices.append(path)
        else:
            yield one
    if slices:
        name = folder.relative_to(root).as_posix()
        yield Input(folder, folder.resolve().name if name == "." else name, "dicom", tuple(slices))


def _of_file(path: Path, name: str) -> Input | CaseError:
    kind = _kind(path)
    if kind is not None:
        return Input(path, name, kind, (path,))
    if not path.exists():
        return CaseError(path, "is a link to a file that does not exist")
    endings = ", ".join((".npz", *VOLUME_SUFFIXES, *IMAGE_SUFFIXES))
    return CaseError(path, f"is no case; expected {endings}, or DICOM files")


def _kind(path: Path) -> Kind | None:
    if path.name.lower().endswith(".npz"):
        return "npz"
    if stem(path, VOLUME_SUFFIXES) is not None:
        return "volume"
    if stem(path, IMAGE_SUFFIXES) is not None:
        return "image"
    if path.suffix.lower() in DICOM_SUFFIXES or _is_dicom(path):
        return "dicom"
    return None


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _data_files(files: list[Path]) -> set[Path]:
    """Find the files that hold the voxels of a header beside them, such as the .raw of an .mhd."""
    found = set()
    for path in files:
        if path.suffix.lower() not in (".mhd", ".nhdr"):
            continue
        try:
            text = path.read_bytes()[:65536].decode("latin-1")
        except OSError:
            continue
        for name in re.findall(r"(?im)^(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", text):
            found.add(path.parent / PurePosixPath(name).name)
    return found
