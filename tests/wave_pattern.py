"""The image of the reference outputs: waves, the same at any size."""

import numpy as np


def wave_image(height: int, width: int) -> np.ndarray:
    """Waves in three channels, float64 (height, width, 3), about 0..1."""
    row, column = np.mgrid[:height, :width]
    x, y = column / width, row / height
    channels = [
        0.5
        + 0.25 * np.sin(2 * np.pi * (3 * (i + 1) * x + 2 * y))
        + 0.25 * np.cos(2 * np.pi * (5 * y - (i + 1) * x))
        for i in range(3)
    ]
    return np.stack(channels, 2)
