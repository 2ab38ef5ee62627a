"""Write a name beside each mark of a chart, so that there is no legend to search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from .figure_style import INK

MARK = 8.0
"""Side of the square that a mark fills, in points on paper."""
DISTANCES = (7.0, 16.0, 28.0, 42.0, 58.0)
"""Distances of a name from its mark, in points on paper. Nearer ones are tried first."""
DIRECTIONS = (
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (0.8, 0.8, "left", "bottom"),
    (-0.8, 0.8, "right", "bottom"),
    (0.8, -0.8, "left", "top"),
    (-0.8, -0.8, "right", "top"),
)
"""Sides of a mark, and the alignment of a name there. Earlier ones are tried first."""
LEADS = 10.0
"""A name further from its mark than this, in points, has a thin line to it."""


def label_marks(
    axes: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str], size: float = 9
) -> None:
    """Write names beside marks. Call it last, when the limits and the layout of the axes are final.

    Each name takes the nearest place at which it covers no other name, no mark and no edge of the axes, or
    the place where it covers least.

    Args:
        axes: axes with the marks.
        x: places of the marks in data coordinates.
        y: of the same length.
        names: of the same length. Empty ones are left out, but their marks are still avoided.
        size: of the font, in points.
    """
    axes.figure.draw_without_rendering()  # only then are positions on paper known
    axes.figure.set_layout_engine("none")  # names that reach out must not move the axes again
    marks = axes.transData.transform(np.column_stack([x, y]))
    half = MARK / 2 * axes.figure.dpi / 72
    taken = [Bbox.from_extents(*(mark - half), *(mark + half)) for mark in marks]
    apart = np.linalg.norm(marks[:, None] - marks[None], axis=-1) + np.diag(np.full(len(marks), np.inf))
    order = np.argsort(-apart.min(axis=1, initial=np.inf))  # lone marks first, they have one good place
    for k in order:
        if names[k]:
            taken.append(_placed(axes, (x[k], y[k]), names[k], size, taken))


def _placed(axes: Axes, point: tuple[float, float], name: str, size: float, taken: list[Bbox]) -> Bbox:
    """Write one name, and return the area that it covers in pixels of the figure."""
    label = axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=size, color=INK, zorder=5)
    places, costs = [], []
    for distance in DISTANCES:
        for across, up, horizontal, vertical in DIRECTIONS:
            place = {"position": (across * distance, up * distance), "ha": horizontal, "va": vertical}
            label.set(**place)
            extent = label.get_window_extent()
            outside = _area(extent) - _area(Bbox.intersection(extent, axes.bbox))
            places.append((place, distance))
            costs.append(outside + sum(_area(Bbox.intersection(extent, other)) for other in taken))
        if min(costs) == 0:
            break
    place, distance = places[int(np.argmin(costs))]  # argmin takes the first of equals, which is the nearest
    label.set(**place)
    if distance > LEADS:
        across, up = place["position"]
        line = {"arrowstyle": "-", "color": INK, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            " ", point, (across, up), textcoords="offset points", fontsize=1, arrowprops=line, zorder=2
        )
    return label.get_window_extent()


def _area(box: Bbox | None) -> float:
    return box.width * box.height if box is not None else 0.0
