"""Draw the embeddings of float and int8 of one image side by side, with their difference by position."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .figure_style import WIDTH, new_figure
from .wording import upper_first

RANGE = (1, 99)
"""Percentiles of the float embedding's components that become the darkest and the brightest colour."""


def principal_colours(reference: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Show embeddings as colours: the first three principal components of one of them as red, green, blue.

    All are projected and stretched as the reference is, so that equal colours are equal values.

    Args:
        reference: float32 (C, g, g).
        others: of the same shape.

    Returns:
        Float images (g, g, 3), 0..1, the reference's first.
    """
    vectors = reference.reshape(len(reference), -1).T.astype(np.float64)
    mean = vectors.mean(0)
    axes = np.linalg.svd(vectors - mean, full_matrices=False)[2][:3]
    low, high = np.percentile((vectors - mean) @ axes.T, RANGE, axis=0)
    images = []
    for embedding in (reference, *others):
        found = (embedding.reshape(len(embedding), -1).T - mean) @ axes.T
        stretched = np.clip((found - low) / np.maximum(high - low, 1e-12), 0, 1)
        images.append(stretched.reshape(*embedding.shape[1:], 3))
    return images


def relative_difference(reference: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """Norm of the difference at each position (g, g), as a share of the reference's mean norm."""
    norm = np.linalg.norm(reference, axis=0).mean()
    return np.linalg.norm(embedding - reference, axis=0) / max(norm, 1e-12)


def embedding_figure(
    image: np.ndarray, box: np.ndarray, frame: int, reference: np.ndarray, others: Mapping[str, np.ndarray]
) -> Figure:
    """Draw the float embedding and those of quantised models as colours, and how far they part, by position.

    Args:
        image: what the network sees (3, S, S), 0..1.
        box: (4,) in px of the network's frame.
        frame: px, side of the frame.
        reference: the float model's embedding (C, g, g).
        others: the quantised models' by name.
    """
    names = list(others)
    figure, grid = new_figure(2, 1 + len(names), width=1.1 * WIDTH, height=5.6 if len(names) > 1 else 7.2)
    colours = principal_colours(reference, *others.values())
    _picture(grid[0, 0], image.transpose(1, 2, 0), "image and box")
    low, high = box.reshape(2, 2) * image.shape[-1] / frame
    grid[0, 0].add_patch(Rectangle(low, *(high - low), fill=False, edgecolor="#f0e442", linewidth=2))
    _picture(grid[1, 0], colours[0], "embedding, float")
    differences = [relative_difference(reference, embedding) for embedding in others.values()]
    top = 100 * max(float(found.max()) for found in differences)
    for column, (name, colour, found) in enumerate(zip(names, colours[1:], differences), start=1):
        _picture(grid[0, column], colour, f"embedding, int8\n{name}")
        shown = _picture(
            grid[1, column], 100 * found, "difference to float", cmap="viridis", vmin=0, vmax=top
        )
    figure.colorbar(
        shown, ax=grid[1, 1:].tolist(), label="difference (% of the float\nembedding's mean length)"
    )
    return figure


def _picture(axes: Axes, image: np.ndarray, title: str, **options):
    axes.set_title(title, fontsize=12)
    axes.set(xticks=[], yticks=[])
    return axes.imshow(image, interpolation="nearest", **options)


def read_embeddings(
    box: np.ndarray, frame: int, reference: np.ndarray, others: Mapping[str, np.ndarray]
) -> list[str]:
    """Say how far the quantised embeddings part from float's, and whether more inside the box.

    Args:
        box: (4,) in px of the network's frame.
        frame: px, side of the frame.
        reference: the float model's embedding (C, g, g).
        others: the quantised models' by name.
    """
    inside = _inside(box, reference.shape[-1] / frame, reference.shape[1:])
    sentences = []
    for name, embedding in others.items():
        found = 100 * relative_difference(reference, embedding)
        said = f"{upper_first(name)}, the embedding of this image differs from float's by "
        said += f"{found.mean():.0f} % of its length on average and {found.max():.0f} % at the worst position"
        if 0 < inside.sum() < inside.size:
            ratio = found[inside].mean() / max(found[~inside].mean(), 1e-12)
            more = "more" if ratio > 1 else "less"
            said += f", {100 * abs(ratio - 1):.0f} % {more} inside the box than around it"
        sentences.append(f"{said}.")
    return sentences


def _inside(box: np.ndarray, cells_per_px: float, shape: tuple[int, int]) -> np.ndarray:
    """Mask (g, g) of the cells whose centre lies in a box, whose edges are given in px."""
    y, x = ((np.arange(size) + 0.5) / cells_per_px for size in shape)
    return ((box[1] <= y) & (y <= box[3]))[:, None] & ((box[0] <= x) & (x <= box[2]))[None, :]
