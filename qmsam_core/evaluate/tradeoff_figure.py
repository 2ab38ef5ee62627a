"""Plot agreement with the float model, size and time of all variants of the model, side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .figure_style import INK, MARKERS, PALE, STRONG, WIDTH, new_figure, quiet_grid

DEEPEST = 0.35
"""How far below the best agreement the axis reaches. Worse variants are hollow marks on the edge, with their
values as text. This leaves room for the others."""


def tradeoff_figure(variants: pd.DataFrame) -> Figure:
    """Plot a row for each variant, by its name: agreement with the float masks, size, and time.

    The variants stand in the order of their agreement, the best on top. A thin line leads from the mean over
    modalities to the weakest modality.

    Args:
        variants: one row each, with name, family (sets colour and marker), agreement (mean over modalities,
            0..1), `agreement low` (the weakest modality's, may be NaN), mb and ms (time for one image and
            box). ms is NaN if it was not timed.
    """
    rows = variants.sort_values("agreement", ascending=False, kind="stable", ignore_index=True)
    families = list(dict.fromkeys(variants["family"]))
    looks = {name: (STRONG[k % len(STRONG)], MARKERS[k % len(MARKERS)]) for k, name in enumerate(families)}
    size = {"width": 1.25 * WIDTH, "height": 0.32 * len(rows) + 1.5}
    figure, panels = new_figure(1, 3, sharey=True, width_ratios=(2, 1, 1), **size)
    _agreement(panels[0], rows, looks)
    for axes, column, label in zip(panels[1:], ("mb", "ms"), ("weights (MB)", "image and box (ms)")):
        _amounts(axes, rows, column, looks)
        axes.set_xlabel(label)
    panels[0].set(yticks=rows.index, yticklabels=rows["name"])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    for axes in panels:
        axes.tick_params(axis="y", length=0)
        quiet_grid(axes, "x")
        axes.hlines(rows.index, *axes.get_xlim(), color=PALE, linewidth=0.5, zorder=0)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
        for name, (colour, marker) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5), fontsize=10)
    return figure


def _agreement(axes: Axes, rows: pd.DataFrame, looks: dict[str, tuple[str, str]]) -> None:
    edge = rows["agreement"].max() - DEEPEST
    for y, row in enumerate(rows.to_dict("records")):
        colour, marker = looks[row["family"]]
        x, below = max(row["agreement"], edge), row["agreement"] < edge
        if not below and row["agreement low"] < row["agreement"]:
            axes.hlines(
                y, 100 * max(row["agreement low"], edge), 100 * x, color=colour, linewidth=1, alpha=0.7
            )
        face = "none" if below else colour
        axes.scatter(
            100 * x, y, s=50, marker=marker, edgecolor=colour, facecolor=face, zorder=3, clip_on=False
        )
        _beside(axes, 100 * x, y, f"{100 * row['agreement']:.1f}")
    axes.set_xlabel("agreement with float masks (%)\nthin line: to the weakest modality", fontsize=11)
    axes.set_xlim(max(axes.get_xlim()[0], 100 * edge), 100 * rows["agreement"].max())
    axes.margins(x=0)


def _amounts(axes: Axes, rows: pd.DataFrame, column: str, looks: dict[str, tuple[str, str]]) -> None:
    """Draw amounts from zero. What is unknown has no mark but says so."""
    for y, row in enumerate(rows.to_dict("records")):
        colour, marker = looks[row["family"]]
        if np.isnan(row[column]):
            axes.annotate(
                "not measured", (0, y), (4, 0), textcoords="offset points", va="center", fontsize=8.5
            )
            continue
        axes.hlines(y, 0, row[column], color=colour, linewidth=1, alpha=0.7)
        axes.scatter(row[column], y, s=50, marker=marker, color=colour, zorder=3)
        _beside(axes, row[column], y, f"{row[column]:.3g}")
    axes.set_xlim(0, 1.35 * rows[column].max(skipna=True) if rows[column].notna().any() else 1)


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(
        text,
        (x, y),
        (7, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=INK,
        annotation_clip=False,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.7},
    )
