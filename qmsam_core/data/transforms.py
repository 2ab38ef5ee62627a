"""Transform a slice to the network's input and masks back: resize, pad, normalise, flip, jitter the box.

Image pixels are those of the stored slice. Model pixels are those of the square network input (side `size`).
The longest side is resized to `size`. The content lies in the upper left `new_height` x `new_width` corner,
with padding at the bottom and right.

A box is x_min, y_min, x_max, y_max with **inclusive maxima** (the outermost pixels covered). A network takes
boxes in pixels of its `frame`, a square that lies on the input and has the same side in most networks. From
image to frame all four numbers are multiplied by one factor, as in the challenge's baseline.

What differs between networks is in `preprocessing`. Unless another is given, it is LiteMedSAM's.

Source: paper section 2.1 (pre-processing), section 2.3 (post-processing), section 3.1 (flips).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from .preprocessing import PREPROCESSING, Interpolation, Preprocessing


class Network(Protocol):
    """What decides where a slice and its boxes lie in a network's input. Models and engines have it.

    Attributes:
        image_size: side of the input, pixels.
        frame: side of the square in which boxes are given, pixels; None is the input's.
        preprocessing: a key of `PREPROCESSING`.
    """

    image_size: int
    frame: int | None
    preprocessing: str


@dataclass(frozen=True)
class Geometry:
    """Position of a slice in the network's square input.

    Attributes:
        height: height of the slice, pixels.
        width: width of the slice, pixels.
        size: side of the input, pixels.
        scale: model pixels per image pixel, `size / max(height, width)`.
        new_height: height of the content, model pixels.
        new_width: width of the content, model pixels.
        frame: side of the square in which boxes are given, pixels.
        preprocessing: how the network takes slices.
    """

    height: int
    width: int
    size: int
    scale: float
    new_height: int
    new_width: int
    frame: int
    preprocessing: Preprocessing

    @classmethod
    def of(
        cls,
        height: int,
        width: int,
        size: int,
        frame: int | None = None,
        preprocessing: Preprocessing = PREPROCESSING["litemedsam"],
    ) -> Geometry:
        """Scale the longest side to `size`, and the other in proportion to at least one pixel.

        `frame` defaults to `size`.
        """
        if min(height, width, size) < 1:
            raise ValueError(f"height {height}, width {width}, size {size}: expected all at least 1")
        scale = size / max(height, width)
        new_height, new_width = fitted(height, width, size)
        return cls(height, width, size, scale, new_height, new_width, frame or size, preprocessing)

    @classmethod
    def within(cls, network: Network, height: int, width: int) -> Geometry:
        """Position of a slice of this shape in a network's input."""
        how = PREPROCESSING[network.preprocessing]
        return cls.of(height, width, network.image_size, network.frame, how)

    def with_preprocessing(self, **changes: object) -> Geometry:
        """Return this geometry with some fields of its preprocessing changed."""
        return replace(self, preprocessing=replace(self.preprocessing, **changes))

    def image(self, image: np.ndarray) -> np.ndarray:
        """Make the network's input of a slice, uint8 (H,W,3), 0..255: float32 (3,size,size)."""
        how = self.preprocessing
        content = how.resize(image, self.new_width, self.new_height)
        if how.order == "pad_then_normalise":
            square = how.normalise(self._pad(content))
        else:
            square = self._pad(how.normalise(content))
        return np.ascontiguousarray(square.transpose(2, 0, 1))

    def mask(self, mask: np.ndarray, out: int | None = None) -> np.ndarray:
        """Resize a mask or label map (H,W) to model resolution by nearest neighbour, and pad it to (out,out).

        `out` defaults to `size`. The dtype stays the same, but bool becomes uint8.
        """
        out = self.size if out is None else out
        mask = mask.astype(np.uint8) if mask.dtype == bool else mask
        rows = _nearest(self.height, self.new_height, self.size, out)
        columns = _nearest(self.width, self.new_width, self.size, out)
        square = np.zeros((out, out), dtype=mask.dtype)
        square[: len(rows), : len(columns)] = mask[np.ix_(rows, columns)]
        return square

    def kept_mask(self, mask: np.ndarray, out: int | None = None) -> np.ndarray:
        """Binary mask (out,out), uint8, of an object's mask (H,W).

        If nearest neighbour loses a small object, every pixel that it touches is set instead.
        """
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
        """Convert boxes (N,4) from pixels of the image to those of the frame, float32 (N,4)."""
        factor: np.ndarray | float = self.frame / max(self.height, self.width)
        if self.preprocessing.sides_apart:
            rows, columns = fitted(self.height, self.width, self.frame)
            factor = np.array([columns / self.width, rows / self.height] * 2)
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * factor
        if self.preprocessing.whole_boxes:
            boxes = np.floor(boxes)
        return (boxes + self.preprocessing.box_shift).astype(np.float32)

    def mask_to_image(self, logits: np.ndarray) -> np.ndarray:
        """Crop the padding, resize logits linearly to the slice and binarise at 0.

        The paper (section 2.3) makes masks binary before it resizes them.

        Args:
            logits: float32 (N,M,M). M is `size` or a fraction of it; for MedSAM a quarter.

        Returns:
            bool (N,H,W).
        """
        logits = np.asarray(logits, dtype=np.float32)
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
        """Crop a mask's padding. If the crop would cut through a mask pixel, the mask is enlarged first."""
        side = square.shape[0]
        if through := self.preprocessing.masks_through:
            rows, columns = fitted(self.height, self.width, through)
            return cv2.resize(square, (through, through), interpolation=cv2.INTER_LINEAR)[:rows, :columns]
        if (self.new_height * side) % self.size or (self.new_width * side) % self.size:
            square, side = (
                cv2.resize(square, (self.size, self.size), interpolation=cv2.INTER_LINEAR),
                self.size,
            )
        return square[: self.new_height * side // self.size, : self.new_width * side // self.size]

    def _pad(self, content: np.ndarray) -> np.ndarray:
        return np.pad(content, ((0, self.size - self.new_height), (0, self.size - self.new_width), (0, 0)))


def fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of a slice whose longest side becomes `side`, at least 1.

    The other side is rounded half up, as in SAM's ResizeLongestSide.
    """
    scale = side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def mask_box(mask: np.ndarray) -> np.ndarray:
    """Tight box of a non-empty mask (H,W): float32 (4,) x_min, y_min, x_max, y_max, maxima inclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("the mask is empty: it has no box")
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=np.float32)


