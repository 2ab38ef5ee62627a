"""Find what can be segmented below a folder: cases, volumes, DICOM series and images.

A DICOM series is one input, wherever its slices lie. Linked folders are followed. What is none of these is
named, not left out in silence.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...data.archive import CaseError
from ...data.importers.endings import IMAGE_SUFFIXES, VOLUME_SUFFIXES
from ...data.importers.packed import voxel_files
from ...data.importers.pairing import stem
from ...data.importers.series import is_dicom
from ...data.importers.walk import files_below, in_utf8

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_MANY = 5000  # DICOM files, whose headers take some five seconds
_BESIDE = {"dicomdir", "thumbs.db", "desktop.ini"}  # written by programs, never an image

Kind = Literal["npz", "volume", "dicom", "image"]


@dataclass(frozen=True)
class Input:
    """One thing to segment.

    Attributes:
        path: the file, or the folder of a DICOM series.
        name: its path below the input folder with forward slashes. It names rows of tables. Bytes that are no
            UTF-8 are written as \\udcfc.
        kind: a case of the challenge's format, a NIfTI, NRRD or MetaImage file, a series, or a 2-D image.
        files: the files that are read.
        series: UID of a DICOM series; "" for other files.
        place: the name with such bytes as they are, for its outputs.
    """

    path: Path
    name: str
    kind: Kind
    files: tuple[Path, ...]
    series: str = ""
    place: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", self.name)
        object.__setattr__(self, "name", in_utf8(self.name))

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
        return f"{len(stats)} files, {hashlib.sha256(os.fsencode(text)).hexdigest()[:16]}"

    def in_shard(self, shard: tuple[int, int]) -> bool:
        """Whether the input belongs to shard k of n, (k, n) with k from 1. Its name alone decides."""
        number, count = shard
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % count == number - 1


def name_of(one: Input | CaseError) -> str:
    """Name of an input in tables and messages."""
    return one.name if isinstance(one, Input) else in_utf8(str(one.path))


def missing(error: ModuleNotFoundError) -> str:
    """Say that a format cannot be read here, since only what npz cases need is installed."""
    return f"needs the module {error.name}, which is not installed here; install the whole of qmsam_core"


def find_inputs(
    root: Path,
    without: Collection[Path] = (),
    log: Callable[[str], None] = lambda line: None,
    is_output: Callable[[Path], bool] = lambda folder: False,
) -> list[Input | CaseError]:
    """List what lies at or below `root`, sorted by name.

    Args:
        root: a file, or a folder that is searched in depth.
        without: files and folders to pass over, such as the output folder and the masks.
        log: takes a line for each folder that is passed over by `is_output`.
        is_output: tells whether a folder below holds outputs of an earlier run. They are no inputs.

    Returns:
        The inputs. A file that is none is a `CaseError` that names it.

    Raises:
        CaseError: there is no such file or folder.
    """
    root = Path(root)
    if not root.exists():
        raise CaseError(root, "there is no such file or folder; expected the input of -i")
    if root.is_file():
        return [_of_file(root, root.name) or Input(root, root.name, "dicom", (root,))]
    passed = [os.path.realpath(path) for path in without]
    below = files_below(root)
    made = sorted({p.parent for p in below.files if p.parent != root and is_output(p.parent)})
    for folder in made:
        if not _lies_in(folder, passed):
            log(f"{folder}: passed over, it holds outputs of an earlier run; give it with -i to search it")
    passed += [os.path.realpath(folder) for folder in made]
    belonging = {os.path.realpath(file) for path in below.files for file in voxel_files(path)}
    found: list[Input | CaseError] = list(below.errors)
    slices = []
    for path in below.files:
        if path.name.lower() in _BESIDE or (belonging and os.path.realpath(path) in belonging):
            continue
        if not _lies_in(path, passed):
            one = _of_file(path, path.relative_to(root).as_posix())
            slices.append(path) if one is None else found.append(one)
    if len(slices) > _MANY:
        log(f"{root}: reading the headers of {len(slices):,} DICOM files")
    found += _series(root, slices, log)
    return sorted(found, key=lambda one: one.name if isinstance(one, Input) else str(one.path))


def _lies_in(path: Path, folders: list[str]) -> bool:
    real = os.path.realpath(path)
    return any(real == folder or real.startswith(folder + os.sep) for folder in folders)


def _series(root: Path, files: list[Path], log: Callable[[str], None]) -> Iterator[Input | CaseError]:
    if not files:
        return
    try:
        # its library takes long to load, and need not be installed where there are no DICOM files
        from ...data.importers.dicom_tree import find_series, series_names
    except ModuleNotFoundError as error:
        yield from (CaseError(path, f"is a DICOM file, which {missing(error)}") for path in files)
        return
    tree = find_series(files)
    for one, name in zip(tree.series, series_names(tree.series, root)):
        for note in one.notes:
            log(f"{name}: note: {note}")
        yield Input(one.folder, name, "dicom", one.files, one.uid)
    yield from (*tree.masks, *tree.damaged)
    for path in tree.others:
        yield CaseError(path, "is no DICOM image, and no SEG or RTSTRUCT that was drawn")


def _of_file(path: Path, name: str) -> Input | CaseError | None:
    """The input that a file is by itself. None for a DICOM file."""
    kind = _kind(path)
    if kind == "dicom":
        return None
    if kind is not None:
        return Input(path, name, kind, (path, *sorted(voxel_files(path))))
    endings = ", ".join((".npz", *VOLUME_SUFFIXES, *IMAGE_SUFFIXES))
    return CaseError(path, f"is no case; expected {endings}, or DICOM files")


def _kind(path: Path) -> Kind | None:
    if path.name.lower().endswith(".npz"):
        return "npz"
    if stem(path, VOLUME_SUFFIXES) is not None:
        return "volume"
    if stem(path, IMAGE_SUFFIXES) is not None:
        return "image"
    if path.suffix.lower() in DICOM_SUFFIXES or is_dicom(path):
        return "dicom"
    return None
