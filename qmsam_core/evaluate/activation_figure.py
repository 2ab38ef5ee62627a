"""Draw what comes to some quantisers beside the range that int8 keeps, and say in sentences what is lost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..quant.activation_values import Input
from .figure_style import COLOURS, INK, PALE, PRECISION_COLOURS, WIDTH, new_figure
from .layer_words import in_words
from .wording import upper_first

BINS = 120
ENOUGH_VALUES = 64
"""Values a code from which an unused code means something. A token's layer has fewer values than codes."""
NONE_CLIPPED = 0.00005
"""Share below which a share in per cent with two digits would be 0."""


def activations_figure(table: pd.DataFrame, values: Mapping[str, Input], rules: Mapping[str, str]) -> Figure:
    """Draw a histogram of the values that come to each of some quantisers, one panel each.

    The float model's values are an area, those of the quantised model a line. White is the range that the
    codes cover. Beyond it, where the ground is grey, values are clipped to its ends.

    Args:
        table: result of `quant.activation_values.activation_values`.
        values: what comes to the chosen quantisers, by name (`quant.activation_values.inputs_of`).
        rules: by what rule each of them was chosen, by name, in the order of the panels.
    """
    rows = -(-len(rules) // 2)
    figure, grid = new_figure(rows, 2, width=1.25 * WIDTH, height=3.9 * rows + 0.5, squeeze=False)
    by_name = table.set_index("quantiser")
    for axes, name in zip(grid.flat, rules):
        _histogram(axes, values[name])
        axes.set_title(f"{upper_first(rules[name])}\n{_wrapped(in_words(name))}", fontsize=11)
        axes.set_xlabel(_losses(by_name.loc[name]), fontsize=11)
    for axes in list(grid.flat)[len(rules) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("share of the values")
    handles, _ = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _histogram(axes: Axes, values: Input) -> None:
    """Draw one panel: both models' values, and the range."""
    low, high = values.codes.low * values.codes.scale, values.codes.high * values.codes.scale
    everything = (values.floating, values.quantised)
    left = min(low, *(float(v.min()) for v in everything))
    right = max(high, *(float(v.max()) for v in everything))
    room = 0.04 * (right - left)
    edges = np.linspace(left - room, right + room, BINS + 1)
    shares = [np.histogram(v, edges)[0] / len(v) for v in everything]
    for begin, end, label in ((edges[0], low, "clipped by int8"), (high, edges[-1], None)):
        axes.axvspan(begin, end, color=PALE, linewidth=0, zorder=0, label=label)
    axes.stairs(shares[0], edges, fill=True, color=COLOURS[0], alpha=0.45, label="float model", zorder=2)
    axes.stairs(
        shares[1], edges, color=PRECISION_COLOURS["int8"], linewidth=1.6, label="int8 model", zorder=3
    )
    for place, label in ((low, "ends of the range that int8 keeps"), (high, None)):
        axes.axvline(place, color=INK, linewidth=1.4, linestyle="--", label=label, zorder=4)
    axes.set(yscale="log", xlim=(edges[0], edges[-1]))
    axes.set_ylim(bottom=0.5 / len(values.floating) if len(values.floating) < 1e6 else 5e-7)


def _wrapped(words: str, width: int = 52) -> str:
    """Break the line of a layer's words behind its place if it is too long for a panel."""
    return words if len(words) <= width else words.replace(": ", ":\n", 1)


def _losses(row: pd.Series) -> str:
    """Say under a panel what its axis shows (activations have no unit), and what is kept and lost."""
    kept = f"int8 keeps {row['low']:.3g} to {row['high']:.3g}"
    used = f"{row['codes']} of {row['codes in all']} codes used"
    return f"value of the activation\n{kept}; {used}\n{clipped_share(row)} clipped"


def clipped_share(row: pd.Series) -> str:
    """Say what share of a quantiser's values is clipped, and their number if they are few."""
    number = round(row["clipped"] * row["values"])
    if not number:
        return f"none of {row['values']:,} values"
    return f"{_percent(row['clipped'])} of {row['values']:,} values"


def read_activations(table: pd.DataFrame, rules: Mapping[str, str]) -> list[str]:
    """Say how much int8 clips and how many codes it leaves empty, over all quantisers and at the worst.

    Args:
        table: result of `quant.activation_values.activation_values`.
        rules: the quantisers that the figure shows, see `activations_figure`.
    """
    whole = (table["clipped"] * table["values"]).sum() / table["values"].sum()
    most = table.loc[table["clipped"].idxmax()]
    sentences = [
        f"Of all values that come to the {len(table)} quantisers on this slice, {_percent(whole)} are "
        f"clipped; most in {in_words(most['quantiser'])}: {clipped_share(most)}."
    ]
    large = table[table["values"] >= ENOUGH_VALUES * table["codes in all"]]
    if len(large):
        empty = int((large["codes"] < large["codes in all"] / 2).sum())
        least = large.loc[large["codes"].idxmin()]
        sentences.append(
            f"Of the {len(large)} quantisers with values enough for every code, {empty or 'none'} "
            f"use{'s' * (empty <= 1)} less than half of the codes; fewest are used in "
            f"{in_words(least['quantiser'])}: {least['codes']} of {least['codes in all']}."
        )
    worst = table[table["quantiser"].isin(list(rules))].nsmallest(1, "rounding db").iloc[0]
    share = 100 * 10 ** (-worst["rounding db"] / 20)
    sentences.append(
        f"Of those shown, {in_words(worst['quantiser'])} loses most: the error of its own rounding and "
        f"clipping has {share:.0f} % of the size of what comes in."
    )
    return sentences


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share >= NONE_CLIPPED or not share else "less than 0.01 %"
