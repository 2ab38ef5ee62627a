"""Draw losses and activation scales over the steps of a training stage, and say in sentences what they do."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import ttest_ind

from .figure_style import INK, QUIET, STRONG, new_figure, quiet_grid
from .intervals import LEVEL
from .layer_words import in_words
from .training_figures import LOSSES

SMOOTHED = 12
"""Fewest steps of which a smoothed line is drawn. Fewer are points that the eye can follow."""
WINDOWS = 12
"""The smoothed line is the mean over this share of the steps, one in `WINDOWS`, at least `LEAST`."""
LEAST = 5
NAMED = 4
"""How many scales, those that move most, have a colour and a name."""
ENOUGH = 6
"""Fewest steps whose beginning and end can be compared."""


def steps_figure(steps: pd.DataFrame) -> Figure:
    """Plot the loss of every step of one stage, thin, and the mean over neighbouring steps, thick.

    Grey lines part the epochs. With fewer than `SMOOTHED` steps each is a point, and no line is smoothed.

    Args:
        steps: a stage's steps.csv (`train.steps`).
    """
    parts = [name for name in LOSSES if name in steps]
    parts = parts if len(parts) > 2 else ["loss"]  # a loss of one part is that part
    figure, grid = new_figure(len(parts), 1, height=2.1 * len(parts) + 1.1, sharex=True, squeeze=False)
    for axes, name in zip(grid[:, 0], parts):
        label, colour, _ = LOSSES[name]
        _loss_of_steps(axes, steps, name, colour)
        axes.set_ylabel(f"{label} loss" if len(parts) > 1 else "loss")
        quiet_grid(axes, "y")
    grid[-1, 0].set_xlabel("optimiser step")
    grid[-1, 0].xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    if len(steps) >= SMOOTHED:
        grid[0, 0].legend(loc="upper right")
    return figure


def _loss_of_steps(axes: Axes, steps: pd.DataFrame, name: str, colour: str) -> None:
    at = steps["step"] + 1
    for first in at[steps["epoch"].diff() > 0]:
        axes.axvline(first - 0.5, color=QUIET, linewidth=0.6)
    if len(steps) < SMOOTHED:
        axes.plot(at, steps[name], color=colour, marker="o", linewidth=1, linestyle="--")
    else:
        width = max(LEAST, len(steps) // WINDOWS)
        axes.plot(at, steps[name], color=colour, linewidth=0.7, alpha=0.45, label="each step")
        smooth = steps[name].rolling(width, center=True, min_periods=1 + width // 2).mean()
        axes.plot(at, smooth, color=INK, linewidth=2.2, label=f"mean of {width} steps")
    low, high = np.nanpercentile(steps[name], (0, 100))
    axes.set_ylim(0 if low > 0 else None, 1.08 * high if high > 0 else None)


def scale_steps_figure(scales: pd.DataFrame) -> Figure:
    """Plot how far each activation scale of a stage has moved from its start, in per cent, over the steps.

    The `NAMED` scales that move most have a colour and a name in words, the others are grey.

    Args:
        scales: a stage's step_scales.csv (`train.steps`).
    """
    moved = moved_scales(scales)
    figure, axes = new_figure(height=3.6 + 0.28 * min(NAMED, moved.shape[1]))
    few = {"marker": "o", "markersize": 4} if len(moved) < SMOOTHED else {}
    most = list(moved.columns[:NAMED])
    for name in moved.columns[NAMED:]:
        axes.plot(moved.index, moved[name], color=QUIET, linewidth=0.6, alpha=0.5)
    for place, name in reversed(list(enumerate(most))):
        axes.plot(moved.index, moved[name], color=STRONG[place], label=in_words(name), **few)
    axes.set(xlabel="optimiser steps done", ylabel="scale, change since\nthe stage's start (%)")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    limit = max(1.1 * np.nanmax(moved.abs().to_numpy(), initial=0), 1e-3)
    if np.nanmax(moved.abs().to_numpy(), initial=0) < limit / 2:  # nothing moves: show that as a flat line
        axes.set_ylim(-limit, limit)
    quiet_grid(axes, "y")
    handles, labels = axes.get_legend_handles_labels()
    title = f"the {len(most)} of {moved.shape[1]} that move most; the others are grey"
    figure.legend(
        handles[::-1], labels[::-1], loc="outside lower left", fontsize=10, title=title, alignment="left"
    )
    return figure


def moved_scales(scales: pd.DataFrame) -> pd.DataFrame:
    """Change of each scale since the first row, in per cent, by steps done; what moves most comes first."""
    values = scales.drop(columns="stage").set_index("step")
    moved = 100 * (values / values.iloc[0] - 1)
    return moved[moved.abs().max().sort_values(ascending=False, kind="stable").index]


def read_steps(steps: pd.DataFrame) -> list[str]:
    """Say whether the loss fell, from the scatter of the steps at the beginning and at the end.

    Args:
        steps: a stage's steps.csv.
    """
    number, loss = len(steps), steps["loss"]
    if number < ENOUGH:
        return [
            f"The stage has {number} step{'s' * (number != 1)}, too few to tell whether the loss falls: "
            f"it is {loss.iloc[0]:.3g} in the first and {loss.iloc[-1]:.3g} in the last."
        ]
    third = number // 3
    first, last = loss.iloc[:third], loss.iloc[-third:]
    change = last.mean() - first.mean()
    low, high = ttest_ind(last, first, equal_var=False).confidence_interval(LEVEL)
    said = f"From the first third of {number} steps to the last the mean loss went from {first.mean():.3g} "
    said += f"to {last.mean():.3g} ({100 * change / first.mean():+.0f} %)"
    if not (low > 0 or high < 0):
        return [f"{said}; steps scatter so much that this may be chance."]
    return [f"{said}, which is {'a fall' if change < 0 else 'a rise'} beyond the scatter of the steps."]


def read_scale_steps(scales: pd.DataFrame) -> list[str]:
    """Say which scales moved most by the end of the stage, and how far the typical one did.

    Args:
        scales: a stage's step_scales.csv.
    """
    moved = moved_scales(scales).iloc[-1]
    most = moved.abs().idxmax()
    if not moved.abs().max() > 0:
        return [f"None of the {len(moved)} scales moved."]
    typical = moved.abs().median()
    half = f"Half of the {len(moved)} scales moved by less than {typical:.2g} %"
    return [
        f"{half if typical else f'Most of the {len(moved)} scales did not move'}; "
        f"{int((moved > 0).sum())} grew and {int((moved < 0).sum())} shrank.",
        f"Most moved that of {in_words(most)}: {moved[most]:+.2g} %.",
    ]
