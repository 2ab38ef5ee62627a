"""Sentences about the tables and figures of notebook 10, made from their numbers."""

from __future__ import annotations

import pandas as pd

from ..wording import direction, enumerated, interval, percent, points

EQUAL = 0.002
"""Shares that differ by less are called equal: two runs of one model differ by as much."""


def read_recipes(recipes: pd.DataFrame) -> list[str]:
    """Say which way to quantise keeps the float masks best, where it is weakest, and what training adds.

    Args:
        recipes: columns name, family, agreement, `agreement low` and weakest; family `trained` is of the
            stages of training.
    """
    calibrated = recipes[~recipes["family"].isin(["float", "trained"])].set_index("name")
    ranked = calibrated["agreement"].sort_values(ascending=False)
    whole = ranked[[name for name in ranked.index if calibrated.loc[name, "family"] != "parts"]]
    best = calibrated.loc[whole.index[0]]
    sentences = [
        f"Of the recipes that quantise the whole model, {whole.index[0]!r} keeps the float masks best: "
        f"{percent(best['agreement'])} agreement, {percent(best['agreement low'])} in {best['weakest']}, the "
        f"lowest. The furthest from float is {ranked.index[-1]!r}, with {percent(ranked.iloc[-1])}."
    ]
    stages = recipes[recipes["family"] == "trained"]
    if len(stages):
        last, top = stages.iloc[-1], stages["agreement"].max()
        sentences.append(
            f"This run's own training ends at {percent(last['agreement'])}, "
            + (
                f"below the {percent(top)} that it had earlier."
                if top > last["agreement"] + EQUAL
                else "its best stage."
            )
        )
    return sentences


def read_input_sizes(table: pd.DataFrame) -> list[str]:
    """Say what a smaller input costs in DSC and saves in time, in int8.

    Args:
        table: result of `table_of` in `study.resolutions`.
    """
    largest = table["px"].max()
    milliseconds = table.set_index(["px", "precision"])["ms"]
    sentences = []
    for _, row in table[(table["precision"] == "int8") & (table["px"] < largest)].iterrows():
        share = row["ms"] / milliseconds[largest, "int8"]
        ends = row["difference low"], row["difference high"]
        untold = "" if direction(*ends) else ", which is no difference that can be told"
        sentences.append(
            f"Int8 at {row['px']} px takes {100 * share:.0f} % of its time at {largest} px, with a DSC of "
            f"{points(row['difference'])} ({interval(*ends)}) to float at {largest} px{untold}."
        )
    return sentences


def read_apart(table: pd.DataFrame) -> list[str]:
    """Say for which modalities calibrating apart helps or harms.

    Args:
        table: result of `modality_apart.summary`.
    """
    if table.empty:
        return ["This run calibrates no modality apart."]
    own = table[table["modality"] != "Average"]
    low, high = own["difference low"], own["difference high"]
    better, worse = own.loc[low > 0, "modality"], own.loc[high < 0, "modality"]
    untold = own.loc[~((low > 0) | (high < 0)), "modality"]
    return [
        f"Calibrated apart, {enumerated(better)} agree{'s' * (len(better) == 1)} better with float."
        if len(better)
        else "No modality gains by scales of its own beyond what chance can do.",
        f"Worse apart: {enumerated(worse)}." if len(worse) else "",
        f"For {enumerated(untold)} it cannot be told." if len(untold) else "",
    ]


def read_layer_share(share: pd.DataFrame, ours: str = "int8, encoder") -> list[str]:
    """Say which share of the encoder's time ran in int8, in our export and in that of the authors' style.

    Args:
        share: columns arm and `time in <type>` (0..1); one row of the two is `ours`.
        ours: arm of our export.
    """
    table = share.set_index("arm")["time in int8"].fillna(0.0)
    theirs = table.drop(ours)
    return [
        f"Exported in the authors' style, the encoder spends {100 * theirs.iloc[0]:.0f} % of its time in "
        f"int8 layers; in our style {100 * table[ours]:.0f} %.",
        "Int8 layers are the quick ones, so the share of time understates the work that they do.",
    ]
