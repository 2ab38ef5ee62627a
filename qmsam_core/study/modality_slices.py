"""Which slices calibrate and which judge a model of one modality, of a folder of cases or of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from ..data.boxed_slices import BoxedSlice, divide
from ..data.cases import tight_boxes
from ..data.index import SliceIndex
from ..data.slices import read_labelled_slice
from ..data.volumes import SliceReader

TOGETHER, APART, ALL = "together", "apart", "apart, all"
"""Arms: calibrated on slices of all modalities, on as many of one, and on all of one."""


@dataclass(frozen=True)
class Modality:
    """Slices of one modality: those that may calibrate, and those of other cases that judge."""

    calibration: list[BoxedSlice]
    judging: list[BoxedSlice]


def modalities_of(slices: Sequence[BoxedSlice]) -> tuple[dict[str, Modality], list[str]]:
    """Divide the slices of each modality, see `divide`.

    Returns:
        The modalities by name, and a line for each that has too few cases.

    Raises:
        ValueError: fewer than two modalities can be used.
    """
    found, left_out = {}, []
    for name in sorted({one.group for one in slices}):
        try:
            found[name] = Modality(*divide([one for one in slices if one.group == name]))
        except ValueError as error:
            left_out.append(f"{name}: {error}")
    if len(found) < 2:
        raise ValueError(
            f"found {len(found)} modalities of two cases or more ({', '.join(found)}); "
            "expected at least two, each in a sub-folder of its own"
        )
    return found, left_out


def modalities_of_run(
    train: SliceIndex, evaluation: SliceIndex, slices: int, count: int
) -> dict[str, Modality]:
    """Read slices of a run's cases: of the modalities with the most training slices that have an object.

    Args:
        train: slices that calibrate.
        evaluation: slices that judge.
        slices: most slices of a modality on either side. They are spread evenly over what there is.
        count: most modalities.
    """
    counts = train.counts(with_objects=True)
    judged = evaluation.counts(with_objects=True).reindex(counts.index, fill_value=0)
    names = counts[judged > 0].sort_values(ascending=False, kind="stable").index[:count]
    parts = [{name: _slices_of_index(index, name, slices) for name in names} for index in (train, evaluation)]
    return {name: Modality(*(part[name] for part in parts)) for name in names}


def _slices_of_index(index: SliceIndex, modality: str, most: int) -> list[BoxedSlice]:
    own = index.modality_codes() == index.modalities.index(modality)
    filled = np.flatnonzero(own & (index.objects_on() > 0))
    reader, found = SliceReader(), []
    for i in _evenly(filled, most):
        ref, (pixels, labels) = index[i], read_labelled_slice(index, i, reader)
        ids, boxes = tight_boxes(labels)
        order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1), kind="stable")
        numbers = np.zeros(int(labels.max()) + 1, np.int32)
        numbers[ids[order]] = np.arange(1, len(ids) + 1)
        name = f"{ref.path.relative_to(index.root).as_posix()}, slice {ref.z}"
        found.append(BoxedSlice(name, modality, pixels, boxes[order], numbers[labels]))
    return found


def _evenly(items: Sequence, most: int) -> list:
    """Return at most `most` items, evenly spread."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def mixed(modalities: Mapping[str, Modality], count: int) -> list[BoxedSlice]:
    """Return slices that may calibrate, of all modalities in turn. Of fewer than there are, evenly spread."""
    turns = zip_longest(*(one.calibration for one in modalities.values()))
    first, *later = ([one for one in turn if one is not None] for turn in turns)
    if count < len(first):
        return _evenly(first, count)
    return [*first, *chain(*later)][:count]


def arms_of(modalities: Mapping[str, Modality], name: str, slices: int) -> dict[str, list[BoxedSlice]]:
    """Return the slices that calibrate each arm of a modality: `slices`, or fewer if it has fewer."""
    own = modalities[name].calibration
    arms = {TOGETHER: mixed(modalities, min(slices, len(own))), APART: own[:slices]}
    return arms if len(own) <= slices else {**arms, ALL: own}
