"""Plot what calibrating a modality apart changes in the agreement with the float model."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .figure_style import COLOURS, INK, MARKERS, QUIET, new_figure, quiet_grid

SUMMARY = "Average"


def apart_figure(differences: pd.DataFrame) -> Figure:
    """Plot each arm's agreement minus that of the model calibrated on all modalities, with its interval.

    Args:
        differences: result of `study.modality_apart.differences`: arm, modality, difference, difference_low
            and difference_high, in 0..1. A modality without an interval (NaN) is a mark alone. Without a row
            the picture says that nothing was calibrated apart.
    """
    if differences.empty:
        figure, axes = new_figure(height=1.0)
        axes.axis("off")
        axes.text(0.5, 0.5, "no modality was calibrated apart", ha="center", va="center", color=QUIET)
        return figure
    arms = list(dict.fromkeys(differences["arm"]))
    names = dict.fromkeys(name for name in differences["modality"] if name != SUMMARY)
    places = {name: y for y, name in enumerate([*names, SUMMARY])}
    figure, axes = new_figure(height=0.3 * len(places) * (0.6 + 0.4 * len(arms)) + 1.6)
    axes.axvline(0, color=QUIET, linewidth=1.2, linestyle="--")
    for k, arm in enumerate(arms):
        rows = differences[differences["arm"] == arm]
        y = rows["modality"].map(places) + 0.3 * (k - (len(arms) - 1) / 2)
        ends = (100 * rows[f"difference_{end}"] for end in ("low", "high"))
        axes.hlines(y, *ends, color=COLOURS[k], linewidth=2.5)
        axes.scatter(
            100 * rows["difference"], y, color=COLOURS[k], marker=MARKERS[k], s=50, zorder=3, label=arm
        )
    axes.axhline(len(places) - 1.5, color=INK, linewidth=0.8)
    axes.set(
        xlabel="agreement with float, minus calibrated together (points; 95 % interval)",
        yticks=np.arange(len(places)),
        yticklabels=list(places),
    )
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    quiet_grid(axes, "x")
    if len(arms) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(arms))
    return figure
