"""The paper's claims, each with the number that decides it and the figure or table that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
        seen_in: file of the run that decides the claim, a figure or a table, below the run's folder.
        interval: computes our number's interval from the scores of the cases, if it compares two arms.
    """

    says: str
    where: str
    unit: str
    numbers: Callable[[Mapping[str, pd.DataFrame]], Numbers]
    holds_above: float
    seen_in: str
    less_is_more: bool = False
    interval: Callable[[Mapping[str, pd.DataFrame]], Numbers] | None = None


def _by_masks(
    says: str,
    name: str,
    first: str,
    second: str,
    score: str,
    holds_above: float,
    seen_in: str,
    less_is_more: bool = False,
) -> Claim:
    """Make a claim about the masks of two arms: a column of the scores `name` that the paper lacks."""
    arms = (name, first), (name, second)
    return Claim(
        says,
        "not shown",
        "points",
        lambda tables: (float("nan"), float(paired_points(tables, *arms, score)["difference"])),
        holds_above,
        seen_in,
        less_is_more,
        interval_of(*arms, score=score),
    )


def _compared(
    says: str, where: str, name: str, first: str, second: str, seen_in: str, holds_above: float = 0.0
) -> Claim:
    """Make a claim about the difference of two arms in table `name`."""
    scores = name.replace("table", "scores")
    return Claim(
        says,
        where,
        "points",
        difference_of(name, first, second),
        holds_above,
        seen_in,
        interval=interval_of((scores, first), (scores, second)),
    )


CLAIMS = (
    _compared(
        "quantised with little loss: DSC of stage 3 minus baseline",
        "Table 7",
        "table7",
        "Stage 3",
        "Baseline",
        "07_validation/scatter.png",
        -1.0,
    ),
    _compared(
        "quantised with little loss, on the testing set: proposed minus baseline",
        "Table 10",
        "table10",
        "Proposed",
        "Baseline",
        "09_testing/differences.png",
        -1.0,
    ),
    Claim(
        "more even over modalities: standard deviation of the DSC, stage 3 minus baseline",
        "Table 7",
        "points",
        spread_of_dsc("table7", "Stage 3"),
        0.0,
        "07_validation/balance.csv",
        less_is_more=True,
        interval=interval_of(("scores7", "Stage 3"), ("scores7", "Baseline"), of_spread=True),
    ),
    Claim(
        "more even over modalities, on the testing set: standard deviation, proposed minus baseline",
        "Table 10",
        "points",
        spread_of_dsc("table10", "Proposed"),
        0.0,
        "09_testing/balance.csv",
        less_is_more=True,
        interval=interval_of(("scores10", "Proposed"), ("scores10", "Baseline"), of_spread=True),
    ),
    _by_masks(
        "more even, and not by filling boxes: agreement with the ellipse, proposed minus baseline",
        "scores10",
        "Proposed",
        "Baseline",
        "ellipse agreement",
        1.0,
        "09_testing/plane.png",
        less_is_more=True,
    ),
    _compared(
        "fine-tuning end to end pays: stage 3 minus stage 1",
        "Table 7",
        "table7",
        "Stage 3",
        "Stage 1",
        "07_validation/paired.csv",
    ),
    _compared(
        "fine-tuning end to end pays, on the testing set: proposed minus stage 1",
        "not shown",
        "table10",
        "Proposed",
        "Stage 1",
        "09_testing/paired_arms.csv",
    ),
    _compared(
        "training is needed: stage 3 minus calibration alone",
        "not shown",
        "table7",
        "Stage 3",
        "Calibrated",
        "07_validation/paired.csv",
    ),
    _compared(
        "training is needed, on the testing set: proposed minus calibration alone",
        "not shown",
        "table10",
        "Proposed",
        "Calibrated",
        "09_testing/paired_arms.csv",
    ),
    _by_masks(
        "training brings the float masks back: agreement with float, proposed minus calibration alone",
        "scores10",
        "Proposed",
        "Calibrated",
        "agreement",
        0.0,
        "09_testing/plane.png",
    ),
    _compared(
        "the image is used: baseline minus the ellipse in the box",
        "not shown",
        "table7",
        "Baseline",
        "Ellipse",
        "07_validation/ellipse.png",
    ),
    Claim(
        "few samples of each modality are enough: balanced minus a share of each",
        "Table 9",
        "points",
        more_samples,
        -1.0,
        "08_ablation/table9_dsc.csv",
        interval=interval_of(("scores7", "Stage 3"), ("scores9", "Stage 3")),
    ),
    Claim(
        "int8 is faster than float, LiteMedSAM on OpenVINO",
        "Table 5",
        "x",
        time_ratio("table5"),
        1.0,
        "06_engine_speed/table5.png",
    ),
    Claim(
        "int8 is faster than float in the graph rewritten for it, LiteMedSAM on OpenVINO",
        "not shown",
        "x",
        time_ratio("table5", "OpenVINO, rewritten"),
        1.0,
        "06_engine_speed/table5.png",
    ),
    Claim(
        "int8 is faster than the fastest float arm of this CPU, LiteMedSAM",
        "not shown",
        "x",
        time_ratio("table5", BEST),
        1.0,
        "06_engine_speed/table5.png",
    ),
    Claim(
        "int8 is faster than float, ViT-B on OpenVINO",
        "Table 6",
        "x",
        time_ratio("table6"),
        1.0,
        "06_engine_speed/table6.csv",
    ),
    Claim(
        "whole cases are faster than with the baseline's pipeline, median",
        "Table 8",
        "x",
        speed_up,
        1.0,
        "07_validation/table8.csv",
    ),
    Claim(
        "the testing set is faster than with the baseline's pipeline, mean",
        "Table 10",
        "x",
        testing_time_ratio,
        1.0,
        "09_testing/table10_seconds.csv",
    ),
    Claim(
        "reading in place saves disk: unpacked over stored",
        "section 2.1",
        "x",
        disk_ratio,
        1.0,
        "01_data_audit/disk_by_modality.csv",
    ),
)
