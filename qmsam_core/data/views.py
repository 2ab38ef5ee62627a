"""Views of a slice to train on: the whole of it, a part seen near, the whole seen from afar; turned, mirrored, stretched and bent at random.

A view near an object chooses how large the object appears, evenly on a log scale, so that objects of a few pixels and those that fill the picture are
seen equally often whatever their size on the slice. A model that had seen few small ones was far below the ellipse there and level with it elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .cases import tight_boxes

WHOLE, FAR = 0.4, 0.08
"""Shares of views that show the whole slice as deployment does, and the whole slice small in a black square; the others are near."""
SIDES = (0.05, 0.9)
"""Least and largest side of the box of the object that a near view is about, as a share of the view's side."""
SMALL = 5.0
"""Pixels that the least side does not exceed, however large the view: a network of 256 px is asked about objects of few pixels as one of 100 px is."""
ENLARGED = 5.0
"""How much larger than in the whole view a near view shows things, at most."""


@dataclass(frozen=True)
class View:
    """A square of `size` pixels that shows part of a slice, or all of it.

    Attributes:
        matrix: (2,3), from the slice's x, y to the view's; pixel (0,0) reaches from 0 to 1 in both.
        scale: pixels of the view per pixel of the slice, without the stretch.
        whole: pixels per pixel of the view that shows the whole slice, as the network's input in deployment does.
        bend: (size,size,2) float32, where the view looks instead, in its own pixels; None looks straight.
        upright: no turn but by right angles, no bend: boxes stay boxes.
    """

    size: int
    matrix: np.ndarray
    scale: float
    whole: float
    bend: np.ndarray | None
    upright: bool

    @classmethod
    def draw(cls, labels: np.ndarray, size: int, rng: np.random.Generator, whole: float = WHOLE, far: float = FAR, plain: bool = False) -> View:
        """A view of `size` pixels of a slice with at least one object.

        Args:
            labels: (H,W).
            whole, far: probabilities of the whole slice at its full size, and of the whole slice from afar.
            plain: no turn, stretch, mirror or bend.
        """
        height, width = labels.shape
        full = size / max(height, width)
        turning = np.eye(2) if plain else _dihedral(rng)
        if not plain and rng.random() < 0.35:
            stretch = np.exp(rng.normal(0, 0.15))
            turning = turning @ np.diag([stretch, 1 / stretch])
        extent = np.abs(turning) @ (width, height)
        free = not plain and rng.random() < 0.35
        if free:
            turning = turning @ _rotation(rng.uniform(-np.pi, np.pi) if rng.random() < 0.4 else rng.normal(0, 0.25))
        kind, middle, scale = rng.random(), np.array([width, height]) / 2, full
        if kind < whole:
            place = np.minimum(extent * full, size) / 2
        elif kind < whole + far:
            scale = full * np.exp(rng.uniform(-np.log(2.5), 0))
            half = np.minimum(extent * scale, size) / 2
            place = half + rng.random(2) * (size - 2 * half)
        else:
            middle, scale, place = _near(labels, size, full, rng)
        linear = scale * turning
        matrix = np.column_stack([linear, place - linear @ middle])
        bend = _bend(size, rng) if not plain and rng.random() < 0.25 else None
        return cls(size, matrix, scale, full, bend, not free and bend is None)

    def of(self, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is seen of an image uint8 (H,W,3) and labels (H,W): image (S,S,3), labels (S,S), and where the slice is, bool (S,S); black and 0 elsewhere.

        The image is brought to the view's scale by area, as in deployment, and then sampled linearly; labels take the nearest pixel.
        """
        height, width = labels.shape
        x, y = self._looked_at()
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        columns, rows = np.clip(x, 0, width - 1).astype(np.int32), np.clip(y, 0, height - 1).astype(np.int32)
        seen = np.where(inside, labels[rows, columns], 0).astype(labels.dtype)
        factor = self.scale if self.scale < 1 else max(1.0, self.whole)
        near_width, near_height = max(1, round(width * factor)), max(1, round(height * factor))
        if factor != 1:
            image = cv2.resize(image, (near_width, near_height), interpolation=cv2.INTER_AREA)
        maps = (x * (near_width / width) - 0.5).astype(np.float32), (y * (near_height / height) - 0.5).astype(np.float32)
        picture = cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return picture * inside[..., None], seen, inside

    def _looked_at(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y on the slice of the middle of every pixel of the view, float64 (S,S)."""
        centres = np.arange(self.size) + 0.5
        u, v = np.meshgrid(centres, centres)
        if self.bend is not None:
            u, v = u + self.bend[..., 0], v + self.bend[..., 1]
        back = np.linalg.inv(self.matrix[:, :2])
        u, v = u - self.matrix[0, 2], v - self.matrix[1, 2]
        return back[0, 0] * u + back[0, 1] * v, back[1, 0] * u + back[1, 1] * v

    def box(self, box: np.ndarray) -> np.ndarray:
        """A box (4,) of the slice in the pixels of an upright view, cut off at its border; maxima inclusive, float64."""
        corners = np.array([[box[0], box[1]], [box[2] + 1, box[3] + 1]], dtype=np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]
        low, high = np.clip(corners.min(0), 0, self.size - 1), np.clip(corners.max(0) - 1, 0, self.size - 1)
        return np.concatenate([np.minimum(low, high), high])

    @property
    def overhang(self) -> float:
        """How far an object reaches beyond its box at the right and at the bottom, where the slice is smaller than the network's input: boxes name its outermost
        pixels and are enlarged as points are, while the pixels themselves become squares (`Geometry.boxes`)."""
        return max(0.0, self.scale * (1 - 1 / self.whole))


def _dihedral(rng: np.random.Generator) -> np.ndarray:
    """One of the eight ways to lay a square down; half of all stand as they did, or mirrored left to right."""
    mirror = np.diag(rng.choice([-1.0, 1.0], 2))
    if rng.random() < 0.5:
        mirror[1, 1] = 1.0
        return mirror
    return mirror[::-1] if rng.random() < 0.5 else mirror


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _near(labels: np.ndarray, size: int, full: float, rng: np.random.Generator) -> tuple[np.ndarray, float, np.ndarray]:
    """Middle of an object on the slice, scale, and where in the view that middle lies."""
    boxes = tight_boxes(labels)[1]
    x_min, y_min, x_max, y_max = boxes[rng.integers(len(boxes))]
    side = max(x_max - x_min, y_max - y_min) + 1
    least, largest = min(SIDES[0] * size, SMALL), SIDES[1] * size
    wanted = np.exp(rng.uniform(np.log(least), np.log(largest)))
    scale = float(np.clip(wanted / side, full * 0.8, full * ENLARGED))
    room = max(0.0, size - scale * side) / 2
    return np.array([x_min + x_max + 1, y_min + y_max + 1]) / 2, scale, size / 2 + rng.uniform(-room, room, 2)


def _bend(size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth displacements that never fold: noise on a coarse grid, enlarged."""
    cells = int(rng.integers(3, 8))
    noise = rng.normal(0, 1, (cells, cells, 2)).astype(np.float32)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(rng.uniform(0.2, 1.0) * size / cells / 8)
