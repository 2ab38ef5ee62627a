"""Which slices of a case are visited in which order, and which boxes are asked for on each.

Two ways through a volume. *Kept* (paper section 2.1): a 3-D box is the same 2-D box on every slice that it crosses. *Propagated*, as the challenge's
baseline does: an object starts on its middle slice with its own box, and from there, upwards and then downwards, takes the box of its mask on the
slice before, enlarged by 3 px of a 256 px input; where that mask is empty it takes its own box again. Either way all objects of a slice go together.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..data.cases import Case
from ..data.transforms import Geometry

BASELINE_MARGIN = 3 / 256
"""By how much the baseline enlarges a propagated box on each side, as a share of the input's side."""


@dataclass(frozen=True)
class Visit:
    """One visit of a slice.

    Attributes:
        z: slice; 0 for an image.
        ids: int (n,) of the boxes asked for.
        before: slice whose masks the objects follow where they have one there; None where every object keeps its own box.
        again: whether the slice will be visited once more, so that its embedding is worth keeping.
    """

    z: int
    ids: np.ndarray
    before: int | None = None
    again: bool = False


def boxes_on_slice(boxes: np.ndarray, z: int) -> tuple[np.ndarray, np.ndarray]:
    """Which 3-D boxes (N, 6) cross slice `z` (both z limits belong to the box), and their 2-D boxes: ids (n,), boxes (n, 4)."""
    ids = np.flatnonzero((boxes[:, 2] <= z) & (z <= boxes[:, 5]))
    return ids, boxes[ids][:, [0, 1, 3, 4]]


def boxes_in_plane(case: Case) -> np.ndarray:
    """The 2-D box of every box of a case, int64 (N, 4)."""
    return case.boxes[:, [0, 1, 3, 4]] if case.is_volume else case.boxes


def plan(case: Case, propagate: bool = False) -> list[Visit]:
    """The visits of a case, slices that no box crosses left out; with `propagate` a slice is visited at most twice."""
    if not case.is_volume:
        ids = np.arange(len(case.boxes))
        return [Visit(0, ids)] if len(ids) else []
    return list(_propagated(case) if propagate else _kept(case))


def _kept(case: Case) -> Iterator[Visit]:
    for z in range(case.n_slices):
        ids, _ = boxes_on_slice(case.boxes, z)
        if len(ids):
            yield Visit(z, ids)


def _propagated(case: Case) -> Iterator[Visit]:
    middle = (case.boxes[:, 2] + case.boxes[:, 5]) // 2
    upwards, downwards = {}, {}
    for z in range(case.n_slices):
        ids, _ = boxes_on_slice(case.boxes, z)
        upwards[z], downwards[z] = ids[middle[ids] <= z], ids[middle[ids] > z]
    for z in range(case.n_slices):
        if len(upwards[z]):
            yield Visit(z, upwards[z], z - 1, again=len(downwards[z]) > 0)
    for z in reversed(range(case.n_slices)):
        if len(downwards[z]):
            yield Visit(z, downwards[z], z + 1)


def follow(box: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The box with which an object goes on, from the tight box of its mask on the slice before.

    Args:
        box: (4,) in image pixels, inclusive maxima.

    Returns:
        (4,) in model pixels: every model pixel that the mask touches, enlarged by the baseline's margin, kept inside the input.
    """
    low, high = np.floor(box[:2] * geometry.scale), np.ceil((box[2:] + 1) * geometry.scale) - 1
    margin = BASELINE_MARGIN * geometry.size
    return np.clip(np.concatenate([low - margin, high + margin]), 0, geometry.size).astype(np.float32)
