"""Find the image series below a folder of DICOM files, and the masks that were drawn on each.

Files are sorted by what they say, not by where they lie: several series may lie in one folder, the slices of
one in several, and the RTSTRUCT or SEG in a folder of its own.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pydicom

from qmsam_core.data.archive import CaseError

from .series import MASKS, looks_cut, read_header, referenced_series


@dataclass(frozen=True)
class Series:
    """An image series below a folder.

    Attributes:
        uid: its SeriesInstanceUID, "" if it has none.
        folder: the deepest folder that holds all slices.
        title: its number and description, in characters that a file name may have.
        slices: its files.
        masks: files of the SEG and RTSTRUCT that were drawn on it.
        beside: damaged files and files that are no images, in the folders of its slices.
    """

    uid: str
    folder: Path
    title: str
    slices: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files, sorted."""
        return tuple(sorted((*self.slices, *self.masks, *self.beside)))


@dataclass
class DicomTree:
    """What lies below a folder.

    Attributes:
        series: sorted by folder and title.
        errors: masks of no series, and damaged files in folders without slices.
        others: files that are no DICOM images or masks, in folders without slices.
    """

    series: list[Series] = field(default_factory=list)
    errors: list[CaseError] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Slice:
    path: Path
    uid: str
    patient: tuple[str, str]
    place: str
    instance: str
    title: str


def find_series(files: Iterable[Path]) -> DicomTree:
    """Sort DICOM files by series. Only headers are read.

    A mask belongs to the series that it refers to, or else to the only one in or below its folder.
    """
    slices: dict[tuple, dict[Path, list[_Slice]]] = defaultdict(lambda: defaultdict(list))
    masks: dict[Path, pydicom.Dataset] = {}
    damaged: dict[Path, CaseError] = {}
    others: list[Path] = []
    for path in files:
        try:
            header = read_header(path)
        except CaseError as error:
            damaged[path] = error
            continue
        if header is None or not ("Rows" in header or header.get("Modality") in MASKS):
            others.append(path)
        elif header.get("Modality") in MASKS:
            masks[path] = header
        else:
            one = _slice(path, header)
            slices[(one.uid or path.parent, *one.patient)][path.parent].append(one)
    series = [part for by_folder in slices.values() for part in _parts(by_folder)]
    tree = DicomTree(sorted(series, key=lambda one: (one.folder, one.title, one.slices)))
    _add_masks(tree, masks)
    _add_beside(tree, damaged, others)
    return tree


def _slice(path: Path, header: pydicom.Dataset) -> _Slice:
    texts = (str(header.get(key, "") or "") for key in ("SeriesNumber", "SeriesDescription"))
    title = "_".join(filter(None, (re.sub(r"[^\w.-]+", "_", text).strip("._") for text in texts)))
    return _Slice(
        path,
        str(header.get("SeriesInstanceUID", "")),
        (str(header.get("PatientID", "")), str(header.get("StudyInstanceUID", ""))),
        str(header.get("ImagePositionPatient", "")),
        str(header.get("SOPInstanceUID", "")),
        title or "series",
    )


def _parts(by_folder: dict[Path, list[_Slice]]) -> list[Series]:
    """Series of slices that state the same UID, by folder.

    Folders belong together if they hold other parts of it, or if one lies in the other and repeats slices.
    Else they are series of their own: copies of a patient, or patients whose UIDs were made the same.
    """
    parts: list[list[list[_Slice]]] = []
    for _, group in sorted(by_folder.items(), key=lambda item: (-len(item[1]), item[0])):
        own = next((part for part in parts if _belongs(group, part)), None)
        if own is None:
            parts.append(own := [])
        own.append(group)
    return [_series(groups) for groups in parts]


def _belongs(group: list[_Slice], part: list[list[_Slice]]) -> bool:
    there = {one.place: one.instance for other in part for one in other}
    shared = [one for one in group if one.place in there]
    folders = [part[0][0].path.parent, group[0].path.parent]
    nested = Path(os.path.commonpath(folders)) in folders
    return all(nested and one.instance and there[one.place] == one.instance for one in shared)


def _series(groups: list[list[_Slice]]) -> Series:
    known, folders = set(), []
    for group in groups:  # the largest first; one that only repeats slices does not say where the series lies
        if not {one.place for one in group} <= known:
            folders.append(group[0].path.parent)
        known |= {one.place for one in group}
    slices = tuple(sorted(one.path for group in groups for one in group))
    first = groups[0][0]
    return Series(first.uid, Path(os.path.commonpath(folders)), first.title, slices)


def _add_masks(tree: DicomTree, masks: dict[Path, pydicom.Dataset]) -> None:
    for path, header in masks.items():
        wanted = referenced_series(header)
        hits = [k for k, one in enumerate(tree.series) if one.uid in wanted]
        if len(hits) > 1:  # copies of a patient, each with its own mask
            apart = {k: len(os.path.commonpath([path, tree.series[k].folder])) for k in hits}
            hits = [k for k in hits if apart[k] == max(apart.values())]
        if not hits:
            hits = [k for k, one in enumerate(tree.series) if one.folder.is_relative_to(path.parent)]
        if len(hits) != 1:
            stated = ", ".join(sorted(wanted)) or "no series"
            which = "several may be meant" if hits else "it is not here"
            advice = "put it beside its slices, or give it as second argument (predict: --boxes-from)"
            tree.errors.append(CaseError(path, f"is a mask that refers to {stated}, {which}; {advice}"))
        else:
            one = tree.series[hits[0]]
            tree.series[hits[0]] = replace(one, masks=(*one.masks, path))


def _add_beside(tree: DicomTree, damaged: dict[Path, CaseError], others: list[Path]) -> None:
    """Give damaged and other files to every series in their folder: a slice may be missing from any."""
    owners: dict[Path, set[int]] = defaultdict(set)
    for k, one in enumerate(tree.series):
        for path in one.slices:
            owners[path.parent].add(k)
    for path in (*damaged, *others):
        for k in owners.get(path.parent, ()):
            one = tree.series[k]
            tree.series[k] = replace(one, beside=(*one.beside, path))
        if path.parent not in owners and path in damaged:
            tree.errors.append(damaged[path])
        elif path.parent not in owners and path.suffix.lower() == ".dcm" and looks_cut(path):
            tree.errors.append(CaseError(path, "is no readable DICOM image, SEG or RTSTRUCT"))
        elif path.parent not in owners:
            tree.others.append(path)


def series_names(series: list[Series], root: Path) -> list[str]:
    """Name each series by its folder below `root`, with its title where the folder holds several.

    Returns:
        Unique names with forward slashes, in the order of `series`. A series alone in `root` itself has the
        name "".
    """
    shared = Counter(one.folder for one in series)
    taken, names = Counter(), []
    for one in series:
        folder = one.folder.relative_to(root).as_posix() if one.folder.is_relative_to(root) else ""
        parts = [folder] if folder not in ("", ".") else []
        name = "/".join(parts + ([one.title] if shared[one.folder] > 1 else []))
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
    return names
