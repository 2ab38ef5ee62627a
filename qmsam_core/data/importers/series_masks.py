"""Say which mask belongs to which DICOM series, and what the cases are called."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from qmsam_core.data.archive import CaseError

from .dicom_tree import DicomTree, Series, mark_of, mask_names, series_names
from .endings import VOLUME_SUFFIXES
from .notes import listed
from .pairing import stem
from .series import MASKS, DicomFolder, is_cut, read_header, referenced_series
from .walk import files_below

Masks = Path | tuple[Path, ...]
_ADVICE = "expected a SEG or RTSTRUCT that refers to it, or a mask as second argument"


class DrawnMasks:
    """The masks of a folder, by the series that a SEG or RTSTRUCT refers to, else by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_series: dict[str, list[pydicom.Dataset]] = defaultdict(list)
        self._unused: dict[Path, str] = {}
        for path in files_below(folder).files:
            try:
                header = read_header(path)
            except CaseError as error:
                self._unused[path] = error.message
                continue
            drawn = header is not None and header.get("Modality") in MASKS
            if drawn or stem(path, VOLUME_SUFFIXES) is not None:
                self._unused[path] = "is a mask without series"
            elif is_cut(path, header):
                self._unused[path] = "is no readable DICOM file"
            for uid in referenced_series(header) if drawn else ():
                self._by_series[uid].append(header)

    def of(self, uid: str, names: Sequence[str]) -> Masks:
        """Return the mask of a series: by its UID, or by the first of its names that a mask has.

        Several SEG of one series are an object or more each. Of several RTSTRUCT the name decides.

        Raises:
            CaseError: there is none, or several.
        """
        own = [Path(header.filename) for header in self._by_series.get(uid, [])]
        named = next((found for name in names if (found := self._called(name))), [])
        if len(named) == 1 and (not own or len(own) > 1):
            self._used(named)
            return named[0]
        self._used(own)
        if len(own) == 1:
            return own[0]
        if own and all(header.Modality == "SEG" for header in self._by_series[uid]):
            return tuple(own)
        name = names[0] if names else uid
        raise CaseError(
            self.folder / name,
            f"{len(own) or len(named) or 'no'} masks for case {name!r}{f' ({listed(own)})' if own else ''}; "
            f"expected one that refers to series {uid}, or one {name}.nii.gz, {name}.dcm or folder {name}",
        )

    def _called(self, name: str) -> list[Path]:
        folder = self.folder / Path(name).parent
        if not folder.is_dir():
            return []
        files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        last = Path(name).name
        return [p for p in files if last in (p.name, stem(p, (*VOLUME_SUFFIXES, ".dcm")) or p.name)]

    def _used(self, paths: Collection[Path]) -> None:
        for file in list(self._unused):
            if any(file == path or path in file.parents for path in paths):
                del self._unused[file]

    def without_series(self) -> list[CaseError]:
        """Name the masks and damaged files that `of` has not returned."""
        return [CaseError(path, problem) for path, problem in self._unused.items()]


@dataclass
class SeriesCases:
    """Cases to import from a folder of DICOM files.

    Attributes:
        masks: series and mask by the case's name. None stands for the SEG or RTSTRUCT that refer to it.
        errors: series and masks without a partner.
        notes: series that are left because they have no mask, while another of the patient has one.
    """

    masks: dict[str, tuple[Series, Masks | None]] = field(default_factory=dict)
    errors: list[CaseError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def named_cases(tree: DicomTree, root: Path, given: Path | None) -> SeriesCases:
    """Find the mask of each series below `root`.

    Args:
        tree: what lies there.
        root: the folder. Folders in it are taken for patients. Where a mask lies in another folder than its
            series, `root` is the patient.
        given: a mask, or a folder of masks, which then count alone; None takes those in the tree.

    Returns:
        The cases. A patient's only one is called like its folder.
    """
    series, result, names = tree.series, SeriesCases(), series_names(tree.series, root)
    patients = [_patient(one, root, with_masks=given is None) for one in series]
    if given is None:
        found = {k: None for k, one in enumerate(series) if one.masks}
        result.errors += tree.masks
    else:
        found = _given(series, mask_names(names), given, result)
    if given is None or given.is_file():
        _name_the_rest(series, patients, found, given is None, result)
    cases = Counter(patients[k] for k in found)
    for k, mask in found.items():
        own, one = patients[k] or root.resolve().name, series[k]
        inner = names[k].removeprefix(f"{patients[k]}/").replace("/", "_")
        name = own if cases[patients[k]] == 1 or inner == own else f"{own}_{inner}"
        if name in result.masks:
            name = f"{name}_{mark_of(one, root)}"
        result.masks[name] = one, mask
    return result


def _patient(one: Series, root: Path, with_masks: bool) -> str:
    """Folder in `root` that a series and its masks lie in, "" if that is `root` itself."""
    files = (*one.slices, *(one.masks if with_masks else ()))
    tops = {next(iter(path.relative_to(root).parts[:-1]), "") for path in files}
    return next(iter(tops)) if len(tops) == 1 else ""


def _name_the_rest(
    series: list[Series], patients: list[str], found: Collection[int], owed: bool, result: SeriesCases
) -> None:
    with_mask = {patients[k] for k in found}
    for k, one in enumerate(series):
        if k in found:
            continue
        what = f"series {one.title}, {len(one.slices)} files"
        if not owed or with_mask & {"", patients[k]}:
            result.notes.append(f"{one.folder}: {what}, is not imported: it has no mask")
        else:
            result.errors.append(CaseError(one.folder, f"{what}, holds no mask; {_ADVICE}"))


def _given(
    series: list[Series], names: list[list[str]], given: Path, result: SeriesCases
) -> dict[int, Masks]:
    """Masks of the second argument, by the number of the series."""
    if given.is_file():
        try:
            return {series_of(given, [one.uid for one in series]): given}
        except CaseError as error:
            result.errors.append(error)
            return {}
    drawn, found, errors = DrawnMasks(given), {}, []
    for k, one in enumerate(series):
        try:
            found[k] = drawn.of(one.uid, names[k])
        except CaseError as error:
            errors.append(error)
    if len(series) == 1 and not found:  # nothing is called like it: a folder of its objects
        return {0: given}
    result.errors += errors + drawn.without_series()
    return found


def series_of(mask: Path, uids: Sequence[str]) -> int:
    """Which of several series one mask file is of: the only one, or the one that it refers to.

    Raises:
        CaseError: it refers to none of them, or to several.
    """
    if len(uids) == 1:
        return 0
    header = DicomFolder.read_mask(mask)
    wanted = referenced_series(header) if header is not None else set()
    hits = [k for k, uid in enumerate(uids) if uid in wanted]
    if len(hits) != 1:
        which = f"refers to {len(hits)} of" if header is not None else "is one mask for"
        raise CaseError(mask, f"{which} {len(uids)} image series; give the folder of one of them")
    return hits[0]
