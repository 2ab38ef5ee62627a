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

from ...data.archive import CaseError
from ...data.importers.grids import VOLUME_SUFFIXES
from ...data.importers.pairing import stem
from ...data.importers.planar import IMAGE_SUFFIXES
from ...data.importers.walk import files_below

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


def name_of(one: Input | CaseError) -> str:
    """Name of an input in tables and messages."""
    return one.name if isinstance(one, Input) else str(one.path)


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
    passed = [os.path.realpath(path) for path in without]
    below = files_below(root)
    folders: dict[Path, list[Path]] = {}
    for path in below.files:
        if path.name.lower() not in _BESIDE and not _lies_in(path, passed):
            folders.setdefault(path.parent, []).append(path)
    found = [one for folder, files in folders.items() for one in _in_folder(root, folder, files)]
    found += below.errors
    return sorted(found, key=lambda one: one.name if isinstance(one, Input) else str(one.path))


def _lies_in(path: Path, folders: list[str]) -> bool:
    real = os.path.realpath(path)
    return any(real == folder or real.startswith(folder + os.sep) for folder in folders)


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
