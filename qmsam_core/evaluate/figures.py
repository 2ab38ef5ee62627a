"""The study's figures. Each function takes data frames or arrays and returns a matplotlib Figure to save.

This module has the charts. Training curves are in `training_figures`, images of cases in `case_figures`, the
diagram of Figure 1 in `sublayers_figure` and the style in `figure_style`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from .figure_style import (
    COLOURS,
    INK,
    MARKERS,
    PRECISION_COLOURS,
    QUIET,
    STRONG,
    WIDTH,
    new_figure,
    quiet_grid,
)
from .paper_tables import MODALITIES, harmonised
from .wording import ARMS, exported

_HOLLOW = "\nhollow: one case or patient, no interval"
SLOWEST = 10
"""How many operations `layer_types_figure` shows. The others are summed as `other`."""
_PARTS = {"prepare": "decoder, once an image"}
_PRECISIONS = {"f32": "32-bit float", "bf16": "16-bit float (bf16)"}


def imbalance_figure(counts: pd.DataFrame) -> Figure:
    """Plot the samples of each modality on a logarithmic axis (Table 2).

    `counts` has modality and numeric columns. The first two or three with values are drawn as series.
    """
    series = [c for c in counts.select_dtypes("number") if counts[c].notna().any()]
    rows = counts.sort_values(series[0], ignore_index=True)
    figure, axes = new_figure(height=0.52 * len(rows) + 1.4)
    for k, (colour, marker, name) in enumerate(zip(COLOURS, MARKERS, series[:3])):
        places = rows.index + 0.25 * ((len(series[:3]) - 1) / 2 - k)  # beside each other, equal ones too
        axes.scatter(rows[name], places, s=42, color=colour, marker=marker, label=name, zorder=3)
        for y, value in zip(places, rows[name]):
            if not np.isnan(value):
                axes.annotate(
                    f"{value:,.0f}", (value, y), (7, 0), textcoords="offset points", va="center", fontsize=9
                )
    axes.set(
        xscale="log", xlabel="2-D samples (a slice each)", yticks=rows.index, yticklabels=rows["modality"]
    )
    axes.set_xlim(rows[series].min().min() / 2.5, rows[series].max().max() * 8)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def speed_figure(timings: pd.DataFrame) -> Figure:
    """Plot each arm's median time as a bar, with a whisker from the fastest run to the 95th percentile.

    `timings` is the result of `measure_interleaved`.
    """
    arms = list(timings["arm"])
    figure, axes = new_figure(height=0.46 * len(arms) + 1.3)
    for y, row in enumerate(timings.to_dict("records")):
        low, median, high = (row[c] for c in ("min_ms", "median_ms", "p95_ms"))
        axes.barh(y, median, 0.72, color=_arm_colour(row["arm"]))
        axes.hlines(y, low, high, color=INK, linewidth=1.5)
        axes.annotate(_short(median), (high, y), (7, 0), textcoords="offset points", va="center", fontsize=10)
    axes.set(
        xlabel="time (ms): median; line from minimum to 95th percentile",
        yticks=range(len(arms)),
        yticklabels=arms,
    )
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")
    return figure


def size_figure(sizes: pd.DataFrame) -> Figure:
    """Plot the size of each arm's files. Columns: arm, part (encoder, decoder; stacked) and mb."""
    sizes = sizes.assign(arm=sizes["arm"].map(exported), part=sizes["part"].replace(_PARTS))
    table = sizes.pivot_table(index="arm", columns="part", values="mb", sort=False, aggfunc="sum").fillna(0)
    figure, axes = new_figure(height=0.42 * len(table) + 1.4)
    left = np.zeros(len(table))
    for colour, part in zip((COLOURS[0], COLOURS[9], COLOURS[1], COLOURS[4]), table):
        axes.barh(table.index, table[part], left=left, color=colour, label=part, height=0.7)
        left += table[part].to_numpy()
    for y, total in enumerate(left):
        axes.annotate(_short(total), (total, y), (6, 0), textcoords="offset points", va="center", fontsize=10)
    axes.set(xlabel="size of the files (MB)")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")
    figure.legend(loc="outside upper center", ncols=table.shape[1])
    return figure