def flip_sample(
    image: np.ndarray, mask: np.ndarray, horizontal: bool, vertical: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror an image (H,W,3) and its mask (H,W) left-right, up-down or both.

    This happens before resizing, so that padding stays at the bottom and right.
    """
    rows, columns = slice(None, None, -1 if vertical else 1), slice(None, None, -1 if horizontal else 1)
    return np.ascontiguousarray(image[rows, columns]), np.ascontiguousarray(mask[rows, columns])


def jitter_box(
    box: np.ndarray, amount: float, width: int, height: int, rng: np.random.Generator
) -> np.ndarray:
    """Move each box side outwards by a uniform 0..`amount` pixels inside `width` x `height`; float32 (4,)."""
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
    """Make an evaluation sample: no flips, and a box as tight as the mask in model pixels.

    Attributes:
        size: side of the network's input, pixels.
        mask_size: side of the network's masks, pixels.
        interpolation: see `Preprocessing`.
    """

    size: int
    mask_size: int
    interpolation: Interpolation = "area"

    def geometry(self, image: np.ndarray) -> Geometry:
        """Position of a slice of this shape in the input."""
        geometry = Geometry.of(image.shape[0], image.shape[1], self.size)
        return geometry.with_preprocessing(interpolation=self.interpolation)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Prepare a slice and the mask of one object on it for the network.

        Args:
            image: uint8 (H,W,3).
            mask: (H,W), non-zero on the object; must not be empty.
            rng: unused here; training draws from it.

        Returns:
            image: float32 (3,size,size), 0..1.
            box: float32 (4,), model pixels, maxima inclusive.
            mask: uint8 (mask_size,mask_size), 0 or 1. An object too small for the model's grid keeps the
                pixels it touches. Mask and box are thus never empty.
        """
        geometry = self.geometry(image)
        return (
            geometry.image(image),
            mask_box(geometry.kept_mask(mask)),
            geometry.kept_mask(mask, self.mask_size),
        )


@dataclass(frozen=True)
class TrainTransform(EvalTransform):
    """Make a training sample: random flips (paper section 3.1), and as in the baseline a jittered box.

    A sample is mirrored left-right and up-down, each with probability one half.

    Attributes:
        box_jitter: largest outward shift of a box side, model pixels.
    """

    box_jitter: float = 0.0

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Do as `EvalTransform`, with flips and jitter drawn from `rng` (required)."""
        if rng is None:
            raise ValueError("training samples draw flips and jitter: pass a numpy Generator as rng")
        image, mask = flip_sample(image, mask, *(rng.random(2) < 0.5))
        image_in, box, mask_in = super().__call__(image, mask)
        geometry = self.geometry(image)
        return (
            image_in,
            jitter_box(box, self.box_jitter, geometry.new_width, geometry.new_height, rng),
            mask_in,
        )


def _nearest(side: int, new_side: int, size: int, out: int) -> np.ndarray:
    """Image pixel under the centre of each output pixel. The content's edge is rounded up to whole pixels."""
    count = -(-new_side * out // size)
    centres = (np.arange(count) + 0.5) * size / out
    return np.minimum((centres * side / new_side).astype(np.int64), side - 1)
