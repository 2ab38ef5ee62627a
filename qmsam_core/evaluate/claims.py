"""Compare the paper's claims with a run's results, each as one number.

The table says which claims hold here, which do not, and which a run of this size cannot decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .intervals import paired_differences, spread_interval
from .paper_tables import PAPER
from .tables import balance

TABLES = {  # name -> notebook and file of the table
    "table5": "06_engine_speed/table5.csv",
    "table6": "06_engine_speed/table6.csv",
    "table7": "07_validation/table7_dsc.csv",
    "scores7": "07_validation/scores.csv",
    "table8": "07_validation/table8.csv",
    "table9": "08_ablation/table9_dsc.csv",
    "scores9": "08_ablation/scores.csv",
    "table10": "09_testing/table10_dsc.csv",
    "scores10": "09_testing/scores.csv",
    "table10_seconds": "09_testing/table10_seconds.csv",
    "disk": "01_data_audit/disk_by_modality.csv",
}

Numbers = tuple[float, float]  # the paper's number, ours


@dataclass(frozen=True)
class Claim:
    """One statement of the paper and the number that decides it.

    Attributes:
        says: the claim.
        where: its place in the paper.
        unit: `points` (a difference of DSC, 0 is neutral) or `x` (a ratio, 1 is neutral).
        numbers: computes the paper's number (NaN if it has none) and ours from the tables.
        holds_above: the claim holds if the number is above this limit. For "no loss" it is a little below
            neutral.
        less_is_more: the claim holds if the number is below `holds_above` instead.
        interval: computes our number's interval from the scores of the cases, if it compares two arms.
    """

    says: str
    where: str
    unit: str
    numbers: Callable[[Mapping[str, pd.DataFrame]], Numbers]
    holds_above: float
    less_is_more: bool = False
    interval: Callable[[Mapping[str, pd.DataFrame]], Numbers] | None = None


def _average(table: pd.DataFrame, column: str, row: str = "Average") -> float:
    return float(table.set_index("modality").loc[row, column])


def _difference(name: str, first: str, second: str) -> Callable[[Mapping[str, pd.DataFrame]], Numbers]:
    """First arm's average minus the second's, in points, from a table written by `across`."""

    def numbers(tables: Mapping[str, pd.DataFrame]) -> Numbers:
        pairs = []
        for source in ("paper", "here"):
            columns = [f"{arm} dsc {source}" for arm in (first, second)]
            known = all(column in tables[name] for column in columns)
            pairs.append(
                100 * float(np.subtract(*(_average(tables[name], c) for c in columns)))
                if known
                else float("nan")
            )
        return pairs[0], pairs[1]

    return numbers


def _spread(tables: Mapping[str, pd.DataFrame]) -> Numbers:
    """Standard deviation of the DSC over modalities: stage 3 minus baseline, in points."""
    spreads = []
    for table in (PAPER["table7"], _long(tables["table7"])):
        std = balance(table).set_index("arm")["dsc std"]
        spreads.append(100 * float(std["Stage 3"] - std["Baseline"]))
    return spreads[0], spreads[1]


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """Stack the arms and keep only our values: modality, arm, dsc."""
    columns = {c: c.removesuffix(" dsc here") for c in table if c.endswith(" dsc here")}
    return (
        table[["modality", *columns]]
        .rename(columns=columns)
        .melt("modality", var_name="arm", value_name="dsc")
    )


BEST = "the fastest"


def _gain(name: str, over: str = "OpenVINO") -> Callable[[Mapping[str, pd.DataFrame]], Numbers]:
    """Time of float on the engine `over` (or the fastest) divided by the time of int8 on OpenVINO."""

    def numbers(tables: Mapping[str, pd.DataFrame]) -> Numbers:
        seconds = tables[name].set_index(["precision", "engine"])
        engine = seconds.loc["float", "seconds here"].idxmin() if over == BEST else over
        paper, here = (
            float(
                seconds.loc[("float", engine), f"seconds {s}"]
                / seconds.loc[("int8", "OpenVINO"), f"seconds {s}"]
            )
            for s in ("paper", "here")
        )
        return (float("nan") if over == BEST else paper), here

    return numbers


def _speed_up(tables: Mapping[str, pd.DataFrame]) -> Numbers:
    """Median speed-up of single cases."""
    return tuple(
        float(tables["table8"][f"speed-up {column}"].median()) for column in ("paper", "over baseline here")
    )


def _testing_time(tables: Mapping[str, pd.DataFrame]) -> Numbers:
    return tuple(
        _average(tables["table10_seconds"], f"Baseline seconds {source}")
        / _average(tables["table10_seconds"], f"Proposed seconds {source}")
        for source in ("paper", "here")
    )


def _more_samples(tables: Mapping[str, pd.DataFrame]) -> Numbers:
    """DSC of stage 3 with the paper's sampling minus that of the ablation, in points."""
    return tuple(
        100
        * (
            _average(tables["table9"], f"Stage 3 dsc {source}", "Proposed")
            - _average(tables["table9"], f"Stage 3 dsc {source}")
        )
        for source in ("paper", "here")
    )


