"""Compute the numbers that decide the paper's claims, from the tables of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from .intervals import paired_differences, spread_interval
from .paper_tables import PAPER
from .tables import balance

Numbers = tuple[float, float]
"""The paper's number, NaN if it has none, and ours. Or the ends of an interval."""


def _average(table: pd.DataFrame, column: str, row: str = "Average") -> float:
    return float(table.set_index("modality").loc[row, column])


def difference_of(name: str, first: str, second: str) -> Callable[[Mapping[str, pd.DataFrame]], Numbers]:
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


def spread_of_dsc(name: str, arm: str) -> Callable[[Mapping[str, pd.DataFrame]], Numbers]:
    """Standard deviation of the DSC over modalities in table `name`: an arm minus baseline, in points."""

    def numbers(tables: Mapping[str, pd.DataFrame]) -> Numbers:
        spreads = []
        for table in (PAPER[name], _long(tables[name])):
            std = balance(table).set_index("arm")["dsc std"]
            spreads.append(100 * float(std[arm] - std["Baseline"]))
        return spreads[0], spreads[1]

    return numbers


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """Stack the arms and keep only our values: modality, arm, dsc."""
    columns = {c: c.removesuffix(" dsc here") for c in table if c.endswith(" dsc here")}
    return (
        table[["modality", *columns]]
        .rename(columns=columns)
        .melt("modality", var_name="arm", value_name="dsc")
    )


BEST = "the fastest"


def time_ratio(name: str, over: str = "OpenVINO") -> Callable[[Mapping[str, pd.DataFrame]], Numbers]:
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


def speed_up(tables: Mapping[str, pd.DataFrame]) -> Numbers:
    """Median speed-up of single cases."""
    return tuple(
        float(tables["table8"][f"speed-up {column}"].median()) for column in ("paper", "over baseline here")
    )


def testing_time_ratio(tables: Mapping[str, pd.DataFrame]) -> Numbers:
    """Mean time of the testing set, baseline over proposed."""
    return tuple(
        _average(tables["table10_seconds"], f"Baseline seconds {source}")
        / _average(tables["table10_seconds"], f"Proposed seconds {source}")
        for source in ("paper", "here")
    )


def more_samples(tables: Mapping[str, pd.DataFrame]) -> Numbers:
    """DSC of stage 3 with the paper's sampling minus that of the ablation, in points."""
    return tuple(
        100
        * (
            _average(tables["table9"], f"Stage 3 dsc {source}", "Proposed")
            - _average(tables["table9"], f"Stage 3 dsc {source}")
        )
        for source in ("paper", "here")
    )


def disk_ratio(tables: Mapping[str, pd.DataFrame]) -> Numbers:
    """Bytes of the data set, unpacked over stored."""
    stored, unpacked = PAPER["disk"]["bytes"]
    return unpacked / stored, float(tables["disk"]["unpacked"].sum() / tables["disk"]["stored"].sum())


def paired_points(
    tables: Mapping[str, pd.DataFrame], first: tuple[str, str], second: tuple[str, str], score: str = "dsc"
) -> pd.Series:
    """Average over modalities of the difference of two arms, given as (table of scores, arm), in points."""
    a, b = (tables[name][tables[name]["arm"] == arm] for name, arm in (first, second))
    paired = paired_differences(a.assign(dsc=a[score]), b.assign(dsc=b[score])).iloc[-1]
    return 100 * paired[["difference", "difference_low", "difference_high"]].astype(float)


def interval_of(
    first: tuple[str, str], second: tuple[str, str], of_spread: bool = False, score: str = "dsc"
) -> Callable[[Mapping[str, pd.DataFrame]], Numbers]:
    """95 % interval, in points, of a difference of two arms, given as (table of scores, arm).

    The difference is of the mean of a score, or of the DSC's standard deviation over modalities.
    """

    def interval(tables: Mapping[str, pd.DataFrame]) -> Numbers:
        if of_spread:
            a, b = (tables[name][tables[name]["arm"] == arm] for name, arm in (first, second))
            low, high = spread_interval(a, b)
            return 100 * low, 100 * high
        return tuple(paired_points(tables, first, second, score)[["difference_low", "difference_high"]])

    return interval
