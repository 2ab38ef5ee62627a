"""The style of all figures: colours that colour-blind readers can distinguish, text legible at half width."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 7.2  # inches, width of a full-width figure
COLOURS = tuple(sns.color_palette("colorblind").as_hex())
INK, QUIET, PALE = "#262626", "#7f7f7f", "#e4e4e4"
STRONG = tuple(COLOURS[i] for i in (0, 1, 2, 3, 4, 5, 7, 9))  # for small marks: without the two pale colours
MARKERS = "osD^vPXph<>"
# A colour has the same meaning in every figure.
PRECISION_COLOURS = {"int8": COLOURS[2], "f32": COLOURS[7], "bf16": COLOURS[8], "other": PALE}
# Masks are drawn on images of any colour, so theirs are brighter. Lines also have a dark edge there.
FLOAT_MASK, INT8_MASK, BOTH_MASKS, BOX = "#39b6ff", "#ff9d1e", "#9a9a9a", "#f0e442"


def set_style() -> None:
    """Set the style of every later figure of this process. `new_figure` calls it."""
    sns.set_theme(context="notebook", style="ticks", palette=COLOURS)
    mpl.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 160,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "font.size": 12,
            "axes.titlesize": 13,
            "axes.labelsize": 12,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            "legend.fontsize": 11,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "axes.edgecolor": INK,
            "text.color": INK,
            "lines.linewidth": 2.0,
        }
    )


class StudyFigure(Figure):
    """A Figure that a notebook shows as a cell's value with any backend. pyplot keeps no reference to it."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def new_figure(
    rows: int = 1, columns: int = 1, width: float = WIDTH, height: float = 4.2, **options
) -> tuple[Figure, Any]:
    """Make a styled figure and its axes (one, or an array of them).

    `width` and `height` are in inches. `options` go to `Figure.subplots`.
    """
    set_style()
    figure = StudyFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def quiet_grid(axes: Axes, axis: str) -> None:
    """Draw thin grid lines behind the data along one axis."""
    axes.grid(axis=axis, color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
