"""The study's figures. Each function takes data frames or arrays and returns a matplotlib Figure to save.

This module has the charts. Training curves are in `training_figures`, images of cases in `case_figures`, the
diagram of Figure 1 in `sublayers_figure` and the style in `figure_style`. All can be imported from here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .case_figures import QualitativeRow, contact_sheet, gallery_figure, qualitative_figure
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
    set_style,
)
from .paper_tables import MODALITIES, harmonised
from .sublayers_figure import quantised_sublayers_figure
from .training_figures import learning_rate_figure, training_curves

__all__ = [
    "QualitativeRow",
    "contact_sheet",
    "difference_figure",
    "gallery_figure",
    "imbalance_figure",
    "layer_types_figure",
    "learning_rate_figure",
    "qualitative_figure",
    "quantised_sublayers_figure",
    "scatter_float_vs_int8",
    "set_style",
    "size_figure",
    "speed_figure",
    "training_curves",
]


def imbalance_figure(counts: pd.DataFrame) -> Figure:
    """Plot the samples of each modality on a logarithmic axis (Table 2).

    `counts` has modality and one to three numeric columns. Each is a series (`samples paper`, `samples
    here`).
    """
    series = [c for c in counts.select_dtypes("number") if counts[c].notna().any()]
    rows = counts.sort_values(series[0], ignore_index=True)
    figure, axes = new_figure(height=0.36 * len(rows) + 1.2)
    for colour, marker, name in zip((COLOURS[0], COLOURS[1], COLOURS[2]), MARKERS, series):
        if len(series) == 1:
            axes.hlines(rows.index, rows[name].min() / 3, rows[name], color=colour, linewidth=1.5, alpha=0.5)
        axes.scatter(rows[name], rows.index, s=60, color=colour, marker=marker, label=_words(name), zorder=3)
        for y, value in rows[name].dropna().items():
            axes.annotate(
                f"{value:,.0f}", (value, y), (8, 0), textcoords="offset points", va="center", fontsize=10
            )
    axes.set(
        xscale="log", xlabel="2-D samples (a slice each)", yticks=rows.index, yticklabels=rows["modality"]
    )
    axes.set_xlim(rows[series].min().min() / 2.5, rows[series].max().max() * 8)
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")
    if len(series) > 1:
        axes.legend(loc="lower right")
    return figure


def speed_figure(timings: pd.DataFrame, unit: str = "ms") -> Figure:
    """Plot each arm's median time as a bar, with a whisker from the fastest run to the 95th percentile.

    Args:
        timings: result of `measure_interleaved`. With a column `group` (for example the instruction set),
            each arm has one bar for each group. With a column `paper_ms`, a diamond marks the paper's time.
        unit: "ms" or "s".
    """
    timings = timings if "group" in timings else timings.assign(group="")
    scale = {"ms": 1.0, "s": 1e-3}[unit]
    groups, arms = list(dict.fromkeys(timings["group"])), list(dict.fromkeys(timings["arm"]))
    paper = (
        timings.drop_duplicates("arm").set_index("arm")["paper_ms"] * scale if "paper_ms" in timings else {}
    )
    widest = scale * timings["p95_ms"].max()
    figure, axes = new_figure(height=0.34 * len(timings) + 0.12 * len(arms) + 1.3)
    thickness = 0.8 / len(groups)
    for row in timings.to_dict("records"):
        y = arms.index(row["arm"]) + (groups.index(row["group"]) - (len(groups) - 1) / 2) * thickness
        colour = _arm_colour(row["arm"]) if len(groups) == 1 else COLOURS[groups.index(row["group"])]
        low, median, high = (scale * row[c] for c in ("min_ms", "median_ms", "p95_ms"))
        label = None if len(groups) == 1 or row["arm"] != arms[0] else row["group"]
        axes.barh(y, median, 0.9 * thickness, color=colour, label=label)
        axes.hlines(y, low, high, color=INK, linewidth=1.5)
        mark = paper[row["arm"]] if row["arm"] in paper else np.nan
        # The number must not overlap the diamond.
        at = mark if high - 0.02 * widest < mark < high + 0.14 * widest else high
        axes.annotate(_short(median), (at, y), (7, 0), textcoords="offset points", va="center", fontsize=10)
    if len(paper):
        axes.scatter(
            paper,
            [arms.index(arm) for arm in paper.index],
            marker="D",
            s=50,
            color=INK,
            edgecolor="white",
            zorder=4,
            label="paper",
        )
    axes.set(
        xlabel=f"time ({unit}): median, whisker from minimum to 95th percentile",
        yticks=range(len(arms)),
        yticklabels=arms,
    )
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper center", ncols=4)
    return figure


def size_figure(sizes: pd.DataFrame) -> Figure:
    """Plot the size of each arm's files. Columns: arm, mb and optionally part (encoder, decoder), stacked."""
    sizes = sizes if "part" in sizes else sizes.assign(part="model")
    table = sizes.pivot_table(index="arm", columns="part", values="mb", sort=False, aggfunc="sum").fillna(0)
    figure, axes = new_figure(height=0.42 * len(table) + 1.4)
    left = np.zeros(len(table))
    for colour, part in zip((COLOURS[0], COLOURS[9], COLOURS[1], COLOURS[4]), table):
        axes.barh(table.index, table[part], left=left, color=colour, label=part, height=0.7)
        left += table[part].to_numpy()
    for y, total in enumerate(left):
        axes.annotate(_short(total), (total, y), (6, 0), textcoords="offset points", va="center", fontsize=10)
    axes.set(xlabel="size (MB)")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")
    if table.shape[1] > 1:
        figure.legend(loc="outside upper center", ncols=table.shape[1])
    return figure


