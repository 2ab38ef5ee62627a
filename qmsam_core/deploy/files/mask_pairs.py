"""Find the masks that boxes are taken from, for one input or, by the importers' rules, for a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...data.archive import CaseError
from ...data.importers.dicom_tree import mask_names
from ...data.importers.endings import IMAGE_SUFFIXES, VOLUME_SUFFIXES
from ...data.importers.notes import listed
from ...data.importers.pairing import find_pairs
from ...data.importers.series_masks import DrawnMasks, Masks, series_of
from .inputs import Input


def masks_of(
    inputs: list[Input], root: Path, masks: Path, log: Callable[[str], None] = print
) -> tuple[list[Input], dict[str, Masks], list[CaseError]]:
    """Find the mask of each input.

    Args:
        inputs: what was found below `root`.
        root: the input, a file or folder.
        masks: a file or a folder. It may be `root` itself, where masks then lie beside their images.
        log: takes a line that names the series that are left because the one mask is of another.

    Returns:
        The inputs that are no masks themselves; masks by the input's name; and an error for each input or
        mask that has no partner or several.

    Raises:
        CaseError: there are no such masks, or one mask for several inputs.
    """
    if not masks.exists():
        raise CaseError(masks, "there is no such file or folder; expected the masks of --boxes-from")
    if len(inputs) == 1 and (root.is_file() or masks.is_file() or inputs[0].path == root):
        return inputs, {inputs[0].name: _of_one(inputs[0], masks)}, []
    if masks.is_file():
        series = [one for one in inputs if one.kind == "dicom"]
        if len(series) < len(inputs):
            raise CaseError(
                masks, f"is one file, but {root} holds {len(inputs)} inputs; expected a folder of masks"
            )
        one = series[series_of(masks, [one.series for one in series])]
        rest = listed([other.name for other in series if other is not one])
        log(f"{masks}: note: is of {one.name}; left without boxes: {rest}")
        return [one], {one.name: masks}, []
    kept, found, errors = [], {}, []
    for kind, suffixes in (("volume", VOLUME_SUFFIXES), ("image", IMAGE_SUFFIXES)):
        own = [one for one in inputs if one.kind == kind]
        if own:
            _pair(own, root, masks, suffixes, kept, found, errors)
    series = [one for one in inputs if one.kind == "dicom"]
    if series:
        _find(series, DrawnMasks(masks), len(series) == len(inputs), found, errors)
    kept += [one for one in inputs if one.kind in ("dicom", "npz")]  # an npz has its own boxes
    return [one for one in kept if one.kind == "npz" or one.name in found], found, errors


def _of_one(one: Input, masks: Path) -> Masks:
    """The mask of the only input: the file or folder, or in the folder that which refers to its series."""
    if one.kind == "dicom" and masks.is_dir():
        try:
            return DrawnMasks(masks).of(one.series, mask_names([one.place])[0])
        except CaseError:  # its objects, a file each
            return masks
    return masks


def _pair(own, root, masks, suffixes, kept, found, errors) -> None:
    pairs = find_pairs(root, masks, suffixes)
    by_path = {str(pair.image): pair.mask for pair in pairs.pairs}
    for one in own:
        if str(one.path) in by_path:
            found[one.name] = by_path[str(one.path)]
            kept.append(one)
    errors.extend(pairs.errors)


def _find(series: list[Input], drawn: DrawnMasks, alone: bool, found: dict, errors: list[CaseError]) -> None:
    """Find the masks of series. Name those left over if there are no other inputs that they may be of."""
    for one, names in zip(series, mask_names([one.place for one in series])):
        try:
            found[one.name] = drawn.of(one.series, names)
        except CaseError as error:
            errors.append(CaseError(one.path, error.message))
    if alone:
        errors += drawn.without_series()
