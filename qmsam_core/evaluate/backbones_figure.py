"""Plot the time of image encoders against their size, in float and in int8."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from .figure_style import INK, PRECISION_COLOURS, QUIET, STRONG, WIDTH, new_figure, quiet_grid

KINDS = {
    "float, exported plainly": ("ms float, plain", "MB float", "o", "none", QUIET),
    "float, fastest arm": ("ms float, best", "MB float", "o", STRONG[0], STRONG[0]),
    "int8": ("ms int8", "MB int8", "s", PRECISION_COLOURS["int8"], PRECISION_COLOURS["int8"]),
}
"""Marks by their name in the legend: columns of milliseconds and size, marker, face, edge."""


def backbones_figure(table: pd.DataFrame) -> Figure:
    """Plot milliseconds an image against megabytes of weights, one line a network.

    Args:
        table: result of `timing.backbones.backbones_table`: network, the columns of `KINDS`, `int8 gain`
            (times) and `published` (accuracy as published, or empty).
    """
    figure, axes = new_figure(width=1.3 * WIDTH, height=5.2)
    for _, row in table.iterrows():
        places = [(row[size], row[ms]) for ms, size, *_ in KINDS.values()]
        axes.plot(*zip(*places), color=QUIET, linewidth=1, zorder=1)
        (_, top), (right, _) = places[0], places[1]
        words = [row["network"], f"int8 {row['int8 gain']:.2f} times", row["published"]]
        axes.annotate(
            "\n".join(filter(None, words)),
            (right, top),
            xytext=(7, 4),
            textcoords="offset points",
            fontsize=9.5,
            color=INK,
            va="bottom",
            linespacing=1.15,
        )
    for name, (ms, size, marker, face, edge) in KINDS.items():
        axes.scatter(
            table[size], table[ms], s=60, marker=marker, facecolor=face, edgecolor=edge, label=name, zorder=2
        )
    axes.set(xscale="log", yscale="log", xlabel="encoder's weights (MB)", ylabel="one image (ms)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 3.2)  # room for the words of the last network
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top * 1.5)
    quiet_grid(axes, "y")
    axes.legend(loc="upper left")
    return figure
