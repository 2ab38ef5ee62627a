"""Read the regions of interest (ROI) that 3D Slicer saves as `.mrk.json`, as rows of a table of boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

_FRAMES = {"LPS": "LPS", "RAS": "RAS", "0": "RAS", "1": "LPS"}
_ALIGNED = 1e-3
"""Largest difference of a cosine from 0 or 1 that is taken for rounding."""


def slicer_rows(content: dict, path: Path) -> Iterator[dict]:
    """Yield a row for each ROI of a markups file: its name, its corners in mm and their frame.

    Args:
        content: of the file, with the key `markups`.
        path: the file. Its name, which is that of the ROI in 3D Slicer, names an ROI that is alone.

    Raises:
        ValueError: a markup is no ROI, is rotated, or lacks a value.
    """
    markups = content["markups"]
    for number, markup in enumerate(markups, 1):
        own = path.name.lower().removesuffix(".json").removesuffix(".mrk")
        name = markup.get("name") or (path.name[: len(own)] if len(markups) == 1 else f"ROI {number}")
        yield {"name": name, **_corners(markup, f"markup {number}")}


def _corners(markup: dict, what: str) -> dict:
    if markup.get("type") != "ROI":
        raise ValueError(f"{what} is of type {markup.get('type')!r}; expected an ROI")
    frame = _FRAMES.get(str(markup.get("coordinateSystem", "LPS")).upper())
    if frame is None:
        raise ValueError(f"{what} has coordinateSystem {markup['coordinateSystem']!r}; expected LPS or RAS")
    if markup.get("coordinateUnits", "mm") != "mm":
        raise ValueError(f"{what} is in {markup['coordinateUnits']!r}; expected mm")
    points = [point["position"] for point in markup.get("controlPoints", []) if "position" in point]
    centre = _three(markup.get("center") or (points[0] if len(points) == 1 else None), f"{what}: center")
    size = _three(markup.get("size"), f"{what}: size")
    axes = np.abs(np.array(markup.get("orientation") or np.eye(3), float).reshape(3, 3))
    if np.abs(axes - np.rint(axes)).max() > _ALIGNED:
        raise ValueError(
            f"{what} is rotated; put it straight in 3D Slicer (reset its rotation), or draw the object as a "
            "segmentation and give that with --boxes-from"
        )
    half = np.rint(axes) @ size / 2
    ends = zip("xyz", centre - half, centre + half)
    return {"frame": frame, **{f"{a}_{end}": v for a, *both in ends for end, v in zip(("min", "max"), both)}}


def _three(values, what: str) -> np.ndarray:
    found = np.array(values if values is not None else [], float)
    if found.shape != (3,) or not np.isfinite(found).all():
        raise ValueError(f"{what} is {values}; expected three numbers")
    return found
