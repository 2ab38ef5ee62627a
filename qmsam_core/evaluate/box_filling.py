"""Is a gain segmentation, or a mask that fills its box? Every arm against the ellipse in the box.

Where the float model is poor, a mask of the box's shape scores better than its masks. Such a gain comes with
masks that move towards the ellipse. A gain by better segmentation moves away from it, unless the object is an
ellipse itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from .intervals import paired_differences
from .tables import spread_per_modality
from .wording import direction

TOWARDS, AWAY, UNTOLD = "gain, towards the ellipse", "gain, away from the ellipse", "gain, shape not told"
LOSS, LEVEL = "loss", "no difference told"


def against_ellipse(scores: pd.DataFrame, ellipse: str = "Ellipse") -> pd.DataFrame:
    """Compare every arm with the ellipse in the box, for each modality and on average.

    Args:
        scores: one row per case and arm (`score_cases`), with the columns arm and `ellipse agreement` (Dice
            of the case's masks with the ellipses, 0..1).
        ellipse: name of the arm that is the ellipse itself. It gets no rows.

    Returns:
        Columns arm, modality, cases, difference (DSC minus the ellipse's), difference_low, difference_high,
        `ellipse agreement`, `ellipse agreement low` and `ellipse agreement high`. Low and high bound 95 %
        bootstrap intervals. They are NaN for a modality of one group of cases.
    """
    by_arm = dict(list(scores.groupby("arm", sort=False)))
    control = by_arm.pop(ellipse)
    tables = []
    for arm, rows in by_arm.items():
        gap = paired_differences(rows, control).drop(columns="worse")
        agreed = spread_per_modality(_by("ellipse agreement", rows)).set_index("modality")
        for name, column in (("", "mean"), (" low", "low"), (" high", "high")):
            gap[f"ellipse agreement{name}"] = gap["modality"].map(agreed[column])
        tables.append(gap.assign(arm=arm))
    table = pd.concat(tables, ignore_index=True)
    return table[["arm", *table.columns.drop("arm")]]


def gains(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Say for each modality where `first` gains on `second`, and whether its masks fill the box more.

    Args:
        first: rows of one arm, usually int8, as in `against_ellipse`.
        second: rows of the other arm, usually float, of the same cases.

    Returns:
        Columns modality, cases, difference (DSC, first minus second), difference_low, difference_high,
        `ellipse difference` (agreement with the ellipse, first minus second), `ellipse difference low`,
        `ellipse difference high` and verdict. The verdict is read from the two 95 % intervals. An interval
        that contains zero or is NaN tells nothing.
    """
    table = paired_differences(first, second).drop(columns="worse")
    shape = paired_differences(*(_by("ellipse agreement", rows) for rows in (first, second)))
    for name in ("", "_low", "_high"):
        table[f"ellipse difference{name}".replace("_", " ")] = shape[f"difference{name}"].to_numpy()
    directions = (
        [direction(*ends) for ends in table[ends].to_numpy()]
        for ends in (
            ["difference_low", "difference_high"],
            ["ellipse difference low", "ellipse difference high"],
        )
    )
    return table.assign(verdict=[_verdict(*both) for both in zip(*directions)])


def ellipse_plane(scores: pd.DataFrame, arms: Sequence[str], reference: str = "Baseline") -> pd.DataFrame:
    """Place arms by their agreement with float, and by how much nearer their masks are to the ellipse.

    Args:
        scores: one row per case and arm, with the columns arm, agreement (with the reference arm's masks) and
            `ellipse agreement`, both 0..1.
        arms: the arms to place.
        reference: the arm of the float model.

    Returns:
        Columns arm, modality, cases, agreement, difference (DSC, arm minus reference), `ellipse difference`
        (agreement with the ellipse, arm minus reference), `float ellipse agreement` (the reference's own),
        and low and high of the first three: 95 % bootstrap intervals, NaN for one group of cases.
    """
    by_arm = dict(list(scores.groupby("arm", sort=False)))
    own = spread_per_modality(_by("ellipse agreement", by_arm[reference])).set_index("modality")["mean"]
    tables = []
    for arm in arms:
        agreed = spread_per_modality(_by("agreement", by_arm[arm])).set_index("modality")
        table = gains(by_arm[arm], by_arm[reference]).drop(columns="verdict")
        table.columns = table.columns.str.replace("_", " ")
        for name, column in (("", "mean"), (" low", "low"), (" high", "high")):
            table[f"agreement{name}"] = table["modality"].map(agreed[column])
        table["float ellipse agreement"] = table["modality"].map(own)
        tables.append(table.assign(arm=arm))
    table = pd.concat(tables, ignore_index=True)
    return table[["arm", *table.columns.drop("arm")]]


def _by(score: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose DSC is replaced by another score, for what is made to compare DSCs."""
    return rows.assign(dsc=rows[score])


def _verdict(dsc: int, ellipse: int) -> str:
    if dsc <= 0:
        return LOSS if dsc else LEVEL
    return {1: TOWARDS, -1: AWAY, 0: UNTOLD}[ellipse]
