"""Time arms of Tables 5 and 6 in a separate process. It can be limited to an older instruction set.

    python -m qmsam_core.timing.engine_speed exported/ float int8 int8:openvino:bf16 --isa AVX2 -o times.csv

The first argument is the folder that holds the exports. An arm is `float` or `int8`, with
`_fast`, `_released` or `_nncf` behind it, then engine and hint: `int8_released:openvino:f32`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..allocator import return_memory
from ..deploy.engines import ENGINES, ISA, Engine, OpenVinoEngine
from ..provenance.environment import cpu_info
from ..provenance.files import write_atomic
from .engine_arms import PARTS, Arm, runnable, timed_calls
from .interleaved import measure_interleaved

INSTRUCTION_SETS = {
    "ALL": "everything the CPU has",
    "AVX512_CORE_VNNI": "AVX-512 with VNNI, without matrix units",
    "AVX2_VNNI": "AVX2 with VNNI, a laptop of today",
    "AVX2": "AVX2, as the paper's laptop",
}


def instruction_sets() -> dict[str, str]:
    """Return the `INSTRUCTION_SETS` that this CPU has, without one that is all it has.

    VNNI of AVX-512 does not make a CPU one of AVX2 with VNNI.
    """
    flags = cpu_info().get("flags", ())
    needs = {"AVX512_CORE_VNNI": "amx_tile", "AVX2_VNNI": "avx_vnni"}
    return {name: text for name, text in INSTRUCTION_SETS.items() if needs.get(name, "") in ("", *flags)}


def time_arms(
    engines: Mapping[Arm, Engine], runs: int, seed: int = 0, parts: Sequence[str] = PARTS, boxes: int = 1
) -> pd.DataFrame:
    """Time every part of the arms, interleaved.

    Args:
        engines: opened engine of each arm.
        runs: rounds that are timed.
        seed: seed of the image.
        parts: some of `PARTS`. Parts that no arm has are left out.
        boxes: boxes decoded on one image if the decoder is timed alone.

    Returns:
        Column part, then the columns of `summarise_timings`.
    """
    tables = []
    for part in parts:
        if calls := timed_calls(engines, seed, part, boxes):
            table = measure_interleaved(calls, runs)
            table.insert(0, "part", part)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def time_under(
    isa: str,
    folder: str | Path,
    arms: Iterable[Arm],
    threads: int,
    runs: int,
    seed: int = 0,
    parts: Sequence[str] = PARTS,
) -> pd.DataFrame:
    """Call `time_arms` in a new process that is limited to `isa`, a key of `INSTRUCTION_SETS`.

    The process must be new because the CPU's kernels are chosen once per process. Arms that are not
    `runnable` under `isa` are left out.

    Raises:
        RuntimeError: the process failed. The message has the last line of its error output.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "timings.csv"
        command = [
            sys.executable,
            "-m",
            "qmsam_core.timing.engine_speed",
            str(Path(folder).resolve()),
            *(arm.spec for arm in arms),
        ]
        command += [
            "--threads",
            str(threads),
            "--runs",
            str(runs),
            "--seed",
            str(seed),
            "--parts",
            *parts,
            "-o",
            str(path),
        ]
        root = Path(__file__).parents[2]  # the package must be found from any current folder
        return_memory()  # each engine of a ViT-B needs 5 GB in the new process
        done = subprocess.run(command, env=os.environ | {ISA: isa}, cwd=root, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            if done.returncode < 0:  # often by the kernel
                said = [f"its process was killed by signal {-done.returncode}; is there memory enough?"]
            raise RuntimeError(f"timing under {isa} failed: {said[0]}")
        return pd.read_csv(path)


def time_against(
    first: Arm, others: Sequence[Arm], folder: str | Path, threads: int, runs: int, seed: int = 0
) -> pd.DataFrame:
    """Time one image and one box, with each of `others` interleaved with `first` in a separate process.

    So only two engines are in memory at once. The times of each process are scaled so that `first` takes the
    same time in all, its median over the processes. This removes changes of the machine's speed between them.
    Returns the columns of `summarise_timings`.
    """
    found = [
        time_under("ALL", folder, [first, other], threads, runs, seed, ("both",)) for other in others
    ] or [time_under("ALL", folder, [first], threads, runs, seed, ("both",))]
    median = float(pd.Series([table["median_ms"].iloc[0] for table in found]).median())
    for table in found:
        scaled = [column for column in table if column.endswith("_ms")]
        table[scaled] *= median / table["median_ms"].iloc[0]
    return pd.concat([found[0].head(1), *(table.tail(-1) for table in found)], ignore_index=True).drop(
        columns="part"
    )


def time_large(
    arms: Sequence[Arm], folder: str | Path, threads: int, runs: int, seed: int = 0
) -> pd.DataFrame:
    """Time one image and one box with the arms of a large model, in separate processes.

    A ViT-B takes up to 6 GB in an engine, so at most two are in memory at once: each arm is interleaved with
    its engine's plain float arm (see `time_against`), and arms of different engines are timed minutes apart.
    The other arguments are those of `time_under`.

    Args:
        arms: arms to time. The first one of each engine is the plain float arm.

    Returns:
        The columns of `summarise_timings`.
    """
    tables = []
    for engine in dict.fromkeys(arm.engine for arm in arms):
        plain, *others = [arm for arm in arms if arm.engine == engine]
        tables.append(time_against(plain, others, folder, threads, runs, seed))
    return pd.concat(tables, ignore_index=True)


def start_times(folder: str | Path, threads: int) -> pd.DataFrame:
    """Time until an OpenVINO engine is ready, with columns start and seconds.

    The starts are without a cache, with an empty cache, and with a cache that holds the compiled model.
    """
    with tempfile.TemporaryDirectory() as cache:
        starts = {"no cache": None, "cold cache": cache, "warm cache": cache}
        rows = [
            (name, OpenVinoEngine(folder, threads, cache=place).compile_seconds)
            for name, place in starts.items()
        ]
    return pd.DataFrame(rows, columns=["start", "seconds"])


def restart_under(isa: str | None, module: str, arguments: list[str] | None) -> None:
    """Start the command `module` again under an instruction set, if it is not held to it yet.

    OpenVINO reads the variable when it is loaded, so only a new process obeys it.
    """
    if isa and os.environ.get(ISA) != isa:
        os.environ[ISA] = isa
        os.execv(sys.executable, [sys.executable, "-m", module, *(arguments or sys.argv[1:])])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, see above. Return 0, or 2 with one line on stderr for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.timing.engine_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="holds the exports: float/, int8/, int8_released/, ...")
    parser.add_argument(
        "arms",
        nargs="+",
        help=f"<export>[:engine[:hint]]; engines {', '.join(ENGINES)}; "
        "the first is what the others are compared with",
    )
    parser.add_argument("--isa", choices=list(INSTRUCTION_SETS), help="hold OpenVINO to an instruction set")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument(
        "--boxes", type=int, default=1, help="boxes decoded on one image where the decoder is timed alone"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="CSV")
    options = parser.parse_args(arguments)
    restart_under(options.isa, "qmsam_core.timing.engine_speed", arguments)
    try:
        asked = [Arm.parse(text) for text in options.arms]
        arms = runnable(asked)
        for arm in asked:
            if arm not in arms:
                print(f"speed: {arm.spec} is left out: this CPU has no bf16 arithmetic", file=sys.stderr)
        if not arms:
            return 2
        engines = {arm: arm.open(options.folder, options.threads) for arm in arms}
        table = time_arms(engines, options.runs, options.seed, options.parts, options.boxes)
    except (ValueError, OSError) as error:
        print(f"speed: {error}", file=sys.stderr)
        return 2
    print(table.round(3).to_string(index=False))
    if options.output:
        write_atomic(options.output, lambda file: table.to_csv(file, index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
