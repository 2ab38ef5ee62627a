"""Surface Dice of two masks (NSD): the share of both surfaces that lies within a tolerance of the other.

Surface elements are those of DeepMind's surface-distance, which the challenge uses. Each 2x2x2 neighbourhood
with voxels inside and outside is an element. Its area is that of its marching-cubes triangles, scaled by the
spacing. The value is the official one, but it takes less work. Outside the joint bounding box of two masks
there is no surface. So a crop to that box, plus one voxel of air that closes the surface, changes nothing. A
short list of voxel offsets replaces two distance maps: it shows which elements lie within the tolerance.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt

from .surface_elements import surface_areas

# With more offsets than this a distance map is cheaper. At the challenge's tolerance of 2 mm, that is so for
# voxels below about 0.25 mm.
MOST_OFFSETS = 4096

Spacing = tuple[float, float, float]
Box = tuple[slice, ...]


def surface_dice(gt: np.ndarray, seg: np.ndarray, spacing: Spacing, tolerance: float) -> float:
    """Surface Dice of two boolean volumes.

    If the volumes are much larger than the objects, crop both to their joint box first (`joint_box`). The
    result does not depend on it.

    Args:
        gt: bool (A, B, C).
        seg: bool of the same shape.
        spacing: mm along each axis.
        tolerance: mm.

    Returns:
        0..1. 0.0 if one mask is empty, NaN if both are.
    """
    gt_codes, seg_codes = neighbour_codes(gt), neighbour_codes(seg)
    gt_border, seg_border = (codes % 255 != 0 for codes in (gt_codes, seg_codes))
    areas = surface_areas(spacing)
    gt_area, seg_area = areas[gt_codes[gt_border]], areas[seg_codes[seg_border]]
    total = gt_area.sum() + seg_area.sum()
    if total == 0:
        return float("nan")
    if not gt_border.any() or not seg_border.any():
        return 0.0
    near_gt = _within(gt_border, seg_border, spacing, tolerance)
    near_seg = _within(seg_border, gt_border, spacing, tolerance)
    return float((gt_area[near_gt].sum() + seg_area[near_seg].sum()) / total)


def joint_box(first: Box | None, second: Box | None) -> Box | None:
    """Smallest box that holds two boxes, given as slices. An absent box (None) adds nothing."""
    if first is None or second is None:
        return first or second
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second))


def neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """Encode each 2x2x2 neighbourhood of a boolean volume (A, B, C) as uint8, (A+1, B+1, C+1).

    0 is all air, 255 all object. The bits are those of surface-distance: the first voxel of a neighbourhood
    is the highest bit, and the last axis runs fastest.
    """
    codes = np.pad(mask.astype(np.uint8), 1)
    codes = 2 * codes[:, :, :-1] + codes[:, :, 1:]
    codes = 4 * codes[:, :-1] + codes[:, 1:]
    return 16 * codes[:-1] + codes[1:]


def _within(border: np.ndarray, other: np.ndarray, spacing: Spacing, tolerance: float) -> np.ndarray:
    """Test which elements of `border`, in C order, have an element of `other` within `tolerance` mm."""
    offsets = _offsets_within(spacing, tolerance)
    if offsets is None:
        return distance_transform_edt(~other, sampling=spacing)[border] <= tolerance
    reach = np.abs(offsets).max(axis=0)
    target = np.pad(other, [(r, r) for r in reach])
    strides = np.array(target.strides)
    places = np.argwhere(border) @ strides + reach @ strides
    target, near, left = target.ravel(), np.zeros(len(places), dtype=bool), np.arange(len(places))
    for offset in offsets @ strides:
        hit = target[places[left] + offset]
        near[left[hit]] = True
        left = left[~hit]
        if not left.size:
            break
    return near


@lru_cache(maxsize=256)
def _offsets_within(spacing: Spacing, tolerance: float) -> np.ndarray | None:
    """Voxel offsets int64 (N, 3) of at most `tolerance` mm, shortest first. None if there are too many."""
    reach = [int(np.ceil(tolerance / step)) for step in spacing]
    if np.prod([2.0 * r + 1 for r in reach]) > MOST_OFFSETS:
        return None
    grid = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    length = np.sqrt(np.square(grid * np.array(spacing)).sum(axis=1))  # rounds as scipy's distance map does
    order = np.argsort(length, kind="stable")
    return grid[order[length[order] <= tolerance]]
