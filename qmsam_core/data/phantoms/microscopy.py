"""Microscopy: crowded, touching nuclei, fluorescent on black or stained with haematoxylin and eosin."""

from __future__ import annotations

import numpy as np

from . import physics
from .shapes import Mesh, fractal_noise, label_map, mesh, smooth_noise

Picture = tuple[np.ndarray, np.ndarray]  # uint8 (H,W,3), labels (H,W)
_HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])  # optical density per stain in red, green, blue (Ruifrok and Johnston 2001)
_EOSIN = np.array([0.07, 0.99, 0.11])


def make_microscopy(rng: np.random.Generator, size: int) -> Picture:
    """A field of 10 to 40 nuclei, each its own label, many of them touching."""
    m = mesh((int(size * rng.choice([1.0, 0.8])), size))
    masks = _nuclei(m, int(rng.integers(10, 41)), rng)
    labels = label_map(m.shape, masks, 20)
    stained = rng.random() < 0.4
    return (_stained(m, labels, rng) if stained else _fluorescent(m, labels, rng)), labels


def _nuclei(m: Mesh, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Irregular, bent or dividing nuclei in clumps; later ones give way to earlier ones, so borders touch but do not cross."""
    taken = np.zeros(m.shape, dtype=bool)
    masks: list[np.ndarray] = []
    radius = rng.uniform(0.09, 0.14) * (25 / max(count, 15)) ** 0.3
    clumps = rng.uniform(-0.9, 0.9, (max(3, count // 5), 2)) * (m.half_width, m.half_height)
    for _ in range(count * 6):
        if len(masks) == count:
            break
        place = clumps[rng.integers(len(clumps))] + rng.normal(0, 0.25, 2) if rng.random() < 0.6 else rng.uniform(-0.95, 0.95, 2) * (m.half_width, m.half_height)
        mask = _nucleus(m, place, radius * rng.uniform(0.7, 1.35), rng)
        free = mask & ~taken
        if mask.any() and free.sum() > 0.65 * mask.sum():
            masks.append(free)
            taken |= mask
    return masks


def _nucleus(m: Mesh, place: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Boolean mask of one nucleus, computed in a window around it: an ellipse, bent like a bean, with an uneven outline."""
    mask = np.zeros(m.shape, dtype=bool)
    column, row = (place + (m.half_width, m.half_height)) * m.unit
    reach = int(2.2 * radius * m.unit) + 2
    rows, columns = slice(max(0, int(row) - reach), max(0, int(row) + reach)), slice(max(0, int(column) - reach), max(0, int(column) + reach))
    dx, dy = m.x[rows, columns] - place[0], m.y[rows, columns] - place[1]
    turn, slim, bend = rng.uniform(0, np.pi), rng.uniform(0.5, 0.9), rng.normal(0, 0.35)
    u, v = (np.cos(turn) * dx + np.sin(turn) * dy) / radius, (np.cos(turn) * dy - np.sin(turn) * dx) / radius
    v = (v - bend * (u**2 - 0.3)) / slim
    direction = np.arctan2(v, u)
    outline = 1 + sum(rng.normal(0, 0.16 / k) * np.cos(k * direction + rng.uniform(0, 2 * np.pi)) for k in range(2, 6))
    mask[rows, columns] = np.hypot(u, v) < outline
    return mask


def _fluorescent(m: Mesh, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chromatin-textured nuclei of unequal brightness, out-of-focus glow, point spread, photon counts on a dark field."""
    brightness = np.concatenate([[0], rng.lognormal(-0.5, 0.4, labels.max())]).astype(np.float32)
    signal = brightness[labels] * np.clip(1 + 0.25 * fractal_noise(m.shape, 0.04 * m.unit, rng), 0.2, 2)
    glow = physics.blur(signal, 0.08 * m.unit) * rng.uniform(0.05, 0.25)
    signal = physics.blur(signal, rng.uniform(0.7, 1.5)) + glow + rng.uniform(0.01, 0.06)
    counted = physics.poisson(signal, rng.uniform(60, 500), rng) + rng.normal(0, 0.008, m.shape)
    picture = np.clip(counted / np.percentile(counted, 99.7), 0, 1) ** rng.uniform(0.8, 1.2)
    return physics.grey_image(picture * rng.choice([1.0, 1.0, 0.5]))


def _stained(m: Mesh, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Absorption by two stains (Beer-Lambert): blue-violet nuclei with chromatin and rim, pink cytoplasm and fibres, white gaps."""
    nuclei = labels > 0
    depth = np.concatenate([[0], rng.uniform(0.7, 1.5, labels.max())]).astype(np.float32)[labels]
    chromatin = np.clip(1 + 0.3 * fractal_noise(m.shape, 0.03 * m.unit, rng), 0.4, 2)
    rim = np.clip(physics.blur(nuclei.astype(np.float32), 0.7) - physics.blur(nuclei.astype(np.float32), 1.8), 0, 1) * nuclei
    haematoxylin = physics.blur(depth * chromatin + 0.8 * rim, rng.uniform(0.5, 1.0)) + 0.06
    tissue = np.clip(0.55 + 0.3 * fractal_noise(m.shape, 0.2 * m.unit, rng), 0.03, None)
    fibres = np.clip(np.abs(smooth_noise(m.shape, 0.04 * m.unit, rng)) - 0.3, 0, None)
    eosin = (0.5 * tissue + 0.12 * fibres) * np.where(nuclei, 0.4, 1.0)
    density = haematoxylin[..., None] * _HAEMATOXYLIN * rng.uniform(0.8, 1.1) + physics.blur(eosin.astype(np.float32), 0.6)[..., None] * _EOSIN * rng.uniform(0.6, 1.0)
    picture = np.exp(-density) * np.array([0.97, 0.95, 0.97]) + rng.normal(0, 0.012, (*m.shape, 3))
    return physics.colour_image(picture)
