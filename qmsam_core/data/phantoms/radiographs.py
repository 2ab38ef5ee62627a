"""X-ray and mammography: line integrals through a body of known thickness, scatter, quanta, film curve."""

from __future__ import annotations

import numpy as np

from . import physics
from .shapes import Mesh, blob, curve, ellipse, fractal_noise, inside, label_map, lobulated, mesh, smooth_min, smooth_noise, soft, tube

Picture = tuple[np.ndarray, np.ndarray]  # uint8 (H,W,3), labels (H,W)


def make_xray(rng: np.random.Generator, size: int) -> Picture:
    """Postero-anterior chest film: thickness of soft tissue, lung and bone along each ray, scatter, photon noise, log display."""
    m = mesh((size, int(size * rng.uniform(0.85, 1.0))))
    g = m.warped(rng.uniform(0.015, 0.05), 0.4, rng)
    heart, lungs = _mediastinum(g, rng), [_lung_field(g, side, rng) for side in (-1, 1)]
    tissue = _torso(g, rng)
    for lung in lungs:
        tissue -= 0.7 * _thickness(lung) * tissue * rng.uniform(0.85, 1.0)
    dense = np.clip(_thickness(heart), 0, 1)
    tissue += 0.38 * dense + 0.2 * np.exp(-((g.x / 0.14) ** 2)) * (np.abs(g.y) < 1.3)
    tissue += 0.045 * _vessel_shadows(m, rng) * sum(soft(lung, 0.05) for lung in lungs)
    for _ in range(rng.choice([0, 1, 2, 3], p=[0.4, 0.3, 0.2, 0.1])):  # consolidations hide borders of the lungs
        place = (rng.choice([-1, 1]) * rng.uniform(0.3, 0.5), rng.uniform(-0.2, 0.7))
        tissue += rng.uniform(0.15, 0.4) * soft(blob(g, place, (0.25, 0.3), rng, 0.3), 0.8) * (1 + 0.2 * smooth_noise(m.shape, 0.05 * m.unit, rng))
    bone = _ribs(m, rng) + _spine_and_girdle(g, m, rng)
    rays = 2.4 * np.clip(tissue, 0, None) + 0.55 * bone
    primary = np.exp(-rays)
    scatter = 0.25 * physics.blur(primary, 0.2 * m.unit)
    film = -np.log(physics.poisson(primary + scatter, 10 ** rng.uniform(3.6, 4.4), rng) + 1e-4)
    film = physics.blur(film, 0.006 * m.unit + 0.3)
    low, high = np.percentile(film, (2.5, 99.0))
    picture = np.clip((film - low) / (high - low), 0, 1) ** rng.uniform(0.8, 1.2)
    return physics.grey_image(picture), label_map(m.shape, _outlined(heart, lungs, rng), 40)


