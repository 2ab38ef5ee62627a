"""Scan a folder's new and changed files for the index. A scan can be resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from qmsam_core.data.archive import CaseError

from .folder import FoundFile
from .scan import FileRecord, scan_file
from .table import load_table, save_table

_SAVE_SECONDS = 15.0  # a killed scan loses at most the work of this time


def scan_folder(
    root: str | os.PathLike, found: Sequence[FoundFile], cache: str | os.PathLike | None, scan_labels: bool
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
    saved = time.monotonic()
    try:
        for name in missing:
            records[name] = scan_file(root, name, scan_labels=scan_labels)
            if cache is not None and time.monotonic() - saved > _SAVE_SECONDS:
                save_table(cache, records.values(), os.path.abspath(root))
                saved = time.monotonic()
    finally:
        if cache is not None and outdated:
            save_table(cache, [records[f.name] for f in found if f.name in records], os.path.abspath(root))
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
