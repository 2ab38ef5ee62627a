"""Sentences on what a run costs: seconds of whole cases (Tables 8 and 10), and the ablation of Table 9."""

from __future__ import annotations

import pandas as pd

from ..intervals import paired_differences
from ..wording import counted, direction, enumerated, interval, points
from .accuracy import METRICS, extremes_by_modality

OVER = {
    "baseline": "the challenge's baseline",
    "authors": "the authors' pipeline",
    "medficientsam": "MedficientSAM's",
    "daft": "DAFT's",
}
"""The pipelines of Table 8 beside ours, in words."""
MEMORY = 8000
"""Megabytes that the challenge allows."""


def read_whole_cases(table: pd.DataFrame) -> list[str]:
    """Say how much faster whole cases are than with other pipelines, and where they are not.

    Args:
        table: result of `running_time_table`.
    """
    said = []
    for pipeline, name in OVER.items():
        column = f"speed-up over {pipeline} here"
        gains = table.set_index("case")[column].dropna() if column in table else pd.Series(dtype=float)
        if gains.empty:
            continue
        slower = list(gains.index[gains < 1])
        slow = f", but slower in {enumerated(slower)}" if slower else ""
        said.append(
            f"{gains.median():.2f} times as fast as {name} (median of {counted(len(gains), 'case')}){slow}"
        )
    paper = table["speed-up paper"].dropna().median()
    return [
        f"Our export is {'; '.join(said)}.",
        f"In the paper the authors' is {paper:.2f} times as fast as the baseline.",
        _memory_sentence(table),
    ]


def _memory_sentence(table: pd.DataFrame) -> str:
    column = "peak MB ours here"
    peaks = table[column].dropna() if column in table else pd.Series(dtype=float)
    if peaks.empty:
        return ""
    within = "within" if peaks.max() <= MEMORY else "beyond"
    most = f"{peaks.max():,.0f} MB at most, {within} the {MEMORY:,} that are allowed"
    return f"On the case with the most boxes ours takes {most}."


def read_in_baselines(table: pd.DataFrame) -> list[str]:
    """Name the pipeline measured here that needs the smallest share of the baseline's time.

    Args:
        table: result of `in_baselines`.
    """
    here = table[[column for column in table if column.endswith(", here")]].dropna(axis=1, how="all")
    if here.empty or here.shape[1] == 0:
        return []
    medians = here.median().sort_values()
    parts = [f"{name.removesuffix(', here')} {value:.2f}" for name, value in medians.items()]
    best = here.dropna(how="all").idxmin(axis=1).str.removesuffix(", here").value_counts()
    return [
        f"Median share of the baseline's time on this machine: {'; '.join(parts)}.",
        f"Most often the fastest: {best.index[0]}, in {best.iloc[0]} of {counted(int(best.sum()), 'case')}.",
    ]


def read_case_times(table: pd.DataFrame) -> list[str]:
    """Say how much faster the proposed model segments whole cases than the baseline.

    Args:
        table: Table 10's seconds by `across`, columns `<arm> seconds paper` and `<arm> seconds here`.
    """
    rows = table[table["modality"] != "Average"].dropna(
        subset=["Baseline seconds here", "Proposed seconds here"]
    )
    ratio = (rows["Baseline seconds here"] / rows["Proposed seconds here"]).set_axis(rows["modality"])
    mean = rows["Baseline seconds here"].mean() / rows["Proposed seconds here"].mean()
    slower = list(ratio.index[ratio < 1])
    said = f"Int8 as deployed is {mean:.2f} times as fast as float run as the challenge runs it"
    if len(ratio) > 1:
        said += f", from {ratio.min():.2f} times in {ratio.idxmin()} to {ratio.max():.2f} in {ratio.idxmax()}"
    paper = table.set_index("modality").loc["Average"]
    times = paper["Baseline seconds paper"] / paper["Proposed seconds paper"]
    return [
        f"{said}; the paper has {times:.2f} times on average.",
        f"It is slower in {enumerated(slower)}." if slower else "",
        "Each time is of one case, measured once, so small differences mean nothing.",
    ]


def read_budget(budget: pd.DataFrame) -> list[str]:
    """Compare the samples and the hours of both sampling strategies.

    Args:
        budget: result of `stage_budgets`, the proposed strategy first.
    """
    rows = budget[budget["stage"] == "all"]
    first, second = rows.iloc[0], rows.iloc[-1]
    more = second["samples"] / first["samples"]
    if more == 1:
        return [f"Both strategies see {first['samples']:,} samples, so the ablation compares nothing here."]
    longer = second["hours"] / first["hours"]
    return [
        f"The ablation sees {more:.2f} times as many samples as the balanced strategy "
        f"({second['samples']:,} against {first['samples']:,}) and takes {longer:.2f} times as long."
    ]


def read_curves(history: pd.DataFrame) -> list[str]:
    """Say how the DSC on the evaluation slices went from the first stage to the last.

    Args:
        history: of the stages, with stage and eval_dsc (0..1).
    """
    best = history.groupby("stage")["eval_dsc"].max().dropna()
    if best.empty:
        return []
    parts = [f"stage {stage} {100 * value:.1f}" for stage, value in best.items()]
    return [f"Best DSC on the evaluation slices (%): {'; '.join(parts)}."]


def read_ablation(
    proposed: pd.DataFrame, ablation: pd.DataFrame, metric: str = "dsc", stage: str = "Stage 3"
) -> list[str]:
    """Say whether more samples a modality help after the last stage, by the same cases.

    Args:
        proposed: scores (`score_cases`) of the balanced strategy, with arm.
        ablation: scores of the ablation, of the same cases.
        metric: dsc or nsd.
        stage: the arm that is compared.
    """
    arms = (rows[rows["arm"] == stage] for rows in (ablation, proposed))
    paired = paired_differences(*(rows.assign(dsc=rows[metric]) for rows in arms))
    average = paired.iloc[-1]
    low, high = average["difference_low"], average["difference_high"]
    words = {
        1: "more samples help",
        -1: "more samples do harm",
        0: "these cases cannot tell whether more samples help",
    }[direction(low, high)]
    return [
        f"After the last stage the ablation's {METRICS[metric]} is {points(average['difference'])} against "
        f"the balanced strategy's ({interval(low, high)}): {words}.",
        extremes_by_modality(paired),
    ]
