"""Plot the agreement with the float model against size and against time, for all variants of the model."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Locator, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from scipy.sparse.csgraph import connected_components

from .figure_style import INK, MARKERS, STRONG, WIDTH, new_figure, quiet_grid

TOUCHING = 12.0
"""Points on paper. Marks with closer centres share one label, because their numbers would overlap."""
MARK = 8.0
"""Side of the square that a mark fills, in points on paper."""
SIDES = (
    ((0, 6), "center", "bottom"),
    ((8, 0), "left", "center_baseline"),
    ((-8, 0), "right", "center_baseline"),
    ((0, -6), "center", "top"),
    ((8, 6), "left", "bottom"),
    ((-8, 6), "right", "bottom"),
    ((8, -6), "left", "top"),
    ((-8, -6), "right", "top"),
)
"""Places for a number: points on paper from its mark, and the text's alignment. Earlier ones come first."""
DEEPEST = 0.35
"""How far below the best agreement the axis reaches. Worse variants are hollow marks on the lower edge, with
their values as text. This leaves room for the others."""


def tradeoff_figure(variants: pd.DataFrame) -> Figure:
    """Plot agreement with the float masks against size (left) and time for one image and box (right).

    Args:
        variants: one row each, with name, family (sets colour and marker), agreement (0..1), mb and ms.
            ms is NaN if it was not timed. `DEEPEST` says how poor ones are shown.
    """
    figure, (left, right) = new_figure(1, 2, width=1.3 * WIDTH, height=4.6, sharey=True)
    variants = variants.assign(shown=variants["agreement"].clip(lower=variants["agreement"].max() - DEEPEST))
    for axes, column, label in (
        (left, "mb", "size of the weights (MB)"),
        (right, "ms", "one image, one box (ms)"),
    ):
        _points(axes, variants.dropna(subset=[column, "agreement"]), column)
        axes.set(xlabel=label, xscale="log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
        axes.tick_params(axis="x", labelsize=9)
        axes.margins(x=0.25, y=0.12)
        axes.xaxis.set_major_locator(_round_numbers(*axes.get_xlim()))
        quiet_grid(axes, "y")
    left.set_ylabel("agreement with float masks (%)")
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside right center",
        fontsize=8.5,
        labelspacing=0.6,
        handletextpad=0.2,
    )
    figure.draw_without_rendering()  # only then are positions on paper known
    for axes, column in ((left, "mb"), (right, "ms")):
        _numbers(axes, variants.dropna(subset=[column, "agreement"]), column)
    return figure


def _round_numbers(low: float, high: float) -> Locator:
    """Choose ticks whose numbers do not overlap, and at least three in a narrow range.

    The default numbers of a logarithmic axis overlap towards the next power of ten.
    """
    wide = LogLocator(subs=(1, 2, 5), numticks=10)
    inside = [value for value in wide.tick_values(low, high) if low <= value <= high]
    return wide if len(inside) >= 3 else MaxNLocator(5)


def _points(axes: Axes, variants: pd.DataFrame, column: str) -> None:
    """Draw a mark for each variant. Names are in the legend, because neighbours leave no room for them."""
    families = list(dict.fromkeys(variants["family"]))
    for number, row in zip(variants.index + 1, variants.to_dict("records")):
        place = families.index(row["family"])
        colour, marker = STRONG[place % len(STRONG)], MARKERS[place % len(MARKERS)]
        face = colour if row["shown"] == row["agreement"] else "none"
        axes.scatter(
            row[column],
            100 * row["shown"],
            edgecolor=colour,
            facecolor=face,
            marker=marker,
            s=46,
            label=f"{number}  {row['name']}",
            zorder=3,
        )


def _numbers(axes: Axes, variants: pd.DataFrame, column: str) -> None:
    """Write each number beside its mark, on the first free side of `SIDES`. Touching marks share a label."""
    marks = axes.transData.transform(np.column_stack([variants[column], 100 * variants["shown"]]))
    point = axes.figure.dpi / 72
    near = np.linalg.norm(marks[:, None] - marks[None], axis=-1) < TOUCHING * point
    _, groups = connected_components(near)
    taken = [Bbox.from_extents(*(mark - MARK / 2 * point), *(mark + MARK / 2 * point)) for mark in marks]
    for group in range(groups.max(initial=-1) + 1):
        members = variants[groups == group]
        top = members.loc[members["shown"].idxmax()]
        text = joined(members.index + 1)
        if (members["shown"] > members["agreement"]).all():
            text += f" ({', '.join(f'{100 * value:.0f}' for value in members['agreement'])} %)"
        label = axes.annotate(
            text,
            (top[column], 100 * top["shown"]),
            (0, 0),
            textcoords="offset points",
            fontsize=8,
            color=INK,
            zorder=4,
        )
        crossed = []
        for offset, across, up in SIDES:
            label.set(position=offset, ha=across, va=up)
            extent = label.get_window_extent()
            outside = _area(extent) - _area(Bbox.intersection(extent, axes.bbox))
            crossed.append(outside + sum(_area(Bbox.intersection(extent, other)) for other in taken))
        offset, across, up = SIDES[int(np.argmin(crossed))]  # argmin takes the first of equals
        label.set(position=offset, ha=across, va=up)
        taken.append(label.get_window_extent())


def _area(box: Bbox | None) -> float:
    return box.width * box.height if box is not None else 0.0


def joined(numbers: Iterable[int]) -> str:
    """Join ascending numbers and shorten runs of three or more: `2, 6-9, 13`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
