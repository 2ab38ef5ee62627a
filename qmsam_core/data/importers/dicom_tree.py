"""Find the image series below a folder of DICOM files, and the masks that were drawn on each.

Files are sorted by what they say, not by where they lie: several series may lie in one folder, the slices of
one in several, and the RTSTRUCT or SEG in a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pydicom

from qmsam_core.data.archive import CaseError

from .series import MASKS, is_cut, is_image, is_own_mask, read_header, referenced_frames, referenced_series

_TITLE = 48  # bytes


@dataclass(frozen=True)
class Series:
    """An image series below a folder.

    Attributes:
        uid: its SeriesInstanceUID, "" if it has none.
        folder: the deepest folder that holds all slices.
        title: its number and description, in characters that a file name may have.
        patient: PatientID.
        frame: UID of its coordinate system.
        slices: its files.
        masks: files of the SEG and RTSTRUCT that were drawn on it.
        beside: damaged files and files that are no images, in the folders of its slices.
        notes: on masks that do not refer to it by its UID.
    """

    uid: str
    folder: Path
    title: str
    patient: str
    frame: str
    slices: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files, sorted."""
        return tuple(sorted((*self.slices, *self.masks, *self.beside)))


@dataclass
class DicomTree:
    """What lies below a folder.

    Attributes:
        series: sorted by folder and title.
        masks: errors of masks that belong to no series.
        damaged: errors of files in folders without slices.
        others: files that are no images or masks, in folders without slices, and masks that `predict` made.
    """

    series: list[Series] = field(default_factory=list)
    masks: list[CaseError] = field(default_factory=list)
    damaged: list[CaseError] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Slice:
    path: Path
    uid: str
    patient: str
    frame: str
    title: str
    place: str
    number: str
    instance: str


def find_series(files: Iterable[Path]) -> DicomTree:
    """Sort DICOM files by series. Only headers are read.

    A mask belongs to the series that it refers to. Where that is not here, to the only one of its coordinate
    system, with a note. Where it refers to none, to the only one in or below its folder.
    """
    slices: dict[tuple, dict[Path, list[_Slice]]] = defaultdict(lambda: defaultdict(list))
    tree, masks, others = DicomTree(), {}, []
    damaged: dict[Path, CaseError] = {}
    for path in files:
        try:
            header = read_header(path)
        except CaseError as error:
            damaged[path] = error
            continue
        if header is not None and header.get("Modality") in MASKS:
            if is_own_mask(header):
                tree.others.append(path)
            else:
                masks[path] = header
        elif is_image(header):
            one = _slice(path, header)
            slices[(one.uid or path.parent, one.patient, one.frame)][path.parent].append(one)
        elif path.name.upper() != "DICOMDIR":
            others.append(path)
            if is_cut(path, header):
                damaged[path] = CaseError(path, "is no readable DICOM image, SEG or RTSTRUCT")
    series = [part for by_folder in slices.values() for part in _parts(by_folder)]
    tree.series = sorted(series, key=lambda one: (one.folder, one.title, one.slices))
    for path, header in masks.items():
        _add_mask(tree, path, header)
    _add_beside(tree, damaged, others)
    return tree


def _slice(path: Path, header: pydicom.Dataset) -> _Slice:
    def text(key: str) -> str:
        value = header.get(key)
        return "" if value is None else str(value)

    title = "_".join(filter(None, (_plain(text(key)) for key in ("SeriesNumber", "SeriesDescription"))))
    return _Slice(
        path,
        text("SeriesInstanceUID"),
        text("PatientID"),
        text("FrameOfReferenceUID"),
        title.encode()[:_TITLE].decode(errors="ignore").strip("._") or "series",
        text("ImagePositionPatient"),
        text("InstanceNumber"),
        text("SOPInstanceUID"),
    )


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("._")


def _parts(by_folder: dict[Path, list[_Slice]]) -> list[Series]:
    """Series of slices that state the same UID, by folder.

    Folders belong together if they hold other parts of it, or repeat some of its slices. Else they are series
    of their own: copies of a patient, or patients whose UIDs were made the same.
    """
    parts: list[list[list[_Slice]]] = []
    for _, group in sorted(by_folder.items(), key=lambda item: (-len(item[1]), item[0])):
        own = next((part for part in parts if _belongs(group, part)), None)
        if own is None:
            parts.append(own := [])
        own.append(group)
    return [_series(groups) for groups in parts]


def _belongs(group: list[_Slice], part: list[list[_Slice]]) -> bool:
    there = {one.place: one for other in part for one in other}
    if any(one.place in there for one in group):  # copies of some slices, not of them all
        same = (
            one.place in there and one.instance and there[one.place].instance == one.instance for one in group
        )
        return len(group) < len(there) and all(same)
    numbers = {one.number for one in there.values()} & {one.number for one in group}
    return not numbers - {""}


