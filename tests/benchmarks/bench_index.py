"""Measure the data layer at the challenge's scale. This is a script, not a test.

    python tests/benchmarks/bench_index.py [--files 20000]

All data are generated in a temporary folder and removed. Targets on two cores:

- Index 20,000 files with 1.2 million slices from their headers in 60 s, within 300 MB.
- Load that index in 1 s, within 300 MB.
- Look up a slice in 20 microseconds.
- Keep the index below 0.1 % of the size of realistic data.
- Read a random slice of a 512 x 512 x 200 volume in at most 0.6 of the time of `numpy.load` of the volume.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

MODALITIES = ("CT", "MR", "PET")
CHILD = """
import json, sys, time, resource
started = time.perf_counter()
from qmsam_core.data import SliceIndex
imported, memory = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
{work}
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps(dict(seconds=seconds, import_seconds=imported, peak_mb=peak / 1024, \
added_mb=(peak - memory) / 1024, worker_peak_mb=workers / 1024, slices=len(index))))
"""


def write_tiny_volume(job: tuple[str, int, int]) -> None:
    """Write a volume of two objects, 8 x 8 pixels a slice. `job`: folder, file number, number of slices."""
    folder, number, slices = job
    rng = np.random.default_rng(number)
    images = rng.integers(0, 256, (slices, 8, 8), dtype=np.uint8)
    masks = np.zeros_like(images)
    masks[slices // 8 :, 2:5, 2:5], masks[slices // 2 :, 6, 6] = 1, 2
    modality = MODALITIES[number % 3]
    path = Path(folder, modality, f"set{number % 7}", f"3DBox_{modality}_{number:06d}.npz")
    np.savez_compressed(path, imgs=images, gts=masks, spacing=np.ones(3))


def make_tiny_folder(root: Path, files: int, slices: int, processes: int) -> None:
    """Write many small volumes: as many as the challenge's training set has, but much smaller."""
    for modality in MODALITIES:
        for number in range(7):
            (root / modality / f"set{number}").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(write_tiny_volume, ((str(root), k, slices) for k in range(files)), chunksize=100))


def measured_in_child(work: str) -> dict:
    """Run Python statements that set `index` in a child process. Returns their time and memory."""
    result = subprocess.run(
        [sys.executable, "-c", CHILD.format(work=work)], capture_output=True, text=True, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


def bench_index(root: Path, cache: Path, processes: int) -> dict[str, dict]:
    """Measure building an index from headers, building it with labels, building it again, and loading it."""
    build = (
        f"index = SliceIndex.build({str(root)!r}, {{cache}}, scan_labels={{labels}}, processes={processes})"
    )
    plain = build.format(cache=repr(str(cache) + ".headers.npz"), labels=False)
    full = build.format(cache=repr(str(cache)), labels=True)
    return {
        "headers only": measured_in_child(plain),
        "headers and labels": measured_in_child(full),
        "again, nothing changed": measured_in_child(full),
        "load": measured_in_child(f"index = SliceIndex.load({str(cache)!r})"),
        "load, labels of all slices": measured_in_child(
            f"index = SliceIndex.load({str(cache)!r}); index.objects_on()"
        ),
    }


def bench_lookup(cache: Path, times: int = 100_000) -> dict[str, float]:
    """Time single look-ups in microseconds: a slice's reference, its position, its labels."""
    from qmsam_core.data import SliceIndex

    index = SliceIndex.load(cache)
    index.labels_on(0)
    numbers = np.random.default_rng(0).integers(0, len(index), times).tolist()
    result = {}
    for name, call in (
        ("reference", index.__getitem__),
        ("position only", index.locate),
        ("labels", index.labels_on),
    ):
        started = time.perf_counter()
        for number in numbers:
            call(number)
        result[name] = (time.perf_counter() - started) / times * 1e6
    return result


def bench_slice(folder: Path, shape: tuple[int, int, int], draws: int) -> dict[str, float]:
    """Time `numpy.load` of a volume and reading one slice, in turn. Returns mean seconds and their ratio."""
    from qmsam_core.data.archive import read_slice

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (shape[0], shape[1] // 8, shape[2] // 8), dtype=np.uint8)
    volume = coarse.repeat(8, axis=1).repeat(8, axis=2) + rng.integers(0, 16, shape, dtype=np.uint8)
    path = folder / "3DBox_CT_big.npz"
    np.savez_compressed(path, imgs=volume)
    whole, parts = [], []
    for z in (np.arange(draws) + 0.5) / draws * shape[0]:
        started = time.perf_counter()
        np.load(path)["imgs"]
        middle = time.perf_counter()
        read_slice(path, "imgs", int(z))
        whole.append(middle - started)
        parts.append(time.perf_counter() - middle)
    return {
        "numpy.load": float(np.mean(whole)),
        "slice": float(np.mean(parts)),
        "ratio": float(np.mean(parts) / np.mean(whole)),
        "file_mb": path.stat().st_size / 2**20,
    }


def bench_samples(
    root: Path, cache: Path, sizes: tuple[int, ...] = (64, 256), count: int = 300
) -> dict[str, float]:
    """Count training samples a second in this process at several input sizes, balanced over modalities."""
    from qmsam_core.data import SliceIndex, TrainTransform
    from qmsam_core.data.slices import ModalityBalancedSampler, SliceDataset

    index, result = SliceIndex.build(root, cache), {}
    for size in sizes:
        dataset, sampler = (
            SliceDataset(index, TrainTransform(size, size)),
            ModalityBalancedSampler(index, max(1, count // len(index.modalities))),
        )
        numbers = list(sampler)
        started = time.perf_counter()
        for number in numbers:
            dataset[number]
        result[f"{size} px"] = len(numbers) / (time.perf_counter() - started)
    return result


def main() -> None:
    """Run all measurements and print them as one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 512, 512), metavar=("D", "H", "W"))
    parser.add_argument(
        "--data", type=Path, help="folder of cases to draw training samples from; phantoms if not given"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "cases"), Path(folder, "index.npz")
        make_tiny_folder(root, options.files, options.slices, options.processes)
        report = {
            "index": bench_index(root, cache, options.processes),
            "index_bytes": cache.stat().st_size,
            "lookup_us": bench_lookup(cache),
        }
        report["random_slice"] = bench_slice(Path(folder), tuple(options.shape), options.draws)
        from qmsam_core.data.phantoms import write_phantoms

        data = options.data or write_phantoms(Path(folder, "phantoms"), 33, seed=0)
        report["samples_a_second"] = bench_samples(data, Path(folder, "samples.npz"))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
