"""Sentences for the tables and figures of training: what the numbers of a run show, made from the numbers."""

from __future__ import annotations

import pandas as pd

from ..intervals import average_interval
from ..layer_words import in_words
from ..wording import enumerated

PARTED = ("epochs", "samples_per_modality", "batch_size", "world_size", "learning_rate", "optimizer")
"""Settings of Table 3 in which a run may depart from the paper, in the order in which they are told."""


def read_protocol(table: pd.DataFrame) -> list[str]:
    """Say in which settings this run's protocol differs from the paper's.

    Args:
        table: settings by row, with a column `setting` and `stage <n> paper` and `stage <n> here`.
    """
    rows = table.set_index("setting")
    stages = [column.removesuffix(" paper") for column in rows if column.endswith(" paper")]
    told = []
    for setting in (name for name in PARTED if name in rows.index):
        pairs = [
            tuple(_value(rows.loc[setting, f"{stage} {side}"]) for side in ("here", "paper"))
            for stage in stages
        ]
        if any(here != paper for here, paper in pairs):
            sides = (", ".join(dict.fromkeys(side)) for side in zip(*pairs))
            told.append(f"{setting.replace('_', ' ')} ({' against '.join(sides)})")
    if not told:
        return ["This run trains by the paper's protocol."]
    return [f"This run departs from the paper's protocol in {enumerated(told, most=len(told))}."]


