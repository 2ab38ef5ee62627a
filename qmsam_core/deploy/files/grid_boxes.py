"""Boxes on the grid of a source file, in voxels or mm, and on the axes of the case made from it."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np

from ...data.source import Source

Frame = Literal["voxel", "lps", "ras"]
TOLERANCE = 1e-3
"""Voxels by which a voxel's centre may lie outside a box in mm, since its numbers are rounded."""


def boxes_to_case(source: Source, boxes: np.ndarray) -> np.ndarray:
    """Turn boxes on the source's grid to the axes of the case.

    Images keep their boxes: these are given on the image as viewers show it, turned as its EXIF data say, and
    so is the case.

    Args:
        source: source of the case.
        boxes: int (N, 4) or (N, 6), minima then maxima, each as (x, y) or (x, y, z).

    Returns:
        int64 of the same shape.
    """
    return _turned(source, boxes, to_case=True)


def boxes_to_source(source: Source, boxes: np.ndarray) -> np.ndarray:
    """Turn boxes of a case back to the grid of its source. The other way round of `boxes_to_case`."""
    return _turned(source, boxes, to_case=False)


def _turned(source: Source, boxes: np.ndarray, to_case: bool) -> np.ndarray:
    boxes = np.asarray(boxes, np.int64)
    if source.kind == "image":
        return boxes
    axes = len(source.axes)
    # arrays have their axes the other way round, (z, y, x)
    low, high = boxes[:, :axes][:, ::-1], boxes[:, axes:][:, ::-1]
    new_low, new_high = np.empty_like(low), np.empty_like(high)
    for k, axis in enumerate(source.axes):
        theirs = abs(axis) - 1
        a, b = (theirs, k) if to_case else (k, theirs)
        first, last = low[:, a], high[:, a]
        if axis < 0:
            end = source.shape[theirs] - 1
            first, last = end - last, end - first
        new_low[:, b], new_high[:, b] = first, last
    return np.concatenate([new_low[:, ::-1], new_high[:, ::-1]], axis=1)


def voxels_inside(source: Source, low: np.ndarray, high: np.ndarray, frame: Frame) -> np.ndarray:
    """Find the voxels of the source whose centres lie in a box given in mm.

    A box with no centre inside covers the voxel nearest to its middle. On an oblique grid the box in voxels
    is the one around the corners.

    Args:
        source: with origin, spacing and direction.
        low: (x, y, z) in mm.
        high: (x, y, z) in mm.
        frame: `lps` as DICOM and ITK write positions, `ras` as NIfTI and 3D Slicer do.

    Returns:
        int64 (2 n,), minima then maxima.

    Raises:
        ValueError: the source has no geometry.
    """
    if not source.origin:
        raise ValueError("has no position in mm; give boxes in voxels")
    axes = len(source.origin)
    sides = np.array([low, high], float)[:, :axes]
    if frame == "ras":
        sides[:, :2] *= -1
    corners = np.array(list(itertools.product(*sides.T)))
    to_mm = np.array(source.direction).reshape(axes, axes) * np.array(source.spacing)
    found = np.linalg.solve(to_mm, (corners - np.array(source.origin)).T).T
    first = np.ceil(found.min(axis=0) - TOLERANCE)
    last = np.floor(found.max(axis=0) + TOLERANCE)
    middle = np.rint(found.mean(axis=0))
    empty = last < first
    first[empty], last[empty] = middle[empty], middle[empty]
    return np.concatenate([first, last]).astype(np.int64)
