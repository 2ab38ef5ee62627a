"""Choose the cases of pictures by rule, so that none is chosen by taste."""

from __future__ import annotations

import pandas as pd

from .tables import in_order

BEST, MEDIAN, WORST, ONLY = "best", "median", "worst", "only case"


def best_median_worst(scores: pd.DataFrame, by: str = "agreement") -> pd.DataFrame:
    """Choose the best, the median and the worst case of each modality.

    A case is chosen once: a modality of two cases has a best and a worst one, a modality of one case an only
    one. Of two cases in the middle, the worse one is taken. Equal cases are taken in their order.

    Args:
        scores: one row per case, with modality and the column `by`. Rows without a value (NaN) are left out.
        by: what is compared, more is better.

    Returns:
        Rows of `scores`, with the column place (`BEST`, `MEDIAN`, `WORST` or `ONLY`), in the paper's order
        of modalities.
    """
    scores = scores.dropna(subset=by)
    chosen = []
    for modality in in_order(scores["modality"]):
        rows = scores[scores["modality"] == modality].sort_values(by, ascending=False, kind="stable")
        places = {BEST: 0, MEDIAN: len(rows) // 2, WORST: len(rows) - 1}
        if len(rows) < 3:
            places = {BEST: 0, WORST: 1} if len(rows) == 2 else {ONLY: 0}
        chosen.append(rows.iloc[list(places.values())].assign(place=list(places)))
    return pd.concat(chosen, ignore_index=True)


def beside_float(scores: pd.DataFrame, arm: str, reference: str = "Baseline") -> pd.DataFrame:
    """Put float's DSC beside the scores of one arm.

    Args:
        scores: one row per case and arm. All arms have the same cases in the same order.
        arm: the arm that is compared.
        reference: the float model's arm.

    Returns:
        The arm's rows from index 0, with the columns `dsc float` and number (the case's place in the order).

    Raises:
        ValueError: the two arms have different cases.
    """
    first, second = (scores[scores["arm"] == name].reset_index(drop=True) for name in (arm, reference))
    if not first["case"].equals(second["case"]):
        raise ValueError(
            f"scores: {arm} has {len(first)} cases and {reference} {len(second)}, or in another order; "
            "score the same cases in all arms"
        )
    return first.assign(**{"dsc float": second["dsc"], "number": first.index})


def least_faithful(scores: pd.DataFrame, count: int = 4, by: str = "agreement") -> pd.DataFrame:
    """Choose the cases with the lowest value, at most one of each modality, lowest first."""
    rows = scores.dropna(subset=by).sort_values(by, kind="stable")
    return rows.drop_duplicates("modality").head(count).reset_index(drop=True)
