"""Measure Table 8 in full: every case with every pipeline. This is a script, not a test.

    python tests/benchmarks/bench_predict.py --float F --released R --ours O --csv table8.csv
        [--runs 3] [--most-slices 12] [--stop-after 80]

F, R and O are folders of `qmsam_core.deploy.export --recipe float|released|paper`. `--pipelines` are the
baseline's, the authors', ours, and the authors' with their best block size, 8 boxes. They take turns, run
after run. Each measurement has its own process. Measurements that the CSV already holds are skipped, so a
long run can be split.

Times are from input file to output file, with the model loaded and warm. On a busy machine the processor
seconds are more reliable. Peak memory is that of the process. All pipelines run with the study's allocator
settings. Without them the baseline takes twice as long.

Two cases are added to the paper's: 12 slices of 512 x 512 with 6 objects, and 1920 x 2560 with 60 boxes.
Targets for our pipeline:

- 12 slices of 512 x 512, 6 objects: 2x over the authors, 22x over the baseline.
- 1920 x 2560, 60 boxes: 2x over the authors' best.
- 320 x 640, 34 boxes: 1.8x over the authors' best.
- 2560 x 1920, 241 boxes: within 1.5 GB.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from qmsam_core.allocator import MALLOC
from qmsam_core.deploy.memory import memory_size
from qmsam_core.timing.interleaved import high_water_mb
from qmsam_core.timing.pipelines import AUTHORS_BEST, run_pipeline
from qmsam_core.timing.table8_cases import PIPELINES, running_time_table, stand_in, table8_cases

COLUMNS = ["case", "objects", "slices", "pipeline", "run", "seconds", "cpu_seconds", "peak_mb"]
EXTRA = pd.DataFrame(
    [("3DBox_shared", (12, 512, 512), 6, 12), ("2DBox_many", (1920, 2560, 3), 60, 1)],
    columns=["case", "shape", "objects", "slices"],
)


def measured(
    pipeline: str, folder: Path, case: Path, threads: int, limit: int | None
) -> tuple[float, float, float]:
    """Return wall-clock seconds, processor seconds and peak MB of one case. Run it in a fresh process."""
    with tempfile.TemporaryDirectory() as output:
        seconds, cpu = run_pipeline(pipeline, folder, case, Path(output, case.name), threads, limit)
    return seconds, cpu, high_water_mb()


def in_process(function, *arguments):
    """Call the function in a fresh process and return its value."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Measure what the CSV lacks, write it row by row, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("float", "released", "ours"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--most-slices", type=int, help="cross at most so many slices")
    parser.add_argument("--cases", nargs="*", help="only cases whose name holds one of these")
    parser.add_argument(
        "--pipelines", nargs="*", default=(*PIPELINES, AUTHORS_BEST), choices=(*PIPELINES, AUTHORS_BEST)
    )
    parser.add_argument("--memory-limit", type=memory_size, default=memory_size("1.5G"), help="of ours")
    parser.add_argument(
        "--stop-after", type=float, default=np.inf, help="seconds after which no further measurement begins"
    )
    options = parser.parse_args()
    os.environ.update(MALLOC)  # the measuring processes inherit these settings
    folders = dict(
        zip((*PIPELINES, AUTHORS_BEST), (options.float, options.released, options.ours, options.released))
    )
    cases = pd.concat(
        [
            EXTRA.assign(slices=EXTRA["slices"].clip(upper=options.most_slices)),
            table8_cases(options.most_slices),
        ],
        ignore_index=True,
    )
    if options.cases:
        cases = cases[[any(part in case for part in options.cases) for case in cases["case"]]]
    rows = pd.read_csv(options.csv) if options.csv.exists() else pd.DataFrame(columns=COLUMNS)
    known, started = set(zip(rows["case"], rows["slices"], rows["pipeline"], rows["run"])), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for run in range(options.runs):
            for row in cases.itertuples(index=False):
                for pipeline in np.roll(options.pipelines, -run):
                    if (
                        row.case,
                        row.slices,
                        pipeline,
                        run,
                    ) in known or time.monotonic() - started > options.stop_after:
                        continue
                    path = Path(folder, f"{row.case}.npz")
                    if not path.exists():
                        stand_in(*row).save(path)
                    limit = options.memory_limit if pipeline == "ours" else None
                    seconds, cpu, peak = in_process(
                        measured, pipeline, folders[pipeline], path, options.threads, limit
                    )
                    new = pd.DataFrame(
                        [(row.case, row.objects, row.slices, pipeline, run, seconds, cpu, peak)],
                        columns=COLUMNS,
                    )
                    rows = new if rows.empty else pd.concat([rows, new], ignore_index=True)
                    rows.to_csv(options.csv, index=False)
                    print(
                        f"{row.case} {pipeline} run {run}: {seconds:.2f} s ({cpu:.2f} of CPU), {peak:.0f} MB",
                        file=sys.stderr,
                        flush=True,
                    )
    if rows.empty:
        return
    medians = rows.groupby(["case", "slices", "pipeline"], as_index=False)[
        ["seconds", "cpu_seconds", "peak_mb"]
    ].median()
    extra = medians[medians["case"].isin(EXTRA["case"])].pivot(
        index="case", columns="pipeline", values=["seconds", "cpu_seconds", "peak_mb"]
    )
    print(extra.round(2).to_string() if len(extra) else "")
    own = medians[~medians["case"].isin(EXTRA["case"])]
    if len(own):
        print(own.round(2).to_string(index=False))
        print(running_time_table(own).dropna(axis=1, how="all").round(2).to_string(index=False))


if __name__ == "__main__":
    main()
