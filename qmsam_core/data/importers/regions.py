"""Combine the contours that a structure has on one slice, and fill slices between contours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

SAME = 0.1
"""Two contours are one, drawn or stored twice, if no vertex of either is farther than this from the other's
vertices. In pixels."""

NESTED = 0.95
"""A contour is a hole in a larger one if this share of its pixels lies in it, since vertices are rounded."""


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels inside one contour.

    Attributes:
        mask: bool (H,W).
        points: (n,2) vertices as x, y in pixels.
        toggles: the contour inverts what is below it (CLOSEDPLANAR_XOR).
    """

    mask: np.ndarray
    points: np.ndarray
    toggles: bool = False


def without_twins(regions: Sequence[Region]) -> list[Region]:
    """Leave out contours that repeat an earlier one."""
    kept: list[Region] = []
    for region in regions:
        if not any(_same(region, other) for other in kept):
            kept.append(region)
    return kept


def combined(regions: Sequence[Region]) -> np.ndarray:
    """Unite the regions of one slice, bool (H,W).

    A region inside another is a hole, and one inside a hole is an island. Regions that only overlap are
    united. Regions that toggle are inverted in the end.
    """
    drawn = sorted((r for r in regions if not r.toggles), key=lambda r: -np.count_nonzero(r.mask))
    result = np.zeros_like(regions[0].mask)
    for k, region in enumerate(drawn):
        around = sum(_lies_in(region.mask, larger.mask) for larger in drawn[:k])
        if around % 2:
            result &= ~region.mask
        else:
            result |= region.mask
    for region in regions:
        if region.toggles:
            result ^= region.mask
    return result


def between(below: np.ndarray, above: np.ndarray, share: float) -> np.ndarray:
    """Interpolate a shape between two slices.

    Args:
        below: bool (H,W).
        above: bool (H,W).
        share: 0..1, place of the slice between the two.

    Returns:
        bool (H,W): where the mean of the signed distances to the two outlines is positive (shape-based
        interpolation, Raya and Udupa 1990).
    """
    return _depth(below) * (1 - share) + _depth(above) * share > 0


def _depth(mask: np.ndarray) -> np.ndarray:
    """Distance to the outline in pixels, positive inside."""
    return ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)


def _same(one: Region, other: Region) -> bool:
    if one.toggles or other.toggles or len(one.points) != len(other.points):
        return False
    pairs = ((one.points, other.points), (other.points, one.points))
    return all(cKDTree(a).query(b, distance_upper_bound=2 * SAME)[0].max() <= SAME for a, b in pairs)


def _lies_in(inner: np.ndarray, outer: np.ndarray) -> bool:
    size = np.count_nonzero(inner)
    return size > 0 and np.count_nonzero(inner & outer) >= NESTED * size
