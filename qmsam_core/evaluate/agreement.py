"""Agreement between the masks of two models: their Dice with each other. The ground truth plays no part.

A quantised model may fail by filling each box. Against the ground truth, such masks score well wherever the
float model is poor. Their agreement with the float model's masks is low, which reveals the failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def agreement(reference: np.ndarray, segs: np.ndarray, objects: int) -> float:
    """Mean Dice over the objects of two segmentations of one case.

    Args:
        reference: integer labels, (H, W) or (D, H, W). Each box has its own label, from 1.
        segs: labels of the same shape.
        objects: number of boxes. Labels are 1..objects. An object that is empty in both counts as 1.

    Returns:
        The mean, 0..1. NaN without objects.

    Raises:
        ValueError: the shapes differ.
    """
    return float(dice_by_label(reference, segs, objects).mean()) if objects else float("nan")


def dice_by_label(reference: np.ndarray, segs: np.ndarray, objects: int) -> np.ndarray:
    """Dice of each label 1..objects in two segmentations of one shape, float64 (objects,), 0..1.

    A label that is in neither counts as 1. Raises `ValueError` if the shapes differ.
    """
    if reference.shape != segs.shape:
        raise ValueError(f"segs: found shape {segs.shape}, expected that of the reference, {reference.shape}")
    a, b, both = (
        np.bincount(labels.ravel(), minlength=objects + 1)[1 : objects + 1]
        for labels in (reference, segs, np.where(reference == segs, reference, 0))
    )
    return np.divide(2 * both, a + b, out=np.ones(objects), where=a + b > 0)


def mask_dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice of two binary masks of one shape, 0..1. Two empty masks give 1."""
    size = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / size if size else 1.0


def agreement_by_arm(
    masks: Mapping[str, Sequence[np.ndarray]], reference: str, objects: Iterable[int]
) -> dict[str, list[float]]:
    """Agreement of every arm with a reference arm, for each case.

    Args:
        masks: arm -> segmentations of the same cases in the same order.
        reference: name of the reference arm.
        objects: number of boxes of each case.

    Returns:
        Arm -> `agreement` of each case, in the order of the cases.
    """
    counts = list(objects)
    return {
        arm: [agreement(*case) for case in zip(masks[reference], segs, counts)] for arm, segs in masks.items()
    }