def layer_types_figure(layers: pd.DataFrame, top: int = 10) -> Figure:
    """Plot an engine's time by operation and by the precision that really ran, one panel for each arm.

    Args:
        layers: columns operation, precision (int8, f32, bf16, ...), ms and, for several arms, arm.
        top: number of slowest operations to show. The others are summed as `other`.
    """
    layers = layers if "arm" in layers else layers.assign(arm="")
    slowest = layers.groupby("operation")["ms"].sum().nlargest(top).index
    layers = layers.assign(operation=layers["operation"].where(layers["operation"].isin(slowest), "other"))
    operations = [*slowest, *(["other"] if (layers["operation"] == "other").any() else [])]
    arms, precisions = list(dict.fromkeys(layers["arm"])), sorted(set(layers["precision"]), reverse=True)
    width = WIDTH if len(arms) > 1 else 0.8 * WIDTH
    figure, panels = new_figure(
        1,
        len(arms),
        width=width,
        height=0.36 * len(operations) + 1.6,
        sharey=True,
        sharex=True,
        squeeze=False,
    )
    for axes, arm in zip(panels[0], arms):
        rows = layers[layers["arm"] == arm]
        table = (
            rows.pivot_table(index="operation", columns="precision", values="ms", aggfunc="sum")
            .reindex(index=operations, columns=precisions)
            .fillna(0)
        )
        left = np.zeros(len(table))
        for place, precision in enumerate(precisions):
            colour = PRECISION_COLOURS.get(precision, COLOURS[(4 + place) % len(COLOURS)])
            axes.barh(table.index, table[precision], left=left, color=colour, label=precision, height=0.75)
            left += table[precision].to_numpy()
        axes.set_title(f"{arm}\n{_short(left.sum())} ms".strip(), fontsize=12)
        axes.tick_params(axis="y", length=0)
        quiet_grid(axes, "x")
    panels[0, 0].invert_yaxis()
    figure.supxlabel("time in the engine (ms)", fontsize=12)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(precisions)
    )
    return figure


def scatter_float_vs_int8(
    first: pd.DataFrame, second: pd.DataFrame, metric: str = "dsc", names: Sequence[str] = ("float", "int8")
) -> Figure:
    """Plot each case's score in two arms as a point. Colour and marker show the modality.

    Points above the diagonal gained. Cases in only one frame are left out.

    Args:
        first: result of `score_cases` for the horizontal axis.
        second: result of `score_cases` for the vertical axis.
        metric: column to plot.
        names: names of the two arms, for the axes.
    """
    both = first.merge(second, on=["modality", "case"], suffixes=("_first", "_second"))
    both["modality"] = both["modality"].map(harmonised)
    figure, axes = new_figure(width=0.95 * WIDTH, height=5.0)
    x, y = f"{metric}_first", f"{metric}_second"
    lowest = float(np.floor(10 * min(both[x].min(), both[y].min(), 0.9)) / 10)
    axes.plot([lowest, 1], [lowest, 1], color=QUIET, linewidth=1.2, linestyle="--", zorder=1)
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
    axes.set(xlabel=f"{_words(metric)}, {names[0]}", ylabel=f"{_words(metric)}, {names[1]}", aspect="equal")
    margin = 0.02 * (1 - lowest)
    axes.set(xlim=(lowest - margin, 1 + margin), ylim=(lowest - margin, 1 + margin))
    quiet_grid(axes, "both")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handletextpad=0.2)
    return figure


def difference_figure(
    differences: pd.DataFrame, metric: str = "dsc", names: Sequence[str] = ("int8", "float")
) -> Figure:
    """Plot the mean difference of each modality with its interval, in percentage points.

    Args:
        differences: result of `paired_differences`.
        metric: name of the metric, for the label.
        names: names of the first and the second arm.
    """
    figure, axes = new_figure(height=0.36 * len(differences) + 1.2)
    rows = differences.reset_index(drop=True)
    colours = [INK if m == "Average" else COLOURS[0] for m in rows["modality"]]
    axes.axvline(0, color=QUIET, linewidth=1.2, linestyle="--")
    axes.hlines(
        rows.index, 100 * rows["difference_low"], 100 * rows["difference_high"], color=colours, linewidth=2.5
    )
    axes.scatter(100 * rows["difference"], rows.index, color=colours, s=55, zorder=3)
    labels = [f"{m} ({n})" for m, n in zip(rows["modality"], rows["cases"])]
    xlabel = f"{_words(metric)}, {names[0]} minus {names[1]} (points; 95 % interval)"
    axes.set(xlabel=xlabel, yticks=rows.index, yticklabels=labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")
    return figure


def _arm_colour(arm: str) -> str:
    """Green for a quantised arm, grey for floating point."""
    return (
        COLOURS[2]
        if any(word in arm.lower() for word in ("int8", "quanti", "qcdq", "nncf", "stage"))
        else COLOURS[7]
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _words(name: str) -> str:
    return " ".join(
        {"dsc": "DSC", "nsd": "NSD"}.get(word, word) for word in str(name).replace("_", " ").split()
    )
