"""The index on disk: file records as columns of an npz file, without pickle, with strings as UTF-8 bytes.

The table is a cache and never trusted. A table of another format or version, or a damaged or hostile one,
counts as no table. Paths are looked up only by names found in the data folder, never opened because a table
names them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import numpy as np

from qmsam_core.data.archive import CaseArchive, CaseError, write_archive

from .scan import FileRecord

FORMAT = "qmsam-index-2"
_INTEGERS = {
    "size": np.int64,
    "mtime_ns": np.int64,
    "n_slices": np.int32,
    "height": np.int32,
    "width": np.int32,
}
_FLAGS = ("is_volume", "has_labels", "scanned")
_TEXTS = ("name", "problem", "remark", "group")


def save_table(path: str | os.PathLike, records: Iterable[FileRecord], root: str = "") -> None:
    """Write records to an npz file, atomically. `root` notes the folder where they were found."""
    records = list(records)
    columns = {
        name: np.array([getattr(r, name) for r in records], dtype=kind) for name, kind in _INTEGERS.items()
    }
    columns |= {name: np.array([getattr(r, name) for r in records], dtype=bool) for name in _FLAGS}
    columns |= {name: _encode([getattr(r, name) for r in records]) for name in _TEXTS}
    columns["label_counts"] = _joined([r.label_counts for r in records])
    columns["label_ids"] = _joined([r.label_ids for r in records])
    columns["about"] = _encode([FORMAT, root])
    write_archive(path, columns)


def load_table(path: str | os.PathLike) -> tuple[list[FileRecord], str]:
    """Read the records and the root of a saved table.

    Raises:
        CaseError: there is no readable table of this format.
    """
    with CaseArchive(path) as archive:
        about = _decode(archive.array("about"), path)
        if len(about) != 2 or about[0] != FORMAT:
            raise CaseError(path, f"is no slice index of format {FORMAT}; build the index again")
        columns = {name: archive.array(name) for name in (*_INTEGERS, *_FLAGS)}
        texts = {name: _decode(archive.array(name), path) for name in _TEXTS}
        counts, ids = archive.array("label_counts"), archive.array("label_ids")
    _check(path, columns, texts, counts, ids)
    values = [column.tolist() for column in columns.values()]
    labels = _split_labels(columns, counts, ids)
    records = [
        FileRecord(name, *row, *labels_of_file, problem=problem, remark=remark, group=group)
        for name, problem, remark, group, labels_of_file, *row in zip(
            *(texts[t] for t in _TEXTS), labels, *values
        )
    ]
    return records, about[1]


def _check(path, columns: dict, texts: dict, counts: np.ndarray, ids: np.ndarray) -> None:
    """Refuse columns that do not fit each other. A damaged table could shift labels between files."""
    lengths = {len(c) for c in columns.values()} | {len(t) for t in texts.values()}
    kinds_fit = all(columns[n].dtype == k for n, k in _INTEGERS.items()) and all(
        columns[n].dtype == bool for n in _FLAGS
    )
    labels_fit = counts.dtype == ids.dtype == np.uint16 and int(counts.sum(dtype=np.int64)) == len(ids)
    if len(lengths) != 1 or not kinds_fit or not labels_fit or (columns["n_slices"] < 0).any():
        raise CaseError(path, "is a damaged slice index; build the index again")
    if int(columns["n_slices"][columns["scanned"]].sum(dtype=np.int64)) != len(counts):
        raise CaseError(path, "is a damaged slice index; build the index again")


def _split_labels(columns: dict, counts: np.ndarray, ids: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    slices = np.where(columns["scanned"], columns["n_slices"], 0)
    slice_ends = np.cumsum(slices, dtype=np.int64)
    id_ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])[slice_ends]
    slice_starts, id_starts = np.r_[0, slice_ends[:-1]], np.r_[0, id_ends[:-1]]
    bounds = zip(slice_starts.tolist(), slice_ends.tolist(), id_starts.tolist(), id_ends.tolist())
    return [(counts[a:b], ids[c:d]) for a, b, c, d in bounds]


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.uint16), *arrays]).astype(np.uint16, copy=False)


def _encode(texts: list[str]) -> np.ndarray:
    """Encode as JSON, since names may hold any character. Lone surrogates (undecodable names) are escaped."""
    return np.frombuffer(json.dumps(texts).encode("ascii"), dtype=np.uint8)


def _decode(data: np.ndarray, path) -> list[str]:
    try:
        texts = json.loads(data.tobytes())
    except ValueError as error:
        raise CaseError(path, f"is a damaged slice index ({error}); build the index again") from error
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise CaseError(path, "is a damaged slice index; build the index again")
    return texts
