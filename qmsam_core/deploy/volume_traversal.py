"""Plan which slices of a case are visited in which order, and with which boxes.

A volume can be traversed in two modes. *Kept* (paper section 2.1): a 3-D box is the same 2-D box on every
slice that it crosses. *Propagated*, as in the challenge's baseline: an object starts on its middle slice with
its given box, and goes upwards, then downwards from there. On each slice it takes the box of its mask on the
slice before, enlarged by 3 px of a 256 px input. If that mask is empty, it takes its given box again. In both
modes all objects of a slice are segmented together.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..data.cases import Case, boxes_on_slice
from ..data.transforms import Geometry

BASELINE_MARGIN = 3 / 256
"""How far the baseline enlarges a propagated box on each side, as a share of the frame's side."""


@dataclass(frozen=True)
class Visit:
    """One visit of a slice.

    Attributes:
        z: index of the slice; 0 for an image.
        ids: int (n,), the boxes to segment.
        before: slice whose masks the objects follow if they have one there. None if every object keeps its
            box.
        again: whether the slice is visited once more, so that its embedding is worth keeping.
    """

    z: int
    ids: np.ndarray
    before: int | None = None
    again: bool = False


def boxes_in_plane(case: Case) -> np.ndarray:
    """Return the 2-D box of every box of a case, int64 (N, 4)."""
    return case.boxes[:, [0, 1, 3, 4]] if case.is_volume else case.boxes


def plan(case: Case, propagate: bool = False) -> list[Visit]:
    """Return the visits of a case, without slices that no box crosses.

    With `propagate` a slice is visited at most twice.
    """
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


def follow(box: np.ndarray, geometry: Geometry, margin: float = BASELINE_MARGIN) -> np.ndarray:
    """Return the box that an object takes on the next slice, from the tight box of its mask.

    Args:
        box: (4,) in image pixels, inclusive maxima.
        geometry: geometry of the slice.
        margin: how far the box is enlarged on each side, as a share of the frame's side.

    Returns:
        (4,) in pixels of the frame: all of them that the mask touches, enlarged by the margin, kept inside.
    """
    scale = geometry.frame / max(geometry.height, geometry.width)
    low, high = np.floor(box[:2] * scale), np.ceil((box[2:] + 1) * scale) - 1
    extra = margin * geometry.frame
    return np.clip(np.concatenate([low - extra, high + extra]), 0, geometry.frame).astype(np.float32)
