"""Charts of how int8 masks depart from float's: by object, and towards or away from the box's ellipse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from .figure_style import COLOURS, INK, MARKERS, PALE, QUIET, new_figure, quiet_grid
from .mark_labels import label_marks
from .object_scores import binned
from .tables import AVERAGE
from .wording import direction

QUANTITIES = {
    "size_px": "side of the object (px of a 256 px input)",
    "contrast": "contrast (standard deviations)",
}
SCORES = {"dsc": "DSC (%)", "agreement": "agreement with float (%)"}
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
KINDS = {
    1: (COLOURS[0], "^", "DSC above float's"),
    -1: (COLOURS[3], "v", "below"),
    0: (QUIET, "o", "no difference told"),
}
"""Colour, marker and words for the direction of a difference of the DSC."""
LEAST = 0.0005
"""Smallest disagreement that is drawn, 0..1. A logarithmic axis has no zero."""


def objects_figure(objects: pd.DataFrame, names: dict[str, str]) -> Figure:
    """Plot the DSC and the agreement with float of every object against its size and its contrast.

    Pale points are objects of the last arm. Lines join the means of bins of about as many objects, and
    vertical bars are their 95 % intervals. An object's side is the root of its area.

    Args:
        objects: result of `score_objects`.
        names: arm -> its name in words, float first. Float has no line where all are compared with it.
    """
    figure, grid = new_figure(2, 2, height=6.2, sharex="col", sharey="row")
    arms = list(names)
    colours = dict(
        zip(arms, (COLOURS[7], *(COLOURS[0], COLOURS[1], COLOURS[4])[: len(arms) - 2], COLOURS[2]))
    )
    for line, (score, label) in zip(grid, SCORES.items()):
        shown = arms if score == "dsc" else arms[1:]
        for axes, by in zip(line, QUANTITIES):
            _points(axes, objects[objects["arm"] == arms[-1]], by, score)
            for k, arm in enumerate(shown):
                bins = binned(objects[objects["arm"].isin(names)], by, score).query("arm == @arm")
                place = bins["middle"] * 1.03 ** (k - (len(shown) - 1) / 2)  # bars side by side
                colour, marker = colours[arm], MARKERS[arms.index(arm)]
                axes.vlines(place, 100 * bins["low"], 100 * bins["high"], color=colour, linewidth=1.8)
                axes.plot(place, 100 * bins["mean"], color=colour, marker=marker, markersize=6, linewidth=1.4)
            _log_axis(axes, objects[by])
            quiet_grid(axes, "y")
        line[0].set_ylabel(label)
    for axes, words in zip(grid[1], QUANTITIES.values()):
        axes.set_xlabel(words, fontsize=10.5)
    for line in grid:
        line[0].set_ylim(*_span(line))
    handles = [
        Line2D([], [], color=colours[arm], marker=MARKERS[k], label=names[arm]) for k, arm in enumerate(arms)
    ]
    handles.append(
        Line2D([], [], color=PALE, marker="o", linestyle="", label=f"one object, {names[arms[-1]]}")
    )
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=10)
    return figure


def ellipse_plane_figure(plane: pd.DataFrame, names: dict[str, str]) -> Figure:
    """Plot for each modality how far masks are from float's, and whether they are nearer to the ellipse.

    To the right, masks depart from float's. Above the line they agree more with the ellipse in the box than
    float's own masks do, so masks that fall back to filling the box lie in the upper right. Colour and marker
    say whether the DSC is above float's, below, or not told from it. Long intervals leave the picture.

    Args:
        plane: result of `box_filling.ellipse_plane`.
        names: arm -> its name in words. Each has a panel.
    """
    arms = [arm for arm in names if arm in set(plane["arm"])]
    plane = plane[plane["arm"].isin(arms)].reset_index(drop=True)
    x = 100 * (1 - plane["agreement"]).clip(lower=LEAST)
    y = 100 * plane["ellipse difference"]
    figure, panels = new_figure(1, len(arms), width=4.1 * len(arms), height=4.7, sharey=True, squeeze=False)
    for axes, arm in zip(panels[0], arms):
        axes.axhline(0, color=QUIET, linewidth=1.2, linestyle="--", zorder=1)
        for k in plane.index[plane["arm"] == arm]:
            _plane_mark(axes, x[k], y[k], plane.loc[k])
        axes.set(title=names[arm], xscale="log", xlim=(x.min() / 1.6, x.max() * 1.9))
        axes.set_ylim(min(1.6 * y.min(), -1), max(1.6 * y.max(), 1))
        _plain_ticks(axes)
        axes.annotate(
            "towards a filled box", (0.98, 0.98), xycoords="axes fraction", ha="right", va="top", color=QUIET
        )
        quiet_grid(axes, "both")
    panels[0, 0].set_ylabel("agreement with the ellipse,\nminus float's own (points)")
    figure.supxlabel("disagreement with float's masks (%)", fontsize=12)
    handles = [Line2D([], [], color=c, marker=m, linestyle="", label=words) for c, m, words in KINDS.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=10)
    for axes, arm in zip(panels[0], arms):
        of_arm = plane["arm"] == arm
        label_marks(axes, list(x[of_arm]), list(y[of_arm]), list(plane.loc[of_arm, "modality"]))
    return figure


def _plane_mark(axes: Axes, x: float, y: float, row: pd.Series) -> None:
    colour, marker, _ = KINDS[direction(row["difference low"], row["difference high"])]
    ends = [100 * (1 - min(row[f"agreement {end}"], 1 - LEAST)) for end in ("low", "high")]
    axes.hlines(y, *ends, color=colour, linewidth=1.2, alpha=0.8)
    ends = [100 * row[f"ellipse difference {end}"] for end in ("low", "high")]
    axes.vlines(x, *ends, color=colour, linewidth=1.2, alpha=0.8)
    size, edge = (95, INK) if row["modality"] == AVERAGE else (60, "white")
    axes.scatter(x, y, color=colour, marker=marker, s=size, edgecolor=edge, linewidth=1, zorder=3)


def _points(axes: Axes, rows: pd.DataFrame, by: str, score: str) -> None:
    axes.scatter(rows[by], 100 * rows[score], s=12, color=PALE, edgecolor="#c4c4c4", linewidth=0.4, zorder=0)


def _log_axis(axes: Axes, values: pd.Series) -> None:
    """Logarithmic with plain numbers. The lowest 3 % of the values may lie outside."""
    low, high = np.nanquantile(values, 0.03), np.nanmax(values)
    axes.set_xscale("log")
    axes.set_xlim(max(low, high / 1000) / 1.15, high * 1.15)
    _plain_ticks(axes)


def _plain_ticks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _span(line: Sequence[Axes]) -> tuple[float, float]:
    """Limits that show all means and their intervals, and most points. A few failures lie below."""
    ends = [y for axes in line for drawn in axes.lines for y in drawn.get_ydata()]
    ends += [
        y
        for axes in line
        for bars in axes.collections[1:]
        for path in bars.get_paths()
        for y in path.vertices[:, 1]
    ]
    points = np.concatenate([np.ma.getdata(axes.collections[0].get_offsets())[:, 1] for axes in line])
    low = min(np.nanmin(ends, initial=100), np.quantile(points, 0.02))
    return low - 1.5, 100.8
