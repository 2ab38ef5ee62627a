"""How sure a mean over cases is: bootstrap intervals, and differences of two arms paired case by case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .paper_tables import harmonised

RESAMPLES = 2000


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`; NaNs are left out, (NaN, NaN) when nothing is left.

    One value has no spread to show: the interval is that value. The same seed gives the same interval.
    """
    return average_interval([values], level, resamples, seed)


def average_interval(
    groups: Sequence[Sequence[float]], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Interval of the unweighted mean of the groups' means, cases resampled within each group.

    This is the interval of the tables' Average row, where each modality counts once however many cases it has.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: found {level}, expected a probability between 0 and 1, for example 0.95")
    arrays = [kept for kept in (_present(values) for values in groups) if len(kept)]
    if not arrays:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.mean([_resampled_means(values, resamples, rng) for values in arrays], axis=0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_differences(
    first: pd.DataFrame, second: pd.DataFrame, metric: str = "dsc", level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """`first` minus `second` on the cases both have, per modality and on average (over modalities, unweighted).

    Both are frames of `score_cases`. Returns modality, cases, difference, difference_low, difference_high and worse, the
    share of cases on which `first` is lower. Cases without a score in either are left out. Raises `ValueError` without a common case.
    """
    keys = ["modality", "case"]
    first, second = (
        frame[[*keys, metric]].assign(modality=frame["modality"].map(harmonised)) for frame in (first, second)
    )
    both = first.merge(second, on=keys, suffixes=("_first", "_second"), validate="one_to_one")
    both["difference"] = both[f"{metric}_first"] - both[f"{metric}_second"]
    both = both.dropna(subset="difference")
    if both.empty:
        raise ValueError(
            f"second: found no case scored in both ({len(first)} and {len(second)} rows); compare the same split"
        )
    groups = {modality: rows["difference"].to_numpy() for modality, rows in both.groupby("modality", sort=False)}
    rows = [_difference_row(modality, [values], level, seed) for modality, values in groups.items()]
    return pd.DataFrame([*rows, _difference_row("Average", list(groups.values()), level, seed)])


def _difference_row(modality: str, groups: list[np.ndarray], level: float, seed: int) -> dict[str, object]:
    low, high = average_interval(groups, level, seed=seed)
    everything = np.concatenate(groups)
    return {
        "modality": modality,
        "cases": len(everything),
        "difference": float(np.mean([values.mean() for values in groups])),
        "difference_low": low,
        "difference_high": high,
        "worse": float(np.mean(everything < 0)),
    }


def _present(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array[~np.isnan(array)]


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    return values[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
