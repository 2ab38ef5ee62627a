"""Scan a folder's new and changed files for the index. Several processes work, and a scan can be resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

from qmsam_core.data.archive import CaseError

from .folder import FoundFile
from .scan import FileRecord, scan_file
from .table import load_table, save_table

_SAVE_SECONDS = 15.0  # a killed scan loses at most the work of this time
_REPORT_SECONDS = 5.0


def scan_folder(
    root: str | os.PathLike,
    found: Sequence[FoundFile],
    cache: str | os.PathLike | None,
    scan_labels: bool,
    progress: bool,
    processes: int,
    max_bytes: int,
) -> list[FileRecord]:
    """Return the records of the files `found`, in their order.

    A record comes from the cache if it is still valid, else from the file. The cache is saved every few
    seconds and at the end of the scan, also after an exception. The other arguments are those of
    `SliceIndex.build`.
    """
    known = _known(cache)
    records = {
        f.name: known[f.name]
        for f in found
        if f.name in known and known[f.name].serves(f.size, f.mtime_ns, scan_labels)
    }
    missing = [f.name for f in found if f.name not in records]
    outdated = bool(missing) or known.keys() - {f.name for f in found}
    report = _Report(len(missing), len(records), progress)
    saved = time.monotonic()
    try:
        with _scanner(root, scan_labels, max_bytes, processes) as scan:
            for record in scan(missing):
                records[record.name] = record
                report.step()
                if cache is not None and time.monotonic() - saved > _SAVE_SECONDS:
                    save_table(cache, records.values(), os.path.abspath(root))
                    saved = time.monotonic()
    finally:
        if cache is not None and outdated:
            save_table(cache, [records[f.name] for f in found if f.name in records], os.path.abspath(root))
    report.end()
    return [records[f.name] for f in found]


def _known(cache: str | os.PathLike | None) -> dict[str, FileRecord]:
    """Records of an earlier scan. A missing, damaged or foreign cache counts as none."""
    if cache is None or not os.path.exists(cache):
        return {}
    try:
        records, _ = load_table(cache)
    except CaseError:
        return {}
    return {record.name: record for record in records}


@contextmanager
def _scanner(root, scan_labels: bool, max_bytes: int, processes: int) -> Iterator:
    """Yield a function from file names to their records, in order, that works in `processes` processes."""
    scan = partial(scan_file, root, scan_labels=scan_labels, max_bytes=max_bytes)
    if processes <= 1:
        yield lambda names: map(scan, names)
        return
    pool = ProcessPoolExecutor(processes)
    try:
        yield lambda names: _pooled(pool, scan, names, processes)
    finally:
        pool.shutdown(cancel_futures=True)


def _pooled(pool: ProcessPoolExecutor, scan, names: Sequence[str], processes: int) -> Iterable[FileRecord]:
    chunk = max(1, min(64, len(names) // (processes * 4)))
    return pool.map(scan, names, chunksize=chunk)


class _Report:
    """Print the scan's progress every few seconds, as lines. A bar would flood an executed notebook."""

    def __init__(self, total: int, unchanged: int, enabled: bool):
        self.total, self.unchanged, self.enabled = total, unchanged, enabled
        self.done, self.started = 0, time.monotonic()
        self._next = self.started + _REPORT_SECONDS

    def step(self) -> None:
        self.done += 1
        now = time.monotonic()
        if self.enabled and now >= self._next:
            self._next = now + _REPORT_SECONDS
            left = (now - self.started) / self.done * (self.total - self.done)
            print(f"indexed {self.done} of {self.total} files, about {left:.0f} s left", flush=True)

    def end(self) -> None:
        if self.enabled:
            seconds = time.monotonic() - self.started
            print(
                f"indexed {self.total} files in {seconds:.1f} s; "
                f"{self.unchanged} unchanged files taken from the cache",
                flush=True,
            )
