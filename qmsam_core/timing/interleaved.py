"""Times of several arms on a machine that is never quite still: interleaved runs, medians, ratios per round.

The arms run in turn, A B C, B C A, ..., so that a drift of the clock speed or a neighbour's load meets all of them,
and each round gives a ratio of its own. Pin threads and precision before: that is the caller's to decide and to state.
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import pandas as pd


def measure_interleaved(
    arms: Mapping[str, Callable[[], Any]], runs: int, warmup: int = 2, seed: int | None = None
) -> pd.DataFrame:
    """Time the arms in turn and sum up: the columns of `summarise_timings`. See `time_interleaved` for the order."""
    return summarise_timings(time_interleaved(arms, runs, warmup, seed))


def time_interleaved(
    arms: Mapping[str, Callable[[], Any]], runs: int, warmup: int = 2, seed: int | None = None
) -> pd.DataFrame:
    """Call every arm once a round for `runs` rounds; return one row a call: round, position, arm, ms.

    The order moves on by one arm a round, or is drawn anew from `seed` where one is given. `warmup` rounds go before
    and are not kept. Garbage is collected between calls, not during them. Raises `ValueError` without arms or runs.
    """
    if not arms or runs < 1 or warmup < 0:
        raise ValueError(
            f"found {len(arms)} arms, {runs} runs, {warmup} warm-up; expected at least 1 arm and 1 run"
        )
    rows = []
    gc.collect()
    for number, order in enumerate(_orders(list(arms), warmup + runs, seed), start=-warmup):
        for position, name in enumerate(order):
            elapsed = _milliseconds(arms[name])
            if number >= 0:
                rows.append({"round": number, "position": position, "arm": name, "ms": elapsed})
    samples = pd.DataFrame(rows)
    return samples.assign(arm=pd.Categorical(samples["arm"], categories=list(arms)))


def seconds_of(call: Callable[[], Any]) -> float:
    """Seconds that one call takes; garbage is not collected meanwhile. What it returns is dropped."""
    return _milliseconds(call) / 1e3


def summarise_timings(samples: pd.DataFrame) -> pd.DataFrame:
    """One row an arm from rows of round, arm, ms: arm, median_ms, p95_ms, min_ms, spread_ms, ratio_to_first, runs.

    `spread_ms` is the interquartile range. `ratio_to_first` is the median over rounds of the arm's time divided by
    the first arm's in the same round: below 1 is faster.
    """
    table = samples.pivot(index="round", columns="arm", values="ms")
    first = table.iloc[:, 0]
    quartiles = table.quantile([0.25, 0.75])
    summary = pd.DataFrame(
        {
            "median_ms": table.median(),
            "p95_ms": table.quantile(0.95),
            "min_ms": table.min(),
            "spread_ms": quartiles.loc[0.75] - quartiles.loc[0.25],
            "ratio_to_first": table.div(first, axis=0).median(),
            "runs": table.count(),
        }
    )
    return summary.rename_axis("arm").reset_index().astype({"arm": object})


def peak_memory_mb(function: Callable[..., Any], *args: Any) -> dict[str, float]:
    """Call `function(*args)` in a fresh process; return its resident memory in MB: before_mb, peak_mb, added_mb.

    `before_mb` is the peak after unpickling the call, that is with the function's imports. Function and arguments must
    be importable and picklable. What the call raises is raised here.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peaks, function, args).result()


def _peaks(function: Callable[..., Any], args: tuple) -> dict[str, float]:
    before = high_water_mb()
    function(*args)
    peak = high_water_mb()
    return {"before_mb": before, "peak_mb": peak, "added_mb": peak - before}


def high_water_mb() -> float:
    """Most resident memory that this process has held so far, MB."""
    # Linux hands ru_maxrss on from the parent through exec; VmHWM is this process's own.
    status = Path("/proc/self/status")
    if status.exists():
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            / 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def _orders(names: list[str], rounds: int, seed: int | None) -> Iterator[list[str]]:
    rng = None if seed is None else np.random.default_rng(seed)
    for number in range(rounds):
        shift = number % len(names)
        yield (
            names[shift:] + names[:shift] if rng is None else [names[i] for i in rng.permutation(len(names))]
        )


def _milliseconds(call: Callable[[], Any]) -> float:
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = perf_counter_ns()
        call()
        return (perf_counter_ns() - start) / 1e6
    finally:
        if enabled:
            gc.enable()
