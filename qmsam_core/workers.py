"""Do independent pieces of work in several processes."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def call_each(function: Callable[..., Result], jobs: Iterable[tuple], processes: int) -> list[Result]:
    """Call `function(*job)` for every job, in at most `processes` processes. Results keep the jobs' order.

    With one process or one job the calls are made here. Otherwise the function must be importable and its
    arguments picklable, and PyTorch has one thread in each process. An exception of a call is raised here.
    """
    jobs = list(jobs)
    if processes < 2 or len(jobs) < 2:
        return [function(*job) for job in jobs]
    # Spawned, not forked: a forked process can hang if this one's engines hold threads.
    with ProcessPoolExecutor(min(processes, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_call, [function] * len(jobs), jobs))


def _call(function: Callable[..., Result], job: tuple) -> Result:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    return function(*job)
