"""Interleaved timing, the statistics of timings and the peak memory of a call."""

import gc
from time import sleep

import numpy as np
import pandas as pd
import pytest

from qmsam_core.timing.interleaved import (
    measure_interleaved,
    peak_memory_mb,
    summarise_timings,
    time_interleaved,
)


def recorder(names):
    calls = []
    return calls, {name: (lambda name=name: calls.append(name)) for name in names}


def test_arms_run_in_turn_and_the_order_moves_on():
    calls, arms = recorder("ABC")
    samples = time_interleaved(arms, runs=4, warmup=0)
    assert "".join(calls) == "ABCBCACABABC"
    assert samples["arm"].tolist() == calls
    assert samples["round"].tolist() == np.repeat(range(4), 3).tolist()


def test_warm_up_is_run_but_not_kept():
    calls, arms = recorder("AB")
    samples = time_interleaved(arms, runs=3, warmup=2)
    assert len(calls) == 10 and len(samples) == 6


def test_statistics_by_hand():
    samples = pd.DataFrame(
        {
            "round": np.repeat(range(5), 2),
            "arm": pd.Categorical(["slow", "fast"] * 5, categories=["slow", "fast"]),
            "ms": [10, 5, 20, 5, 30, 10, 40, 10, 50, 50],
        }
    )
    table = summarise_timings(samples).set_index("arm")
    assert table.index.tolist() == ["slow", "fast"]
    assert table.loc["slow", ["median_ms", "min_ms", "spread_ms", "ratio_to_first"]].tolist() == [
        30,
        10,
        20,
        1,
    ]
    assert table.loc["slow", "p95_ms"] == pytest.approx(48)
    # The rounds' ratios are 1/2, 1/4, 1/3, 1/4 and 1. Their median counts, not the ratio of the medians.
    assert table.loc["fast", "ratio_to_first"] == pytest.approx(1 / 3)
    assert table["runs"].tolist() == [5, 5]


def test_measured_times_are_milliseconds():
    table = measure_interleaved(
        {"long": lambda: sleep(0.02), "short": lambda: sleep(0.004)}, runs=3, warmup=1
    )
    assert list(table) == ["arm", "median_ms", "p95_ms", "min_ms", "spread_ms", "ratio_to_first", "runs"]
    assert 20 <= table.loc[0, "min_ms"] <= table.loc[0, "median_ms"] <= table.loc[0, "p95_ms"]
    assert table.loc[1, "ratio_to_first"] < 0.9


def test_collection_is_off_during_a_call_and_back_after():
    during = []
    time_interleaved({"a": lambda: during.append(gc.isenabled())}, runs=2)
    assert during == [False] * 4 and gc.isenabled()


@pytest.mark.parametrize(("arms", "runs"), [({}, 3), ({"a": int}, 0)])
def test_nothing_to_measure_is_refused(arms, runs):
    with pytest.raises(ValueError, match="expected at least 1 arm and 1 run"):
        measure_interleaved(arms, runs)


def test_peak_memory_sees_the_array():
    assert 120 < peak_memory_mb(np.ones, 16 * 2**20) - peak_memory_mb(np.ones, 1) < 200