def _outlined(heart: np.ndarray, lungs: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Masks as data sets have them: lungs up to the heart with or without it, lungs that run on behind it, or the heart alone."""
    kind = rng.random()
    if kind < 0.35:
        return [inside(lung) for lung in lungs]
    if kind < 0.5:
        return [inside(heart)]
    beside = [inside(np.maximum(lung, 2 - heart)) for lung in lungs]
    return beside + [inside(heart)] if kind < 0.85 else beside


def _thickness(level: np.ndarray) -> np.ndarray:
    """Length of a ray through a rounded body with this outline, relative to its middle."""
    return np.sqrt(np.clip(1 - np.clip(level, 0, 1) ** 2.5, 0, None)).astype(np.float32)


def _torso(g: Mesh, rng: np.random.Generator) -> np.ndarray:
    """Relative thickness of chest wall, shoulders, neck and the dense abdomen below the diaphragm."""
    trunk = _thickness(ellipse(g, (0, 0.35), (rng.uniform(0.92, 1.04), 1.7), power=3.2))
    shoulders = _thickness(ellipse(g, (0, -0.2), (1.3, 0.75), power=2.6))
    neck = _thickness(ellipse(g, (0, -1.0), (0.26, 0.6)))
    below = 1 / (1 + np.exp(-(g.y - 0.72 + 0.12 * np.cos(4 * (np.abs(g.x) - 0.4))) * 25))
    return (np.maximum(np.maximum(trunk, 0.75 * shoulders), 0.7 * neck) * (1 + 0.35 * below)).astype(np.float32)


def _lung_field(g: Mesh, side: int, rng: np.random.Generator) -> np.ndarray:
    """Level of one lung: pointed apex, concave domed base, the mediastinum cut off."""
    body = ellipse(g, (side * rng.uniform(0.4, 0.46), 0.05), (rng.uniform(0.32, 0.38) + 0.06 * g.y, rng.uniform(0.74, 0.88)), -side * rng.uniform(0.04, 0.14), power=2.3)
    dome = g.y - (rng.uniform(0.42, 0.68) + 0.06 * (side > 0)) - rng.uniform(0.5, 1.6) * (g.x - side * rng.uniform(0.26, 0.4)) ** 2
    return np.maximum(body, 1 + 2.5 * dome)


def _mediastinum(g: Mesh, rng: np.random.Generator) -> np.ndarray:
    """Level of heart and great vessels in one outline, the apex towards the right of the picture."""
    heart = blob(g, (rng.uniform(0.06, 0.16), rng.uniform(0.28, 0.38)), (rng.uniform(0.32, 0.52), rng.uniform(0.26, 0.36)), rng, 0.05, rng.uniform(0.2, 0.7))
    vessels = ellipse(g, (0.02, -0.1), (rng.uniform(0.13, 0.2), rng.uniform(0.4, 0.52)), power=2.5)
    knob = ellipse(g, (0.14, -0.2), (0.1, 0.1))
    return smooth_min([heart, vessels, knob], rng.uniform(0.08, 0.2))


def _vessel_shadows(m: Mesh, rng: np.random.Generator) -> np.ndarray:
    """Branching hilar markings that thin out towards the periphery."""
    ridges = np.exp(-((smooth_noise(m.shape, 0.07 * m.unit, rng) / 0.25) ** 2)) + 0.6 * np.exp(-((smooth_noise(m.shape, 0.04 * m.unit, rng) / 0.25) ** 2))
    hilum = np.exp(-np.hypot((np.abs(m.x) - 0.2) / 0.35, (m.y - 0.05) / 0.5))
    return ridges * hilum * 3


def _ribs(m: Mesh, rng: np.random.Generator) -> np.ndarray:
    """Posterior and anterior rib arcs on both sides: tubes with a dense cortex."""
    density = np.zeros(m.shape, dtype=np.float32)
    turns = np.linspace(0, 1, 30)
    for side in (-1, 1):
        for k, top in enumerate(np.linspace(-0.82, 0.845, 10) + rng.normal(0, 0.01, 10)):
            reach = 0.62 + 0.22 * np.sin((k + 1.5) / 10 * np.pi)
            for drop, weight in ((0.28, 0.5), (-0.55, 0.3)):  # back parts slope down outwards, front parts up to the sternum
                x = side * (0.05 + reach * np.sin(turns * np.pi / 2)) if drop > 0 else side * (reach + 0.05 - 0.55 * turns)
                y = top + drop * turns**2 if drop > 0 else top + 0.3 + 0.25 * turns
                points = np.column_stack([(x + m.half_width) * m.unit, (y + m.half_height) * m.unit])
                density += weight * tube(m.shape, points, 0.075 * m.unit) + 0.4 * weight * (tube(m.shape, points, 0.085 * m.unit) - tube(m.shape, points, 0.06 * m.unit))
    return physics.blur(density, 0.008 * m.unit + 0.2)


def _spine_and_girdle(g: Mesh, m: Mesh, rng: np.random.Generator) -> np.ndarray:
    """Vertebrae, clavicles and scapulae."""
    period = 0.17
    discs = 0.75 + 0.25 * np.cos(2 * np.pi * g.y / period)
    density = 0.55 * soft(np.abs(g.x) / 0.095, 0.12) * discs
    for side in (-1, 1):
        start = ((side * 0.08 + m.half_width) * m.unit, (-0.62 + m.half_height) * m.unit)
        points = curve(start, np.pi / 2 - side * (np.pi / 2 + 0.28), 0.75 * m.unit, rng, wobble=0.03, bend=side * 0.5)
        density += 0.6 * tube(m.shape, points, 0.075 * m.unit)
        density += 0.3 * soft(ellipse(g, (side * 0.78, -0.3), (0.13, 0.36), side * 0.25, power=2.5), 0.2)
    return physics.blur(density.astype(np.float32), 0.012 * m.unit + 0.2)


def make_mammogram(rng: np.random.Generator, size: int) -> Picture:
    """Compressed breast at the picture's edge: fat, glandular texture, ligaments, pectoral wedge; lobulated or spiculated masses."""
    m = mesh((size, int(size * rng.uniform(0.7, 0.9))))
    wall = -m.half_width
    g = m.warped(0.03, 0.5, rng)
    breast = ellipse(g, (wall, rng.uniform(-0.05, 0.15)), (rng.uniform(1.25, 1.6), rng.uniform(0.85, 1.0)), power=2.2)
    thickness = np.clip((1 - breast) / 0.12, 0, 1) ** 0.5
    gland = np.clip(1.15 - blob(g, (wall + 0.5, 0.05), (0.55, 0.5), rng, 0.15), 0, 1)
    threads = np.exp(-np.abs(fractal_noise(m.shape, 0.1 * m.unit, rng, 5, 0.75)) / 0.35)
    tissue = 0.3 + gland * rng.uniform(0.25, 0.6) * (0.5 + 0.4 * fractal_noise(m.shape, 0.12 * m.unit, rng, 5)) + 0.12 * threads * (0.3 + gland)
    dense = thickness * np.clip(tissue, 0.15, None)
    if rng.random() < 0.5:  # oblique view: pectoral muscle in the upper corner
        slope = rng.uniform(1.3, 2.2)
        muscle = 1 + 3 * (slope * (m.x - wall) + m.y + 1 - rng.uniform(0.7, 1.1))
        dense += 0.35 * soft(muscle, 0.15) * thickness
    masks, loose = [], rng.choice([0.0, rng.uniform(-0.05, 0.3)])  # some outline the core alone, many draw a wide line around all that is suspect
    for k in range(rng.integers(1, 4)):
        level = _mass(m, dense, wall, breast, np.exp(rng.uniform(np.log(0.08), np.log(0.5 if k == 0 else 0.2))), rng)
        masks.append(inside(np.maximum(level - loose, breast + 0.06)))
    _calcifications(m, dense, breast, wall, rng)
    dense += 0.08 * soft(np.abs(breast - 0.985) / 0.015, 0.5) * (breast < 1.02)  # skin line
    film = physics.blur(physics.poisson(np.clip(dense, 0, None), 10 ** rng.uniform(2.4, 3.2), rng), 0.4)
    picture = np.clip(film / np.percentile(film, 99.7), 0, 1) ** rng.uniform(0.9, 1.4) * (breast < 1.03)
    labels = label_map(m.shape, masks, 40)
    picture, labels = (picture[:, ::-1], labels[:, ::-1]) if rng.random() < 0.5 else (picture, labels)
    return physics.grey_image(picture), np.ascontiguousarray(labels)


def _mass(m: Mesh, dense: np.ndarray, wall: float, breast: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Add one mass to `dense` and return its level: lobulated with a soft border, or with spicules that pull at the tissue."""
    place = (wall + rng.uniform(0.3, 0.95), rng.uniform(-0.5, 0.55))
    warped = m.warped(0.015, 0.06, rng)
    level = lobulated(warped, place, radius, rng, int(rng.integers(3, 6)))
    if rng.random() < 0.4:
        level = np.minimum(level, 0.05 + blob(warped, place, (radius * 0.8, radius * 0.7), rng, 0.3, lobes=11))
        for turn in rng.uniform(0, 2 * np.pi, 14):
            start = ((place[0] + m.half_width) * m.unit, (place[1] + m.half_height) * m.unit)
            ray = tube(m.shape, curve(start, turn, radius * rng.uniform(1.4, 2.4) * m.unit, rng, wobble=0.04), 1.0)
            dense += 0.08 * ray * (breast < 0.95)
    core = rng.uniform(0.12, 0.5) * soft(level, rng.uniform(0.08, 0.6)) * (breast < 0.98)
    dense += core * (1 + rng.uniform(0.1, 0.5) * fractal_noise(m.shape, 0.06 * m.unit, rng))
    return level


def _calcifications(m: Mesh, dense: np.ndarray, breast: np.ndarray, wall: float, rng: np.random.Generator) -> None:
    """A cluster of bright specks."""
    centre = np.array([wall + rng.uniform(0.3, 0.9), rng.uniform(-0.4, 0.4)])
    for x, y in centre + rng.normal(0, 0.07, (int(rng.integers(0, 14)), 2)):
        dense += 0.5 * np.exp(-(((m.x - x) ** 2 + (m.y - y) ** 2) / (0.9 / m.unit) ** 2)) * (breast < 0.95)
