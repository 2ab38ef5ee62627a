"""Plot accuracy against time for several sizes of the input."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .figure_style import COLOURS, PRECISION_COLOURS, QUIET, new_figure, quiet_grid

ARMS = {"float": (COLOURS[0], "o"), "int8": (PRECISION_COLOURS["int8"], "s")}


def resolutions_figure(table: pd.DataFrame) -> Figure:
    """Plot the DSC's difference to float at the largest size against milliseconds, with 95 % intervals.

    Args:
        table: result of `study.resolutions.table_of`.
    """
    figure, axes = new_figure(height=4.0)
    axes.axhline(0, color=QUIET, linewidth=1.2, linestyle="--")
    for precision, (colour, marker) in ARMS.items():
        rows = table[table["precision"] == precision].sort_values("px")
        low, high = (100 * rows[f"difference {end}"] for end in ("low", "high"))
        axes.vlines(rows["ms"], low, high, color=colour, linewidth=2, alpha=0.6)
        axes.plot(
            rows["ms"], 100 * rows["difference"], color=colour, marker=marker, markersize=8, label=precision
        )
        for _, row in rows.iterrows():
            axes.annotate(
                f"{row['px']} px",
                (row["ms"], 100 * row["difference"]),
                xytext=(7, 7),
                textcoords="offset points",
                color=colour,
            )
    axes.set(
        xlabel="an image and a box (ms)",
        ylabel=f"DSC minus float at {table['px'].max()} px\n(points; 95 % interval)",
        xlim=(0, None),
    )
    quiet_grid(axes, "y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(ARMS))
    return figure
