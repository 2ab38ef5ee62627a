"""Plot accuracy against time for several sizes of the input, and what each modality makes of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .figure_style import INK, PALE, QUIET, STRONG, WIDTH, new_figure, quiet_grid

PRECISIONS = {"float": ("o", "white"), "int8": ("s", None)}
"""Marker and face of a precision; None fills it with the colour of the size."""
SUMMARY = "Average"


def resolutions_figure(table: pd.DataFrame, modalities: pd.DataFrame | None = None) -> Figure:
    """Plot the DSC's difference against milliseconds (left), and each modality's DSC at each size (right).

    Colours are sizes of the input, shapes are precisions.

    Args:
        table: result of `study.resolutions.table_of`, with milliseconds and, in 0..1, the difference of the
            DSC to float at the largest size and the ends of its interval (NaN has none).
        modalities: result of `study.resolutions.by_modality`: modality, and a column in % for each arm,
            `float 256` for instance. The last row is their average. None leaves the right side out.
    """
    colours = dict(zip(sorted(table["px"].unique()), STRONG))
    if modalities is None:
        figure, left = new_figure()
    else:
        height = max(4.6, 0.36 * len(modalities) + 1.6)
        figure, (left, right) = new_figure(1, 2, width=1.35 * WIDTH, height=height)
        _by_modality(right, modalities, colours)
    _against_time(left, table, colours)
    marks = [
        Line2D([], [], linestyle="", marker=marker, markersize=8, color=QUIET, markerfacecolor=face or QUIET)
        for marker, face in PRECISIONS.values()
    ]
    lines = [Line2D([], [], color=colour, linewidth=3) for colour in colours.values()]
    names = [*PRECISIONS, *(f"{size} px" for size in colours)]
    figure.legend([*marks, *lines], names, loc="outside upper center", ncols=len(names))
    return figure


def _against_time(axes: Axes, table: pd.DataFrame, colours: dict[int, str]) -> None:
    """Draw a mark for each arm, with its interval. A thin line leads from size to size of a precision."""
    axes.axhline(0, color=QUIET, linewidth=1.2, linestyle="--")
    for precision, (marker, face) in PRECISIONS.items():
        rows = table[table["precision"] == precision].sort_values("px")
        axes.plot(rows["ms"], 100 * rows["difference"], color=QUIET, linewidth=0.8, zorder=1)
        for row in rows.to_dict("records"):
            colour, place = colours[row["px"]], (row["ms"], 100 * row["difference"])
            ends = (100 * row[f"difference {end}"] for end in ("low", "high"))
            axes.vlines(row["ms"], *ends, color=colour, linewidth=1.6, alpha=0.6, zorder=2)
            axes.scatter(*place, s=60, marker=marker, facecolor=face or colour, edgecolor=colour, zorder=3)
    axes.set(
        xlabel="an image and a box (ms)",
        ylabel=f"DSC minus float at {table['px'].max()} px\n(points; 95 % interval)",
        xlim=(0, 1.12 * table["ms"].max()),
    )
    quiet_grid(axes, "y")


def _by_modality(axes: Axes, modalities: pd.DataFrame, colours: dict[int, str]) -> None:
    """Draw a row for each modality, float above int8, and a thin line over the range of its sizes."""
    places = np.arange(len(modalities))
    for shift, (precision, (marker, face)) in zip((-0.17, 0.17), PRECISIONS.items()):
        own = modalities[[f"{precision} {size}" for size in colours]]
        axes.hlines(places + shift, own.min(axis=1), own.max(axis=1), color=PALE, linewidth=1.6, zorder=1)
        for size, colour in colours.items():
            values = own[f"{precision} {size}"]
            axes.scatter(
                values,
                places + shift,
                s=34,
                marker=marker,
                facecolor=face or colour,
                edgecolor=colour,
                zorder=2,
            )
    if modalities["modality"].iloc[-1] == SUMMARY:
        axes.axhline(len(places) - 1.5, color=INK, linewidth=0.8)
    axes.set(xlabel="DSC (%)", yticks=places, yticklabels=modalities["modality"])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")
