"""Compare the paper's claims with a run's results, each as one number.

The table says which claims hold here, which do not, and which a run of this size cannot decide.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from .claim_numbers import Numbers
from .paper_claims import CLAIMS, Claim

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


def claims_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """List every claim with the paper's number and ours.

    If a claim compares two arms and the 95 % interval of our number contains the limit, the run cannot
    decide.

    Args:
        tables: the tables named in `TABLES`, as the notebooks wrote them.

    Returns:
        Columns claim, where, paper and here (text with unit, ours with its 95 % interval), holds in the
        paper, holds here (`yes`, `no`, `cannot be told` or `not shown`), interval (what the interval of our
        number says, in words) and `seen in` (`Claim.seen_in`).
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
                "interval": _interval_text(claim, interval),
                "seen in": claim.seen_in,
            }
        )
    return pd.DataFrame(rows)


def _interval_text(claim: Claim, interval: Numbers | None) -> str:
    """Say where our number's interval lies, seen from the limit."""
    if interval is None:
        return "none: the ratio of two measurements"
    low, high = interval
    if np.isnan(low):
        return "none: no modality has two cases"
    limit = f"the limit of {claim.holds_above:+.0f} points" if claim.holds_above else "zero"
    side = "across" if low < claim.holds_above < high else "above" if low >= claim.holds_above else "below"
    return f"{low:+.2f} to {high:+.2f} points, {side} {limit}"


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
