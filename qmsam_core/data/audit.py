"""Measure a data folder's disk cost and reading times and list its faults (paper section 2.1, Table 2).

Disk cost compares the stored bytes with the bytes unpacked slice by slice, as the baseline does.
Reading times compare one slice of a compressed volume with the whole volume.
Faults are files that cannot be used, odd files, and objects that vanish at the network's input size.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd

from .archive import CaseArchive, CaseError, read_slice
from .index import SliceIndex
from .transforms import Geometry

UNPACKED_BYTES = 3 * 8 + 1  # the paper's 10 TB are 1.63 million slices of 512 x 512 such pixels
"""Bytes per pixel once unpacked: three float64 channels and a label."""


def disk_cost(index: SliceIndex, index_bytes: int = 0) -> pd.DataFrame:
    """Compare the stored and the unpacked size of the cases, per modality.

    Args:
        index: index of the data folder.
        index_bytes: size of the saved index. Reading on demand adds nothing else to the stored cases.

    Returns:
        One row per modality and a last row "All". Columns: cases, slices, stored (bytes of the compressed
        cases), unpacked (bytes with one array per slice), ratio (unpacked / stored), index (`index_bytes`, in
        "All" only).
    """
    cases = index.cases.assign(unpacked=lambda c: c.n_slices * c.height * c.width * UNPACKED_BYTES)
    table = cases.groupby("modality").agg(
        cases=("path", "size"),
        slices=("n_slices", "sum"),
        stored=("bytes", "sum"),
        unpacked=("unpacked", "sum"),
    )
    table.loc["All"] = table.sum()
    table["ratio"] = table.unpacked / table.stored
    table["index"] = pd.array([pd.NA] * (len(table) - 1) + [index_bytes], dtype="Int64")
    return table


def lost_labels(index: SliceIndex, size: int) -> pd.DataFrame:
    """List the cases with objects on slices that keep no pixel at an input size of `size` pixels.

    Columns: path, modality, objects (on all slices), lost. Unreadable cases are left out, since
    `SliceIndex.build` reports them.
    """
    rows = []
    for case in index.cases.itertuples():
        if case.has_labels:
            objects, lost = _lost_in_case(Path(case.path), Geometry.of(case.height, case.width, size))
            if lost:
                rows.append((case.path, case.modality, objects, lost))
    return pd.DataFrame(rows, columns=["path", "modality", "objects", "lost"])


def _lost_in_case(path: Path, geometry: Geometry) -> tuple[int, int]:
    objects = lost = 0
    with CaseArchive(path) as archive:
        planes = archive.slices("gts") if len(archive.header("gts").shape) == 3 else [archive.array("gts")]
        for plane in planes:
            present = np.unique(plane)
            objects += np.count_nonzero(present)
            lost += len(np.setdiff1d(present, [0, *np.unique(geometry.mask(plane))]))
    return objects, lost


def faults(index: SliceIndex, size: int | None = None) -> pd.DataFrame:
    """List everything wrong with a data folder, one row per fault: path, fault and detail.

    The fault is "not used", "odd" or "loses objects at <size> px".

    Args:
        index: index as `SliceIndex.build` returns it. A subset has no list of unusable files.
        size: also look for objects that vanish at this input size in pixels. This reads all labels.
    """
    rows = [(str(path), "not used", message) for path, message in index.problems]
    rows += [(str(path), "odd", message) for path, message in index.remarks]
    if size is not None:
        lost = lost_labels(index, size)
        rows += [
            (row.path, f"loses objects at {size} px", f"{row.lost} of {row.objects} objects on its slices")
            for row in lost.itertuples()
        ]
    return pd.DataFrame(rows, columns=["path", "fault", "detail"])


def reading_times(path: str | Path, draws: int = 10, key: str = "imgs") -> pd.DataFrame:
    """Time the reading of single slices of a volume, and of the whole volume with `numpy.load`.

    The slices lie at evenly spaced depths and are inflated only as far as needed. The two readings alternate.

    Returns:
        One row per draw: depth (0..1), slice_seconds, volume_seconds.

    Raises:
        CaseError: the file is unreadable, or the array is no volume.
    """
    with CaseArchive(path) as archive:
        shape = archive.header(key).shape
    if len(shape) != 3 or shape[-1] == 3:
        raise CaseError(path, f"'{key}' of shape {shape} is no volume")
    rows = []
    for depth in (np.arange(draws) + 0.5) / draws:
        started = time.perf_counter()
        read_slice(path, key, int(depth * shape[0]))
        middle = time.perf_counter()
        with np.load(path, allow_pickle=False) as archive:
            archive[key]
        rows.append((depth, middle - started, time.perf_counter() - middle))
    return pd.DataFrame(rows, columns=["depth", "slice_seconds", "volume_seconds"])
