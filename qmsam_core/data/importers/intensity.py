"""Convert grey values to uint8: CT by a window in Hounsfield units, others by percentiles."""

from __future__ import annotations

import os

import numpy as np

from qmsam_core.data.archive import CaseError

WINDOWS: dict[str, tuple[float, float]] = {
    "soft-tissue": (40, 400),
    "abdomen": (40, 400),
    "liver": (30, 150),
    "mediastinum": (50, 350),
    "lung": (-600, 1500),
    "chest": (-160, 1500),
    "brain": (40, 80),
    "subdural": (75, 215),
    "bone": (400, 1800),
    "spine": (50, 250),
    "angiography": (300, 600),
}
"""Level and width in HU. The challenge's own data were prepared with soft-tissue, chest, brain and bone."""

DEFAULT_WINDOW = "soft-tissue"
DEFAULT_PERCENTILES = (0.5, 99.5)


def parse_window(text: str) -> tuple[float, float]:
    """Read level and width in HU from a name in `WINDOWS` or from "LEVEL,WIDTH".

    Raises:
        ValueError: the text is neither a known name nor two numbers with a positive width.
    """
    if text.lower() in WINDOWS:
        return WINDOWS[text.lower()]
    try:
        level, width = (float(part) for part in text.split(","))
    except ValueError:
        level, width = 0.0, 0.0
    if not width > 0 or not np.isfinite([level, width]).all():
        raise ValueError(
            f"window {text!r}: expected one of {', '.join(WINDOWS)}, or LEVEL,WIDTH in HU such as 40,400"
        )
    return level, width


def windowed(values: np.ndarray, level: float, width: float) -> np.ndarray:
    """Scale a window to uint8 of the same shape: `level - width/2` becomes 0, `level + width/2` becomes 255.

    Values between are scaled linearly. Values outside are clipped.
    """
    return _scaled(values, level - width / 2, level + width / 2)


def stretched(values: np.ndarray, percentiles: tuple[float, float], path: str | os.PathLike) -> np.ndarray:
    """Scale to uint8 of the same shape: two percentiles of the non-zero values become 0 and 255.

    Values between are scaled linearly. Values outside are clipped. Zero is left out because it is the air or
    padding of MR, PET and cut-out images. It is often most of the volume.

    Raises:
        CaseError: the two percentiles have the same value.
    """
    content = values[values != 0]
    low, high = np.percentile(content, percentiles) if content.size else (0.0, 0.0)
    if not high > low:
        raise CaseError(
            path,
            f"is constant between its percentiles {percentiles[0]:g} and {percentiles[1]:g} (value {low:g}); "
            "expected an image",
        )
    return _scaled(values, float(low), float(high))


def check_finite(values: np.ndarray, path: str | os.PathLike) -> None:
    """Raise `CaseError` if a float image holds NaN or infinite values. Their meaning cannot be guessed.

    In NIfTI files, the format's own library has already turned such values into 0.
    """
    if values.dtype.kind == "f":
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            raise CaseError(
                path, f"holds {bad:,} NaN or infinite voxels; replace them by the background's value first"
            )


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = values.astype(np.float32)
    scaled -= low
    scaled *= 255 / (high - low)
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)
