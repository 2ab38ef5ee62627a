"""What a data folder costs and what is wrong with it: the figures behind the paper's section 2.1 and Table 2, for any folder.

Disk: as stored, and unpacked slice by slice as the baseline does; time: a slice from a compressed volume against reading the volume;
faults: files that cannot be used, odd ones, and objects that vanish at the network's input size.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd

from .archive import CaseArchive, CaseError, read_slice
from .index import SliceIndex
from .transforms import Geometry

UNPACKED_BYTES = 3 * 8 + 1
"""Bytes a pixel once unpacked: three float64 channels and a label. 1.63 million slices of 512 x 512 of it are the paper's 10 TB."""


def disk_cost(index: SliceIndex, index_bytes: int = 0) -> pd.DataFrame:
    """Bytes a modality: `stored` (compressed cases), `unpacked` (one array a slice), and `ratio`; a last row "All" with the `index`.

    Args:
        index: of the folder.
        index_bytes: size of the saved index, all that reading on demand adds to the stored cases.
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
    """Objects on slices, and how many of them have no pixel left at `size` px, a case that loses any: path, modality, objects, lost.

    An unreadable case is left out; `SliceIndex.build` reports those.
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
    """Everything wrong with a folder: path, fault ("not used", "odd", "loses objects at <size> px") and detail, one row each.

    Args:
        index: as `SliceIndex.build` returns it (a subset has no list of unusable files).
        size: also look for objects that vanish at this input size, pixels; reads all labels.
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
    """Seconds to read a slice at evenly spaced depths of a volume, inflating only as far as needed, and to read the volume with `numpy.load`.

    Runs are interleaved. Returns one row a draw: depth (0..1), slice_seconds, volume_seconds.

    Raises:
        CaseError: unreadable file, or no volume.
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
