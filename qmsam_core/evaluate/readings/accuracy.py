"""Sentences on the accuracy of int8: Tables 7, 9 and 10 and what stands beside them, made from the scores."""

from __future__ import annotations

import pandas as pd

from ..intervals import paired_differences, spread_interval
from ..tables import AVERAGE, balance, per_modality
from ..wording import ARMS, FLOAT, counted, direction, enumerated, interval, percent, points, upper_first

METRICS = {"dsc": "DSC", "nsd": "NSD"}


def read_against_float(
    scores: pd.DataFrame, arm: str, metric: str = "dsc", paper: float = float("nan")
) -> list[str]:
    """Say how an arm's mean score differs from float's, and where most.

    Args:
        scores: one row per case and arm (`score_cases`), with arm.
        arm: the arm that is judged.
        metric: dsc or nsd.
        paper: the same difference in the paper, 0..1. NaN if it has none.
    """
    first, second = (_rows(scores, name, metric) for name in (arm, FLOAT))
    paired = paired_differences(first, second)
    means = [per_modality(rows.drop(columns="arm")).iloc[-1]["dsc"] for rows in (first, second)]
    average = paired.iloc[-1]
    low, high = average["difference_low"], average["difference_high"]
    verdict = {
        1: "more than float",
        -1: "less than float",
        0: "a difference that these cases cannot tell from none",
    }
    said = (
        f"Mean {METRICS[metric]} over modalities: {ARMS[arm]} {percent(means[0])}, "
        f"float {percent(means[1])}. "
        f"That is {points(average['difference'])} ({interval(low, high)}), {verdict[direction(low, high)]}"
    )
    said += "." if pd.isna(paper) else f"; the paper has {points(paper)}."
    return [said, extremes_by_modality(paired)]


def paper_difference(table: pd.DataFrame, arm: str, metric: str = "dsc") -> float:
    """The paper's average of an arm minus its baseline's, from a table by `across`. NaN if it has none."""
    columns = [f"{name} {metric} paper" for name in (arm, FLOAT)]
    if not set(columns) <= set(table):
        return float("nan")
    row = table.set_index("modality").loc[AVERAGE, columns]
    return float(row.iloc[0] - row.iloc[1])


def extremes_by_modality(paired: pd.DataFrame) -> str:
    """Name the modalities that lose and gain by their intervals, or else the largest difference.

    Args:
        paired: result of `paired_differences`.
    """
    rows = paired[paired["modality"] != AVERAGE].sort_values("difference")
    if len(rows) < 2:
        return ""
    sign = [direction(*ends) for ends in rows[["difference_low", "difference_high"]].to_numpy()]
    lost = [f"{row.modality} ({points(row.difference)})" for row, s in zip(rows.itertuples(), sign) if s < 0]
    gained = [
        f"{row.modality} ({points(row.difference)})" for row, s in zip(rows.itertuples(), sign) if s > 0
    ][::-1]
    unknown = int(rows["difference_low"].isna().sum())
    parts = [f"a loss in {enumerated(lost)}"] if lost else []
    parts += [f"a gain in {enumerated(gained)}"] if gained else []
    if parts:
        said = f"Beyond chance is {' and '.join(parts)}"
    else:
        far = rows.loc[rows["difference"].abs().idxmax()]
        largest = f"{points(far['difference'])} in {far['modality']}"
        said = f"In no modality can a difference be told; the largest is {largest}"
    return said + (
        f"; {counted(unknown, 'modality')} with one case or patient cannot tell." if unknown else "."
    )


def read_agreement(scores: pd.DataFrame, arms: list[str]) -> list[str]:
    """Say which arm's masks are nearest to float's and which are furthest, and where the worst modality is.

    Args:
        scores: one row per case and arm, with agreement.
        arms: the arms to compare, without float and the ellipse.
    """
    table = per_modality(scores[scores["arm"].isin(arms)])
    means = table[table["modality"] == AVERAGE].set_index("arm")["agreement"].sort_values(ascending=False)
    rows = table[table["modality"] != AVERAGE]
    worst = rows.loc[rows["agreement"].idxmin()]
    near = f"The masks of {ARMS[means.index[0]]} are nearest to float's (agreement {percent(means.iloc[0])})"
    if len(means) > 1:
        near += f", those of {ARMS[means.index[-1]]} are furthest ({percent(means.iloc[-1])})"
    return [
        f"{near}.",
        f"The lowest agreement is {percent(worst['agreement'])}: "
        f"{ARMS[worst['arm']]} in {worst['modality']}.",
    ]