def layer_types_figure(layers: pd.DataFrame) -> Figure:
    """Plot an engine's time by operation and by the precision that really ran, one panel for each arm.

    `layers` has columns operation, precision (int8, f32, bf16, ...), ms and arm (at least two).
    """
    slowest = layers.groupby("operation")["ms"].sum().nlargest(SLOWEST).index
    layers = layers.assign(operation=layers["operation"].where(layers["operation"].isin(slowest), "other"))
    operations = [*slowest, *(["other"] if (layers["operation"] == "other").any() else [])]
    arms, precisions = list(dict.fromkeys(layers["arm"])), sorted(set(layers["precision"]), reverse=True)
    figure, panels = new_figure(1, len(arms), height=0.36 * len(operations) + 1.6, sharey=True, sharex=True)
    for axes, arm in zip(panels, arms):
        rows = layers[layers["arm"] == arm]
        table = (
            rows.pivot_table(index="operation", columns="precision", values="ms", aggfunc="sum")
            .reindex(index=operations, columns=precisions)
            .fillna(0)
        )
        left = np.zeros(len(table))
        for place, precision in enumerate(precisions):
            colour = PRECISION_COLOURS.get(precision, COLOURS[(4 + place) % len(COLOURS)])
            label = _PRECISIONS.get(precision, precision)
            axes.barh(table.index, table[precision], left=left, color=colour, label=label, height=0.75)
            left += table[precision].to_numpy()
        title = "\n".join(exported(arm).rsplit(", ", 1))
        axes.set_title(f"{title}, {_short(left.sum())} ms", fontsize=11)
        axes.tick_params(axis="y", length=0)
        quiet_grid(axes, "x")
    panels[0].invert_yaxis()
    figure.supxlabel("time in the engine (ms)", fontsize=12)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(precisions))
    return figure


def scatter_float_vs_int8(
    first: pd.DataFrame, second: pd.DataFrame, names: Sequence[str] = ("float", "int8")
) -> Figure:
    """Plot each case's DSC in two arms as a point. Colour and marker show the modality.

    Points above the diagonal gained. Cases in only one frame are left out.

    Args:
        first: result of `score_cases` for the horizontal axis.
        second: result of `score_cases` for the vertical axis.
        names: names of the two arms, for the axes.
    """
    both = first.merge(second, on=["modality", "case"], suffixes=("_first", "_second"))
    both["modality"] = both["modality"].map(harmonised)
    figure, axes = new_figure(width=0.95 * WIDTH, height=5.0)
    x, y = "dsc_first", "dsc_second"
    both[[x, y]] *= 100
    lowest = float(10 * np.floor(min(both[x].min(), both[y].min(), 90) / 10))
    axes.plot([lowest, 100], [lowest, 100], color=QUIET, linewidth=1.2, linestyle="--", zorder=1)
    present = [m for m in MODALITIES if m in set(both["modality"])] + sorted(
        set(both["modality"]) - set(MODALITIES)
    )
    for modality in present:
        place = MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES) - 1
        rows = both[both["modality"] == modality]
        colour, marker = STRONG[place % len(STRONG)], MARKERS[place % len(MARKERS)]
        axes.scatter(
            rows[x],
            rows[y],
            s=60,
            color=colour,
            marker=marker,
            label=modality,
            alpha=0.85,
            linewidth=0.5,
            edgecolor="white",
        )
    axes.set(xlabel=f"DSC of {names[0]} (%)", ylabel=f"DSC of {names[1]} (%)", aspect="equal")
    margin = 0.02 * (100 - lowest)
    axes.set(xlim=(lowest - margin, 100 + margin), ylim=(lowest - margin, 100 + margin))
    for place, side, words in (((0.03, 0.97), "left", names[1]), ((0.97, 0.03), "right", names[0])):
        note = {"xycoords": "axes fraction", "ha": side, "va": "top" if side == "left" else "bottom"}
        axes.annotate(f"{words} is better", place, color=QUIET, fontsize=10, **note)
    quiet_grid(axes, "both")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handletextpad=0.2)
    return figure


