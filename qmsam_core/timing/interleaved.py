"""Time several arms on a machine with other load: interleaved runs, medians, and ratios per round.

The arms run in turn, A B C, B C A, ... A drift of the clock speed or another program's load so affects all of
them. Each round gives its own ratio. The caller sets threads and precision beforehand.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pandas as pd


def measure_interleaved(arms: Mapping[str, Callable[[], Any]], runs: int, warmup: int = 2) -> pd.DataFrame:
    """Time the arms as `time_interleaved` does, and return the summary of `summarise_timings`."""
    return summarise_timings(time_interleaved(arms, runs, warmup))


def time_interleaved(arms: Mapping[str, Callable[[], Any]], runs: int, warmup: int = 2) -> pd.DataFrame:
    """Call every arm once per round, and time each call. Garbage is not collected during a call.

    The order moves on by one arm per round.

    Args:
        arms: calls by the arm's name.
        runs: rounds that are timed.
        warmup: rounds before them that are not kept.

    Returns:
        One row per call: round, position, arm and ms.

    Raises:
        ValueError: there are no arms or no runs, or `warmup` is negative.
    """
    if not arms or runs < 1 or warmup < 0:
        raise ValueError(
            f"found {len(arms)} arms, {runs} runs, {warmup} warm-up; expected at least 1 arm and 1 run"
        )
    names, rows = list(arms), []
    gc.collect()
    for number in range(-warmup, runs):
        shift = (number + warmup) % len(names)
        for position, name in enumerate(names[shift:] + names[:shift]):
            elapsed = _milliseconds(arms[name])
            if number >= 0:
                rows.append({"round": number, "position": position, "arm": name, "ms": elapsed})
    samples = pd.DataFrame(rows)
    return samples.assign(arm=pd.Categorical(samples["arm"], categories=names))


def seconds_of(call: Callable[[], Any]) -> float:
    """Time one call in seconds, with garbage collection off. Its result is dropped."""
    return _milliseconds(call) / 1e3


def summarise_timings(samples: pd.DataFrame) -> pd.DataFrame:
    """Summarise samples with columns round, arm and ms, one row per arm.

    Returns:
        Columns arm, median_ms, p95_ms, min_ms, spread_ms, ratio_to_first and runs. `spread_ms` is the
        interquartile range. `ratio_to_first` is the median over rounds of the arm's time divided by the first
        arm's time in the same round. Below 1 the arm is faster.
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


def peak_memory_mb(function: Callable[..., Any], *args: Any) -> float:
    """Call `function(*args)` in a new process, and return that process's peak resident memory in MB.

    The function must be importable and the arguments picklable. An exception of the call is raised here.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, function, args).result()


def _peak(function: Callable[..., Any], args: tuple) -> float:
    function(*args)
    # A process inherits its parent's ru_maxrss through exec. VmHWM is its own.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


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
