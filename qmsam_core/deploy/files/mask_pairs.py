"""Find the masks that boxes are taken from, for one input or, by the importers' rules, for a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...data.archive import CaseError
from ...data.importers.assemble import Masks
from ...data.importers.grids import VOLUME_SUFFIXES
from ...data.importers.pairing import find_pairs, mask_of_series, masks_without_series
from ...data.importers.planar import IMAGE_SUFFIXES
from .inputs import Input


def masks_of(
    inputs: list[Input], root: Path, masks: Path
) -> tuple[list[Input], dict[str, Masks], list[CaseError]]:
    """Find the mask of each input.

    Args:
        inputs: what was found below `root`.
        root: the input, a file or folder.
        masks: a file or a folder. It may be `root` itself, where masks then lie beside their images.

    Returns:
        The inputs that are no masks themselves; masks by the input's name; and an error for each input or
        mask that has no partner or several.

    Raises:
        CaseError: there are no such masks, or one mask for several inputs.
    """
    if not masks.exists():
        raise CaseError(masks, "there is no such file or folder; expected the masks of --boxes-from")
    if len(inputs) == 1 and (root.is_file() or masks.is_file() or inputs[0].path == root):
        return inputs, {inputs[0].name: masks}, []
    if masks.is_file():
        raise CaseError(
            masks, f"is one file, but {root} holds {len(inputs)} inputs; expected a folder of masks"
        )
    kept, found, errors = [], {}, []
    for kind, suffixes in (("volume", VOLUME_SUFFIXES), ("image", IMAGE_SUFFIXES)):
        own = [one for one in inputs if one.kind == kind]
        if own:
            _pair(own, root, masks, suffixes, kept, found, errors)
    for one in inputs:
        if one.kind == "dicom":
            _find(one, lambda name: mask_of_series(name, masks), found, errors)
            kept.append(one)
        elif one.kind == "npz":
            kept.append(one)  # it has its own boxes
    if inputs and all(one.kind == "dicom" for one in inputs):
        errors += masks_without_series(masks, {one.path.resolve().name for one in inputs})
    return [one for one in kept if one.kind == "npz" or one.name in found], found, errors


def _pair(own, root, masks, suffixes, kept, found, errors) -> None:
    pairs = find_pairs(root, masks, suffixes)
    by_path = {str(pair.image): pair.mask for pair in pairs.pairs}
    for one in own:
        if str(one.path) in by_path:
            found[one.name] = by_path[str(one.path)]
            kept.append(one)
    errors.extend(pairs.errors)


def _find(one: Input, finder: Callable, found: dict, errors: list[CaseError]) -> None:
    try:
        mask = finder(one.path.resolve().name)
    except CaseError as error:
        errors.append(CaseError(one.path, error.message))
        return
    found[one.name] = mask
