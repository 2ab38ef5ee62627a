"""Bootstrap intervals of means over cases, and paired differences between two arms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .paper_tables import harmonised

RESAMPLES = 2000
"""Number of bootstrap resamples."""
LEVEL = 0.95
"""Probability of every interval."""
SEED = 0
"""Seed of the resampling. The same values always get the same interval."""


def average_interval(
    modalities: Sequence[Sequence[float]], groups: Sequence[Sequence] | None = None
) -> tuple[float, float]:
    """Bootstrap interval of the unweighted mean of the modalities' means.

    This is the interval of the tables' Average row. Each modality counts once, however many cases it has.
    Groups of cases are resampled within each modality. What is resampled is the cases' deviation from their
    modality's mean, scaled by sqrt(n / (n - 1)), because n groups lie closer to their own mean than to the
    true one. A modality of a single group has no such deviations and takes those of all the others.
    Otherwise, a table of many such modalities would look more certain the fewer cases it has.

    Args:
        modalities: values of the cases of each modality. NaNs are left out.
        groups: a key for each value, equal for cases of one patient or volume. Such cases are drawn together,
            because they carry less information than independent ones. None makes each case its own group.

    Returns:
        Lower and upper end. (NaN, NaN) if no modality has two groups.
    """
    keys = groups if groups is not None else [range(len(values)) for values in modalities]
    present = [_present(values, of_values) for values, of_values in zip(modalities, keys, strict=True)]
    means = _resampled_means([both for both in present if len(both[0])])
    return _quantiles(means.mean(axis=1) if means.size else means)


def spread_interval(first: pd.DataFrame, second: pd.DataFrame) -> tuple[float, float]:
    """Interval of the DSC's standard deviation over modalities (population), `first` minus `second`.

    `first` and `second` are frames of `score_cases`. Only cases in both count. The bootstrap is that of
    `average_interval`.
    """
    both = _paired(first, second)
    columns = ["dsc_first", "dsc_second"]
    pairs = [
        (rows[columns].to_numpy(), rows["group"].to_numpy())
        for _, rows in both.groupby("modality", sort=False)
    ]
    spread = _resampled_means(pairs).std(axis=1)
    return _quantiles(spread[:, 0] - spread[:, 1] if spread.size else spread)


def paired_differences(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Mean DSC of `first` minus `second` for each modality, and the unweighted average over modalities.

    Args:
        first: frame of `score_cases`.
        second: frame of `score_cases`. Only cases with a score in both are used.

    Returns:
        Columns modality, cases, difference, difference_low, difference_high and worse. worse is the share of
        cases on which `first` is lower. A modality of one group of cases has no interval (NaN).

    Raises:
        ValueError: no case is scored in both.
    """
    both = _paired(first, second)
    both["difference"] = both["dsc_first"] - both["dsc_second"]
    modalities = dict(list(both.groupby("modality", sort=False)))
    rows = [_difference_row(modality, [rows]) for modality, rows in modalities.items()]
    return pd.DataFrame([*rows, _difference_row("Average", list(modalities.values()))])


def _difference_row(modality: str, parts: list[pd.DataFrame]) -> dict[str, object]:
    differences = [rows["difference"].to_numpy() for rows in parts]
    low, high = average_interval(differences, groups=[rows["group"] for rows in parts])
    everything = np.concatenate(differences)
    return {
        "modality": modality,
        "cases": len(everything),
        "difference": float(np.mean([values.mean() for values in differences])),
        "difference_low": low,
        "difference_high": high,
        "worse": float(np.mean(everything < 0)),
    }


def _paired(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Cases scored in both: modality, case, group, dsc_first, dsc_second. At least one.

    The group is that of `first`, or the case itself if `first` has no groups.
    """
    keys = ["modality", "case"]
    groups = first["group"] if "group" in first else first["case"]
    first, second = (
        frame[[*keys, "dsc"]].assign(modality=frame["modality"].map(harmonised)) for frame in (first, second)
    )
    both = first.assign(group=groups).merge(
        second, on=keys, suffixes=("_first", "_second"), validate="one_to_one"
    )
    both = both.dropna(subset=["dsc_first", "dsc_second"])
    if both.empty:
        raise ValueError(
            f"second: found no case scored in both ({len(first)} and {len(second)} rows); "
            "compare the same split"
        )
    return both


def _present(values: Sequence[float], groups: Sequence) -> tuple[np.ndarray, np.ndarray]:
    array, there = np.asarray(values, dtype=np.float64), ~np.isnan(np.asarray(values, dtype=np.float64))
    return array[there], np.asarray(groups)[there]


def _resampled_means(modalities: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Resample the groups of each modality: means (RESAMPLES, modalities) or (RESAMPLES, modalities, arms).

    Each modality is given as values (n,) or (n, arms) and groups (n,). Empty if no modality has two groups.
    """
    totals = [_totals(values, groups) for values, groups in modalities]
    several = [total for total in totals if len(total[1]) > 1]
    if not several:
        return np.zeros((0, len(modalities)))
    rng, pooled = np.random.default_rng(SEED), tuple(np.concatenate(column) for column in zip(*several))
    parts = []
    for (values, _), own in zip(modalities, totals):
        distances, sizes = own if len(own[1]) > 1 else pooled
        drawn = rng.integers(len(sizes), size=(RESAMPLES, len(own[1])))
        cases = sizes[drawn].sum(axis=1).reshape(-1, *[1] * (values.ndim - 1))
        parts.append(values.mean(0) + distances[drawn].sum(axis=1) / cases)
    return np.stack(parts, axis=1)


def _totals(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scaled sum of each group's deviations from the mean, (groups,) or (groups, arms), and case counts."""
    codes, names = pd.factorize(groups)
    distances = np.zeros((len(names), *values.shape[1:]))
    np.add.at(distances, codes, values - values.mean(0))
    return distances * np.sqrt(len(names) / max(len(names) - 1, 1)), np.bincount(codes)


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    """Central interval that holds the share `LEVEL` of the values. (NaN, NaN) without values."""
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
