"""How images and masks become cases."""

from __future__ import annotations

from dataclasses import dataclass, field

from .intensity import DEFAULT_PERCENTILES, DEFAULT_WINDOW, WINDOWS
from .labels import LabelOptions
from .planes import ACQUIRED, Plane


@dataclass(frozen=True)
class ImportOptions:
    """How cases are made.

    Attributes:
        window: level and width in HU, for CT volumes.
        percentiles: low and high, 0..100. They become 0 and 255, except in CT volumes and 8-bit 2-D images.
        labels: how masks become labels.
        windowed: the values of volumes are grey values 0..1 or 0..255 already; none is windowed or stretched.
        plane: the plane in which volumes are cut. `acquired` takes the one of the file.
    """

    window: tuple[float, float] = WINDOWS[DEFAULT_WINDOW]
    percentiles: tuple[float, float] = DEFAULT_PERCENTILES
    labels: LabelOptions = field(default_factory=LabelOptions)
    windowed: bool = False
    plane: Plane = ACQUIRED
