"""Compare the paper's claims with a run's results, each as one number.

The table says which claims hold here, which do not, and which a run of this size cannot decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .claim_numbers import (
    BEST,
    Numbers,
    difference_of,
    disk_ratio,
    interval_of,
    more_samples,
    paired_points,
    speed_up,
    spread_of_dsc,
    testing_time_ratio,
    time_ratio,
)

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


def _by_masks(
    says: str, name: str, first: str, second: str, score: str, holds_above: float, less_is_more: bool = False
) -> Claim:
    """Make a claim about the masks of two arms: a column of the scores `name` that the paper lacks."""
    arms = (name, first), (name, second)
    return Claim(
        says,
        "not shown",
        "points",
        lambda tables: (float("nan"), float(paired_points(tables, *arms, score)["difference"])),
        holds_above,
        less_is_more,
        interval_of(*arms, score=score),
    )


def _compared(says: str, where: str, name: str, first: str, second: str, holds_above: float = 0.0) -> Claim:
    """Make a claim about the difference of two arms in table `name`."""
    scores = name.replace("table", "scores")
    return Claim(
        says,
        where,
        "points",
        difference_of(name, first, second),
        holds_above,
        interval=interval_of((scores, first), (scores, second)),
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
        spread_of_dsc("table7", "Stage 3"),
        0.0,
        less_is_more=True,
        interval=interval_of(("scores7", "Stage 3"), ("scores7", "Baseline"), of_spread=True),
    ),
    Claim(
        "and on the testing set: standard deviation, proposed minus baseline",
        "Table 10",
        "points",
        spread_of_dsc("table10", "Proposed"),
        0.0,
        less_is_more=True,
        interval=interval_of(("scores10", "Proposed"), ("scores10", "Baseline"), of_spread=True),
    ),
    _by_masks(
        "and not by filling boxes: agreement with the ellipse, proposed minus baseline",
        "scores10",
        "Proposed",
        "Baseline",
        "ellipse agreement",
        1.0,
        less_is_more=True,
    ),
    _compared(
        "fine-tuning end to end pays: stage 3 minus stage 1", "Table 7", "table7", "Stage 3", "Stage 1"
    ),
    _compared(
        "the same on the testing set: proposed minus stage 1", "not shown", "table10", "Proposed", "Stage 1"
    ),
    _compared(
        "training is needed: stage 3 minus calibration alone", "not shown", "table7", "Stage 3", "Calibrated"
    ),
    _compared(
        "the same on the testing set: proposed minus calibration alone",
        "not shown",
        "table10",
        "Proposed",
        "Calibrated",
    ),
    _by_masks(
        "and brings the float masks back: agreement with float, proposed minus calibration alone",
        "scores10",
        "Proposed",
        "Calibrated",
        "agreement",
        0.0,
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
        more_samples,
        -1.0,
        interval=interval_of(("scores7", "Stage 3"), ("scores9", "Stage 3")),
    ),
    Claim("int8 is faster than float, LiteMedSAM on OpenVINO", "Table 5", "x", time_ratio("table5"), 1.0),
    Claim(
        "and faster than float in the graph rewritten for it",
        "not shown",
        "x",
        time_ratio("table5", "OpenVINO, rewritten"),
        1.0,
    ),
    Claim(
        "and faster than the fastest float arm of this CPU", "not shown", "x", time_ratio("table5", BEST), 1.0
    ),
    Claim("int8 is faster than float, ViT-B on OpenVINO", "Table 6", "x", time_ratio("table6"), 1.0),
    Claim("whole cases are faster than with the baseline's pipeline, median", "Table 8", "x", speed_up, 1.0),
    Claim("and so is the testing set, mean", "Table 10", "x", testing_time_ratio, 1.0),
    Claim("reading in place saves disk: unpacked over stored", "section 2.1", "x", disk_ratio, 1.0),
)


def claims_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """List every claim with the paper's number and ours.

    If a claim compares two arms and the 95 % interval of our number contains the limit, the run cannot
    decide.

    Args:
        tables: the tables named in `TABLES`, as the notebooks wrote them.

    Returns:
        Columns claim, where, paper and here (text with unit, ours with its 95 % interval), holds in the
        paper, holds here. The last is `yes`, `no`, `cannot be told` or `not shown`.
    """
    rows = []
    for claim in CLAIMS:
        paper, here = claim.numbers(tables)
        interval = claim.interval(tables) if claim.interval else None
        rows.append(
            {
                "claim": claim.says,
                "where": claim.where,
                "paper": _text(paper, claim.unit),
                "here": _text(here, claim.unit, interval),
                "holds in the paper": _verdict(claim, paper),
                "holds here": "cannot be told" if _unsure(claim, interval) else _verdict(claim, here),
            }
        )
    return pd.DataFrame(rows)


def _unsure(claim: Claim, interval: Numbers | None) -> bool:
    """Whether our number's interval contains the limit, or is NaN because no modality has two cases."""
    if interval is None:
        return False
    low, high = interval
    return not (high <= claim.holds_above or low >= claim.holds_above)


def _verdict(claim: Claim, number: float) -> str:
    if np.isnan(number):
        return "not shown"
    return (
        "yes" if (number < claim.holds_above) == claim.less_is_more and number != claim.holds_above else "no"
    )


def _text(number: float, unit: str, interval: Numbers | None = None) -> str:
    """Write a number with its unit, and its interval if that has a width."""
    if np.isnan(number):
        return "not shown"
    if unit != "points":
        return f"{number:.2f}x"
    seen = interval is not None and interval[0] < interval[1]
    return f"{number:+.2f} points" + ("" if not seen else f" ({interval[0]:+.2f} to {interval[1]:+.2f})")
