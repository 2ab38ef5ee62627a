"""Variety of how things look, for training a model from nothing: greys and colours, noise and blur, painted anew, and edges that mean nothing.

A handful of openly licensed cases and phantoms cannot show all that a promptable model meets. What they can teach, whatever the picture, is that an object
fills its box, that its border lies where the inside stops looking like the inside, and that not every edge is a border. So some pictures lose their own greys
and are painted anew (as in SynthSeg, Billot et al. 2023), with the textures of others; some get lines, spots, bars and ghosts of other pictures; some fade to
next to nothing, which leaves only how objects mostly lie in their boxes to be said.

All functions take and give float32 (S,S,3), about 0..1.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from .phantoms.shapes import blob, inside, lobulated, mesh, soft
from .transforms import min_max

REPAINTED, DISTRACTED, FADED = 0.25, 0.3, 0.08
"""Shares of the pictures that are painted anew, that get edges that mean nothing, that show next to nothing."""


def vary(image: np.ndarray, labels: np.ndarray, content: np.ndarray, another: Callable[[], np.ndarray], repainted: bool, rng: np.random.Generator) -> np.ndarray:
    """A picture as the network gets it, its looks changed at random.

    Args:
        image: uint8 (S,S,3), black outside the slice.
        labels: (S,S).
        content: bool (S,S), where the slice is; stays black elsewhere, as in deployment.
        another: gives the picture of another sample, uint8 (S,S,3), when asked.
        repainted: whether to paint it anew.

    Returns:
        float32 (S,S,3), 0..1.
    """
    picture = min_max(image)
    if repainted:
        picture = repaint(picture, labels, min_max(another()), rng)
    if rng.random() < DISTRACTED:
        picture = distract(picture, another, rng)
    picture = recolour(picture, rng)
    picture = degrade(picture, rng)
    if rng.random() < FADED:
        picture = fade(picture, rng)
    return np.clip(picture, 0, 1) * content[..., None]


def scatter(labels: np.ndarray, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels (S,S) with one to four more shapes on top, of any size and outline, as far as the slice reaches; for pictures that are painted anew."""
    size = len(labels)
    plane, labels = mesh((size, size)), labels.astype(np.int32)
    for _ in range(rng.integers(1, 5)):
        place, radius = rng.uniform(-0.9, 0.9, 2), np.exp(rng.uniform(np.log(0.03), np.log(0.7)))
        if rng.random() < 0.7:
            level = blob(plane, place, (radius, radius * rng.uniform(0.35, 1.0)), rng, float(rng.choice([0.0, 0.05, 0.15, 0.3])), lobes=int(rng.integers(3, 9)))
        else:
            level = lobulated(plane, place, radius, rng, int(rng.integers(2, 6)))
        labels[inside(level) & content] = labels.max() + 1
    return labels


