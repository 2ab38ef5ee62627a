"""Turn masks into a case's labels: select objects, settle overlaps, split instances, drop small objects."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from qmsam_core.data.archive import CaseError
from qmsam_core.data.cases import MAX_LABEL

from .notes import Loss, listed
from .plausibility import check_crowd, components, has_soft_edge

WHOLE = 1e-3
"""Largest distance of a label from a whole number. Scaled files store 1 as 1.00001526."""


@dataclass(frozen=True)
class LabelOptions:
    """How a mask becomes labels.

    Attributes:
        objects: shell patterns of the names (SEG, RTSTRUCT, folder of masks) or ids (label maps) to keep.
            Upper and lower case are the same. () keeps all.
        threshold: makes a mask binary, value > threshold. None reads the values as label ids.
        instances: split every label into its connected components. Touching corners connect.
        min_size: drop objects of fewer pixels or voxels.
        max_objects: accept so many labels in a mask, however scattered. None refuses masks that seem to hold
            no labels.
        image_geometry: place the voxels of a mask as those of its image, whatever geometry it states.
        interpolate: fill slices between the contours of an RTSTRUCT structure.
        keep_covered: keep an object that smaller ones cover wholly. It has a box, and no voxel of its label.
    """

    objects: tuple[str, ...] = ()
    threshold: float | None = None
    instances: bool = False
    min_size: int = 1
    max_objects: int | None = None
    image_geometry: bool = False
    interpolate: bool = False
    keep_covered: bool = False

    def wants(self, name: str) -> bool:
        """Whether to keep an object of this name."""
        return not self.objects or any(_fits(name, pattern) for pattern in self.objects)

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """Say which patterns of `objects` fit none of the names that a mask has."""
        names = list(names)
        missing = [p for p in self.objects if not any(_fits(name, p) for name in names)]
        return [f"--objects {p}: no such object; found {listed(names) or 'none'}" for p in missing]


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name.lower(), pattern.lower())


@dataclass(frozen=True, eq=False)
class Objects:
    """Labels with the names that their source gives them.

    Attributes:
        labels: integers of the image's shape, 0 for the background.
        names: label -> name of its object. A label without one is named by its number.
        notes: what was noticed, one line each.
        boxes: label -> tight box around the whole object, as in `Case`, where objects may overlap. Empty
            where they cannot: `labels` then tells all.
    """

    labels: np.ndarray
    names: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    boxes: Mapping[int, Sequence[int]] = field(default_factory=dict)


def label_map(values: np.ndarray, options: LabelOptions, path: str | os.PathLike) -> Objects:
    """Take a mask's values as label ids, int32 of the same shape, 0 for the background.

    Values within `WHOLE` of a whole number are rounded. A mask of one object with a soft edge is made binary.

    Raises:
        CaseError: there is no threshold and a value is NaN, negative, fractional or too large, or the mask
            seems to hold no labels.
    """
    if options.threshold is not None:
        return Objects((values > options.threshold).astype(np.int32))
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and (np.abs(values - np.rint(values)) <= WHOLE).all()):
            raise CaseError(
                path,
                "holds fractions or NaN; expected label ids "
                "(for a probability map or a lossy mask give --threshold)",
            )
        values = np.rint(values)
    low, high = values.min(initial=0), values.max(initial=0)
    if low < 0 or high > MAX_LABEL:
        raise CaseError(
            path,
            f"holds values {low:g}..{high:g}; expected label ids 0..{MAX_LABEL} "
            "(is it the mask? else give --threshold)",
        )
    labels = values.astype(np.int32)
    if has_soft_edge(labels):
        note = f"{Path(path).name} is one object with a soft edge: values above {high / 2:g} are the object"
        return Objects(np.where(labels > high / 2, np.int32(high), np.int32(0)), notes=(note,))
    return chosen(labels, {}, options, path)


def chosen(
    labels: np.ndarray, names: Mapping[int, str], options: LabelOptions, path: str | os.PathLike
) -> Objects:
    """Keep the labels whose names are wanted. A label without a name is named by its number.

    Raises:
        CaseError: the labels are so many and so scattered that they seem to be none.
    """
    found = [int(number) for number in np.flatnonzero(np.bincount(labels.reshape(-1))) if number]
    if options.max_objects is None:
        check_crowd(labels, len(found), path)
    elif len(found) > options.max_objects:
        raise CaseError(path, f"holds {len(found)} labels; --max-objects says {options.max_objects} at most")
    called = {number: names.get(number, str(number)) for number in found}
    unwanted = [number for number, name in called.items() if not options.wants(name)]
    if unwanted:
        labels[np.isin(labels, unwanted)] = 0
    return Objects(labels, names, tuple(options.unmatched(called.values())))


def stacked(
    masks: Iterable[tuple[str, np.ndarray]], shape: Sequence[int], keep_covered: bool = False
) -> Objects:
    """Combine binary masks, one per object, into one label map. The first object gets label 1, and so on.

    A voxel of several objects goes to the smallest of them, so a tumour drawn inside its organ survives.
    Boxes are those of the whole objects.

    Args:
        masks: names, and arrays whose voxels above 0 are the object.
        shape: of the masks.
        keep_covered: keep objects that others cover wholly, as in `LabelOptions`.

    Returns:
        Labels int32 of `shape`, their names and boxes, and a note for each object that vanishes or loses
        voxels to others.
    """
    found = [(name, np.flatnonzero(mask)) for name, mask in masks]
    labels = np.zeros(int(np.prod(shape)), dtype=np.int32)
    empty = [name for name, where in found if not len(where)]
    notes = [f"no voxel is labelled in {listed(empty)}"] if empty else []
    for number in sorted(range(len(found)), key=lambda k: -len(found[k][1])):
        name, where = found[number]
        below = np.unique(labels[where])
        covered = [found[k - 1][0] for k in below if k > 0]
        if covered:
            notes.append(
                f"{name!r} overlaps {', '.join(map(repr, covered))}: "
                "the smaller object keeps the shared voxels"
            )
        labels[where] = number + 1
    boxes = {k: _box_around(where, shape) for k, (_, where) in enumerate(found, 1) if len(where)}
    names = {number: name for number, (name, _) in enumerate(found, 1)}
    labels = labels.reshape(shape)
    if keep_covered:  # overlaps take nothing from it
        return Objects(labels, names, tuple(notes[: bool(empty)]), boxes)
    present = np.unique(labels)
    notes += [
        Loss(f"{name!r} is wholly covered by smaller objects")
        for k, (name, where) in enumerate(found, 1)
        if len(where) and k not in present
    ]
    return Objects(labels, names, tuple(notes), {k: box for k, box in boxes.items() if k in present})


def _box_around(where: np.ndarray, shape: Sequence[int]) -> list[int]:
    """Tight box, minima then maxima, x first, around the voxels of these flat indices."""
    places = np.unravel_index(where, shape)[::-1]
    return [int(axis.min()) for axis in places] + [int(axis.max()) for axis in places]


def finished(found: Objects, options: LabelOptions, path: str | os.PathLike) -> Objects:
    """Split instances, drop small objects and number the rest 1..N: uint8 if they fit, else uint16.

    The components of a split object share its name. Boxes stay those of the whole objects, but a component
    has its own.

    Raises:
        CaseError: no object is left, or there are more than a case can hold.
    """
    labels, parents = components(found.labels) if options.instances else (found.labels, None)
    sizes = np.bincount(labels.reshape(-1))
    keep = np.flatnonzero(sizes >= options.min_size)
    keep = keep[(keep > 0) & (sizes[keep] > 0)]
    covered = [k for k in found.boxes if k >= len(sizes) or not sizes[k]] if parents is None else []
    sizes = np.pad(sizes, (0, max([0, *covered]) + 1))
    keep = np.union1d(keep, covered).astype(int)
    if not len(keep):
        least = f" of at least {options.min_size} voxels" if options.min_size > 1 else ""
        raise CaseError(
            path,
            f"has an empty mask: no object{least}{' matching --objects' if options.objects else ''} in it"
            + (f" ({'; '.join(found.notes[:3])})" if found.notes else ""),
        )
    if len(keep) > MAX_LABEL:
        raise CaseError(
            path,
            f"holds {len(keep):,} objects; at most {MAX_LABEL} fit "
            "(give --min-size, or leave out --instances)",
        )
    table = np.zeros(len(sizes), dtype=np.uint8 if len(keep) <= 255 else np.uint16)
    table[keep] = np.arange(1, len(keep) + 1)
    dropped = np.count_nonzero(sizes[1:]) + len(covered) - len(keep)
    note = [f"{dropped} objects of fewer than {options.min_size} voxels are left out by --min-size"]
    numbers = [int(k if parents is None else parents[k]) for k in keep]
    names = {k: found.names.get(number, str(number)) for k, number in enumerate(numbers, 1)}
    boxes = {k: found.boxes[n] for k, n in enumerate(numbers, 1) if n in found.boxes and parents is None}
    return Objects(table[labels], names, (*found.notes, *(note if dropped else [])), boxes)
