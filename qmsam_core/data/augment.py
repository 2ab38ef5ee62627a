"""Variety for training a model from nothing: views of a slice (near, far, flipped, transposed), changes of its greys and colours, loose boxes.

Near views matter most. A part of the slice, enlarged to the network's input, shows small objects at a size that can be learned even at 64 px, and
makes many pictures out of few. Far views, the slice in a black surrounding, do the opposite at full size: boxes of a few pixels have to be learned
too, and a model that had seen few of them was far below the ellipse there and level with it elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import Compose, RandAdjustContrast, RandGaussianNoise, RandGaussianSmooth, RandHistogramShift, RandScaleIntensity, RandShiftIntensity
from torch import Tensor

from .transforms import flip_sample

SMALLEST_VIEW = 32
"""Pixels: no view of a slice is narrower, unless the slice is."""
LOOSE_BOXES = 0.2
"""Share of boxes that are not tight. With half of them, as when the first two editions of the bundled checkpoint were trained, masks keep a pixel or two away
from the sides of tight boxes. The third was trained on with a fifth, and with the other changes that its card names: 82.4 % on unseen cases instead of 80.4."""


@dataclass(frozen=True)
class View:
    """A square of `side` pixels from `top`, `left` of a slice on, perhaps transposed and mirrored. What of it lies outside is left away in a view of the whole
    slice or a part of it (`top` and `left` at least 0), and is black in a far view, which begins outside."""

    top: int
    left: int
    side: int
    transposed: bool
    mirrored: tuple[bool, bool]

    @classmethod
    def draw(cls, labels: np.ndarray, rng: np.random.Generator, whole: float = 0.45, far: float = 0.2, smallest: float = 0.25, largest: float = 2.5) -> View:
        """The whole slice, the slice from afar, or a square part of it that holds a pixel of an object; mirrored and transposed at random.

        Args:
            labels: (H,W), with at least one object.
            whole, far: probabilities of the whole slice and of a view from afar.
            smallest, largest: bounds of a view's side as a share of the slice's longer side; sides are drawn evenly on a log scale.
        """
        height, width = labels.shape
        top, left, side = 0, 0, max(height, width)
        kind = rng.random()
        if whole <= kind < whole + far:
            side = int(np.ceil(side * np.exp(rng.uniform(0, np.log(largest)))))
            top, left = -int(rng.integers(side - height + 1)), -int(rng.integers(side - width + 1))
        elif kind >= whole:
            side = max(int(side * np.exp(rng.uniform(np.log(smallest), 0))), SMALLEST_VIEW)
            rows, columns = np.nonzero(labels == rng.choice(present_labels(labels)))
            k = rng.integers(len(rows))
            top, left = _start(rows[k], side, height, rng), _start(columns[k], side, width, rng)
        transposed, horizontal, vertical = (bool(draw) for draw in rng.random(3) < 0.5)
        return cls(top, left, side, transposed, (horizontal, vertical))

    def of(self, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is seen of an image (H,W,3) and labels (H,W): (h,w,3) and (h,w), contiguous."""
        if min(self.top, self.left) < 0:
            image, labels = self._from_afar(image), self._from_afar(labels)
        else:
            rows, columns = slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)
            image, labels = image[rows, columns], labels[rows, columns]
        if self.transposed:
            image, labels = image.transpose(1, 0, 2), labels.T
        return flip_sample(image, labels, *self.mirrored)

    def _from_afar(self, array: np.ndarray) -> np.ndarray:
        square = np.zeros((self.side, self.side, *array.shape[2:]), array.dtype)
        square[-self.top : array.shape[0] - self.top, -self.left : array.shape[1] - self.left] = array
        return square

    def box(self, box: np.ndarray, seen: tuple[int, int]) -> np.ndarray:
        """A box (4,) of the slice in the view's pixels, cut off at its border; `seen` is the view's (h,w). Maxima inclusive, float32."""
        x_min, y_min, x_max, y_max = np.asarray(box, dtype=np.float64) - (self.left, self.top, self.left, self.top)
        if self.transposed:
            x_min, y_min, x_max, y_max = y_min, x_min, y_max, x_max
        last_y, last_x = seen[0] - 1, seen[1] - 1
        if self.mirrored[0]:
            x_min, x_max = last_x - x_max, last_x - x_min
        if self.mirrored[1]:
            y_min, y_max = last_y - y_max, last_y - y_min
        return np.clip([x_min, y_min, x_max, y_max], 0, [last_x, last_y, last_x, last_y]).astype(np.float32)


