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
    """Bootstrap interval of the mean of `values`; NaNs are left out, (NaN, NaN) when fewer than two are left: one value shows no spread.

    The same seed gives the same interval.
    """
    return average_interval([values], level, resamples, seed)


def average_interval(
    groups: Sequence[Sequence[float]], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Interval of the unweighted mean of the groups' means, cases resampled within each group.

    This is the interval of the tables' Average row, where each modality counts once however many cases it has. What is resampled is how far cases lie
    from their group's mean, made larger by sqrt(n / (n - 1)), since n cases lie closer to their own mean than to the true one. A group of a single
    case has no such distances and takes those of all others: else a table of many such modalities would look the surer the fewer cases it has.
    Cases count as independent; those of one patient or volume are less than that.

    Returns:
        (NaN, NaN) where no group has two cases.
    """
    means = _resampled_means([kept for kept in (_present(values) for values in groups) if len(kept)], resamples, seed)
    return _quantiles(means.mean(axis=1) if means.size else means, level)


def spread_interval(
    first: pd.DataFrame, second: pd.DataFrame, metric: str = "dsc", level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Interval of the standard deviation over modalities (population) of `first` minus that of `second`, on the cases both have; as `average_interval`."""
    both = _paired(first, second, metric)
    pairs = [rows[[f"{metric}_first", f"{metric}_second"]].to_numpy() for _, rows in both.groupby("modality", sort=False)]
    spread = _resampled_means(pairs, resamples, seed).std(axis=1)
    return _quantiles(spread[:, 0] - spread[:, 1], level) if spread.size else _quantiles(spread, level)


def paired_differences(
    first: pd.DataFrame, second: pd.DataFrame, metric: str = "dsc", level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """`first` minus `second` on the cases both have, per modality and on average (over modalities, unweighted).

    Both are frames of `score_cases`. Returns modality, cases, difference, difference_low, difference_high and worse, the
    share of cases on which `first` is lower. Cases without a score in either are left out; a modality of one case has no interval (NaN).
    Raises `ValueError` without a common case.
    """
    both = _paired(first, second, metric)
    both["difference"] = both[f"{metric}_first"] - both[f"{metric}_second"]
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


def _paired(first: pd.DataFrame, second: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cases scored in both: modality, case, `<metric>_first`, `<metric>_second`. Raises `ValueError` without one."""
    keys = ["modality", "case"]
    first, second = (
        frame[[*keys, metric]].assign(modality=frame["modality"].map(harmonised)) for frame in (first, second)
    )
    both = first.merge(second, on=keys, suffixes=("_first", "_second"), validate="one_to_one")
    both = both.dropna(subset=[f"{metric}_first", f"{metric}_second"])
    if both.empty:
        raise ValueError(
            f"second: found no case scored in both ({len(first)} and {len(second)} rows); compare the same split"
        )
    return both


def _present(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array[~np.isnan(array)]


def _resampled_means(groups: Sequence[np.ndarray], resamples: int, seed: int) -> np.ndarray:
    """Means of groups of cases (n,) or (n, arms) under resampling: (resamples, groups) or (resamples, groups, arms); empty where no group has two cases."""
    distances = [(values - values.mean(0)) * np.sqrt(len(values) / (len(values) - 1)) for values in groups if len(values) > 1]
    if not distances:
        return np.zeros((0, len(groups)))
    rng, own, pooled = np.random.default_rng(seed), iter(distances), np.concatenate(distances)
    parts = []
    for values in groups:
        far = next(own) if len(values) > 1 else pooled
        parts.append(values.mean(0) + far[rng.integers(len(far), size=(resamples, len(values)))].mean(axis=1))
    return np.stack(parts, axis=1)


def _quantiles(values: np.ndarray, level: float) -> tuple[float, float]:
    """The interval that holds `level` of the values, as much below as above it; (NaN, NaN) of none."""
    if not 0 < level < 1:
        raise ValueError(f"level: found {level}, expected a probability between 0 and 1, for example 0.95")
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
