"""Say which mask belongs to which DICOM series, and what the cases are called."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from qmsam_core.data.archive import CaseError

from .dicom_tree import DicomTree, Series, series_names
from .notes import listed
from .pairing import mask_of_series, masks_without_series
from .series import DicomFolder, referenced_series
from .walk import files_below

_ADVICE = "expected a SEG or RTSTRUCT that refers to it, or a mask as second argument"


class DrawnMasks:
    """The masks of a folder, by the series that a SEG or RTSTRUCT refers to, else by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_series: dict[str, list[Path]] = defaultdict(list)
        self._used: set[Path] = set()
        for path in files_below(folder).files:
            try:
                header = DicomFolder.read_mask(path)
            except CaseError:  # named as a mask without series, or when it is read
                continue
            for uid in referenced_series(header) if header is not None else ():
                self._by_series[uid].append(path)

    def of(self, uid: str, name: str) -> Path:
        """Return the mask of a series, by its UID or its name.

        Raises:
            CaseError: there is none, or several.
        """
        own = self._by_series.get(uid, [])
        self._used.update(own)
        if len(own) > 1:
            raise CaseError(
                self.folder, f"holds {len(own)} masks of series {uid} ({listed(own)}); leave one there"
            )
        return own[0] if own else mask_of_series(name, self.folder)

    def without_series(self, names: Collection[str]) -> list[CaseError]:
        """Name what was not used and is called like none of the series."""
        taken = {path.relative_to(self.folder).parts[0] for path in self._used}
        left = masks_without_series(self.folder, names)
        return [error for error in left if Path(error.path).name not in taken]


@dataclass
class SeriesCases:
    """Cases to import from a folder of DICOM files.

    Attributes:
        masks: series and mask by the case's name. None is the SEG or RTSTRUCT that refers to the series.
        errors: series and masks without a partner.
        notes: series that are left because they have no mask, while another of the patient has one.
    """

    masks: dict[str, tuple[Series, Path | None]] = field(default_factory=dict)
    errors: list[CaseError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def named_cases(tree: DicomTree, root: Path, given: Path | None) -> SeriesCases:
    """Find the mask of each series below `root`.

    Args:
        tree: what lies there.
        root: the folder. Folders in it are taken for patients, unless masks lie in other folders than their
            series: then `root` is one patient.
        given: a mask, or a folder of masks, which then count alone; None takes those in the tree.

    Returns:
        The cases. A patient's only one is called like its folder.
    """
    series, result = tree.series, SeriesCases()
    patients = _patients(series, root, with_masks=given is None)
    if given is None:
        found = {k: None for k, one in enumerate(series) if one.masks}
    else:
        found = _given(series, [patient or root.resolve().name for patient in patients], given, result)
    if given is None or given.is_file():
        _name_the_rest(series, patients, found, given is None, result)
    cases, names = Counter(patients[k] for k in found), series_names(series, root)
    for k, mask in found.items():
        own = patients[k] or root.resolve().name
        inner = names[k].removeprefix(patients[k]).strip("/").replace("/", "_")
        name = own if cases[patients[k]] == 1 or not inner else f"{own}_{inner}"
        result.masks[name] = series[k], mask
    return result


def _patients(series: list[Series], root: Path, with_masks: bool) -> list[str]:
    """Folder in `root` of each series' patient, "" for `root` itself."""
    tops = [
        {_top(path, root) for path in (*one.slices, *(one.masks if with_masks else ()))} for one in series
    ]
    crossing = any(len(own) > 1 for own in tops)
    return ["" if crossing else next(iter(own)) for own in tops]


def _top(path: Path, root: Path) -> str:
    return next(iter(path.relative_to(root).parts[:-1]), "")


def _name_the_rest(
    series: list[Series], patients: list[str], found: Collection[int], owed: bool, result: SeriesCases
) -> None:
    with_mask = {patients[k] for k in found}
    for k, one in enumerate(series):
        if k in found:
            continue
        what = f"series {one.title}, {len(one.slices)} files"
        if patients[k] in with_mask:
            result.notes.append(f"{one.folder}: {what}, is not imported: it has no mask")
        elif owed:
            result.errors.append(CaseError(one.folder, f"{what}, holds no mask; {_ADVICE}"))


def _given(series: list[Series], names: list[str], given: Path, result: SeriesCases) -> dict[int, Path]:
    """Masks of the second argument, by the number of the series."""
    if given.is_file():
        return _one_file(series, given, result)
    drawn, found, errors = DrawnMasks(given), {}, []
    for k, (one, name) in enumerate(zip(series, names)):
        try:
            found[k] = drawn.of(one.uid, name)
        except CaseError as error:
            errors.append(error)
    if len(series) == 1 and not found:  # nothing is called like it: a folder of its objects
        return {0: given}
    result.errors += errors + drawn.without_series(set(names))
    return found


def _one_file(series: list[Series], given: Path, result: SeriesCases) -> dict[int, Path]:
    if len(series) == 1:
        return {0: given}
    header = DicomFolder.read_mask(given)
    wanted = referenced_series(header) if header is not None else set()
    hits = [k for k, one in enumerate(series) if one.uid in wanted]
    if len(hits) == 1:
        return {hits[0]: given}
    titles = "; ".join(f"{one.title}, {len(one.slices)} files" for one in series)
    problem = f"is one mask for {len(series)} image series ({titles}); give the folder of one of them"
    result.errors.append(CaseError(given, problem))
    return {}
