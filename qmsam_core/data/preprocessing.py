"""How networks want their images and boxes, and how their masks go back, as data.

A network is trained with one way of resizing, scaling and padding, and loses accuracy with another. The
published systems differ in each of these choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Interpolation = Literal["area", "nearest", "linear", "cubic", "pillow"]
Order = Literal["pad_then_normalise", "normalise_then_pad"]

INTERPOLATIONS: dict[str, int] = {
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
}
ORDERS = ("pad_then_normalise", "normalise_then_pad")
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
"""Mean and standard deviation of ImageNet's pixels, 0..255, by which SAM normalises."""


@dataclass(frozen=True)
class Preprocessing:
    """How a network takes its images and boxes, and how its masks go back to a slice.

    Attributes:
        interpolation: how a slice is resized: one of `INTERPOLATIONS`, or `pillow` for Pillow's bilinear
            resize, which averages where it makes smaller.
        order: pad_then_normalise is the paper's (padding is 0 before min-max normalisation).
            normalise_then_pad is the baseline's (padding equals the image's minimum).
        grey: min_max scales each slice to 0..1 by its own minimum and maximum; imagenet takes off `MEAN` and
            divides by `STD`.
        sides_apart: whether a box is scaled by each side's rounded length over its length, as SAM does, or by
            the one factor of the longest side.
        whole_boxes: whether a box is rounded down to whole px of its frame.
        box_shift: added to boxes, in px of their frame. -0.5 undoes what the prompt encoder adds.
        masks_through: side of the square to which low-res masks are enlarged before the padding is cropped,
            in px; None crops first.
    """

    interpolation: Interpolation = "area"
    order: Order = "pad_then_normalise"
    grey: Literal["min_max", "imagenet"] = "min_max"
    sides_apart: bool = False
    whole_boxes: bool = False
    box_shift: float = 0.0
    masks_through: int | None = None

    def resize(self, image: np.ndarray, width: int, height: int) -> np.ndarray:
        """Resize a slice, uint8 (H, W, 3)."""
        if self.interpolation == "pillow":
            from PIL import Image  # no other way of resizing needs it

            return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        return cv2.resize(image, (width, height), interpolation=INTERPOLATIONS[self.interpolation])

    def normalise(self, image: np.ndarray) -> np.ndarray:
        """Scale the grey values of an image (H, W, 3), 0..255, to float32."""
        return min_max(image) if self.grey == "min_max" else (image.astype(np.float32) - MEAN) / STD


def min_max(image: np.ndarray) -> np.ndarray:
    """Scale an image to 0..1 by its own minimum and maximum, float32. A constant image becomes 0."""
    image = image.astype(np.float32)
    low, high = image.min(), image.max()
    return (image - low) / np.maximum(high - low, np.float32(1e-8))


SAM = Preprocessing("pillow", "normalise_then_pad", "imagenet", sides_apart=True, masks_through=1024)

PREPROCESSING: dict[str, Preprocessing] = {
    "litemedsam": Preprocessing(),
    "mobilesam": SAM,
    "efficientvit_sam": SAM,
    "medficientsam": Preprocessing("linear", "normalise_then_pad", box_shift=-0.5, masks_through=512),
    "baseline": Preprocessing("area", "normalise_then_pad"),
    "released": Preprocessing("cubic"),
    "daft": Preprocessing("area", "normalise_then_pad", whole_boxes=True),
}
"""By name: the paper's, those of the official MobileSAM and EfficientViT-SAM, of MedficientSAM in C++, of the
challenge's baseline, of the paper's released code, and of DAFT in C++."""
