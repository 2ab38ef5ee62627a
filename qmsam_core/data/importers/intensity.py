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
_LEAST_HU = 50  # span of a CT's values, far less than between air and water


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


def shown_already(values: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Take grey values that were windowed before, 0..1 as fractions or 0..255, as uint8.

    Raises:
        CaseError: the values have another range.
    """
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        raise CaseError(
            path, f"holds values {low:g}..{high:g}; --windowed takes 0..1 or 0..255, so leave it out"
        )
    return _scaled(values, 0, 1 if high <= 1 and values.dtype.kind == "f" else 255)


def check_hounsfield(values: np.ndarray, path: str | os.PathLike) -> list[str]:
    """Check that a CT's values can be in Hounsfield units.

    Returns:
        A note if no value is below 0, as where an offset is missing.

    Raises:
        CaseError: the values span less than tissue and air do, or lie in 0..255.
    """
    low, high = float(values.min()), float(values.max())
    if high - low < _LEAST_HU or (low >= 0 and high <= 255):
        raise CaseError(
            path,
            f"holds values {low:.4g}..{high:.4g}, which cannot be Hounsfield units (air is -1000, water 0); "
            "give the original scan, --windowed if it was scaled to grey values 0..1 or 0..255 before, "
            "or another --modality",
        )
    if low >= 0:
        return [
            f"no value is below 0 (values {low:g}..{high:g}): is this CT in HU, or is its offset missing?"
        ]
    return []


def outside_view(values: np.ndarray, path: str | os.PathLike) -> np.ndarray | None:
    """Find the NaN voxels outside the field of view: those connected to the border of the image.

    Returns:
        bool of the image's shape; None if every value is a number.

    Raises:
        CaseError: a value is infinite, or NaN inside the image. Its meaning cannot be guessed.
    """
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return None
    from scipy import ndimage  # takes long to load, and few images hold NaN

    missing = np.isnan(values)
    parts, _ = ndimage.label(missing, structure=np.ones((3,) * values.ndim, dtype=bool))
    edges = [np.take(parts, end, axis) for axis in range(values.ndim) for end in (0, -1)]
    border = np.unique(np.concatenate([edge.reshape(-1) for edge in edges]))
    outside = np.isin(parts, border[border > 0])
    bad = int(np.count_nonzero(~np.isfinite(values) & ~outside))
    if bad or outside.all():
        raise CaseError(
            path,
            f"holds {bad or values.size:,} NaN or infinite voxels inside the image; "
            "replace them by the background's value first",
        )
    return outside


def outside_note(outside: np.ndarray) -> str:
    """Say how many voxels `outside_view` found."""
    return f"{np.count_nonzero(outside):,} NaN voxels outside the field of view become the darkest value"


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = values.astype(np.float32)
    scaled -= low
    scaled *= 255 / (high - low)
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)
