"""Tell a label map from what is none: one object with a soft edge, or a picture taken for a mask."""

from __future__ import annotations

import os

import numpy as np
from scipy import ndimage

from qmsam_core.data.archive import CaseError

CROWD = 20
"""A mask of more labels than this is asked about if they are scattered."""

SCATTERED = 3
"""Connected pieces a label, on average, from which labels are taken for grey values."""

_SOFT_LEVELS = 3  # values between background and object from which an edge is soft
_SOFT_TOP = 100  # soft edges come from masks drawn in grey values, whose object is far from 1
_EDGE = 5  # pixels of the window around an edge
_SHARE = 0.95  # of the values between, which have to lie at the edge


def has_soft_edge(labels: np.ndarray) -> bool:
    """Whether a mask is one object whose edge was smoothed: the values between lie where it meets 0.

    Args:
        labels: integers >= 0, of any shape.
    """
    top = int(labels.max(initial=0))
    if top < _SOFT_TOP:
        return False
    between = (labels > 0) & (labels < top)
    if len(np.unique(labels[between])) < _SOFT_LEVELS:
        return False
    inside = ndimage.binary_dilation(labels == top, np.ones((_EDGE,) * labels.ndim))
    outside = ndimage.binary_dilation(labels == 0, np.ones((_EDGE,) * labels.ndim))
    return bool((inside & outside)[between].mean() >= _SHARE)


def check_crowd(labels: np.ndarray, count: int, path: str | os.PathLike) -> None:
    """Raise `CaseError` if many labels lie in many pieces, as the grey values of a picture do.

    Args:
        labels: int32, of any shape.
        count: number of labels in it.
        path: file of the mask, for the message.
    """
    if count <= CROWD:
        return
    pieces = len(components(labels)[1]) - 1
    if pieces > SCATTERED * count:
        raise CaseError(
            path,
            f"holds {count} labels in {pieces:,} pieces, which looks like grey values and not like objects; "
            "give --threshold for one object, with --instances for one a piece, "
            f"or --max-objects {count} if they are labels",
        )


def components(labels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Number the connected components 1..N. Also list the label of each, after 0 for the background."""
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
