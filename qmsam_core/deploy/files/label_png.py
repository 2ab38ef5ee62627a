"""Write a label map as PNG, and find out whether a PNG is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .colours import COLOURS


def write_png(path: Path, labels: np.ndarray) -> None:
    """Write labels (H, W), uint8 or uint16. The index stored for a pixel is its label.

    Labels of 8 bits get a palette. Those of 16 bits are stored as grey values, since no palette is so long.
    """
    if labels.dtype == np.uint16:
        Image.fromarray(labels).save(path)
        return
    image = Image.fromarray(labels, mode="P")
    image.putpalette([0, 0, 0, *(int(v) for k in range(255) for v in COLOURS[k % len(COLOURS)])])
    image.save(path)


def readable_png(path: Path) -> bool:
    """Whether a PNG can be read to its end. Raises `OSError` if it is damaged."""
    with Image.open(path) as image:
        image.load()
    return True
