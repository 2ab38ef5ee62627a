"""Shapes of anatomy: irregular blobs, crescents, tubes and branches, in two and three dimensions.

Shapes are given as *levels*: arrays that are below 1 inside, 1 on the border and grow outwards, so that a shape can be drawn with a
sharp, a soft or an invaded border. Coordinates come from `mesh`: the unit is half the shorter in-plane side, the origin the centre,
x to the right, y down; z runs from -1 to 1 over the slices. A shape therefore looks the same at every image size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import cv2
import numpy as np
from scipy import ndimage


@dataclass
class Mesh:
    """Coordinates of every pixel or voxel.

    Attributes:
        x, y: in units of half the shorter in-plane side, float32, the shape of the image or volume.
        z: -1..1 over the slices; 0 for an image.
        unit: pixels per unit.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    unit: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image or volume."""
        return self.x.shape

    @property
    def half_width(self) -> float:
        """Largest |x|."""
        return self.shape[-1] / 2 / self.unit

    @property
    def half_height(self) -> float:
        """Largest |y|."""
        return self.shape[-2] / 2 / self.unit

    def warped(self, amount: float, scale: float, rng: np.random.Generator) -> Mesh:
        """The same mesh pushed about by smooth noise: `amount` (standard deviation) and `scale` (length) in units."""
        dx, dy = (amount * smooth_noise(self.shape, scale * self.unit, rng) for _ in range(2))
        return Mesh(self.x + dx, self.y + dy, self.z, self.unit)


def mesh(shape: Sequence[int]) -> Mesh:
    """Mesh of an image (H,W) or a volume (D,H,W)."""
    *depth, height, width = shape
    unit = min(height, width) / 2
    rows = ((np.arange(height) + 0.5 - height / 2) / unit).astype(np.float32)
    columns = ((np.arange(width) + 0.5 - width / 2) / unit).astype(np.float32)
    levels = ((np.arange(depth[0]) + 0.5) / depth[0] * 2 - 1).astype(np.float32) if depth else np.zeros(1, np.float32)
    z, y, x = np.meshgrid(levels, rows, columns, indexing="ij")
    return Mesh(x, y, z, unit) if depth else Mesh(x[0], y[0], z[0], unit)


def smooth_noise(shape: Sequence[int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of correlation length `sigma` pixels in plane (and about as far across slices), mean 0, variance 1; float32."""
    sigma = max(float(sigma), 0.3)
    if len(shape) == 2:
        return _smooth_plane(shape, sigma, rng)
    depth = min(sigma, shape[0] / 3)
    noise = np.stack([_smooth_plane(shape[1:], sigma, rng) for _ in range(shape[0])])
    noise = ndimage.gaussian_filter1d(noise, depth, axis=0, mode="nearest")
    return noise / (noise.std() + 1e-9)


