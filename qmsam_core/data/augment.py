"""Variety for training a model from nothing: views of a slice (crops, flips, transposes), changes of its greys and colours, loose boxes.

Crops matter most. A view of a part of the slice, enlarged to the network's input, shows small objects at a size that can be learned even at
64 px, and makes many pictures out of few.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.transforms import Compose, RandAdjustContrast, RandGaussianNoise, RandGaussianSmooth, RandScaleIntensity, RandShiftIntensity
from torch import Tensor

from .transforms import flip_sample

SMALLEST_VIEW = 32
"""Pixels: no view of a slice is narrower, unless the slice is."""


def random_view(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator, whole: float = 0.5, smallest: float = 0.25
) -> tuple[np.ndarray, np.ndarray]:
    """The slice, or a square part of it that holds an object's pixel; mirrored and transposed at random.

    Args:
        image: uint8 (H,W,3). labels: (H,W), with at least one object.
        whole: probability of the whole slice.
        smallest: least side of a view as a share of the slice's longer side; sides are drawn evenly on a log scale.

    Returns:
        image (h,w,3) and labels (h,w), contiguous.
    """
    height, width = labels.shape
    if rng.random() >= whole:
        side = int(max(height, width) * np.exp(rng.uniform(np.log(smallest), 0)))
        side = max(side, SMALLEST_VIEW)
        rows, columns = np.nonzero(labels == rng.choice(present_labels(labels)))
        k = rng.integers(len(rows))
        top, left = (_start(centre[k], side, full, rng) for centre, full in ((rows, height), (columns, width)))
        image, labels = (a[top : top + side, left : left + side] for a in (image, labels))
    if rng.random() < 0.5:
        image, labels = image.transpose(1, 0, 2), labels.T
    return flip_sample(image, labels, *(rng.random(2) < 0.5))


def _start(inside: int, side: int, full: int, rng: np.random.Generator) -> int:
    """Where a window of `side` that contains the pixel `inside` begins on an axis of length `full`."""
    low, high = max(0, inside - side + 1), max(0, min(inside, full - side))
    return int(rng.integers(min(low, high), high + 1))


def present_labels(labels: np.ndarray) -> np.ndarray:
    """Label ids on a slice, ascending, without background."""
    return np.flatnonzero(np.bincount(labels.ravel()))[1:] if labels.min() == 0 else np.unique(labels)


def loosen_box(box: np.ndarray, width: int, height: int, most: float, rng: np.random.Generator) -> np.ndarray:
    """Box (4,), or in half of the draws one that a hand might draw: each side moved by up to `most` pixels, or a tenth of the box if that is less.

    Sides move outwards three times as far as inwards. Kept inside `width` x `height`; float32, model pixels.
    """
    if rng.random() < 0.5:
        return box.astype(np.float32)
    x_min, y_min, x_max, y_max = box.astype(np.float64)
    reach = np.minimum(most, 0.1 * np.array([x_max - x_min + 1, y_max - y_min + 1] * 2))
    shift = rng.uniform(-1 / 3, 1, 4) * reach * (-1, -1, 1, 1)
    limits = np.array([width, height, width, height]) - 1.0
    return np.clip(box + shift, 0, limits).astype(np.float32)


class Intensities:
    """Random contrast, brightness, noise, blur, inversion and loss of colour, on the content of the input only: float32 (3,h,w) 0..1 -> the same."""

    def __init__(self) -> None:
        self.changes = Compose(
            [
                RandGaussianSmooth(sigma_x=(0.3, 1.2), sigma_y=(0.3, 1.2), prob=0.15),
                RandAdjustContrast(gamma=(0.5, 2.0), prob=0.3),
                RandScaleIntensity(0.3, channel_wise=True, prob=0.3),
                RandShiftIntensity(0.15, prob=0.3),
                RandGaussianNoise(std=0.06, prob=0.2),
            ]
        )

    def __call__(self, content: Tensor, rng: np.random.Generator) -> Tensor:
        """Changed by draws from `rng`; values outside 0..1 are cut off."""
        if rng.random() < 0.1:
            content = content.mean(0, keepdim=True).expand_as(content)
        if rng.random() < 0.15:
            content = 1 - content
        self.changes.set_random_state(seed=int(rng.integers(2**31)))
        changed = self.changes(content.contiguous())
        return torch.as_tensor(changed, dtype=torch.float32).clamp_(0, 1)