def _value(value: object) -> str:
    """Write a setting. A column of numbers and words may hold a whole number as a float."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_hours(table: pd.DataFrame) -> list[str]:
    """Say how long training took, beside the paper's hours.

    Args:
        table: as for `read_protocol`, with the setting `training_hours`.
    """
    hours = table.set_index("setting").loc["training_hours"]
    paper, here = (
        pd.to_numeric(hours[[c for c in hours.index if c.endswith(f" {side}")]]) for side in ("paper", "here")
    )
    if not here.sum() > 0:
        return []
    longest = here.idxmax().removesuffix(" here")
    ratio = paper.sum() / here.sum()
    beside = f"{ratio:,.0f} times as long" if ratio >= 1.5 else f"{100 * ratio:.0f} % of that"
    return [
        f"All stages together trained for {_hours(here.sum())} here, most in {longest} "
        f"({100 * here.max() / here.sum():.0f} %); the paper trained for {paper.sum():g} hours, {beside}."
    ]


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def read_history(history: pd.DataFrame) -> list[str]:
    """Say which epoch of a stage was kept, and what its score gained over the first.

    Args:
        history: a stage's history.csv.
    """
    agreed = "eval_agreement" in history and history["eval_agreement"].notna().all()
    score, name = ("eval_agreement", "agreement with float") if agreed else ("eval_dsc", "DSC")
    number, kept = len(history), history[history["best"].astype(bool)]
    start = history.get(f"start_{score.removeprefix('eval_')}")
    before = (
        "" if start is None or start.isna().all() else f"; before training it was {100 * start.iloc[0]:.2f} %"
    )
    if kept.empty:
        return [
            f"None of {number} epoch{'s' * (number != 1)} scored better than the model before training, "
            f"which is kept: {name} at best {100 * history[score].max():.2f} %{before}."
        ]
    best = kept.iloc[-1]
    if number == 1:
        return [f"There is one epoch, and it is kept: {name} {100 * best[score]:.2f} %{before}."]
    last = history[score].iloc[-1]
    sentences = [
        f"Epoch {history.index.get_loc(best.name) + 1} of {number} is kept: "
        f"{name} {100 * best[score]:.2f} %{before}."
    ]
    if last < best[score]:
        sentences.append(f"After the last epoch it is {100 * (best[score] - last):.2f} points lower.")
    return sentences


def read_summary(history: pd.DataFrame, dsc_before: float) -> list[str]:
    """Say what a stage did to the DSC on the evaluation slices.

    Args:
        history: a stage's history.csv.
        dsc_before: DSC (0..1) of the model that the stage began with; NaN if it is not known.
    """
    kept = history.loc[history["best"].astype(bool), "eval_dsc"]
    if kept.empty or pd.isna(dsc_before):
        return []
    change = 100 * (kept.iloc[-1] - dsc_before)
    direction = "higher" if change > 0 else "lower"
    moved = f"{abs(change):.2f} points {direction} than" if abs(change) >= 0.005 else "the same as"
    return [
        f"On the evaluation slices the model's DSC is {moved} before the stage.",
        "The slices that choose the epoch judge it here, and they are few, so this is no measure of what "
        "training gained.",
    ]


def read_ranges(table: pd.DataFrame) -> list[str]:
    """Say how far the largest magnitudes of the quantisers lie apart.

    Args:
        table: result of `quant.activation_values.ranges`.
    """
    table = table.reset_index(drop=True)
    size = table["largest magnitude"]
    low, high = (table.loc[place] for place in (size.idxmin(), size.idxmax()))
    ratio = high["largest magnitude"] / low["largest magnitude"]
    codes = int(127 / ratio)
    few = f"only {codes} of the 127 steps" if codes else "not one of the 127 steps"
    return [
        f"The largest magnitude is {low['largest magnitude']:.3g} in {in_words(low['quantiser'])} and "
        f"{high['largest magnitude']:.3g} in {in_words(high['quantiser'])}, {ratio:,.0f} times as much.",
        f"With one scale for both, the smaller would have {few} on either side of zero.",
    ]


def read_fidelity(table: pd.DataFrame) -> list[str]:
    """Say how faithful the last model of the table is to float, where least, and what the last stage changed.

    Args:
        table: result of `quant.fidelity.fidelity`, of several models side by side. The last is told.
    """
    ending = " embedding db"
    names = [column.removesuffix(ending) for column in table if column.endswith(ending)]
    rows, average = table[table["modality"] != "Average"], table[table["modality"] == "Average"].iloc[0]
    agreement = f"{names[-1]} agreement"
    worst = rows.loc[rows[agreement].idxmin()]
    said = f"After {names[-1]} the masks agree with the float model's to {100 * average[agreement]:.1f} %"
    if len(rows) > 1:
        said += f" on average of {len(rows)} modalities, "
        said += f"least in {worst['modality']} ({100 * worst[agreement]:.1f} %)"
    number = int(average["slices"])
    sentences = [f"{said}; {number} slice{'s' * (number != 1)} in all."]
    if len(names) > 1:
        change = _changed(100 * (rows[agreement] - rows[f"{names[-2]} agreement"]), len(rows))
        sentences.append(f"Compared with {names[-2]} the agreement {change}.")
    more = 100 * (rows[f"{names[-1]} ellipse agreement"] - rows["float ellipse agreement"])
    sentences.append(
        "Compared with the float model's, the masks' agreement with the ellipse in the box "
        f"{_changed(more, len(rows))}{_box(more)}."
    )
    return sentences


def _changed(points: pd.Series, modalities: int) -> str:
    """Say how a score changed on average of modalities, with its interval over them."""
    mean = points.mean()
    if abs(mean) < 0.05 and points.abs().max() < 0.05:
        return "stays as it is"
    verb = "rises" if mean > 0 else "falls"
    low, high = average_interval([points.to_numpy()])
    if pd.isna(low):
        return f"{verb} by {abs(mean):.1f} points in the one modality"
    interval = f"95 % over {modalities} modalities: {low:+.1f} to {high:+.1f}"
    if low <= 0 <= high:
        return f"does not change by more than chance ({mean:+.1f} points; {interval})"
    return f"{verb} by {abs(mean):.1f} points ({interval})"


def _box(points: pd.Series) -> str:
    """Say what the ellipse means, if the change can be told."""
    low, high = average_interval([points.to_numpy()])
    if low > 0:
        return ": int8 draws more of a filled box than float does"
    return ": int8 does not fall back to filling boxes" if high < 0.5 else ""
