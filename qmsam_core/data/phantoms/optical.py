"""Endoscopy, dermoscopy and fundus photographs: pigment and relief under a lamp, seen through a lens."""

from __future__ import annotations

import numpy as np

from . import physics
from .shapes import Mesh, blob, branches, curve, ellipse, fractal_noise, inside, label_map, lobulated, mesh, smooth_noise, soft, tube

Picture = tuple[np.ndarray, np.ndarray]  # uint8 (H,W,3), labels (H,W)


def make_endoscopy(rng: np.random.Generator, size: int) -> Picture:
    """Mucosa with folds and vessels lit from the tip, polyps bulging out of it, wet highlights, the field stop's dark corners."""
    m = mesh((int(size * rng.uniform(0.8, 0.95)), size))
    g = m.warped(0.08, 0.5, rng)
    lumen = (rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.3))
    distance = ellipse(g, lumen, (1.0, rng.uniform(0.75, 1.0)))
    phase = 9 * np.log(distance + 0.25) + 0.7 * smooth_noise(m.shape, 0.35 * m.unit, rng)
    height = 0.10 * np.abs(np.sin(phase)) ** 0.6 * np.clip(distance, 0, 1) + 0.02 * fractal_noise(m.shape, 0.12 * m.unit, rng, 4, 0.5)
    polyps = [_polyp(m, lumen, rng) for _ in range(rng.choice([1, 2, 3], p=[0.4, 0.35, 0.25]))]
    for level in polyps:
        height += rng.uniform(0.12, 0.2) * np.clip(1.25 - level**2, 0, None)
    light = (rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4), 1.0)
    lit = physics.shade(physics.blur(height.astype(np.float32), 0.8), light, m.unit * 0.8)
    fall_off = np.clip(distance / 0.75, 0.04, 1) ** 0.8 * np.exp(-0.25 * (m.x**2 + m.y**2))
    picture = _mucosa(m, rng) * (0.35 + 0.65 * lit * fall_off)[..., None] * np.clip(fall_off + 0.12, 0, 1)[..., None]
    for level in polyps:
        tone = np.array([rng.uniform(0.9, 1.15), rng.uniform(0.78, 1.15), rng.uniform(0.75, 1.15)])
        blend = (soft(level, rng.uniform(0.1, 0.4)) * 0.8)[..., None]
        picture *= 1 + blend * (tone * (1 + 0.12 * fractal_noise(m.shape, 0.04 * m.unit, rng))[..., None] - 1)
    wet = (lit > np.quantile(lit, 0.965)) * np.clip(smooth_noise(m.shape, 0.03 * m.unit, rng) - 0.6, 0, 1)
    picture = picture * rng.uniform(1.0, 1.3) + physics.blur((2.2 * wet * fall_off).astype(np.float32), 0.7)[..., None]
    picture = physics.blur(picture.astype(np.float32), 0.5) + rng.normal(0, 0.012, (*m.shape, 3))
    picture *= soft(ellipse(m, (0, 0), (m.half_width * 0.97, m.half_height * 0.97), power=rng.choice([4.0, 8.0])), 0.02)[..., None]
    stop = inside(ellipse(m, (0, 0), (m.half_width * 0.97, m.half_height * 0.97), power=4.0))
    return physics.colour_image(picture), label_map(m.shape, [inside(level) & stop for level in polyps], 60)


def _polyp(m: Mesh, lumen: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.55, 0.95)
    place = (np.clip(lumen[0] + reach * np.cos(turn), -0.75, 0.75), np.clip(lumen[1] + reach * np.sin(turn), -0.65, 0.65))
    radius = np.exp(rng.uniform(np.log(0.15), np.log(0.75)))
    w = m.warped(rng.uniform(0.005, 0.03), 0.15, rng)
    if rng.random() < 0.35:
        return lobulated(w, place, radius, rng, int(rng.integers(3, 6)))
    return blob(w, place, (radius, radius * rng.uniform(0.5, 1.0)), rng, rng.uniform(0.02, 0.16))