def repaint(picture: np.ndarray, labels: np.ndarray, texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every object and the background in a grey or colour of its own, over what is left of the picture and another one's texture; borders of random sharpness."""
    coloured = 3 if rng.random() < 0.4 else 1
    ids, numbers = np.unique(labels, return_inverse=True)
    paints = rng.uniform(0, 1, (len(ids), coloured)).astype(np.float32)
    if rng.random() < 0.5:  # all objects alike, as nuclei and cysts are
        paints[1:] = paints[-1] + rng.normal(0, 0.04, (len(ids) - 1, coloured))
    flat = np.broadcast_to(paints[numbers.reshape(labels.shape)], picture.shape)
    flat = blur(np.ascontiguousarray(flat), np.exp(rng.uniform(np.log(0.3), np.log(4.0))))
    own, foreign = rng.choice([0.0, rng.uniform(0, 0.6)]), rng.uniform(0, 0.6)
    return 0.5 + rng.uniform(0.1, 1.0) * (flat - 0.5) + own * (picture - picture.mean()) + foreign * (texture - texture.mean())


def distract(picture: np.ndarray, another: Callable[[], np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Edges that mean nothing: lines as hairs and vessels are, soft spots, bars and boxes, or another picture shining through."""
    kind = rng.integers(4)
    if kind == 0:
        cover = rng.uniform(0.3, 1.0) * np.exp(-((noise_field(picture.shape[:2], rng) / rng.uniform(0.05, 0.2)) ** 2))
    elif kind == 1:
        cover = rng.uniform(0.2, 0.8) * soft(2 - noise_field(picture.shape[:2], rng), rng.uniform(0.1, 1.0))
    elif kind == 2:
        cover = np.zeros(picture.shape[:2], np.float32)
        for _ in range(rng.integers(1, 4)):
            (top, left), (height, width) = rng.integers(0, len(cover), 2), (len(cover) * rng.uniform(0.02, 0.4, 2)).astype(int)
            cover[top : top + height, left : left + width] = rng.uniform(0.3, 1.0)
    else:
        share = rng.uniform(0.1, 0.5)
        return (1 - share) * picture + share * min_max(another())
    paint = rng.uniform(0, 1, 3) if rng.random() < 0.4 else np.full(3, rng.choice([rng.uniform(0, 0.3), rng.uniform(0.6, 1.0)]))
    return picture + cover[..., None].astype(np.float32) * (paint.astype(np.float32) - picture)


def recolour(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Loss and swap of colours, tints, inversion, gamma, an uneven curve of greys, contrast and brightness, uneven light."""
    if rng.random() < 0.12:
        picture = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    elif rng.random() < 0.12:
        picture = np.ascontiguousarray(picture[..., rng.permutation(3)])
    if rng.random() < 0.12:
        picture = 1 - picture
    if rng.random() < 0.3:
        picture = picture * rng.uniform(0.6, 1.2, 3).astype(np.float32) + rng.uniform(-0.1, 0.1, 3).astype(np.float32)
    if rng.random() < 0.35:
        picture = np.clip(picture, 0, 1) ** np.float32(np.exp(rng.uniform(-0.7, 0.7)))
    if rng.random() < 0.25:
        points = np.linspace(0, 1, int(rng.integers(4, 9)))
        curve = np.sort(np.clip(points + rng.normal(0, 0.12, len(points)), 0, 1))
        table = np.interp(np.linspace(0, 1, 256), points, curve).astype(np.float32)
        picture = table[(np.clip(picture, 0, 1) * 255).astype(np.uint8)]
    if rng.random() < 0.35:
        picture = (picture - picture.mean()) * np.float32(rng.uniform(0.4, 1.4)) + picture.mean() + np.float32(rng.uniform(-0.15, 0.15))
    if rng.random() < 0.15:
        picture = picture * np.exp(rng.uniform(0.1, 0.4) * noise_field(picture.shape[:2], rng, 2, 4))[..., None]
    return picture.astype(np.float32)


def degrade(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, coarse pixels, noise in grey or colour, fine or coarse, added or multiplied."""
    size = picture.shape[:2]
    if rng.random() < 0.2:
        picture = blur(picture, rng.uniform(0.4, 2.0))
    if rng.random() < 0.08:
        side = max(16, int(size[0] / rng.uniform(1.5, 6)))
        picture = cv2.resize(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), size[::-1], interpolation=int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_CUBIC])))
    if rng.random() < 0.3:
        grains = rng.standard_normal((*size, 3 if rng.random() < 0.3 else 1), dtype=np.float32)
        if rng.random() < 0.5:
            grains = blur(grains, rng.uniform(0.5, 1.5)).reshape(grains.shape)
            grains /= grains.std()
        amount = np.float32(rng.uniform(0.01, 0.1))
        picture = picture + amount * grains * (2 * picture if rng.random() < 0.4 else 1)
    return picture


def fade(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture that shows next to nothing: at most a fifth of its contrast, under noise as strong."""
    mean, left = picture.mean((0, 1), keepdims=True), np.float32(rng.uniform(0, 0.2))
    return mean + left * (picture - mean) + np.float32(rng.uniform(0.02, 0.15)) * rng.standard_normal(picture.shape, dtype=np.float32)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of `sigma` pixels."""
    return cv2.GaussianBlur(image, (0, 0), float(sigma), borderType=cv2.BORDER_REFLECT)


def noise_field(shape: tuple[int, int], rng: np.random.Generator, coarsest: int = 2, finest: int = 24) -> np.ndarray:
    """Smooth noise of mean 0 and variance 1, float32 of `shape`, with a random number of cells a side."""
    cells = int(np.exp(rng.uniform(np.log(coarsest), np.log(finest)))) + 2
    noise = cv2.resize(rng.standard_normal((cells, cells), dtype=np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (noise - noise.mean()) / (noise.std() + 1e-6)
