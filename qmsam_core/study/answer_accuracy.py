"""Sentences: does int8 keep the float model's accuracy, where does it not, and why."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ..evaluate.wording import counted, enumerated, interval, percent, points

LOSS = 0.01
"""A loss of more DSC than this counts as one, as in the table of claims. It is one point."""

CALIBRATED, TRAINED = "int8, calibrated", "int8, after stage 3"
"""Rows of `summary.csv`: quantised without training, and trained in the paper's three stages."""

ARMS = {CALIBRATED: "Calibrated", TRAINED: "Proposed", "float": "Baseline"}
"""The same models in `scores.csv` of notebook 09."""


def accuracy_verdict(summary: pd.DataFrame, scores: pd.DataFrame | None) -> tuple[str, list[str]]:
    """Say whether the trained int8 model loses more than one point of DSC on average.

    Args:
        summary: `summary.csv` of notebook 09, columns model, dsc, difference to float, difference low and
            difference high (shares 0..1), and perhaps `agreement with float`.
        scores: `scores.csv` of notebook 09, to count the cases.

    Returns:
        The verdict, and the numbers in at most two sentences.
    """
    rows = {row["model"]: row for row in summary.to_dict("records")}
    if TRAINED not in rows or "float" not in rows:
        return "Cannot be told.", [f"The table of results has no row for {TRAINED} or for float."]
    row = rows[TRAINED]
    low, high = row["difference low"], row["difference high"]
    judged_on = "" if scores is None else f" on {counted(scores['case'].nunique(), 'case')}"
    said = (
        f"After the paper's three stages of training, int8 has a DSC of {percent(row['dsc'])}{judged_on}, "
        f"float {percent(rows['float']['dsc'])}: {points(row['difference to float'])} "
        f"({interval(low, high)})."
    )
    return _verdict(low, high), [said, _untrained(rows)]


def _verdict(low: float, high: float) -> str:
    if not low < high:
        return "Cannot be told from so few cases."
    if low >= -LOSS:
        return "Yes, on average." if low <= 0 else "Yes, on average it even gains."
    return "No, not on average." if high < -LOSS else "Cannot be told: it may lose a point or nothing."


def _untrained(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Compare the model that was calibrated alone with the trained one, by the masks of the float model."""
    agreed = [rows.get(name, {}).get("agreement with float", float("nan")) for name in (CALIBRATED, TRAINED)]
    if any(map(pd.isna, agreed)):
        return ""
    before, after = agreed
    moved = "brought them nearer" if after > before else "moved them away"
    return (
        f"Its masks agree with float's to {percent(before)} when it is only calibrated, and to "
        f"{percent(after)} after training, which {moved}."
    )


def where_it_loses(paired: pd.DataFrame, scores: pd.DataFrame | None) -> list[str]:
    """Name the modalities that lose, and say whether the loss came with training.

    Args:
        paired: `paired.csv` of notebook 09: modality, cases, difference, difference_low and difference_high
            (DSC, int8 minus float; NaN where a modality has too few cases for an interval).
        scores: `scores.csv` of notebook 09, with the arms of `ARMS`.
    """
    rows = paired[paired["modality"] != "Average"].dropna(subset="difference").sort_values("difference")
    if len(rows) < 2:
        return [f"All cases are of one modality, {name}." for name in rows["modality"]]
    lost = rows[rows["difference_high"] < 0]
    worst = (lost if len(lost) else rows).iloc[0]
    before = _before_training(worst, scores)
    if len(lost):
        names = [f"{row.modality} ({points(row.difference)})" for row in lost.itertuples()]
        return [f"It loses in {enumerated(names, most=3)}{before}."]
    told = f"{points(worst['difference'])}, {counted(int(worst['cases']), 'case')}"
    if worst["difference"] < -LOSS:
        return [
            f"No modality's loss can be told from chance; {worst['modality']} falls most ({told}){before}."
        ]
    return [f"No modality falls by more than a point; the lowest is {worst['modality']} ({told})."]


def _before_training(worst: pd.Series, scores: pd.DataFrame | None) -> str:
    """Say what the modality had lost before training. Empty if the scores do not tell."""
    if scores is None:
        return ""
    dsc = scores[scores["modality"] == worst["modality"]].groupby("arm")["dsc"].mean()
    if not {ARMS[CALIBRATED], ARMS["float"]} <= set(dsc.index):
        return ""
    before = dsc[ARMS[CALIBRATED]] - dsc[ARMS["float"]]
    share = "mostly" if before > worst["difference"] / 2 else "not"
    return f"; in {worst['modality']} {share} by training: before it, {points(before)}"


def why_it_loses(recipes: pd.DataFrame) -> list[str]:
    """Name the part of the network that loses more, and what other quantisers bring.

    Args:
        recipes: `recipes.csv` of notebook 10: name and agreement (Dice with float's masks, 0..1). All
            recipes of its rows that are read are calibrated and not trained.
    """
    agreed = recipes.set_index("name")["agreement"]
    said = []
    if {"encoder only", "decoder only"} <= set(agreed.index):
        encoder, decoder = agreed["encoder only"], agreed["decoder only"]
        more = "Both parts lose alike"
        if abs(encoder - decoder) > LOSS:
            more = f"The {'encoder' if encoder < decoder else 'decoder'} loses more"
        said.append(
            f"{more}: quantised alone as the paper does, the encoder agrees with float to "
            f"{percent(encoder)}, the decoder to {percent(decoder)}."
        )
    if {"the paper's", "ours"} <= set(agreed.index):
        paper, ours = agreed["the paper's"], agreed["ours"]
        change = "mends it" if ours - paper > LOSS else "mends nothing"
        said.append(
            f"Fitting scales layer by layer to data {change}: {percent(ours)} for both parts, with the "
            f"paper's quantisers {percent(paper)}."
        )
    return said
