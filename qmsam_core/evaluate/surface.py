"""Surface Dice of two masks: the share of both surfaces that lies within a tolerance of the other (NSD).

Surface elements are those of DeepMind's surface-distance, which the challenge uses: every 2x2x2 neighbourhood with
voxels inside and outside carries the area of its marching-cubes triangles, scaled by the spacing. The value is the
official one; the work is not. Two masks outside whose joint bounding box nothing lies have no surface there, so a
crop to that box (plus the one voxel of air that closes the surface) changes nothing; and whether an element lies
within the tolerance is read off a short list of voxel offsets instead of two distance maps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt

from .surface_elements import surface_areas

# Offsets tried before a distance map is cheaper: about 0.25 mm voxels at the challenge's tolerance of 2 mm.
MOST_OFFSETS = 4096

Spacing = tuple[float, float, float]
Box = tuple[slice, ...]


def surface_dice(gt: np.ndarray, seg: np.ndarray, spacing: Spacing, tolerance: float) -> float:
    """Surface Dice of two boolean volumes of one shape (A, B, C); `spacing` mm along each axis, `tolerance` mm.

    Returns 0..1; 0.0 when one mask is empty, NaN when both are. Crop both to their joint box first where they are
    much larger than the objects (`joint_box`); the value does not depend on it.
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
    """The smallest box that holds two boxes given as slices; an absent box (None) adds nothing."""
    if first is None or second is None:
        return first or second
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second))


def neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """The 2x2x2 neighbourhoods of a boolean volume (A, B, C) as uint8 (A+1, B+1, C+1); 0 is all air, 255 all object.

    Bits as in surface-distance: the first voxel of a neighbourhood is the highest bit, the last axis runs fastest.
    """
    codes = np.pad(mask.astype(np.uint8), 1)
    codes = 2 * codes[:, :, :-1] + codes[:, :, 1:]
    codes = 4 * codes[:, :-1] + codes[:, 1:]
    return 16 * codes[:-1] + codes[1:]


def _within(border: np.ndarray, other: np.ndarray, spacing: Spacing, tolerance: float) -> np.ndarray:
    """Which elements of `border`, in C order, have an element of `other` no farther than `tolerance` mm."""
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
    """Voxel offsets int64 (N, 3) no longer than `tolerance` mm, shortest first; None where they would be too many."""
    reach = [int(np.ceil(tolerance / step)) for step in spacing]
    if np.prod([2.0 * r + 1 for r in reach]) > MOST_OFFSETS:
        return None
    grid = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    length = np.sqrt(np.square(grid * np.array(spacing)).sum(axis=1))  # rounds as scipy's distance map does
    order = np.argsort(length, kind="stable")
    return grid[order[length[order] <= tolerance]]
