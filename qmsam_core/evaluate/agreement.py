"""How far the masks of one model agree with those of another: Dice between the two, whatever the truth is.

A quantised model whose masks fall back to filling their box scores well wherever the float model is poor. Agreement with the
float model's masks tells that apart from keeping the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def agreement(reference: np.ndarray, segs: np.ndarray, objects: int) -> float:
    """Mean Dice between two segmentations of one case, object by object, 0..1.

    Args:
        reference: integer labels, (H, W) or (D, H, W), label i for box i.
        segs: labels of the same shape.
        objects: number of boxes asked for; labels are 1..objects. An object that is empty in both counts as agreed, 1.

    Returns:
        The mean, NaN without objects.

    Raises:
        ValueError: two shapes.
    """
    if reference.shape != segs.shape:
        raise ValueError(f"segs: found shape {segs.shape}, expected that of the reference, {reference.shape}")
    a, b, both = (
        np.bincount(labels.ravel(), minlength=objects + 1)[1 : objects + 1]
        for labels in (reference, segs, np.where(reference == segs, reference, 0))
    )
    dice = np.divide(2 * both, a + b, out=np.ones(objects), where=a + b > 0)
    return float(dice.mean()) if objects else float("nan")


def mask_dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice of two binary masks of one shape, 0..1; two empty masks agree, 1."""
    size = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / size if size else 1.0


def agreement_by_arm(
    masks: Mapping[str, Sequence[np.ndarray]], reference: str, objects: Iterable[int]
) -> dict[str, list[float]]:
    """`agreement` of every arm with one of them, case by case.

    Args:
        masks: segmentations of the same cases, by arm.
        reference: the arm to agree with.
        objects: boxes of each case.

    Returns:
        Values in the order of the cases, by arm.
    """
    counts = list(objects)
    return {
        arm: [agreement(*case) for case in zip(masks[reference], segs, counts)] for arm, segs in masks.items()
    }
