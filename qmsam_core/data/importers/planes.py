"""The plane in which a volume is cut into slices, and the order of its axes.

Slices lie as on a radiologist's screen. The codes name the directions in which x, y and z run:

- axial: x to the left, y to the back, z to the head (`LPS`), so the patient's right is on the left;
- coronal: x to the left, y to the feet, z to the back (`LIP`), so the head is up and the right on the left;
- sagittal: x to the back, y to the feet, z to the right (`PIR`), so the head is up and the front on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Plane = Literal["acquired", "axial", "sagittal", "coronal"]

ACQUIRED: Plane = "acquired"
ORDERS: dict[str, str] = {"axial": "LPS", "sagittal": "PIR", "coronal": "LIP"}
"""Plane -> directions of x, y and z in a case cut along it."""

COARSE = 1.5
"""An axis is the one between slices if its spacing is this many times larger than that of both others."""

_NORMALS = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}
_OPPOSITE = dict(zip("LRAPSI", "RLPAIS"))


def order_of(direction: Sequence[float]) -> str:
    """Directions in which the axes x, y and z roughly run, such as `LPS`, from nine cosines row by row."""
    import SimpleITK as sitk  # takes long to load, and the names of planes are needed without it

    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(list(direction))


def acquired_plane(size: Sequence[int], spacing: Sequence[float], direction: Sequence[float]) -> str:
    """Name the plane that a volume's slices were taken in: the one across its coarsest axis.

    A volume of one slice has this slice's plane. A volume without a coarsest axis is axial.

    Args:
        size: voxels along x, y and z.
        spacing: mm along x, y and z.
        direction: nine cosines row by row.
    """
    alone = [axis for axis in range(3) if size[axis] == 1]
    coarse = [a for a in range(3) if spacing[a] >= COARSE * max(s for b, s in enumerate(spacing) if b != a)]
    across = alone if len(alone) == 1 else coarse
    return _NORMALS[order_of(direction)[across[0]]] if across else "axial"


def axes_to(plane: str, direction: Sequence[float]) -> tuple[int, ...]:
    """Find the axes that a case cut along `plane` takes from an array (D,H,W), as in `Source.axes`."""
    found, wanted = order_of(direction)[::-1], ORDERS[plane][::-1]
    return tuple(
        found.index(way) + 1 if way in found else -(found.index(_OPPOSITE[way]) + 1) for way in wanted
    )


def plane_of(axes: Sequence[int], direction: Sequence[float]) -> str:
    """Name the plane of a case's slices from `Source.axes` and `Source.direction`. "" for 2-D images."""
    return _NORMALS[order_of(direction)[3 - abs(axes[0])]] if len(axes) == 3 else ""


def along(axes: Sequence[int], values: Sequence[float]) -> np.ndarray:
    """Return the values of the source's x, y and z, such as the spacing, for the case's x, y and z."""
    return np.array([values[len(axes) - abs(axis)] for axis in reversed(axes)], dtype=float)
