"""The index of slices lists every slice of every case in a data folder. Nothing is unpacked for it.

The folder's layout is `<root>/<Modality>/**/*.npz`. The modality is the first folder below the root, the data
set the second, if there is one. In a volume every slice is one sample (paper sections 2.1 and 3.1, Table 2).
"""

from __future__ import annotations

import hashlib
import os
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qmsam_core.data.archive import CaseError

from .build import scan_folder
from .folder import DataFolderError, find_cases
from .groups import case_groups
from .scan import FileRecord
from .table import load_table, save_table

if TYPE_CHECKING:
    import pandas as pd  # takes long to load; the methods that return tables import it


@dataclass(frozen=True)
class SliceRef:
    """Place of a slice: file, z (0 for a 2-D image), modality, and the case's row in `SliceIndex.cases`."""

    path: Path
    z: int
    modality: str
    case: int


class SliceIndex:
    """Slices of a folder of cases, numbered case by case in the order of the file names.

    Attributes:
        root: the data folder.
        problems: [(path, message)] of files that cannot be used; they are not in the index.
        remarks: [(path, message)] of files that are used but odd (label gaps, empty masks, no labels).
    """

    def __init__(self, root: Path, records: Sequence[FileRecord], problems: Iterable[tuple[Path, str]] = ()):
        self.root = Path(root)
        self._records = list(records)
        if not all(record.group for record in self._records):
            _tell_groups(self._records)
        self.problems = list(problems)
        self._modalities = [record.name.partition("/")[0] for record in self._records]
        ends = np.cumsum([record.n_slices for record in self._records], dtype=np.int64)
        self._starts = [0, *ends.tolist()]

    @classmethod
    def build(
        cls, root: str | os.PathLike, cache: str | os.PathLike | None = None, scan_labels: bool = True
    ) -> SliceIndex:
        """Index a data folder from the headers of its files.

        Args:
            root: folder with `<Modality>/**/*.npz`.
            cache: file that keeps the index. Only files new or changed (size, time) are read again, also
                after an interruption.
            scan_labels: read from `gts` which labels are on each slice. Sampling needs this to leave out
                empty slices.

        Raises:
            DataFolderError: the folder is missing, or holds no usable case.
        """
        found, misplaced = find_cases(root)
        records = scan_folder(root, found, cache, scan_labels)
        good = [record for record in records if not record.problem]
        bad = [(Path(root, record.name), record.problem) for record in records if record.problem]
        problems = sorted([*misplaced, *bad])
        if not good:
            first = f"; the first: {problems[0][0]}: {problems[0][1]}" if problems else ""
            raise DataFolderError(root, f"holds no usable case ({len(problems)} files with problems{first})")
        _tell_groups(good)
        return cls(Path(root), good, problems)

    def save(self, path: str | os.PathLike) -> None:
        """Write the index to an npz without pickle, atomically.

        The times of the files' last changes are left out. Copies of the same data in folders of the same name
        thus have the same index, byte for byte.
        """
        records = [replace(record, mtime_ns=0) for record in self._records]
        save_table(path, records, os.path.abspath(self.root))

    @classmethod
    def load(cls, path: str | os.PathLike) -> SliceIndex:
        """Read a saved index as it is, without a look at the files.

        Raises:
            CaseError: the index is unreadable, or names files outside its folder.
        """
        records, root = load_table(path)
        for record in records:
            if record.name.startswith("/") or ".." in record.name.split("/") or "/" not in record.name:
                raise CaseError(
                    path, f"names {record.name!r}, which is not in <root>/<Modality>/; build the index again"
                )
        good = [record for record in records if not record.problem]
        return cls(
            root, good, [(Path(root, record.name), record.problem) for record in records if record.problem]
        )

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i: int) -> SliceRef:
        case, z = self.locate(i)
        return SliceRef(self.root / self._records[case].name, z, self._modalities[case], case)

    def locate(self, i: int) -> tuple[int, int]:
        """Find the case row and z position of slice `i`, by bisection on the cumulative slice counts."""
        i = int(i)
        if not -len(self) <= i < len(self):
            raise IndexError(f"slice {i} of {len(self)}")
        i %= len(self)
        case = bisect_right(self._starts, i) - 1
        return case, i - self._starts[case]

    def labels_on(self, i: int) -> tuple[int, ...]:
        """Label ids on slice `i`, ascending; () if it is empty. Needs an index built with `scan_labels`."""
        start, stop = self._label_bounds[i], self._label_bounds[i + 1]
        return tuple(self._label_ids[start:stop].tolist())

    def objects_on(self) -> np.ndarray:
        """Number of objects on every slice, int64 (len(self),)."""
        return np.diff(self._label_bounds)

    def is_volume(self, case: int) -> bool:
        """Whether the case in row `case` is a volume."""
        return self._records[case].is_volume

    @property
    def modalities(self) -> list[str]:
        """Modalities present, sorted."""
        return sorted(set(self._modalities))

    @property
    def remarks(self) -> list[tuple[Path, str]]:
        """Oddities of the files in the index, as (path, message)."""
        return [(self.root / r.name, r.remark) for r in self._records if r.remark]

    @cached_property
    def cases(self) -> pd.DataFrame:
        """Table of the cases, one row per case.

        Columns: path, modality, dataset, group (equal for cases of one patient or volume, see `groups`),
        n_slices, height, width, is_volume, has_labels, n_objects (-1 if not scanned), bytes.
        """
        import pandas as pd

        rows = [
            (
                str(self.root / r.name),
                modality,
                _dataset(r.name),
                r.group,
                r.n_slices,
                r.height,
                r.width,
                r.is_volume,
                r.has_labels,
                _n_objects(r),
                r.size,
            )
            for r, modality in zip(self._records, self._modalities)
        ]
        columns = [
            "path",
            "modality",
            "dataset",
            "group",
            "n_slices",
            "height",
            "width",
            "is_volume",
            "has_labels",
            "n_objects",
            "bytes",
        ]
        return pd.DataFrame(rows, columns=columns)

    def counts(self, with_objects: bool = False) -> pd.Series:
        """Number of slices per modality (Table 2), int64. `with_objects` counts only those with an object."""
        import pandas as pd

        per_slice = self.objects_on() > 0 if with_objects else np.ones(len(self), dtype=bool)
        totals = np.bincount(self.modality_codes(), weights=per_slice, minlength=len(self.modalities))
        return pd.Series(
            totals.astype(np.int64), index=pd.Index(self.modalities, name="modality"), name="slices"
        )

    def modality_codes(self) -> np.ndarray:
        """Position of each slice's modality in `modalities`, int64 (len(self),)."""
        codes = np.searchsorted(self.modalities, self._modalities)
        return np.repeat(codes, np.diff(self._starts))

    def subset(self, case_rows: Iterable[int]) -> SliceIndex:
        """Index of the cases in rows `case_rows`, in that order. Problems stay with the full index."""
        return SliceIndex(self.root, [self._records[row] for row in case_rows])

    def split(self, eval_fraction: float, seed: int) -> tuple[SliceIndex, SliceIndex]:
        """Split by case within each modality into a training and an evaluation index.

        Cases of one patient or volume, by their names, stay on one side (see `groups`). The fraction is thus
        met only as nearly as the groups allow. A modality of two or more groups has at least one on each
        side. A single case trains. The draw depends only on the seed, the modality and its cases' names, so
        other modalities' files do not change it.

        Args:
            eval_fraction: share for evaluation, above 0, at most 0.5 (paper section 3.1: one tenth).
            seed: seed of the draw.
        """
        if not 0 < eval_fraction <= 0.5:
            raise ValueError(f"eval_fraction {eval_fraction}: expected above 0, at most 0.5")
        evaluation: set[int] = set()
        for modality in self.modalities:
            rows = [row for row, name in enumerate(self._modalities) if name == modality]
            rows.sort(key=lambda row: self._records[row].name)
            rng = np.random.default_rng((seed, zlib.crc32(modality.encode())))
            held_out = min(max(1, round(len(rows) * eval_fraction)), len(rows) - 1)
            groups = list(self._grouped(rows).values())
            evaluation.update(_take_groups([groups[k] for k in rng.permutation(len(groups))], held_out))
        training = [row for row in range(len(self._records)) if row not in evaluation]
        return self.subset(training), self.subset(sorted(evaluation))

    def hold_out(self, fraction: float = 0.2) -> tuple[SliceIndex, SliceIndex]:
        """Split by case within each modality into the rest and a testing index, never trained or chosen on.

        Groups of cases (see `groups`) are taken in the order of a hash of their name, while that brings the
        number of cases nearer to the fraction. The testing part thus depends on no seed and is the same in
        every run on the same data. Two or more groups give at least one to each side.
        """
        held: list[int] = []
        for modality in self.modalities:
            rows = [row for row, name in enumerate(self._modalities) if name == modality]
            groups = sorted(
                self._grouped(rows).items(), key=lambda item: hashlib.sha256(item[0].encode()).digest()
            )
            wanted = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
            held += _take_groups([group for _, group in groups], wanted)
        inside = set(held)
        return self.subset(row for row in range(len(self._records)) if row not in inside), self.subset(
            sorted(inside)
        )

    def _grouped(self, rows: Sequence[int]) -> dict[str, list[int]]:
        """Rows of one modality by their group, in the order of their first case."""
        groups: dict[str, list[int]] = {}
        for row in rows:
            groups.setdefault(self._records[row].group, []).append(row)
        return groups

    @cached_property
    def _label_ids(self) -> np.ndarray:
        self._require_scan()
        return np.concatenate([np.zeros(0, dtype=np.uint16), *(r.label_ids for r in self._records)])

    @cached_property
    def _label_bounds(self) -> np.ndarray:
        self._require_scan()
        counts = np.concatenate([np.zeros(1, dtype=np.int64), *(r.label_counts for r in self._records)])
        return np.cumsum(counts, dtype=np.int64)

    def _require_scan(self) -> None:
        if not all(record.scanned for record in self._records):
            raise ValueError(
                f"the index of {self.root} was built without labels: build it with scan_labels=True"
            )


def _tell_groups(records: Sequence[FileRecord]) -> None:
    """Set the group of each record. All files of a modality must be given, since their names are compared."""
    modalities: dict[str, list[FileRecord]] = {}
    for record in records:
        modalities.setdefault(record.name.partition("/")[0], []).append(record)
    for of_modality in modalities.values():
        for record, group in zip(of_modality, case_groups([record.name for record in of_modality])):
            record.group = group


def _take_groups(groups: list[list[int]], held_out: int) -> list[int]:
    """Take whole groups while that brings the rows nearer to `held_out`, at least one unless it is 0."""
    taken: list[int] = []
    for group in groups:
        if abs(len(taken) + len(group) - held_out) < abs(len(taken) - held_out):
            taken += group
    if held_out and not taken:  # every group is at least twice as large as wanted
        taken = min(groups, key=len)
    return taken


def _dataset(name: str) -> str:
    parts = name.split("/")
    return parts[1] if len(parts) > 2 else ""


def _n_objects(record: FileRecord) -> int:
    return len(np.unique(record.label_ids)) if record.scanned else -1
