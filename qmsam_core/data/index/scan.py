"""Read what the index stores of one case file: its headers and, on request, the labels on each slice."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qmsam_core.data.archive import CaseArchive, CaseError
from qmsam_core.data.cases import MAX_LABEL, case_layout, check_box_count, read_boxes

_NO_LABELS = np.zeros(0, dtype=np.uint16)


@dataclass(eq=False)
class FileRecord:
    """One file in the index.

    Attributes:
        name: path relative to the data root, with forward slashes.
        size: bytes of the file. A record is out of date if size or time differ.
        mtime_ns: time of the file's last change, nanoseconds.
        n_slices: from the headers; 0 if there is a problem.
        height: from the headers, pixels; 0 if there is a problem.
        width: from the headers, pixels; 0 if there is a problem.
        is_volume: from the headers; False if there is a problem.
        has_labels: from the headers; False if there is a problem.
        scanned: whether the labels were read.
        label_counts: uint16 (n_slices,), number of labels on each slice; empty unless scanned.
        label_ids: uint16, the ids of all slices one after the other, ascending on each slice.
        problem: why the file cannot be used; "" if it can.
        remark: what is odd about a usable file; "" if nothing is.
        group: key of the case's patient or volume, from the names of all files in the folder (see `groups`);
            "" before the whole folder is known.
    """

    name: str
    size: int
    mtime_ns: int
    n_slices: int = 0
    height: int = 0
    width: int = 0
    is_volume: bool = False
    has_labels: bool = False
    scanned: bool = False
    label_counts: np.ndarray = field(default_factory=lambda: _NO_LABELS)
    label_ids: np.ndarray = field(default_factory=lambda: _NO_LABELS)
    problem: str = ""
    remark: str = ""
    group: str = ""

    def serves(self, size: int, mtime_ns: int, scan_labels: bool) -> bool:
        """Whether the record is still valid: file unchanged, usable, and scanned if a scan is asked for.

        Files with a problem are read again each time, since a chmod mends a file without changing its time.
        """
        return (
            (self.size, self.mtime_ns) == (size, mtime_ns)
            and not self.problem
            and (self.scanned or not scan_labels)
        )


def scan_file(root: str | os.PathLike, name: str, scan_labels: bool = True) -> FileRecord:
    """Read the headers of `root/name` and, with `scan_labels`, which labels are on each slice.

    A bad file raises nothing. Its record holds the problem, so that the rest of the folder stays usable.
    """
    path = Path(root, name)
    record = FileRecord(name, 0, 0)
    try:
        before = os.stat(path)
        record.size, record.mtime_ns = before.st_size, before.st_mtime_ns
        _scan(path, record, scan_labels)
        after = os.stat(path)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise CaseError(path, "changed while it was being indexed; index again when it is complete")
    except CaseError as error:
        return FileRecord(name, record.size, record.mtime_ns, problem=error.message)
    except OSError as error:
        return FileRecord(
            name, record.size, record.mtime_ns, problem=f"cannot be read ({error.strerror or error})"
        )
    return record


def _scan(path: Path, record: FileRecord, scan_labels: bool) -> None:
    with CaseArchive(path) as archive:
        layout = case_layout(archive)
        record.n_slices, record.height, record.width = layout.n_slices, layout.height, layout.width
        record.is_volume, record.has_labels = layout.is_volume, layout.has_labels
        n_boxes = len(read_boxes(archive, layout)) if layout.has_boxes else None
        if not scan_labels:
            return
        record.scanned = True
        if layout.has_labels:
            _scan_labels(archive, record)
            if n_boxes is not None:
                check_box_count(path, int(record.label_ids.max(initial=0)), n_boxes)
        else:
            record.label_counts = np.zeros(record.n_slices, dtype=np.uint16)
            record.remark = "has no labels ('gts'): not usable for training or scoring"


def _scan_labels(archive: CaseArchive, record: FileRecord) -> None:
    planes = archive.slices("gts") if record.is_volume else [archive.array("gts")]
    per_slice = [labels_of(plane, archive.path) for plane in planes]
    record.label_counts = np.array([len(ids) for ids in per_slice], dtype=np.uint16)
    record.label_ids = np.concatenate(per_slice).astype(np.uint16)
    present = np.unique(record.label_ids)
    gaps = np.setdiff1d(np.arange(1, int(present.max(initial=0)) + 1), present)
    if not len(present):
        record.remark = "has an empty mask: no object to train on"
    elif len(gaps):
        record.remark = (
            f"has gaps in its labels: {len(gaps)} of 1..{present[-1]} are absent "
            f"({', '.join(map(str, gaps[:5]))}{', ...' if len(gaps) > 5 else ''})"
        )


def labels_of(plane: np.ndarray, path: Path) -> np.ndarray:
    """Label ids > 0 on a slice (H,W), ascending, int64. Errors for ids outside 0..65535 name `path`."""
    if not plane.any():
        return np.zeros(0, dtype=np.int64)
    if plane.dtype != np.uint8 and (int(plane.max()) > MAX_LABEL or int(plane.min()) < 0):
        raise CaseError(path, f"'gts' holds labels {plane.min()}..{plane.max()}; expected 0..{MAX_LABEL}")
    ids = np.flatnonzero(np.bincount(plane.reshape(-1)))
    return ids[ids > 0]
