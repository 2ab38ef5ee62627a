"""Figures of training: the learning rate, losses and the score by which the best epoch is chosen."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .figure_style import COLOURS, INK, MARKERS, WIDTH, new_figure, quiet_grid

ENOUGH = 3  # fewest epochs that make a curve
LOSSES = {  # column of a training history -> label, colour, line style
    "loss": ("total", INK, "-"),
    "segmentation_loss": ("segmentation", COLOURS[0], "--"),
    "mask_loss": ("masks", COLOURS[0], "--"),
    "distillation_loss": ("distillation", COLOURS[1], ":"),
}
RING = {"s": 130, "facecolor": "none", "edgecolor": INK, "linewidth": 1.8, "zorder": 4}


def learning_rate_figure(schedule: pd.DataFrame) -> Figure:
    """Plot the learning rate against the epoch (section 3.3). Two epochs are marks without a line.

    `schedule` has columns epoch and learning_rate.
    """
    figure, axes = new_figure(height=3.4)
    line = "-" if len(schedule) >= ENOUGH else "none"
    axes.plot(
        schedule["epoch"], schedule["learning_rate"], linestyle=line, color=COLOURS[0], marker=MARKERS[0]
    )
    axes.set(xlabel="epoch", ylabel="learning rate", yscale="log")
    # a single epoch has no range of its own
    axes.set_xlim(schedule["epoch"].min() - 0.5, schedule["epoch"].max() + 0.5)
    axes.set_ylim(schedule["learning_rate"].min() / 2, schedule["learning_rate"].max() * 2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    quiet_grid(axes, "y")
    return figure


def training_curves(history: pd.DataFrame) -> Figure:
    """Plot the loss above and the score on the evaluation split below, with one column of panels per stage.

    The score is the agreement with the float model where epochs are chosen by it, else the DSC.

    The best epoch is ringed, and a dashed line is the score before training, where it is known. If no stage
    has three epochs, there is no curve to show. Then values are marks on axes that start at zero, each with
    its number.

    `history` has the columns of history.csv: stage, epoch, loss, eval_dsc (0..1), best and, where known,
    eval_agreement (0..1) and the parts of the loss. The last epoch where best is true gives the stage's
    model.
    """
    stages = {stage: rows for stage, rows in history.groupby("stage", sort=False)}
    curves = max(map(len, stages.values())) >= ENOUGH
    figure, grid = (_curve_panels if curves else _mark_panels)(list(stages.values()))
    for axes, stage in zip(grid[0], stages, strict=True):
        axes.set_title(f"stage {stage}")
    named = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid[0])
    handles = {label: handle for pairs in named for handle, label in pairs}
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles))
    return figure


def _curve_panels(stages: list[pd.DataFrame]) -> tuple[Figure, np.ndarray]:
    """Draw losses and DSC against the epoch, one column of panels per stage."""
    width = WIDTH if len(stages) > 1 else 0.7 * WIDTH
    shape = {"sharex": "col", "sharey": "row", "squeeze": False}
    figure, grid = new_figure(2, len(stages), width=width, height=4.8, **shape)
    for column, rows in enumerate(stages):
        _loss_curves(grid[0, column], rows)
        _evaluation_curve(grid[1, column], rows, _score(stages)[0])
        grid[1, column].set_xlabel("epoch")
        grid[1, column].xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    grid[0, 0].set_ylabel("training loss")
    grid[1, 0].set_ylabel(f"evaluation {_score(stages)[1]}")
    return figure, grid


def _score(stages: list[pd.DataFrame]) -> tuple[str, str]:
    """Column by which epochs are chosen, and its name."""
    if all("eval_agreement" in rows and rows["eval_agreement"].notna().all() for rows in stages):
        return "eval_agreement", "agreement"
    return "eval_dsc", "DSC"


def _losses(rows: pd.DataFrame) -> list[str]:
    """Columns of `LOSSES` that have values."""
    return [name for name in LOSSES if name in rows and rows[name].notna().any()]


def _loss_curves(axes: Axes, rows: pd.DataFrame) -> None:
    for name in _losses(rows):
        label, colour, style = LOSSES[name]
        line = {"linestyle": style if len(rows) >= ENOUGH else "none", "marker": "o", "markersize": 4}
        axes.plot(rows["epoch"], rows[name], color=colour, label=label, **line)
    axes.set_ylim(bottom=0)
    quiet_grid(axes, "y")


def _best(rows: pd.DataFrame) -> pd.DataFrame:
    """Row of the epoch that gives the stage's model. No row if the untrained model was better than all."""
    return rows[rows["best"].astype(bool)].tail(1)