def _smooth_plane(shape: Sequence[int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Long correlations are drawn on a coarse grid and enlarged: the same field for a fraction of the work."""
    step = max(1.0, sigma / 2)
    coarse = [max(4, int(np.ceil(side / step)) + 2) for side in shape]
    noise = cv2.GaussianBlur(rng.standard_normal(coarse, dtype=np.float32), (0, 0), sigma / step, borderType=cv2.BORDER_REFLECT)
    noise = cv2.resize(noise, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return (noise - noise.mean()) / (noise.std() + 1e-9)


def fractal_noise(shape: Sequence[int], sigma: float, rng: np.random.Generator, octaves: int = 4, gain: float = 0.6) -> np.ndarray:
    """Sum of `smooth_noise` at sigma, sigma/2, ... with falling weight `gain`: tissue texture; mean 0, variance 1."""
    total = sum(gain**k * smooth_noise(shape, sigma / 2**k, rng) for k in range(octaves))
    return total / (total.std() + 1e-9)


def ellipse(m: Mesh, centre: Sequence[float], radii: Sequence[float], angle: float = 0.0, power: float = 2.0) -> np.ndarray:
    """Level of a (super)ellipse, or ellipsoid where `centre` and `radii` have a third, z, entry; `angle` in plane, radians."""
    u, v = _turned(m, centre, radii, angle)
    terms = np.abs(u) ** power + np.abs(v) ** power if power != 2 else u * u + v * v
    if len(centre) == 3:
        terms = terms + np.abs((m.z - np.float32(centre[2])) / np.float32(radii[2])) ** power
    return np.sqrt(terms) if power == 2 else terms ** (1 / power)


def _turned(m: Mesh, centre: Sequence[float], radii: Sequence[float], angle: float) -> tuple[np.ndarray, np.ndarray]:
    """In-plane coordinates along the axes of an ellipse, in its radii, all in single precision; entries may vary over the slices."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    dx, dy = m.x - np.float32(centre[0]), m.y - np.float32(centre[1])
    return (cos * dx + sin * dy) / np.float32(radii[0]), (cos * dy - sin * dx) / np.float32(radii[1])


def blob(m: Mesh, centre: Sequence[float], radii: Sequence[float], rng: np.random.Generator, roughness: float = 0.15, angle: float | None = None, lobes: int = 6) -> np.ndarray:
    """Level of an irregular blob: an ellipse whose radius varies with direction by harmonics 2..`lobes` of falling strength.

    `roughness` is about the relative deviation of the radius. A third entry of `centre` and `radii` makes it a volume, whose outline
    turns slowly with z.
    """
    angle = rng.uniform(0, np.pi) if angle is None else angle
    u, v = _turned(m, centre, radii, angle)
    direction = cv2.phase(u.reshape(len(u), -1), v.reshape(len(v), -1)).reshape(u.shape)
    if len(centre) == 3:
        direction = direction + rng.uniform(-0.6, 0.6) * m.z
    square = u * u + v * v
    if len(centre) == 3:
        square = square + ((m.z - np.float32(centre[2])) / np.float32(radii[2])) ** 2
    bins = (direction * (_DIRECTIONS / (2 * np.pi))).astype(np.int32) % _DIRECTIONS
    return np.sqrt(square) / _outline(rng, roughness, lobes)[bins]


_DIRECTIONS = 2048  # a table over the angle is ten times quicker than cosines at every voxel


def _outline(rng: np.random.Generator, roughness: float, lobes: int) -> np.ndarray:
    """Radius of an irregular blob over the direction, float32 (_DIRECTIONS,), about 1."""
    turn = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    wave = sum(rng.standard_normal() / k**0.8 * np.cos(k * turn + rng.uniform(0, 2 * np.pi)) for k in range(2, lobes + 1))
    return np.clip(1 + roughness * wave, 0.45, 1.8).astype(np.float32)


def lobulated(m: Mesh, centre: Sequence[float], radius: float, rng: np.random.Generator, lobes: int = 4, depth: float | None = None) -> np.ndarray:
    """Level of a cluster of `lobes` balls about a centre, as tumours and masses grow; `depth` is the radius along z."""
    levels = []
    for _ in range(lobes):
        turn, reach = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.25, 0.7)
        place = [centre[0] + reach * np.cos(turn), centre[1] + reach * np.sin(turn)]
        r = radius * rng.uniform(0.4, 0.75)
        if len(centre) == 3:
            place.append(centre[2] + rng.uniform(-0.4, 0.4) * depth)
            levels.append(ellipse(m, place, (r, r, depth * r / radius * 1.3)))
        else:
            levels.append(ellipse(m, place, (r, r * rng.uniform(0.75, 1.3)), rng.uniform(0, np.pi)))
    return smooth_min(levels, 0.12)


def smooth_min(levels: Sequence[np.ndarray], softness: float) -> np.ndarray:
    """Union of shapes with rounded joints: the smooth minimum of their levels."""
    total = sum(np.exp(np.minimum(level, 6) * (-1 / softness)) for level in levels)
    return -softness * np.log(total)


def inside(level: np.ndarray) -> np.ndarray:
    """Boolean mask of a level."""
    return level < 1


def soft(level: np.ndarray, width: float) -> np.ndarray:
    """Coverage 0..1 of a level whose border is smeared over about `width` (in level units); 0.5 on the border."""
    return 1 / (1 + np.exp(np.clip((level - 1) * (2 / max(float(width), 1e-3)), -30, 30)))


def paint(canvas: np.ndarray, level: np.ndarray, value: np.ndarray | float, width: float = 0.03) -> np.ndarray:
    """Lay `value` over `canvas` where the level is inside, the border smeared; in place, and returned."""
    cover = soft(level, width)
    if canvas.ndim == level.ndim + 1:
        cover = cover[..., None]
    canvas += cover * (np.asarray(value, dtype=np.float32) - canvas)
    return canvas


def tube(shape: Sequence[int], points: np.ndarray, widths: np.ndarray | float, antialias: int = 3) -> np.ndarray:
    """Coverage 0..1 of a curved line of varying width through `points` (K,2) x, y in pixels; `widths` in pixels, scalar or (K,)."""
    scale = 1 << antialias
    picture = np.zeros(tuple(shape), dtype=np.uint8)
    widths = np.broadcast_to(np.asarray(widths, dtype=np.float64), len(points))
    ends = np.round(points * scale).astype(np.int32)
    for k in range(len(points) - 1):
        cv2.line(picture, ends[k].tolist(), ends[k + 1].tolist(), 255, max(1, round(widths[k])), cv2.LINE_AA, antialias)
    faint = np.minimum(widths.mean(), 1.0)
    return picture.astype(np.float32) / 255 * faint


def curve(start: Sequence[float], heading: float, length: float, rng: np.random.Generator, steps: int = 24, wobble: float = 0.15, bend: float = 0.0) -> np.ndarray:
    """Points (steps+1,2) of a wandering line: heading in radians, `bend` radians over its length, `wobble` radians of noise a step."""
    turns = heading + np.linspace(0, bend, steps) + np.cumsum(rng.normal(0, wobble, steps)) * 0.5
    moves = length / steps * np.column_stack([np.cos(turns), np.sin(turns)])
    return np.vstack([np.asarray(start, dtype=np.float64), np.asarray(start) + np.cumsum(moves, axis=0)])


def branches(start, heading: float, length: float, width: float, rng: np.random.Generator, generations: int, bend: float = 0.0, spread: float = 0.5) -> list[tuple[np.ndarray, float]]:
    """A tree of vessels: (points, width) of every branch, the width after Murray's law, children leaving along and at the end."""
    points = curve(start, heading, length, rng, wobble=0.12, bend=bend)
    tree = [(points, width)]
    if generations > 0:
        for fraction in (rng.uniform(0.35, 0.6), 1.0):
            for side in (-1, 1) if fraction == 1.0 else (rng.choice([-1, 1]),):
                at = int(fraction * (len(points) - 1))
                direction = np.arctan2(*(points[at] - points[at - 1])[::-1]) + side * rng.uniform(0.4, 1.2) * spread
                tree += branches(points[at], direction, length * rng.uniform(0.5, 0.75), width * 2 ** (-1 / 3) * 0.85, rng, generations - 1, bend * 0.5, spread)
    return tree


def label_map(shape: Sequence[int], masks: Sequence[np.ndarray], least: int = 12) -> np.ndarray:
    """Labels 1..N from masks, later ones on top (nested objects); the largest connected part of each, parts below `least` pixels dropped.

    Returns uint8, or uint16 above 255 objects; ids are without gaps.
    """
    painted = np.zeros(tuple(shape), dtype=np.int32)
    for number, mask in enumerate(masks, start=1):
        painted[mask] = number
    labels = np.zeros_like(painted)
    kept = 0
    for number in range(1, len(masks) + 1):
        part = largest_part(painted == number)
        if part.sum() >= least:
            kept += 1
            labels[part] = kept
    return labels.astype(np.uint8 if kept <= 255 else np.uint16)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """Largest connected part of a mask; the mask itself where it is empty."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    return parts == 1 + np.argmax(np.bincount(parts.reshape(-1))[1:])