def _disk(tables: Mapping[str, pd.DataFrame]) -> Numbers:
    stored, unpacked = PAPER["disk"]["bytes"]
    return unpacked / stored, float(tables["disk"]["unpacked"].sum() / tables["disk"]["stored"].sum())


def _interval(
    first: tuple[str, str], second: tuple[str, str], of_spread: bool = False
) -> Callable[[Mapping[str, pd.DataFrame]], Numbers]:
    """95 % interval, in points, of a difference of two arms, given as (table of scores, arm).

    The difference is of the mean DSC, or of its standard deviation over modalities.
    """

    def interval(tables: Mapping[str, pd.DataFrame]) -> Numbers:
        a, b = (tables[name][tables[name]["arm"] == arm] for name, arm in (first, second))
        if of_spread:
            low, high = spread_interval(a, b)
        else:
            low, high = (
                paired_differences(a, b)
                .set_index("modality")
                .loc["Average", ["difference_low", "difference_high"]]
            )
        return 100 * low, 100 * high

    return interval


def _compared(says: str, where: str, name: str, first: str, second: str, holds_above: float = 0.0) -> Claim:
    """Make a claim about the difference of two arms in table `name`."""
    scores = name.replace("table", "scores")
    return Claim(
        says,
        where,
        "points",
        _difference(name, first, second),
        holds_above,
        interval=_interval((scores, first), (scores, second)),
    )


CLAIMS = (
    _compared(
        "quantised with little loss: DSC of stage 3 minus baseline",
        "Table 7",
        "table7",
        "Stage 3",
        "Baseline",
        -1.0,
    ),
    _compared(
        "the same on the testing set: proposed minus baseline",
        "Table 10",
        "table10",
        "Proposed",
        "Baseline",
        -1.0,
    ),
    Claim(
        "more even over modalities: standard deviation of the DSC, stage 3 minus baseline",
        "Table 7",
        "points",
        _spread,
        0.0,
        less_is_more=True,
        interval=_interval(("scores7", "Stage 3"), ("scores7", "Baseline"), of_spread=True),
    ),
    _compared(
        "fine-tuning end to end pays: stage 3 minus stage 1", "Table 7", "table7", "Stage 3", "Stage 1"
    ),
    _compared(
        "training is needed: stage 3 minus calibration alone", "not shown", "table7", "Stage 3", "Calibrated"
    ),
    _compared(
        "the image is used: baseline minus the ellipse in the box",
        "not shown",
        "table7",
        "Baseline",
        "Ellipse",
    ),
    Claim(
        "few samples of each modality are enough: balanced minus a share of each",
        "Table 9",
        "points",
        _more_samples,
        -1.0,
        interval=_interval(("scores7", "Stage 3"), ("scores9", "Stage 3")),
    ),
    Claim("int8 is faster than float, LiteMedSAM on OpenVINO", "Table 5", "x", _gain("table5"), 1.0),
    Claim(
        "and faster than float in the graph rewritten for it",
        "not shown",
        "x",
        _gain("table5", "OpenVINO, rewritten"),
        1.0,
    ),
    Claim("and faster than the fastest float arm of this CPU", "not shown", "x", _gain("table5", BEST), 1.0),
    Claim("int8 is faster than float, ViT-B on OpenVINO", "Table 6", "x", _gain("table6"), 1.0),
    Claim("whole cases are faster than with the baseline's pipeline, median", "Table 8", "x", _speed_up, 1.0),
    Claim("and so is the testing set, mean", "Table 10", "x", _testing_time, 1.0),
    Claim("reading in place saves disk: unpacked over stored", "section 2.1", "x", _disk, 1.0),
)


def claims_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """List every claim with the paper's number and ours.

    If a claim compares two arms and the 95 % interval of our number contains the limit, the run cannot
    decide.

    Args:
        tables: the tables named in `TABLES`, as the notebooks wrote them.

    Returns:
        Columns claim, where, paper and here (text with unit), holds in the paper, holds here.
    """
    rows = []
    for claim in CLAIMS:
        paper, here = claim.numbers(tables)
        rows.append(
            {
                "claim": claim.says,
                "where": claim.where,
                "paper": _text(paper, claim.unit),
                "here": _text(here, claim.unit),
                "holds in the paper": _verdict(claim, paper),
                "holds here": "cannot be told" if _unsure(claim, tables) else _verdict(claim, here),
            }
        )
    return pd.DataFrame(rows)


def _unsure(claim: Claim, tables: Mapping[str, pd.DataFrame]) -> bool:
    """Whether our number's interval contains the limit, or is NaN because no modality has two cases."""
    if claim.interval is None:
        return False
    low, high = claim.interval(tables)
    return not (high <= claim.holds_above or low >= claim.holds_above)


def _verdict(claim: Claim, number: float) -> str:
    if np.isnan(number):
        return "not shown"
    return (
        "yes" if (number < claim.holds_above) == claim.less_is_more and number != claim.holds_above else "no"
    )


def _text(number: float, unit: str) -> str:
    if np.isnan(number):
        return "not shown"
    return f"{number:+.2f} points" if unit == "points" else f"{number:.2f}x"
