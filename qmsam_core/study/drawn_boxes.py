"""Boxes drawn on one slice, and what each model makes of them. Nothing here is shown; `explore` draws it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from ..data import Case
from ..data.transforms import Geometry
from ..deploy.engines import Engine
from ..evaluate.agreement import mask_dice
from ..evaluate.metrics import inscribed_ellipse

FLOAT, INT8, ELLIPSE = "float", "int8", "ellipse"
"""Names of what makes masks. The ellipse fills the box and does not look at the image."""


class DrawnBoxes:
    """Boxes on one slice in the order they were drawn, with the masks of several models.

    A model encodes the slice when its first mask is asked for, and decodes every box once.

    Args:
        image: slice, uint8 (H, W, 3).
        engines: model's name -> engine. The ellipse is added to them.
        interpolation: how the slice is resized, see `Preprocessing`.

    Attributes:
        boxes: int64 (4,) each: x_min, y_min, x_max, y_max in pixels, maxima inclusive.
        image_seconds: model -> seconds to encode the slice; without models that have not been asked.
        box_seconds: model -> seconds of each box that it has decoded, in the order of `boxes`.
    """

    def __init__(self, image: np.ndarray, engines: Mapping[str, Engine], interpolation: str = "area") -> None:
        self.image, self.engines = image, dict(engines)
        self.boxes: list[np.ndarray] = []
        self.image_seconds: dict[str, float] = {}
        self.box_seconds: dict[str, list[float]] = {name: [] for name in self.engines}
        self._masks: dict[str, list[np.ndarray]] = {name: [] for name in self.models}
        self._embeddings: dict[str, np.ndarray] = {}
        self._geometries = {
            name: Geometry.within(engine, *image.shape[:2]).with_preprocessing(interpolation=interpolation)
            for name, engine in self.engines.items()
        }

    @property
    def models(self) -> tuple[str, ...]:
        """Names of what makes masks, the ellipse last."""
        return (*self.engines, ELLIPSE)

    def add(self, box: Sequence[float]) -> None:
        """Add a box. It is rounded to whole pixels and cut off at the border.

        Args:
            box: (4,) x, y of two opposite corners in pixels, in any order.

        Raises:
            ValueError: the box lies outside the slice.
        """
        x, y = sorted((box[0], box[2])), sorted((box[1], box[3]))
        height, width = self.image.shape[:2]
        if x[0] >= width or y[0] >= height or x[1] < 0 or y[1] < 0:
            raise ValueError(
                f"box {[round(float(v), 1) for v in box]}: "
                f"lies outside the slice of {width} x {height} pixels"
            )
        corners = np.rint([x[0], y[0], x[1], y[1]])
        last = np.array([width - 1, height - 1, width - 1, height - 1])
        self.boxes.append(np.clip(corners, 0, last).astype(np.int64))

    def undo(self) -> None:
        """Take the last box away with its masks. Does nothing without boxes."""
        del self.boxes[-1:]
        for made in (*self._masks.values(), *self.box_seconds.values()):
            del made[len(self.boxes) :]

    def clear(self) -> None:
        """Take all boxes away. What models know of the slice stays."""
        while self.boxes:
            self.undo()

    def masks(self, model: str) -> list[np.ndarray]:
        """Return the mask of each box by one of `models`, bool (H, W). Only new boxes are decoded."""
        made = self._masks[model]
        for box in self.boxes[len(made) :]:
            made.append(self._ellipse(box) if model == ELLIPSE else self._decoded(model, box))
        return list(made)

    def agreement(self, model: str) -> float:
        """Mean Dice of a model's masks with the float model's, 0..1. NaN without boxes or a float model."""
        if not self.boxes or FLOAT not in self.engines:
            return float("nan")
        pairs = zip(self.masks(FLOAT), self.masks(model))
        return float(np.mean([mask_dice(*pair) for pair in pairs]))

    def _ellipse(self, box: np.ndarray) -> np.ndarray:
        return inscribed_ellipse(Case("slice", self.image, box[None], None, np.ones(3))) == 1

    def _decoded(self, model: str, box: np.ndarray) -> np.ndarray:
        engine, geometry = self.engines[model], self._geometries[model]
        if model not in self._embeddings:
            started = time.perf_counter()
            self._embeddings[model] = engine.encode(geometry.image(self.image)[None])
            self.image_seconds[model] = time.perf_counter() - started
        started = time.perf_counter()
        logits = engine.decode(self._embeddings[model], geometry.boxes(box[None]))
        mask = geometry.mask_to_image(logits)[0]
        self.box_seconds[model].append(time.perf_counter() - started)
        return mask


def warm_up(engines: Mapping[str, Engine]) -> None:
    """Run each engine once. Its first run also sets it up, so its time would say nothing of later ones."""
    for engine in engines.values():
        embedding = engine.encode(np.zeros((1, 3, engine.image_size, engine.image_size), np.float32))
        engine.decode(embedding, np.array([[0, 0, 9, 9]], np.float32))
