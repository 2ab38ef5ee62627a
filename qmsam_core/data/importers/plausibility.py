"""Tell a label map from what is none: one object with a soft edge, or a picture taken for a mask."""

from __future__ import annotations

import os

import numpy as np

from qmsam_core.data.archive import CaseError

CROWD = 20
"""A mask of more labels than this is asked about if they are scattered."""

SCATTERED = 3
"""Connected pieces a label, on average, from which labels are taken for grey values."""

BLENDED = 1.2
"""The same for labels that rise and fall like grey values."""

_SOFT_LEVELS = 3  # values between background and object from which an edge is soft
_SOFT_TOP = 50  # soft edges come from masks drawn in grey values, whose object is far from 1
_SLOPE = 0.9  # share of the values between that have both a smaller and a larger neighbour
_CORE = 0.3  # share of an object that is not edge


def is_graded(labels: np.ndarray) -> bool:
    """Whether the values rise and fall like grey values: most have a smaller and a larger neighbour.

    Inside the objects of a label map all neighbours are equal.

    Args:
        labels: integers >= 0, of any shape.
    """
    top = int(labels.max(initial=0))
    between = (labels > 0) & (labels < top)
    if top < _SOFT_TOP or np.count_nonzero(np.bincount(labels[between])) < _SOFT_LEVELS:
        return False
    from scipy import ndimage  # takes long to load, and cases without a mask to judge do not need it

    values = labels[between]
    smaller = ndimage.minimum_filter(labels, 3, mode="nearest")[between] < values
    larger = ndimage.maximum_filter(labels, 3, mode="nearest")[between] > values
    return bool((smaller & larger).mean() >= _SLOPE)


def has_soft_edge(labels: np.ndarray) -> bool:
    """Whether a mask is one object whose edge was smoothed: graded values around a core of the largest."""
    core = np.count_nonzero(labels == labels.max(initial=0))
    return core >= _CORE * np.count_nonzero(labels) and is_graded(labels)  # the cheap test first


def check_crowd(labels: np.ndarray, count: int, path: str | os.PathLike) -> None:
    """Raise `CaseError` if labels look like the grey values of a picture: graded or many, in many pieces.

    Args:
        labels: int32, of any shape.
        count: number of labels in it.
        path: file of the mask, for the message.
    """
    graded = is_graded(labels)
    if count <= CROWD and not graded:
        return
    pieces = len(components(labels)[1]) - 1
    if pieces > (BLENDED if graded else SCATTERED) * count:
        found = "that blend into each other, " if graded else ""
        raise CaseError(
            path,
            f"holds {count} labels {found}in {pieces:,} pieces, which looks like grey values and not like "
            "objects; give --threshold for one object, with --instances for one a piece, "
            f"or --max-objects {count} if they are labels",
        )


def components(labels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Number the connected components 1..N. Also list the label of each, after 0 for the background."""
    from scipy import ndimage  # as in `is_graded`

    parents = [0]
    connected = np.ones((3,) * labels.ndim, dtype=bool)
    split, count = np.zeros_like(labels, dtype=np.int32), 0
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        if where is not None:
            parts, found = ndimage.label(labels[where] == number, structure=connected)
            split[where] += np.where(parts, parts + count, 0).astype(np.int32)
            count += found
            parents += [number] * found
    return split, parents