def read_arms(averages: pd.DataFrame) -> list[str]:
    """Say which arms lose or gain DSC on float, and which cannot be told from it.

    Args:
        averages: columns arm, difference, difference_low and difference_high, one row for each arm.
    """
    named: dict[int, list[str]] = {-1: [], 0: [], 1: []}
    for row in averages.itertuples():
        named[direction(row.difference_low, row.difference_high)].append(
            f"{ARMS[row.arm]} ({points(row.difference)})"
        )
    words = {-1: "Below float", 1: "Above float", 0: "Not different from float beyond chance"}
    return [f"{words[k]}: {enumerated(named[k], 9)}." for k in (-1, 1, 0) if named[k]]


def read_scatter(first: pd.DataFrame, second: pd.DataFrame, name: str) -> list[str]:
    """Count the cases on which an arm scores higher than float, and name the one that moves most.

    Args:
        first: rows of float (`score_cases`).
        second: rows of the other arm.
        name: the other arm in words.
    """
    both = first.merge(second, on=["modality", "case"], suffixes=("_first", "_second"))
    moved = (both["dsc_second"] - both["dsc_first"]).dropna()
    if moved.empty:
        return []
    far = both.loc[moved.abs().idxmax()]
    up = int((moved > 0).sum())
    return [
        f"{upper_first(name)} scores higher than float on {up} of {counted(len(moved), 'case')}.",
        f"Half of the cases move by less than {100 * moved.abs().median():.2f} points; {far['case']} "
        f"({far['modality']}) moves most, by {points(moved[moved.abs().idxmax()])}.",
    ]


def read_spread(spread: pd.DataFrame) -> list[str]:
    """Name each arm's worst case, and the objects that it misses altogether.

    Args:
        spread: results of `spread_per_modality`, stacked, with arm.
    """
    rows = spread[spread["modality"] == AVERAGE].to_dict("records")
    worst = [f"{ARMS[row['arm']]} {percent(row['worst'])} ({row['worst_case']})" for row in rows]
    missed = [f"{ARMS[row['arm']]} {row['missed']}" for row in rows]
    return [
        f"The lowest DSC of a case: {'; '.join(worst)}.",
        f"Objects that are missed altogether (DSC 0): {'; '.join(missed)}.",
    ]


def read_balance(scores: pd.DataFrame, arm: str) -> list[str]:
    """Say whether an arm's DSC is more even over modalities than float's, and which modality is the weakest.

    Args:
        scores: one row per case and arm.
        arm: the arm that is judged.
    """
    rows = balance(per_modality(scores)).set_index("arm")
    first, second = (scores[scores["arm"] == name] for name in (arm, FLOAT))
    if first["modality"].nunique() < 2:
        return ["The cases are of one modality, so nothing can be said about balance."]
    low, high = spread_interval(first, second)
    change = rows.loc[arm, "dsc std"] - rows.loc[FLOAT, "dsc std"]
    words = {
        -1: "more even than float",
        1: "less even than float",
        0: "as even as float, as far as can be told",
    }
    weakest = [
        f"{rows.loc[name, 'weakest']} ({percent(rows.loc[name, 'dsc minimum'])})" for name in (arm, FLOAT)
    ]
    return [
        f"{upper_first(ARMS[arm])} is {words[direction(low, high)]}: the standard deviation of its DSC over "
        f"modalities is {100 * rows.loc[arm, 'dsc std']:.1f} points, {points(change)} against float's "
        f"({interval(low, high)}).",
        f"Its weakest modality is {weakest[0]}, float's {weakest[1]}.",
    ]


def read_scores_summary(summary: pd.DataFrame) -> list[str]:
    """Say which int8 model is nearest to float, what it costs in DSC, and how much faster it is.

    Args:
        summary: result of `summary_table`.
    """
    rows = summary.set_index("model")
    int8 = rows[rows.index.str.startswith("int8")]
    best = int8["agreement with float"].idxmax()
    row, ms = rows.loc[best], rows["ms"]
    said = f"{upper_first(best)} keeps float's masks best: agreement {percent(row['agreement with float'])}"
    ends = interval(row["difference low"], row["difference high"])
    said += f", DSC {points(row['difference to float'])} ({ends})."
    timed = int8["ms"].dropna()
    if timed.empty or pd.isna(ms.get("float", float("nan"))):
        return [said]
    fastest = timed.idxmin()
    return [
        said,
        f"The fastest int8 model ({fastest}) takes {timed.min():.0f} ms for an image and a box, float "
        f"{ms['float']:.0f}: {ms['float'] / timed.min():.2f} times as fast on this CPU.",
    ]


def _rows(scores: pd.DataFrame, arm: str, metric: str) -> pd.DataFrame:
    rows = scores[scores["arm"] == arm]
    return rows.assign(dsc=rows[metric])