def _mucosa(m: Mesh, rng: np.random.Generator) -> np.ndarray:
    """Pink to orange lining with a net of fine vessels, (H,W,3)."""
    base = np.array([0.93, rng.uniform(0.5, 0.64), rng.uniform(0.36, 0.5)], dtype=np.float32)
    redness = 0.05 * fractal_noise(m.shape, 0.3 * m.unit, rng)
    vessels = np.zeros(m.shape, dtype=np.float32)
    for _ in range(7):
        start = rng.uniform(0, 1, 2) * m.shape[::-1]
        for points, width in branches(start, rng.uniform(0, 2 * np.pi), 0.7 * m.unit, 0.018 * m.unit, rng, 3, 0.6):
            vessels = np.maximum(vessels, tube(m.shape, points, width))
    vessels = physics.blur(vessels, 0.7) * np.clip(0.5 + 0.5 * smooth_noise(m.shape, 0.4 * m.unit, rng), 0, 1)
    return base + redness[..., None] * np.array([0.6, 1, 1]) - 0.2 * vessels[..., None] * np.array([0.3, 1, 0.8])


def make_dermoscopy(rng: np.random.Generator, size: int) -> Picture:
    """Skin under a contact lens: a pigmented lesion of uneven outline and colour, sometimes a second, hairs, ruler marks, gel bubbles."""
    m = mesh((int(size * rng.uniform(0.7, 0.8)), size))
    skin = np.array([rng.uniform(0.8, 0.93), rng.uniform(0.6, 0.72), rng.uniform(0.5, 0.66)], dtype=np.float32)
    texture = 0.02 * fractal_noise(m.shape, 0.03 * m.unit, rng) + 0.025 * fractal_noise(m.shape, 0.4 * m.unit, rng)
    picture = skin + texture[..., None] * np.array([0.7, 1.0, 1.0])
    w = m.warped(rng.uniform(0.01, 0.06), 0.18, rng).warped(rng.uniform(0.0, 0.02), 0.05, rng)
    place, radius = rng.normal(0, 0.12, 2), np.exp(rng.uniform(np.log(0.3), np.log(1.0)))
    levels = [blob(w, place, (radius, radius * rng.uniform(0.6, 1.0)), rng, rng.uniform(0.04, 0.14), lobes=8)]
    if rng.random() < 0.4:
        turn = rng.uniform(0, 2 * np.pi)
        levels.append(np.maximum(blob(w, place + 0.85 * np.array([np.cos(turn), 0.75 * np.sin(turn)]), (0.16, 0.12), rng, 0.18), 2 - levels[0]))
    for level in levels:
        _pigment(picture, level, m, rng)
    for _ in range(int(rng.choice([0, 5, 14, 25]))):
        start = rng.uniform(0, 1, 2) * m.shape[::-1]
        hair = tube(m.shape, curve(start, rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.6) * m.unit, rng, wobble=0.03, bend=rng.uniform(-1, 1)), rng.uniform(0.008, 0.017) * m.unit)
        picture *= (1 - 0.75 * hair)[..., None]
    if rng.random() < 0.35:
        _ruler(picture, m)
    for _ in range(int(rng.integers(0, 6))):
        level = ellipse(m, (rng.uniform(-1, 1) * m.half_width, rng.uniform(-1, 1)), (0.05, 0.05))
        picture += 0.25 * np.exp(-(((level - 1) / 0.12) ** 2))[..., None]
    corners = np.exp(-0.12 * (m.x**2 + m.y**2) ** 1.5)
    picture *= corners[..., None]
    if rng.random() < 0.3:
        picture *= soft(ellipse(m, (0, 0), (1.25, 1.25)), 0.04)[..., None]
    picture = physics.blur(picture.astype(np.float32), 0.6) + rng.normal(0, 0.01, (*m.shape, 3))
    generous = rng.uniform(0.0, 0.12)  # outlines are drawn where the last pigment is seen, not where it is half as strong
    return physics.colour_image(picture), label_map(m.shape, [inside(level - generous) for level in levels], 60)


