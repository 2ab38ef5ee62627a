"""Plot the time of image encoders against their size, in float and in int8."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from .figure_style import QUIET, STRONG, WIDTH, new_figure, quiet_grid

KINDS = {
    "float, exported plainly": ("ms float, plain", "MB float", "o", False),
    "float, fastest arm": ("ms float, best", "MB float", "o", True),
    "int8": ("ms int8", "MB int8", "s", True),
}
"""Marks by their name in the legend: columns of milliseconds and size, marker, whether it is filled."""


def backbones_figure(table: pd.DataFrame) -> Figure:
    """Plot milliseconds an image against megabytes of weights, one line and one colour a network.

    Args:
        table: result of `timing.backbones.backbones_table`: network, the columns of `KINDS`, `int8 gain`
            (times) and `published` (accuracy as published, or empty).
    """
    figure, axes = new_figure(width=1.5 * WIDTH, height=5.2)
    for colour, (_, row) in zip(STRONG, table.iterrows()):
        places = [(row[size], row[ms]) for ms, size, *_ in KINDS.values()]
        axes.plot(*zip(*places), color=colour, linewidth=1.2, zorder=1)
        for place, (_, _, marker, filled) in zip(places, KINDS.values()):
            face = colour if filled else "white"
            axes.scatter(*place, s=60, marker=marker, facecolor=face, edgecolor=colour, zorder=2)
    axes.set(xscale="log", yscale="log", xlabel="encoder's weights (MB)", ylabel="one image (ms)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")
    quiet_grid(axes, "y")
    marks = [
        Line2D([], [], linestyle="", marker=m, markersize=8, color=QUIET, mfc=QUIET if filled else "white")
        for _, _, m, filled in KINDS.values()
    ]
    figure.legend(marks, list(KINDS), loc="outside upper center", ncols=len(KINDS))
    lines = [Line2D([], [], color=colour, linewidth=3) for colour, _ in zip(STRONG, table.index)]
    names = [_words(row) for _, row in table.iterrows()]
    figure.legend(lines, names, loc="outside right center", fontsize=10, labelspacing=1.1, handlelength=1.2)
    return figure


def _words(row: pd.Series) -> str:
    gain = f"int8 {row['int8 gain']:.2f} times as fast as float"
    return "\n".join(filter(None, [row["network"], gain, row["published"]]))
