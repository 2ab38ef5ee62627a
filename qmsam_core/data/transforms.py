"""From a slice to the network's input and back: resize the longest side, pad, normalise, flip, jitter the box; and the inverses.

Coordinates. Image pixels are those of the stored slice, model pixels those of the square network input (side `size`). The content
lies in the upper left `new_height` x `new_width` corner, padding at the bottom and right. A box is x_min, y_min, x_max, y_max with
**inclusive maxima** (the outermost pixels covered); from image to model pixels all four numbers are multiplied by the one factor
`scale`, as the challenge's baseline does, so the way back is a division and nothing is lost.

Source: paper section 2.1 (pre-processing), section 2.3 (post-processing), section 3.1 (flips).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Interpolation = Literal["area", "nearest", "cubic", "linear"]
Order = Literal["pad_then_normalise", "normalise_then_pad"]

INTERPOLATIONS: dict[str, int] = {
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    "cubic": cv2.INTER_CUBIC,
    "linear": cv2.INTER_LINEAR,
}
ORDERS = ("pad_then_normalise", "normalise_then_pad")


@dataclass(frozen=True)
class Geometry:
    """How a slice of one size lies in the network's square input.

    Attributes:
        height, width: the slice, pixels.
        size: side of the input, pixels.
        scale: model pixels per image pixel, `size / max(height, width)`.
        new_height, new_width: the content's size in model pixels.
    """

    height: int
    width: int
    size: int
    scale: float
    new_height: int
    new_width: int

    @classmethod
    def of(cls, height: int, width: int, size: int) -> Geometry:
        """Longest side to `size`, the other rounded half up (as SAM's ResizeLongestSide), at least one pixel."""
        if min(height, width, size) < 1:
            raise ValueError(f"height {height}, width {width}, size {size}: expected all at least 1")
        scale = size / max(height, width)
        return cls(
            height, width, size, scale, max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        )

    def image(
        self, image: np.ndarray, interpolation: Interpolation = "area", order: Order = "pad_then_normalise"
    ) -> np.ndarray:
        """Network input of a slice.

        Args:
            image: uint8 (H,W,3), 0..255.
            interpolation: area (the public checkpoint's), nearest, cubic or linear.
            order: the paper's pad_then_normalise (padding is 0 before min-max normalisation), or the baseline's
                normalise_then_pad (padding equals the image's minimum).

        Returns:
            float32 (3,size,size), 0..1.
        """
        if order not in ORDERS:
            raise ValueError(f"order {order!r}: expected one of {', '.join(ORDERS)}")
        content = cv2.resize(
            image, (self.new_width, self.new_height), interpolation=_interpolation(interpolation)
        )
        if order == "pad_then_normalise":
            square = min_max(self._pad(content))
        else:
            square = self._pad(min_max(content))
        return np.ascontiguousarray(square.transpose(2, 0, 1))

    def mask(self, mask: np.ndarray, out: int | None = None) -> np.ndarray:
        """Mask or label map (H,W) at model resolution, nearest neighbour, padded: (out,out), same dtype (bool becomes uint8); `out` defaults to `size`."""
        out = self.size if out is None else out
        mask = mask.astype(np.uint8) if mask.dtype == bool else mask
        rows = _nearest(self.height, self.new_height, self.size, out)
        columns = _nearest(self.width, self.new_width, self.size, out)
        square = np.zeros((out, out), dtype=mask.dtype)
        square[: len(rows), : len(columns)] = mask[np.ix_(rows, columns)]
        return square

    def kept_mask(self, mask: np.ndarray, out: int | None = None) -> np.ndarray:
        """Binary mask uint8 (out,out) of an object (H,W); where nearest neighbour loses a small one, every pixel it touches instead."""
        out = self.size if out is None else out
        square = (self.mask(mask, out) != 0).astype(np.uint8)
        if not square.any():
            rows, columns = np.nonzero(mask)
            factor = self.scale * out / self.size
            square[
                np.minimum((rows * factor).astype(int), out - 1),
                np.minimum((columns * factor).astype(int), out - 1),
            ] = 1
        return square

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N,4) from image to model pixels, float32 (N,4)."""
        return (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * self.scale).astype(np.float32)

    def boxes_to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N,4) from model to image pixels, float32 (N,4), not rounded, clipped to the image."""
        limits = np.array([self.width, self.height, self.width, self.height]) - 1
        return np.clip(np.asarray(boxes, dtype=np.float64).reshape(-1, 4) / self.scale, 0, limits).astype(
            np.float32
        )

    def mask_to_image(self, logits: np.ndarray) -> np.ndarray:
        """Masks at the slice's own size: crop the padding, resize the logits linearly, binarise at 0 (paper section 2.3).

        Args:
            logits: float32 (N,M,M); M is `size` or a fraction of it (MedSAM's masks have a quarter of its input's side).

        Returns:
            bool (N,H,W).
        """
        logits = np.asarray(logits, dtype=np.float32)
        if logits.ndim != 3 or logits.shape[1] != logits.shape[2]:
            raise ValueError(f"logits of shape {logits.shape}: expected (N,M,M)")
        masks = np.empty((len(logits), self.height, self.width), dtype=bool)
        for number, square in enumerate(logits):
            content = self.content(square)
            np.greater(
                cv2.resize(content, (self.width, self.height), interpolation=cv2.INTER_LINEAR),
                0,
                out=masks[number],
            )
        return masks

    def content(self, square: np.ndarray) -> np.ndarray:
        """The unpadded corner of a mask; enlarged first where the corner's edge would cut through a mask pixel."""
        side = square.shape[0]
        if (self.new_height * side) % self.size or (self.new_width * side) % self.size:
            square, side = (
                cv2.resize(square, (self.size, self.size), interpolation=cv2.INTER_LINEAR),
                self.size,
            )
        return square[: self.new_height * side // self.size, : self.new_width * side // self.size]

    def _pad(self, content: np.ndarray) -> np.ndarray:
        return np.pad(content, ((0, self.size - self.new_height), (0, self.size - self.new_width), (0, 0)))


def min_max(image: np.ndarray) -> np.ndarray:
    """Image scaled to 0..1 by its own minimum and maximum, float32; a constant image becomes 0."""
    image = image.astype(np.float32)
    low, high = image.min(), image.max()
    return (image - low) / np.maximum(high - low, np.float32(1e-8))


def mask_box(mask: np.ndarray) -> np.ndarray:
    """Tight box of a non-empty mask (H,W): float32 (4,) x_min, y_min, x_max, y_max, maxima inclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("the mask is empty: it has no box")
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=np.float32)


def flip_sample(
    image: np.ndarray, mask: np.ndarray, horizontal: bool, vertical: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H,W,3) and mask (H,W) mirrored left-right and/or up-down, before resizing, so padding stays at the bottom and right."""
    rows, columns = slice(None, None, -1 if vertical else 1), slice(None, None, -1 if horizontal else 1)
    return np.ascontiguousarray(image[rows, columns]), np.ascontiguousarray(mask[rows, columns])


def jitter_box(
    box: np.ndarray, amount: float, width: int, height: int, rng: np.random.Generator
) -> np.ndarray:
    """Box (4,) with each side moved outwards by a uniform 0..`amount` pixels, kept inside `width` x `height`; float32."""
    x_min, y_min, x_max, y_max = np.asarray(box, dtype=np.float64) + rng.uniform(0, amount, 4) * (
        -1,
        -1,
        1,
        1,
    )
    return np.array(
        [max(x_min, 0), max(y_min, 0), min(x_max, width - 1), min(y_max, height - 1)], dtype=np.float32
    )


@dataclass(frozen=True)
class EvalTransform:
    """Sample for evaluation: no flips, the box as tight as the mask in model pixels.

    Attributes:
        size: side of the network's input, pixels.
        mask_size: side of the network's masks, pixels.
        interpolation, order: see `Geometry.image`.
    """

    size: int
    mask_size: int
    interpolation: Interpolation = "area"
    order: Order = "pad_then_normalise"

    def geometry(self, image: np.ndarray) -> Geometry:
        """Where a slice of this shape lies in the input."""
        return Geometry.of(image.shape[0], image.shape[1], self.size)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A slice and the mask of one object on it, ready for the network.

        Args:
            image: uint8 (H,W,3).
            mask: (H,W), non-zero on the object; must not be empty.
            rng: unused here; training draws from it.

        Returns:
            image float32 (3,size,size) 0..1; box float32 (4,), model pixels, inclusive maxima; mask uint8 (mask_size,mask_size) 0/1.
            An object too small for the model's grid keeps the pixels it touches, so neither mask nor box is ever empty.
        """
        geometry = self.geometry(image)
        return (
            geometry.image(image, self.interpolation, self.order),
            mask_box(geometry.kept_mask(mask)),
            geometry.kept_mask(mask, self.mask_size),
        )


@dataclass(frozen=True)
class TrainTransform(EvalTransform):
    """Sample for training: random flips (paper section 3.1) and, as in the baseline, a box jittered outwards.

    Attributes:
        flips: mirror left-right and up-down, each with probability one half.
        box_jitter: largest outward shift of a box side, model pixels.
    """

    flips: bool = True
    box_jitter: float = 0.0

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `EvalTransform`, flipped and jittered by draws from `rng` (required)."""
        if rng is None:
            raise ValueError("training samples draw flips and jitter: pass a numpy Generator as rng")
        if self.flips:
            image, mask = flip_sample(image, mask, *(rng.random(2) < 0.5))
        image_in, box, mask_in = super().__call__(image, mask)
        geometry = self.geometry(image)
        return (
            image_in,
            jitter_box(box, self.box_jitter, geometry.new_width, geometry.new_height, rng),
            mask_in,
        )


def _nearest(side: int, new_side: int, size: int, out: int) -> np.ndarray:
    """For each output pixel of the content, the image pixel under its centre; the content's edge is rounded up to whole pixels."""
    count = -(-new_side * out // size)
    centres = (np.arange(count) + 0.5) * size / out
    return np.minimum((centres * side / new_side).astype(np.int64), side - 1)


def _interpolation(name: str) -> int:
    if name not in INTERPOLATIONS:
        raise ValueError(f"interpolation {name!r}: expected one of {', '.join(INTERPOLATIONS)}")
    return INTERPOLATIONS[name]