def _evaluation_curve(axes: Axes, rows: pd.DataFrame, score: str) -> None:
    quiet_grid(axes, "y")
    style = "-" if len(rows) >= ENOUGH else "none"
    axes.plot(rows["epoch"], rows[score], color=COLOURS[2], linestyle=style, marker="o", markersize=4)
    before = rows.get(f"start_{score.removeprefix('eval_')}")
    if before is not None and before.notna().any():
        axes.axhline(before.iloc[0], color=INK, linestyle="--", linewidth=1)
        axes.annotate(
            f"before training {before.iloc[0]:.3f}",
            (1, before.iloc[0]),
            (0, 4),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            fontsize=10,
        )
    best = _best(rows)
    axes.scatter(best["epoch"], best[score], **RING)
    for x, y in zip(best["epoch"], best[score], strict=True):
        # Towards the middle, so that the text does not run into the next panel.
        side = "left" if x < rows["epoch"].mean() else "right"
        place = (4 if side == "right" else -4, -20)
        axes.annotate(f"{y:.3f}", (x, y), place, textcoords="offset points", ha=side, fontsize=10)
    axes.margins(y=0.3)


def _mark_panels(stages: list[pd.DataFrame]) -> tuple[Figure, np.ndarray]:
    """Draw losses and DSC as marks with their values, epochs below each other, one column per stage."""
    width = WIDTH if len(stages) > 1 else 0.7 * WIDTH
    shape = {"sharex": "row", "sharey": "row", "squeeze": False, "height_ratios": [2, 1]}
    figure, grid = new_figure(2, len(stages), width=width, height=1.9 + 1.1 * max(map(len, stages)), **shape)
    column, name = _score(stages)
    for losses, scores, rows in zip(*grid, stages, strict=True):
        _marks(losses, rows, {name: LOSSES[name][:2] for name in _losses(rows)})
        _marks(scores, rows, {column: (name, COLOURS[2])})
        scores.scatter(_best(rows)[column], _best(rows)["epoch"], **RING)
    epochs = sorted({epoch for rows in stages for epoch in rows["epoch"]})
    largest = max(rows[_losses(rows)].max().max() for rows in stages)
    _mark_axes(grid[0], "training loss", largest, [0], epochs)
    _mark_axes(grid[1], f"evaluation {name}", 1, [0, 0.5, 1], epochs)
    return figure, grid


def _marks(axes: Axes, rows: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> None:
    """Draw the values of some columns as marks with their numbers. Those of an epoch lie close together."""
    for place, (name, (label, colour)) in enumerate(columns.items()):
        height = rows["epoch"] + 0.27 * (place - (len(columns) - 1) / 2)
        axes.scatter(rows[name], height, s=36, color=colour, label=label, zorder=3, clip_on=False)
        for x, y in zip(rows[name], height, strict=True):
            text = f"{x:.3g}" if x < 0.01 else f"{x:.3f}"
            axes.annotate(text, (x, y), (10, 0), textcoords="offset points", va="center", fontsize=10)


def _mark_axes(row: np.ndarray, label: str, largest: float, ticks: list[float], epochs: list[int]) -> None:
    """Set axes from zero to the largest value, with room for a number beyond it."""
    row[0].set(xlim=(0, 1.45 * largest), ylim=(max(epochs) + 0.6, min(epochs) - 0.6))
    row[0].set(xticks=ticks, yticks=epochs, ylabel="epoch")
    for axes in row:
        axes.set_xlabel(label)
        axes.spines["bottom"].set_bounds(0, largest)
        axes.tick_params(axis="y", length=0)