def _pigment(picture: np.ndarray, level: np.ndarray, m: Mesh, rng: np.random.Generator) -> None:
    """Brown, black, red and blue-grey pigment with network and dots, fading at the border by a random width; in place."""
    tone = rng.uniform(0.42, 0.9) * np.array([1.0, rng.uniform(0.5, 0.75), rng.uniform(0.36, 0.65)])
    depth = 0.75 + 0.22 * fractal_noise(m.shape, 0.25 * m.unit, rng) - 0.25 * soft(blob(m, rng.normal(0, 0.2, 2), (0.3, 0.2), rng, 0.3), 0.6)
    net = np.abs(smooth_noise(m.shape, 0.022 * m.unit, rng))
    colour = tone * depth[..., None] + (0.06 * np.clip(net, 0, 1.2) - 0.05)[..., None]
    if rng.random() < 0.4:
        veil = soft(blob(m, rng.normal(0, 0.25, 2), (0.2, 0.15), rng, 0.3), 0.8)[..., None]
        colour = colour * (1 - 0.6 * veil) + 0.6 * veil * np.array([0.42, 0.42, 0.5])
    cover = soft(level, rng.uniform(0.06, 0.5)) * np.clip(rng.uniform(0.75, 1.0) + 0.1 * smooth_noise(m.shape, 0.2 * m.unit, rng), 0, 1)
    picture += cover[..., None] * (np.clip(colour, 0.05, 1) - picture)


def _ruler(picture: np.ndarray, m: Mesh) -> None:
    """Millimetre marks along the lower edge; in place."""
    height, width = m.shape
    for k, x in enumerate(np.arange(0.02 * width, width, width / 24)):
        points = np.array([[x, height], [x, height - (0.1 if k % 5 == 0 else 0.06) * height]])
        picture *= (1 - 0.8 * tube(m.shape, points, 0.012 * m.unit))[..., None]


