"""Draw how the error of quantised models grows from block to block, and say in sentences where."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figure_style import COLOURS, INK, MARKERS, PALE, WIDTH, new_figure, quiet_grid
from .layer_words import in_words
from .wording import upper_first

ROUNDING = 100
"""dB from which a difference is float32's own rounding, as of a folded batch norm, not quantisation noise."""
SAME = 0.5
"""dB by which two models must part to be called different."""


def blocks_figure(table: pd.DataFrame) -> Figure:
    """Plot the signal over the difference to float after each block, in the network's order.

    Args:
        table: result of `quant.sensitivity.followed_each`. A block within `ROUNDING` of float's has a mark at
            the right edge, and the words `as in float`.
    """
    names = models_of(table)
    figure, axes = new_figure(width=1.1 * WIDTH, height=0.29 * len(table) + 1.4)
    shown = table[[f"{name} db" for name in names]].where(lambda db: db < ROUNDING)
    edge = 5 * np.ceil((np.nanmax(shown.to_numpy(), initial=10.0) + 5) / 5)
    if len(names) > 1:
        axes.hlines(table.index, shown.min(axis=1), shown.fillna(edge).max(axis=1), color=PALE, linewidth=3)
    for place, name in enumerate(names):
        style = {"color": COLOURS[place], "marker": MARKERS[place], "s": 50, "zorder": 3}
        axes.scatter(shown[f"{name} db"].fillna(edge), table.index, label=name, clip_on=False, **style)
    for y in table.index[shown.isna().any(axis=1)]:
        axes.annotate("as in float", (edge, y), (10, 0), textcoords="offset points", va="center", fontsize=10)
    _block_axis(axes, table)
    axes.set(xlabel="signal over difference to float (dB); to the right is better", xlim=(None, edge))
    if len(names) > 1:
        figure.legend(loc="outside upper center", ncols=len(names))
    return figure


def _block_axis(axes: Axes, table: pd.DataFrame) -> None:
    """Name the blocks on the vertical axis, and part encoder and decoder by a line."""
    labels = [f"{part}, {in_words(block)}" for part, block in zip(table["part"], table["block"])]
    axes.set_yticks(table.index, labels, fontsize=10)
    for y in table.index[1:][table["part"].to_numpy()[1:] != table["part"].to_numpy()[:-1]]:
        axes.axhline(y - 0.5, color=INK, linewidth=0.8)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")


def models_of(table: pd.DataFrame) -> list[str]:
    """Names of the models in a result of `followed_each`."""
    return [column.removesuffix(" db") for column in table if column.endswith(" db")]


def read_blocks(table: pd.DataFrame) -> list[str]:
    """Say where the last of the models loses most, and whether it is nearer to float than the first.

    Args:
        table: result of `quant.sensitivity.followed_each`, of one model or more.
    """
    names = models_of(table)
    first, last = names[0], names[-1]
    sentences = [sentence for part in ("encoder", "decoder") if (sentence := _read_end(table, part, last))]
    encoder = table[table["part"] == "encoder"].reset_index(drop=True)
    grown = (10 ** (-encoder[f"{last} db"] / 10)).diff()
    if grown.max() > 0:
        block = in_words(encoder.loc[grown.idxmax(), "block"])
        sentences.insert(1, f"Along the encoder the difference grows most in {block}.")
    return sentences + (_read_change(table, first, last) if len(names) > 1 else [])


def _read_end(table: pd.DataFrame, part: str, name: str) -> str:
    """Say how near to float the end of a part is."""
    rows = table[table["part"] == part]
    if rows.empty:
        return ""
    end, what = rows[f"{name} db"].iloc[-1], {"encoder": "embedding", "decoder": "mask logits"}[part]
    if end >= ROUNDING:
        verb = "are" if what.endswith("s") else "is"
        return f"{upper_first(name)}, the {what} {verb} float's."
    share = 100 * 10 ** (-end / 20)
    return (
        f"{upper_first(name)}, the signal of the {what} is {end:.1f} dB over its difference to "
        f"float: the difference has {share:.0f} % of its size."
    )


def _read_change(table: pd.DataFrame, first: str, last: str) -> list[str]:
    """Say in how many blocks the last model is farther from float than the first."""
    change = table[f"{last} db"].clip(upper=ROUNDING) - table[f"{first} db"].clip(upper=ROUNDING)
    farther, nearer = int((change < -SAME).sum()), int((change > SAME).sum())
    said = f"Compared with {first}, {last} is farther from float after {farther} of {len(table)} blocks "
    said += f"and nearer after {nearer}"
    if not farther and not nearer:
        return [f"{said}: training has not moved it."]
    place = change.abs().idxmax()
    block = f"{table.loc[place, 'part']}, {in_words(table.loc[place, 'block'])}"
    return [f"{said}; they part most after {block} ({change[place]:+.1f} dB)."]