def _series(groups: list[list[_Slice]]) -> Series:
    known, folders = set(), []
    for group in groups:  # the largest first; one that only repeats slices does not say where the series lies
        if not {one.place for one in group} <= known:
            folders.append(group[0].path.parent)
        known |= {one.place for one in group}
    slices = tuple(sorted(one.path for group in groups for one in group))
    first = groups[0][0]
    return Series(
        first.uid, Path(os.path.commonpath(folders)), first.title, first.patient, first.frame, slices
    )


def _add_mask(tree: DicomTree, path: Path, header: pydicom.Dataset) -> None:
    wanted, patient = referenced_series(header), str(header.get("PatientID", ""))
    of_patient = [
        k for k, one in enumerate(tree.series) if "" in (patient, one.patient) or one.patient == patient
    ]
    hits, note = _nearest(tree, path, [k for k in of_patient if tree.series[k].uid in wanted]), ""
    if not hits:
        frames = referenced_frames(header)
        hits = _nearest(tree, path, [k for k in of_patient if tree.series[k].frame in frames])
        note = f"{path.name} refers to {_stated(wanted)}; it is taken for its coordinate system's only series"
    if not hits and not wanted:
        hits = [k for k in of_patient if tree.series[k].folder.is_relative_to(path.parent)]
        note = f"{path.name} refers to no series; it is taken for the only one in or below its folder"
    if len(hits) == 1:
        one = tree.series[hits[0]]
        tree.series[hits[0]] = replace(
            one, masks=(*one.masks, path), notes=(*one.notes, *([note] if note else []))
        )
        return
    which = f"{len(hits)} may be meant" if hits else "it is not here"
    advice = "put it beside its slices, or give it as second argument (predict: --boxes-from)"
    tree.masks.append(CaseError(path, f"is a mask that refers to {_stated(wanted)}, {which}; {advice}"))


def _stated(uids: set[str]) -> str:
    return f"series {', '.join(sorted(uids))}" if uids else "no series"


def _nearest(tree: DicomTree, path: Path, hits: list[int]) -> list[int]:
    """Of several series choose the nearest to a mask: copies of a patient each have their own."""
    if len(hits) < 2:
        return hits

    def near(k: int) -> tuple[int, int]:
        folder = tree.series[k].folder
        return len(Path(os.path.commonpath([path, folder])).parts), -len(folder.parts)

    best = max(map(near, hits))
    return [k for k in hits if near(k) == best]


def _add_beside(tree: DicomTree, damaged: dict[Path, CaseError], others: list[Path]) -> None:
    """Give damaged and other files to every series in their folder: a slice may be missing from any."""
    owners: dict[Path, set[int]] = defaultdict(set)
    for k, one in enumerate(tree.series):
        for path in one.slices:
            owners[path.parent].add(k)
    for path in dict.fromkeys((*damaged, *others)):
        for k in owners.get(path.parent, ()):
            one = tree.series[k]
            tree.series[k] = replace(one, beside=(*one.beside, path))
        if path.parent not in owners and path in damaged:
            tree.damaged.append(damaged[path])
        elif path.parent not in owners:
            tree.others.append(path)


def series_names(series: list[Series], root: Path) -> list[str]:
    """Name each series by its folder below `root`, with its title where the folder holds several.

    Where that is not enough, a piece of a hash of UID, patient and folder follows, so that no name depends on
    the order of the series.

    Returns:
        Unique names with forward slashes, in the order of `series`. A series alone in `root` itself is called
        like it.
    """
    shared = Counter(one.folder for one in series)
    names = []
    for one in series:
        folder = one.folder.relative_to(root).as_posix() if one.folder.is_relative_to(root) else "."
        parts = [folder] if folder != "." else []
        names.append("/".join(parts + ([one.title] if shared[one.folder] > 1 else [])) or root.resolve().name)
    counts = Counter(names)
    return [f"{name}_{mark_of(one, root)}" if counts[name] > 1 else name for one, name in zip(series, names)]


def mark_of(one: Series, root: Path) -> str:
    """Eight characters that tell a series from others of the same title."""
    facts = (one.uid, one.patient, one.frame, os.fspath(one.folder.relative_to(root)))
    return hashlib.sha256(os.fsencode(" ".join(facts))).hexdigest()[:8]


def mask_names(names: list[str]) -> list[list[str]]:
    """Names by which a mask may call each series: whole, by its first part (the patient), by its last.

    Names that may mean several series are left out.

    Args:
        names: of `series_names`.
    """
    parts = [list(dict.fromkeys((name, name.partition("/")[0], name.rpartition("/")[2]))) for name in names]
    counts = Counter(part for own in parts for part in own)
    return [[part for part in own if counts[part] == 1] for own in parts]