def difference_figure(differences: pd.DataFrame, names: Sequence[str] = ("int8", "float")) -> Figure:
    """Plot the mean difference of the DSC of each modality with its interval, in percentage points.

    A modality of one group of cases has no interval. Its mark is hollow.

    Args:
        differences: result of `paired_differences`.
        names: names of the first and the second arm.
    """
    figure, axes = new_figure(height=0.36 * len(differences) + 1.2)
    rows = differences.reset_index(drop=True)
    colours = [INK if m == "Average" else COLOURS[0] for m in rows["modality"]]
    axes.axvline(0, color=QUIET, linewidth=1.2, linestyle="--")
    axes.hlines(
        rows.index, 100 * rows["difference_low"], 100 * rows["difference_high"], color=colours, linewidth=2.5
    )
    alone = rows["difference_low"].isna()
    faces = ["white" if one else colour for one, colour in zip(alone, colours)]
    axes.scatter(100 * rows["difference"], rows.index, facecolor=faces, edgecolor=colours, s=55, zorder=3)
    labels = [f"{m}, {n} case{'s' * (n != 1)}" for m, n in zip(rows["modality"], rows["cases"])]
    xlabel = f"DSC, {names[0]} minus {names[1]} (points; 95 % interval)"
    axes.set(yticks=rows.index, yticklabels=labels)
    axes.set_xlabel(f"{xlabel}{_HOLLOW * bool(alone.any())}", fontsize=11)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")
    return figure


def ellipse_figure(table: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Plot how arms compare with the ellipse in the box: DSC minus the ellipse's, and agreement with it.

    Args:
        table: result of `against_ellipse`.
        arms: the arms to show, float first. Each modality has one line for each. A modality of one group of
            cases has no intervals. Its marks are hollow.
    """
    figure, panels = new_figure(1, 2, height=0.42 * table["modality"].nunique() + 1.5, sharey=True)
    modalities = list(dict.fromkeys(table["modality"]))
    columns = (
        ("difference", "difference_low", "difference_high"),
        tuple(f"ellipse agreement{end}" for end in ("", " low", " high")),
    )
    labels = ("DSC minus the ellipse's (points)", "agreement with the ellipse (%)")
    for axes, (middle, low, high), label in zip(panels, columns, labels):
        for k, arm in enumerate(arms):
            rows = table[table["arm"] == arm].set_index("modality").loc[modalities]
            faces = ["white" if np.isnan(end) else _arm_colour(arm) for end in rows[low]]
            y = np.arange(len(rows)) + 0.3 * (k - (len(arms) - 1) / 2)
            colour = _arm_colour(arm)
            axes.hlines(y, 100 * rows[low], 100 * rows[high], color=colour, linewidth=2.5)
            axes.scatter(
                100 * rows[middle], y, facecolor=faces, edgecolor=colour, marker=MARKERS[k], s=50, zorder=3
            )
        axes.set_xlabel(label)
        axes.tick_params(axis="y", length=0)
        quiet_grid(axes, "x")
    panels[0].axvline(0, color=QUIET, linewidth=1.2, linestyle="--")
    panels[0].set(yticks=range(len(modalities)), yticklabels=modalities)
    panels[0].invert_yaxis()
    handles = [
        Line2D([], [], color=_arm_colour(arm), marker=MARKERS[k], label=ARMS.get(arm, arm))
        for k, arm in enumerate(arms)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(arms))
    if table["difference_low"].isna().any():
        figure.supxlabel(f"lines: 95 % intervals{_HOLLOW}".replace("\n", "; "), fontsize=11)
    else:
        figure.supxlabel("lines: 95 % intervals", fontsize=11)
    return figure


def _arm_colour(arm: str) -> str:
    """Green for a quantised arm, grey for floating point."""
    return (
        COLOURS[2]
        if any(word in arm.lower() for word in ("int8", "quanti", "qcdq", "nncf", "stage", "proposed"))
        else COLOURS[7]
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
