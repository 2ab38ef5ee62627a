"""Measure a training step of full LiteMedSAM at 256 px, in float and quantised: seconds and peak memory.

    python tests/benchmarks/bench_qat.py [--rounds 7] [--batch 2] [--arms "float f32" "QAT f32" ...]

One step is forward, loss, backward and SGD on all weights and scales. All arms run in one process, one step
each in turn, so that a disturbance falls on all of them. The first step of each arm is not counted. Medians,
minima and quartiles are over the rounds. The ratio is the median of the ratios of single rounds. Peak memory
is measured in a fresh process for each arm. The arm `Brevitas f32` is the same quantised model with Brevitas'
own arithmetic.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from unittest import mock

import numpy as np

ARMS = ("float f32", "QAT f32", "Brevitas f32", "float bf16", "QAT bf16")


def make_step(arm: str, batch: int):
    """Return a function that takes one training step of the arm and returns the loss."""
    import torch
    from brevitas.core.quant import IntQuant

    from qmsam_core.models import build_model
    from qmsam_core.quant import calibrate, quantize
    from qmsam_core.quant.fake_quant import FusedIntQuant
    from qmsam_core.train import STAGES, Schedule
    from qmsam_core.train.precision import autocast_for
    from qmsam_core.train.trainer import Job, Trainer

    kind, precision = arm.split()
    generator = torch.Generator().manual_seed(0)
    sample = {
        "image": torch.rand(batch, 3, 256, 256, generator=generator),
        "box": torch.tensor([[40.0, 60, 180, 200]]).repeat(batch, 1),
        "mask": (torch.rand(batch, 1, 256, 256, generator=generator) > 0.5).float(),
        "name": ["noise"] * batch,
    }
    model = build_model("litemedsam")
    if kind != "float":
        model = quantize(model, "paper")
        calibrate(model, lambda m, x: m(x, sample["box"][:1]), [sample["image"][:1]])
    job = Job(STAGES[3], Schedule(1e-4, 5, 10), batch, "", mixed_precision=precision == "bf16")
    trainer = Trainer(model, job)
    if precision == "bf16" and not isinstance(autocast_for(model, "cpu"), torch.autocast):
        sys.exit("this CPU has no bf16 products: leave the bf16 arms out with --arms")

    def step() -> float:
        return trainer.step(sample)["loss"]

    def step_of_brevitas() -> float:
        with mock.patch.object(FusedIntQuant, "forward", IntQuant.forward):
            return trainer.step(sample)["loss"]

    return step_of_brevitas if kind == "Brevitas" else step


def peak_memory(arm: str, batch: int) -> float:
    """Return the peak resident memory in GB of a process that takes two steps of the arm."""
    child = [sys.executable, __file__, "--child", arm, "--batch", str(batch)]
    return float(subprocess.run(child, capture_output=True, text=True, check=True).stdout.split()[-1])


def interleaved_seconds(
    arms: list[str], batch: int, rounds: int, limit: float, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Time training steps of all arms in turn.

    Args:
        arms: arms, as in `ARMS`.
        batch: samples in a step.
        rounds: largest number of counted steps of each arm.
        limit: seconds after which no further round begins.
        clock: returns the time in seconds.

    Returns:
        Seconds of every counted step, by arm.
    """
    steps = {arm: make_step(arm, batch) for arm in arms}
    for arm, step in steps.items():
        started = clock()
        step()
        print(f"not counted: {arm} {clock() - started:.2f}", file=sys.stderr, flush=True)
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    begun = time.perf_counter()
    for _ in range(rounds):
        if time.perf_counter() - begun > limit:
            break
        for arm, step in steps.items():
            started = clock()
            step()
            seconds[arm].append(clock() - started)
        print({arm: round(values[-1], 2) for arm, values in seconds.items()}, file=sys.stderr, flush=True)
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, dict]:
    """Return each arm's median, minimum, quartiles and ratio to the float step of the same precision."""
    rows = {}
    for arm, values in seconds.items():
        low, median, high = np.percentile(values, (25, 50, 75))
        rows[arm] = {"median_s": median, "min_s": min(values), "quartiles_s": [low, high]}
        parent = f"float {arm.split()[1]}"
        if parent in seconds and parent != arm:
            rows[arm]["ratio"] = float(np.median(np.divide(values, seconds[parent])))
            rows[arm]["ratio_of_minima"] = min(values) / min(seconds[parent])
    return rows


def main() -> None:
    """Print the measurements as one JSON object."""
    from qmsam_core.allocator import MALLOC

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=200.0, help="no round begins later than this")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="processor instead of wall-clock seconds, for a machine that does other work; "
        "with OMP_NUM_THREADS=1",
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out the processes that measure memory"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # The settings are read before Python starts, so start again, as the training command does.
    if any(name not in os.environ for name in MALLOC):
        os.environ.update(MALLOC)
        os.execv(sys.executable, [sys.executable, __file__, *sys.argv[1:]])
    if options.child:
        step = make_step(options.child, options.batch)
        step(), step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
        return
    clock = time.process_time if options.cpu_time else time.perf_counter
    report = (
        summary(interleaved_seconds(options.arms, options.batch, options.rounds, options.seconds, clock))
        if options.rounds
        else {arm: {} for arm in options.arms}
    )
    if not options.no_memory:
        for arm in options.arms:
            report[arm]["peak_memory_gb"] = peak_memory(arm, options.batch)
    print(
        json.dumps(
            {
                "batch": options.batch,
                "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())),
                "clock": "processor" if options.cpu_time else "wall",
                "arms": report,
            },
            indent=1,
            default=float,
        )
    )


if __name__ == "__main__":
    main()