def _start(inside: int, side: int, full: int, rng: np.random.Generator) -> int:
    """Where a window of `side` that contains the pixel `inside` begins on an axis of length `full`."""
    low, high = max(0, inside - side + 1), max(0, min(inside, full - side))
    return int(rng.integers(min(low, high), high + 1))


def present_labels(labels: np.ndarray) -> np.ndarray:
    """Label ids on a slice, ascending, without background."""
    return np.flatnonzero(np.bincount(labels.ravel()))[1:] if labels.min() == 0 else np.unique(labels)


def loosen_box(box: np.ndarray, width: int, height: int, most: float, rng: np.random.Generator) -> np.ndarray:
    """Box (4,), or in some draws (`LOOSE_BOXES`) one that a hand might draw: each side moved by up to `most` pixels, or a tenth of the box if that is less.

    Sides move outwards three times as far as inwards. Kept inside `width` x `height`; float32, model pixels.
    """
    if rng.random() >= LOOSE_BOXES:
        return box.astype(np.float32)
    x_min, y_min, x_max, y_max = box.astype(np.float64)
    reach = np.minimum(most, 0.1 * np.array([x_max - x_min + 1, y_max - y_min + 1] * 2))
    shift = rng.uniform(-1 / 3, 1, 4) * reach * (-1, -1, 1, 1)
    limits = np.array([width, height, width, height]) - 1.0
    return np.clip(box + shift, 0, limits).astype(np.float32)


class Intensities:
    """Random contrast, brightness, noise, blur, inversion, swap and loss of colours, on the content of the input only: float32 (3,h,w) 0..1 -> the same.

    A tenth of the pictures loses nearly all it shows. What can be learned from those is how objects mostly lie in their boxes, which is
    what is left to say where a picture looks like none that was seen in training.
    """

    def __init__(self) -> None:
        self.changes = Compose(
            [
                RandGaussianSmooth(sigma_x=(0.3, 1.2), sigma_y=(0.3, 1.2), prob=0.15),
                RandHistogramShift(num_control_points=(4, 8), prob=0.3),
                RandAdjustContrast(gamma=(0.5, 2.0), prob=0.3),
                RandScaleIntensity(0.3, channel_wise=True, prob=0.3),
                RandShiftIntensity(0.15, prob=0.3),
                RandGaussianNoise(std=0.06, prob=0.2),
            ]
        )

    def __call__(self, content: Tensor, rng: np.random.Generator) -> Tensor:
        """Changed by draws from `rng`; values outside 0..1 are cut off. A picture of a single grey is left as it is."""
        if content.min() == content.max():
            return content
        if rng.random() < 0.1:
            content = content.mean(0, keepdim=True).expand_as(content)
        elif rng.random() < 0.15:
            content = content[torch.from_numpy(rng.permutation(3))]
        if rng.random() < 0.15:
            content = 1 - content
        if rng.random() < 0.1:
            content = fade(content, rng)
        self.changes.set_random_state(seed=int(rng.integers(2**31)))
        changed = self.changes(content.contiguous())
        return torch.as_tensor(changed, dtype=torch.float32).clamp_(0, 1)


def fade(content: Tensor, rng: np.random.Generator) -> Tensor:
    """Content (3,h,w) that shows next to nothing: at most a fifth of its contrast, under noise as strong."""
    mean, left = content.mean((1, 2), keepdim=True), float(rng.uniform(0, 0.2))
    noise = torch.from_numpy(rng.standard_normal(content.shape, dtype=np.float32))
    return mean + left * (content - mean) + float(rng.uniform(0.02, 0.15)) * noise
