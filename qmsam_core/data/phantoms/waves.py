"""Ultrasound and OCT: echoes along beams, with the speckle, shadows and attenuation that coherent waves bring."""

from __future__ import annotations

import cv2
import numpy as np

from . import physics
from .shapes import Mesh, blob, fractal_noise, inside, label_map, lobulated, mesh, smooth_noise, soft

Picture = tuple[np.ndarray, np.ndarray]  # uint8 (H,W,3), labels (H,W)


def make_ultrasound(rng: np.random.Generator, size: int) -> Picture:
    """Layered soft tissue with masses and cysts: speckle along the beams, shadow or enhancement behind them, log compression, sector or linear probe."""
    m = mesh((int(size * rng.uniform(0.72, 0.85)), size))
    echo, loss = _tissue(m, rng)
    levels = _masses(m, echo, loss, rng)
    to_beams, to_picture, field = _probe(m, sector=rng.random() < 0.5, rng=rng)
    beams_echo, beams_loss = (cv2.remap(a.astype(np.float32), *to_beams, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for a in (echo, loss))
    samples, lines = beams_echo.shape
    through = np.exp(-np.cumsum(beams_loss, axis=0) / samples * 2.2)
    amplitude = beams_echo * through * physics.speckle((samples, lines), 0.9, 1.6, rng)
    depth = np.linspace(0, 1, samples)[:, None]
    amplitude *= np.exp(1.4 * depth) * (1 - 0.4 * np.abs(depth - rng.uniform(0.3, 0.7)))  # time gain, focus
    amplitude = physics.blur(amplitude.astype(np.float32), 0.6) + 0.004 * rng.random((samples, lines), dtype=np.float32)
    decibels = 20 * np.log10(amplitude / np.percentile(amplitude, 99.5) + 1e-4)
    picture = np.clip(1 + decibels / rng.uniform(42, 55), 0, 1)
    picture = cv2.remap(picture.astype(np.float32), *to_picture, cv2.INTER_LINEAR) * field
    return physics.grey_image(picture), label_map(m.shape, [inside(level) & (field > 0) for level in levels], 60)


def _tissue(m: Mesh, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Echogenicity (amplitude) and attenuation of skin, fat lobules, fibroglandular tissue, muscle and a rib or chest wall."""
    y = (m.y + m.half_height) / (2 * m.half_height) + 0.025 * smooth_noise(m.shape, 0.4 * m.unit, rng)
    septa = np.exp(-((smooth_noise(m.shape, 0.13 * m.unit, rng) / 0.13) ** 2))
    fibres = cv2.resize(smooth_noise((m.shape[0], max(8, m.shape[1] // 8)), 0.02 * m.unit, rng), m.shape[::-1], interpolation=cv2.INTER_CUBIC)
    fat, gland = 0.1 + 0.7 * septa, 0.55 * np.exp(0.45 * fractal_noise(m.shape, 0.1 * m.unit, rng))
    muscle = 0.12 + 0.6 * np.clip(fibres - 0.2, 0, 2)
    first, second = rng.uniform(0.2, 0.35), rng.uniform(0.6, 0.8)
    below_first, below_second = (1 / (1 + np.exp(-(y - at) * 40)) for at in (first, second))
    echo = fat + below_first * (gland - fat) + below_second * (muscle - gland)
    echo = np.where(y < 0.045, 1.2, echo)
    echo += 1.3 * np.exp(-(((y - second) / 0.008) ** 2)) * (0.6 + 0.4 * smooth_noise(m.shape, 0.1 * m.unit, rng))
    return np.maximum(echo, 0.03).astype(np.float32), np.full(m.shape, 1.0, dtype=np.float32)


def _masses(m: Mesh, echo: np.ndarray, loss: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """One to three cysts or solid masses of blurred or sharp border, written into echogenicity and attenuation."""
    levels: list[np.ndarray] = []
    for k in range(int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))):
        place = (rng.uniform(-0.55, 0.55) * m.half_width, rng.uniform(-0.35, 0.3))
        radius = rng.uniform(0.22, 0.4) / (1 + 0.6 * k)
        w = m.warped(0.03, 0.12, rng).warped(0.012, 0.04, rng)
        cyst = rng.random() < 0.35
        if cyst or rng.random() < 0.4:
            level = blob(w, place, (radius * 1.15, radius * rng.uniform(0.55, 0.8)), rng, 0.13, rng.normal(0, 0.3))
        else:
            level = lobulated(w, place, radius, rng, int(rng.integers(3, 6)))
        width = 0.08 if cyst else rng.uniform(0.08, 0.4)
        cover = soft(level, width)
        inner = 0.015 if cyst else rng.uniform(0.04, 0.14) * np.exp(0.4 * fractal_noise(m.shape, 0.08 * m.unit, rng))
        echo += cover * (inner - echo)
        if cyst:
            echo += 0.5 * np.exp(-(((level - 1.06) / 0.06) ** 2))
        loss += cover * ((-0.6 if cyst else rng.uniform(1.0, 4.5)) - loss)
        levels.append(level if not levels else np.maximum(level, 2 - np.minimum.reduce(levels)))
    return levels


def _probe(m: Mesh, sector: bool, rng: np.random.Generator) -> tuple[tuple, tuple, np.ndarray]:
    """Maps picture -> beams and beams -> picture for `cv2.remap`, and the picture's field of view (0 or 1)."""
    height, width = m.shape
    lines, samples = int(width * 0.9), int(height * 1.2)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    if not sector:
        beam_rows, beam_columns = np.mgrid[:samples, :lines].astype(np.float32)
        to_beams = (beam_columns * (width / lines), beam_rows * (height / samples))
        return to_beams, (columns * (lines / width), rows * (samples / height)), np.ones(m.shape, dtype=np.float32)
    apex, half = -height * rng.uniform(0.12, 0.35), np.deg2rad(rng.uniform(32, 42))
    inner, outer = -apex * 1.03, height * 0.985 - apex
    radius = np.linspace(inner, outer, samples, dtype=np.float32)[:, None]
    turn = np.linspace(-half, half, lines, dtype=np.float32)[None]
    to_beams = ((width / 2 + radius * np.sin(turn)).astype(np.float32), (apex + radius * np.cos(turn)).astype(np.float32))
    dx, dy = columns - width / 2, rows - apex
    r, angle = np.hypot(dx, dy), np.arctan2(dx, dy)
    to_picture = (((angle + half) / (2 * half) * (lines - 1)).astype(np.float32), ((r - inner) / (outer - inner) * (samples - 1)).astype(np.float32))
    field = ((np.abs(angle) < half) & (r > inner) & (r < outer)).astype(np.float32)
    return to_beams, to_picture, field


_LAYERS = (  # retinal layers: thickness as a share of the retina, brightness; vitreous side first
    ("nerve fibre", 0.12, 0.75), ("ganglion cell", 0.2, 0.5), ("inner nuclear", 0.12, 0.26), ("outer plexiform", 0.08, 0.5),
    ("outer nuclear", 0.24, 0.2), ("ellipsoid zone", 0.07, 0.85), ("outer segments", 0.06, 0.4), ("pigment epithelium", 0.11, 1.0),
)  # fmt: skip


def make_oct(rng: np.random.Generator, size: int) -> Picture:
    """B-scan of the macula: bright and dark layers around the foveal pit, fluid within and below the retina, shadows of vessels, speckle."""
    m = mesh((int(size * rng.uniform(0.62, 0.8)), size))
    x = m.x[0] / m.half_width
    bottom = 0.28 + 0.1 * (x - rng.normal(0, 0.2)) ** 2 + rng.normal(0, 0.05) * x + 0.012 * smooth_noise((4, m.shape[1]), 0.25 * m.unit, rng)[0]
    pit = 0.5 * np.exp(-(((x - rng.normal(0, 0.12)) / 0.16) ** 2)) * rng.uniform(0.3, 1.0)
    thickness = rng.uniform(0.42, 0.55) * (1 - pit)
    levels, lift = _fluid(m, bottom, thickness, rng)
    thickness = thickness + lift
    levels = [(np.maximum(level, _outside_retina(m, bottom, thickness)), kind) for level, kind in levels]
    layers = _layers(m, bottom, thickness, rng)
    filled, border = rng.uniform(0.6, 1.0), rng.uniform(0.12, 0.5)
    for level, kind in levels:
        wall = np.exp(-(((level - 1.05) / 0.12) ** 2)) * rng.uniform(0.0, 0.1)
        layers = layers * (1 - filled * soft(level, border if kind == "cyst" else 0.2)) + 0.03 * soft(level, 0.2) + wall
    shadows = np.ones(m.shape[1], dtype=np.float32)
    for at in rng.uniform(-1, 1, int(rng.integers(2, 7))):
        shadows *= 1 - rng.uniform(0.2, 0.6) * np.exp(-(((x - at) / 0.015) ** 2))
    under = m.y > (bottom - thickness * 0.8)[None]
    layers = layers * np.where(under, shadows[None], 1) * np.exp(0.15 * smooth_noise((4, m.shape[1]), 0.4 * m.unit, rng)[0])[None]
    amplitude = layers * physics.speckle(m.shape, 0.6, 0.9, rng) ** rng.uniform(0.5, 0.9) + 0.035 * physics.speckle(m.shape, 0.4, 0.5, rng)
    amplitude = physics.blur(amplitude.astype(np.float32), 0.6)
    picture = np.clip(amplitude / np.percentile(amplitude, 99.3), 0, 1) ** rng.uniform(0.6, 0.85)
    return physics.grey_image(picture), label_map(m.shape, [inside(level) for level, _ in levels], 25)


def _layers(m: Mesh, bottom: np.ndarray, thickness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reflectivity (H,W) of vitreous, retina and the choroid's fading vessels; `bottom` and `thickness` (W,) in mesh units."""
    depth = (m.y - (bottom - thickness)[None]) / thickness[None]  # 0 at the inner limiting membrane, 1 at the epithelium's outer edge
    depth = depth + 0.012 * smooth_noise(m.shape, 0.12 * m.unit, rng)
    edges = np.cumsum([0, *(share for _, share, _ in _LAYERS)])
    value = np.full(m.shape, 0.015, dtype=np.float32)
    for edge, (_, _, bright) in zip(edges, _LAYERS):
        value += (bright - value) / (1 + np.exp(-np.clip((depth - edge) / 0.009, -40, 40)))
    below = np.clip((m.y - bottom[None]) / 0.35, 0, None)
    choroid = np.exp(-1.8 * below) * (0.42 + 0.2 * np.clip(fractal_noise(m.shape, 0.05 * m.unit, rng), -1.5, 2))
    value += (choroid - value) / (1 + np.exp(-np.clip((depth - 1) / 0.012, -40, 40)))
    return np.clip(value, 0.01, None)


def _outside_retina(m: Mesh, bottom: np.ndarray, thickness: np.ndarray) -> np.ndarray:
    """Level of the retina between its inner membrane and the epithelium, within which fluid can lie."""
    depth = (m.y - (bottom - thickness)[None]) / thickness[None]
    return 1 + 8 * np.maximum(0.07 - depth, depth - 0.89)


def _fluid(m: Mesh, bottom: np.ndarray, thickness: np.ndarray, rng: np.random.Generator) -> tuple[list[tuple[np.ndarray, str]], np.ndarray]:
    """Levels of fluid pockets with their kind, and the swelling they cause (W,) in mesh units."""
    levels: list[tuple[np.ndarray, str]] = []
    lift = np.zeros(m.shape[1], dtype=np.float32)
    spots = rng.uniform(-0.6, 0.6) * m.half_width
    for _ in range(rng.integers(1, 6)):
        x = spots + rng.normal(0, 0.28)
        column = int(np.clip((x + m.half_width) * m.unit, 0, m.shape[1] - 1))
        centre = (x, bottom[column] - rng.uniform(0.35, 0.75) * thickness[column])
        size = np.exp(rng.uniform(np.log(0.035), np.log(0.18), 2))  # cysts in the outer layers are columns, those further in are wide
        level = blob(m.warped(rng.uniform(0.003, 0.015), 0.08, rng), centre, size, rng, rng.uniform(0.05, 0.17), rng.normal(0, 0.25))
        if levels:  # neighbours stay apart by a thin septum
            level = np.maximum(level, 2.1 - np.minimum.reduce([other for other, _ in levels]))
        levels.append((level, "cyst"))
        lift += 0.4 * size[1] * np.exp(-(((m.x[0] - centre[0]) / 0.3) ** 2))
    if rng.random() < 0.5:  # subretinal fluid: a low dome on the epithelium
        centre, reach, rise = spots + rng.normal(0, 0.2), rng.uniform(0.3, 0.5), rng.uniform(0.09, 0.15)
        floor = (bottom - 0.13 * thickness)[None]
        dome = floor - rise * np.clip(1 - ((m.x - centre) / reach) ** 2, 0, None) + 0.01 * smooth_noise(m.shape, 0.1 * m.unit, rng)
        level = np.maximum(np.abs(m.x - centre) / reach, 1 + 8 * np.maximum(dome - m.y, m.y - floor))
        levels.append((level, "subretinal"))
    return levels, lift