def make_fundus(rng: np.random.Generator, size: int) -> Picture:
    """Retina in its circular field: bright disc with a pale cup (nested labels), vessel arcades, dark macula, exudates."""
    height = int(size * rng.choice([1.0, 0.75]))
    m = mesh((height, size))
    side = rng.choice([-1, 1])
    zoom = rng.choice([1.0, rng.uniform(1.0, 1.6), rng.uniform(1.5, 2.2)])  # the last are crops around the disc
    disc = np.array([side * rng.uniform(0.35, 0.5), rng.uniform(-0.08, 0.08)]) / zoom**1.5
    radius = rng.uniform(0.15, 0.2) * zoom**1.5
    w = m.warped(rng.uniform(0.02, 0.08) * radius, 0.9 * radius, rng)
    rim = blob(w, disc, (radius, radius * rng.uniform(0.95, 1.2)), rng, rng.uniform(0.01, 0.05), rng.normal(0, 0.3))
    cup = blob(w, disc + (side * rng.uniform(-0.05, 0.15) * radius, 0), (radius * rng.uniform(0.3, 0.75), radius * rng.uniform(0.35, 0.8)), rng, 0.12, 0.0)
    base = np.array([rng.uniform(0.6, 0.95), rng.uniform(0.22, 0.5), rng.uniform(0.05, 0.3)], dtype=np.float32)
    picture = base * (1 + 0.06 * fractal_noise(m.shape, 0.25 * m.unit, rng) + 0.03 * fractal_noise(m.shape, 0.03 * m.unit, rng))[..., None]
    macula = disc - (side * 0.85, -0.05)
    picture *= (1 - 0.45 * np.exp(-((ellipse(m, macula, (0.24, 0.24))) ** 2)))[..., None] ** np.array([1.0, 1.2, 1.0])
    if rng.random() < 0.3:  # a crescent of bare sclera or pigment beside the disc
        crescent = ellipse(w, disc + (side * rng.uniform(-0.25, 0.25) * radius, rng.normal(0, 0.1) * radius), (1.12 * radius, 1.15 * radius))
        picture += soft(crescent, 0.15)[..., None] * rng.uniform(-0.25, 0.25) * np.array([1.0, 0.9, 0.6])
    nerve = np.array([0.98, rng.uniform(0.5, 0.85), rng.uniform(0.25, 0.6)])
    picture += soft(rim, rng.uniform(0.2, 0.6))[..., None] * rng.uniform(0.0, 0.6) * (nerve - picture)
    picture += soft(rim, rng.uniform(0.05, 0.25))[..., None] * rng.uniform(0.25, 0.8) * (nerve - picture)
    picture += soft(cup, rng.uniform(0.1, 0.8))[..., None] * rng.uniform(0.1, 0.9) * (np.array([1.0, 0.92, 0.68]) - picture)
    picture -= _vessels(m, disc, radius, side, rng)[..., None] * rng.uniform(0.5, 1.2) * np.array([0.22, 0.26, 0.1])
    lesions = _exudates(m, disc, rng) if rng.random() < 0.6 else []
    for level in lesions:
        picture += soft(level, 0.15)[..., None] * 0.8 * (np.array([0.95, 0.85, 0.45]) - picture)
    light = np.exp(-0.28 * ((m.x - rng.normal(0, 0.15)) ** 2 + (m.y - rng.normal(0, 0.15)) ** 2))
    field = ellipse(m, (0, 0), (0.97, 0.97)) if zoom < 1.25 and height == size else np.zeros(m.shape, np.float32)
    picture = physics.blur((picture * light[..., None]).astype(np.float32), 0.006 * m.unit + 0.3) * soft(field, 0.012)[..., None]
    picture += rng.normal(0, 0.008, picture.shape) * (field < 1)[..., None]
    masks = [inside(rim), inside(np.maximum(cup, rim + 0.05)), *(inside(np.maximum(level, field + 0.02)) for level in lesions)]
    return physics.colour_image(picture), label_map(m.shape, masks, 20)


def _vessels(m: Mesh, disc: np.ndarray, radius: float, side: int, rng: np.random.Generator) -> np.ndarray:
    """Darkness 0..1 of arteries and veins: four arcades that leave the disc and bend around the macula."""
    dark = np.zeros(m.shape, dtype=np.float32)
    start = (disc + (m.half_width, m.half_height)) * m.unit
    scale = max(radius / 0.18, 0.9)
    for up in (-1, 1):
        for outward, length in ((-1, 1.25), (1, 0.6)):  # towards the macula, and away from it
            for kind in range(2):
                heading = np.arctan2(up, side * outward * rng.uniform(0.0, 0.5))
                bend = up * side * -outward * rng.uniform(0.7, 1.2)
                width = (0.026 - 0.006 * kind) * scale * m.unit
                for points, w in branches(start + rng.normal(0, 0.03 * m.unit, 2), heading, length * scale**0.5 * m.unit, width, rng, 3, bend, 0.7):
                    dark = np.maximum(dark, (0.95 - 0.25 * kind) * tube(m.shape, points, w))
    return physics.blur(dark, 0.5)


def _exudates(m: Mesh, disc: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Bright, ragged patches away from the disc."""
    levels = []
    for _ in range(rng.integers(1, 4)):
        place = -disc * rng.uniform(0.2, 1.2) + rng.normal(0, 0.2, 2)
        if np.hypot(*(place - disc)) > 0.5 and np.hypot(*place) < 0.75:
            levels.append(lobulated(m.warped(0.012, 0.05, rng), place, rng.uniform(0.06, 0.12), rng, 4))
    return levels
