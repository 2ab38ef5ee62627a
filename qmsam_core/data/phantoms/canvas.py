"""A slice being painted: irregular shapes, textures and lines, and which of the shapes are objects.

Coordinates: the origin is the middle, x runs to the right, y down, and the unit is half the shorter side.
So a scene looks the same at every size.
"""

import cv2
import numpy as np


class Canvas:
    """One slice of a scene.

    Attributes:
        x, y: coordinates of every pixel, float32 (H,W).
        z: height of the slice in its volume, -1..1; 0 for an image.
        right, bottom: coordinates of the right and the lower edge.
        picture: float32 (H,W,3), 0 black to 1 white.
        objects: masks, bool (H,W), in the order of their labels.
        rng: random numbers for shapes, the same in every slice of a volume; `draw` is its `uniform`.
        noise: random numbers for textures, others in every slice.
    """

    def __init__(self, shape: tuple[int, int], seed: tuple[int, int], z: float, number: int):
        self.shape, self.z, self.unit = shape, z, min(shape) / 2
        self.bottom, self.right = shape[0] / 2 / self.unit, shape[1] / 2 / self.unit
        self.rng, self.noise = np.random.default_rng(seed), np.random.default_rng((*seed, number))
        self.draw = self.rng.uniform
        rows, columns = np.indices(shape, dtype=np.float32) + 0.5
        self.x, self.y = columns / self.unit - self.right, rows / self.unit - self.bottom
        self._bent = [axis + 0.02 * self.texture(0.4, self.rng) for axis in (self.x, self.y)]
        self.picture = np.zeros((*shape, 3), dtype=np.float32)
        self.objects: list[np.ndarray] = []

    def texture(self, scale: float, rng: np.random.Generator | None = None) -> np.ndarray:
        """Cloudy noise with details of `scale` and below, float32 (H,W), mean 0, variance about 1."""
        total = np.zeros(self.shape, dtype=np.float32)
        for part in (1.0, 0.5, 0.25):
            step = max(part * scale * self.unit, 1.0)
            coarse = (rng or self.noise).standard_normal([int(side / step) + 4 for side in self.shape])
            fine = cv2.resize(coarse, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
            total += 1.1 * part * fine[: self.shape[0], : self.shape[1]]
        return total

    def blob(self, centre, radii, wobble: float = 0.1, angle: float = 0.0, depth=None) -> np.ndarray:
        """Mask of a bent ellipse of two radii, which vary by `wobble` (relative); the first is at `angle`.

        `depth` gives its centre and radius along z; without, it goes through all slices.
        """
        dx, dy, cos, sin = self._bent[0] - centre[0], self._bent[1] - centre[1], np.cos(angle), np.sin(angle)
        u, v = np.float32([(cos * dx + sin * dy) / radii[0], (cos * dy - sin * dx) / radii[1]])
        turns, waves = np.radians(np.arange(361)) + 0.3 * self.z, np.arange(2, 6)[:, None]
        sizes, phases = self.rng.normal(0, wobble, (4, 1)) / waves**0.5, self.draw(0, 2 * np.pi, (4, 1))
        outline = np.maximum(1 + (sizes * np.cos(waves * turns + phases)).sum(axis=0), 0.4)
        cut = 1 - ((self.z - depth[0]) / depth[1]) ** 2 if depth else 1.0
        reach = np.float32(outline * max(cut, 0) ** 0.5)  # in each of 360 directions
        return np.hypot(u, v) < reach[np.int32(cv2.phase(u, v, angleInDegrees=True))]

    def lobed(self, centre, radius: float, depth=None) -> np.ndarray:
        """Mask of a cluster of balls, as tumours grow."""
        mask = self.blob(centre, (0.65 * radius, 0.5 * radius), 0.1, self.draw(0, 3), depth)
        for turn in self.draw(0, 2 * np.pi, 4):
            place = centre + radius * self.draw(0.3, 0.8) * np.array([np.cos(turn), np.sin(turn)])
            mask |= self.blob(place, [radius * self.draw(0.3, 0.5)] * 2, 0.05, 0, depth)
        return mask

    def line(self, start, heading: float, length: float, width: float, bend: float = 0.0) -> np.ndarray:
        """Mask of a wandering line that turns by `bend` radians on its way."""
        turns = heading + np.linspace(0, bend, 24) + np.cumsum(self.rng.normal(0, 0.05, 24))
        steps = np.column_stack([np.cos(turns), np.sin(turns)]) * length / 24
        points = (start + np.cumsum(steps, axis=0) + (self.right, self.bottom)) * self.unit
        mask = np.zeros(self.shape, dtype=np.uint8)
        cv2.polylines(mask, [np.int32(points * 16)], False, 1, max(1, round(width * self.unit)), shift=4)
        return mask > 0

    def paint(self, mask, colour, edge: float = 0.01, strength: float = 1.0, rough: float = 0.0) -> None:
        """Lay a grey (a number) or a colour (red, green, blue) over a mask.

        `edge` is how far the border is smeared; below `strength` 1 the ground shines through; `rough` is the
        relative deviation of the brightness inside.
        """
        cover = strength * cv2.GaussianBlur(np.float32(mask), (0, 0), max(edge * self.unit, 0.5))[..., None]
        light = 1 + rough * self.texture(0.1)[..., None] if rough else np.float32(1)
        self.picture += cover * (light * np.float32(colour) - self.picture)

    def add(self, mask: np.ndarray, *colour, **options) -> None:
        """`paint` a mask and make it the next object, which takes its pixels from earlier ones."""
        self.paint(mask, *colour, **options)
        self.objects.append(mask)

    def shade(self, light: np.ndarray) -> None:
        """Multiply the picture by light (H,W)."""
        self.picture *= np.float32(light)[..., None]

    def speckle(self, x: np.ndarray, y: np.ndarray) -> None:
        """Multiply by the grain of coherent waves, whose axes x and y (H,W) need not be straight."""
        grain = np.hypot(*self.noise.standard_normal((2, *self.shape), dtype=np.float32)) * 0.6 + 0.25
        maps = [np.float32((axis - axis.min()) * self.unit) for axis in (x, y)]
        grain = cv2.GaussianBlur(grain, (0, 0), 0.7)
        self.shade(cv2.remap(grain, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))

    def pixels(self) -> np.ndarray:
        """The picture with a sensor's noise, uint8 (H,W,3)."""
        noise = 0.012 * self.noise.standard_normal((*self.shape, 1), dtype=np.float32)
        return np.uint8(np.clip(self.picture + noise, 0, 1) * 255 + 0.5)


def label_map(objects: list[np.ndarray], least: int = 12) -> np.ndarray:
    """Labels 1..N, uint8 (H,W) or (D,H,W), from masks, later ones on top.

    Of each object the largest connected part is kept; one of fewer than `least` pixels is dropped.
    """
    from scipy import ndimage  # takes long to load, and the names of modalities are needed without it

    painted, labels = np.zeros((2, *objects[0].shape), dtype=np.uint8)
    for number, mask in enumerate(objects, start=1):
        painted[mask] = number
    for number in range(1, len(objects) + 1):
        parts, _ = ndimage.label(painted == number)
        sizes = np.bincount(parts.ravel())[1:]
        if sizes.max(initial=0) >= least:
            labels[parts == 1 + sizes.argmax()] = labels.max() + 1
    return labels
