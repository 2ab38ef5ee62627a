"""Measure a data folder's disk cost, reading times and lost objects (paper section 2.1, Table 2).

Disk cost compares the stored bytes with the bytes unpacked slice by slice, as the baseline does.
Reading times compare one slice of a compressed volume with the whole volume.
Lost objects are those that vanish at the network's input size.
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


def disk_cost(index: SliceIndex) -> pd.DataFrame:
    """Compare the stored and the unpacked size of the cases, one row per modality.

    Columns: cases, slices, stored (bytes of the compressed cases), unpacked (bytes with one array per slice).
    """
    cases = index.cases.assign(unpacked=lambda c: c.n_slices * c.height * c.width * UNPACKED_BYTES)
    return cases.groupby("modality").agg(
        cases=("path", "size"),
        slices=("n_slices", "sum"),
        stored=("bytes", "sum"),
        unpacked=("unpacked", "sum"),
    )


def lost_labels(index: SliceIndex, size: int) -> pd.DataFrame:
    """List the cases with objects on slices that keep no pixel at an input size of `size` pixels.

    Columns: modality, objects (on all slices), lost. Unreadable cases are left out, since
    `SliceIndex.build` reports them.
    """
    rows = []
    for case in index.cases.itertuples():
        if case.has_labels:
            objects, lost = _lost_in_case(Path(case.path), Geometry.of(case.height, case.width, size))
            if lost:
                rows.append((case.modality, objects, lost))
    return pd.DataFrame(rows, columns=["modality", "objects", "lost"])


def _lost_in_case(path: Path, geometry: Geometry) -> tuple[int, int]:
    objects = lost = 0
    with CaseArchive(path) as archive:
        planes = archive.slices("gts") if len(archive.header("gts").shape) == 3 else [archive.array("gts")]
        for plane in planes:
            present = np.unique(plane)
            objects += np.count_nonzero(present)
            lost += len(np.setdiff1d(present, [0, *np.unique(geometry.mask(plane))]))
    return objects, lost


def reading_times(path: str | Path) -> pd.DataFrame:
    """Time the reading of single slices of a volume, and of the whole volume with `numpy.load`.

    Ten slices lie at evenly spaced depths and are inflated only as far as needed. The two readings alternate.

    Returns:
        One row per slice: slice_seconds, volume_seconds.

    Raises:
        CaseError: the file is unreadable, or the case is no volume.
    """
    with CaseArchive(path) as archive:
        shape = archive.header("imgs").shape
    if len(shape) != 3 or shape[-1] == 3:
        raise CaseError(path, f"'imgs' of shape {shape} is no volume")
    rows = []
    for depth in (np.arange(10) + 0.5) / 10:
        started = time.perf_counter()
        read_slice(path, "imgs", int(depth * shape[0]))
        middle = time.perf_counter()
        with np.load(path, allow_pickle=False) as archive:
            archive["imgs"]
        rows.append((middle - started, time.perf_counter() - middle))
    return pd.DataFrame(rows, columns=["slice_seconds", "volume_seconds"])
