"""Import many inputs into a data folder. Existing cases are kept. A failed input does not stop the rest."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from qmsam_core.data.archive import CaseArchive, CaseError
from qmsam_core.data.cases import Case
from qmsam_core.data.source import read_source

from .notes import Loss, listed
from .planes import plane_of
from .walk import in_utf8

_LONGEST = 160
"""Bytes of a case's name. File systems allow 255 with prefix and ending."""


@dataclass(frozen=True)
class Job:
    """One input to import. `read` takes the case's full name and returns the case and notes to print.

    `source` is its file or folder, `series` the UID of a DICOM series.
    """

    source: Path
    name: str
    modality: str
    is_volume: bool
    read: Callable[[str], tuple[Case, list[str]]]
    series: str = ""


def file_name(name: str, modality: str, is_volume: bool) -> str:
    """File name of a case, `{2DBox,3DBox}_<Modality>_<name>.npz`.

    Characters that could leave the folder or confuse a shell become "_".
    """
    return f"{'3D' if is_volume else '2D'}Box_{modality}_{_safe(name)}.npz"


def target_path(out: Path, dataset: str, job: Job) -> Path:
    """Path of a job's case: `<out>/<Modality>/<DataSet>/<file>`."""
    return out / job.modality / dataset / file_name(job.name, job.modality, job.is_volume)


def run_jobs(jobs: Iterable[Job | CaseError], out: Path, dataset: str, overwrite: bool = False) -> int:
    """Write one case for each job and print a line about it. Failed inputs are named on stderr.

    Args:
        jobs: the inputs. An input that failed before its job was made is a `CaseError`.
        out: data folder.
        dataset: name of the data set's folder.
        overwrite: True makes existing cases again.

    Returns:
        Exit code: 0 if all cases exist, 1 if some failed or something in them was left out.
    """
    counts = {"imported": 0, "kept": 0, "failed": 0, "left out": 0}
    names: dict[Path, tuple[str, ...]] = {}
    seen: dict[Path, Job] = {}
    for job in jobs:
        try:
            if isinstance(job, CaseError):
                raise job
            target = target_path(out, dataset, job)
            if seen.setdefault(target, job) is not job:
                raise CaseError(
                    job.source, f"gives the same file {target.name} as {seen[target].source}; rename one"
                )
            what, lost = _import(job, target, overwrite)
            counts[what] += 1
            counts["left out"] += lost
            names[target] = stored_names(target)
        except CaseError as error:
            counts["failed"] += 1
            print(in_utf8(f"error: {error}"), file=sys.stderr, flush=True)
        except Exception as error:
            # A malformed header can raise anything inside a reader. One input must not stop the rest.
            counts["failed"] += 1
            print(in_utf8(f"error: {unexpected(job.source, error)}"), file=sys.stderr, flush=True)
    for line in names_summary(list(names.values())):
        print(line)
    print(", ".join(f"{number} {what}" for what, number in counts.items()) + f"; data folder {out}")
    return 1 if counts["failed"] or counts["left out"] else 0


def unexpected(source: Path, error: Exception) -> CaseError:
    """Turn an error that no reader foresaw into a one-line `CaseError` that names the input."""
    return CaseError(source, f"cannot be used ({type(error).__name__}: {' '.join(str(error).split())})")


def names_summary(cases: list[tuple[str, ...]]) -> list[str]:
    """Say in how many cases each object's name was found, if the cases differ. Nothing if they do not.

    Args:
        cases: names of the objects of each case. Repeated names count once.
    """
    counts = Counter(name for names in cases for name in set(names))
    if all(count == len(cases) for count in counts.values()):
        return []
    found = listed([f"{name} {count}" for name, count in sorted(counts.items(), key=_by_number)], limit=60)
    return [f"objects differ between the {len(cases)} cases; cases with each name: {found}"]


def _by_number(item: tuple[str, int]) -> tuple[int, str]:
    return (int(item[0]) if item[0].isdecimal() else -1), item[0]


def stored_names(path: Path) -> tuple[str, ...]:
    """Names of the objects of a case file, without reading its arrays. () if it holds none."""
    with CaseArchive(path) as archive:
        return tuple(archive.array("names").tolist()) if "names" in archive else ()


def _import(job: Job, target: Path, overwrite: bool) -> tuple[str, int]:
    """Make one case. Returns what became of it and how many things were left out of it."""
    if target.exists() and not overwrite:
        losses = _left_out_before(job, target)
        print(f"kept {target.name} (exists; --overwrite makes it again)", flush=True)
        return "kept", _say_left_out(job, losses)
    started = time.monotonic()
    case, notes = job.read(target.stem)
    losses = tuple(note for note in notes if isinstance(note, Loss))
    if losses and case.source is not None:
        case = replace(case, source=replace(case.source, left_out=tuple(map(str, losses))))
    case.save(target)
    shape = " ".join(["x".join(map(str, case.images.shape)), *plane_words(case)])
    spacing = f", spacing {', '.join(f'{v:.4g}' for v in case.spacing)} mm" if case.is_volume else ""
    names = f" ({listed(list(dict.fromkeys(case.names)))})" if case.names else ""
    print(
        f"imported {target.name}: {shape}{spacing}, {len(case.boxes)} objects{names}, "
        f"{time.monotonic() - started:.1f} s",
        flush=True,
    )
    for note in notes:
        if note not in losses:
            print(f"  note: {note}", flush=True)
    return "imported", _say_left_out(job, losses)


def _left_out_before(job: Job, target: Path) -> tuple[str, ...]:
    """What an existing case says was left out of it. Raises `CaseError` if it is of another source."""
    with CaseArchive(target) as archive:
        source = read_source(archive)
    if source is None:
        return ()
    before = Path(source.path)
    if source.series and job.series:
        other = source.series != job.series
    else:  # a file that is no longer there was moved
        other = before.exists() and os.path.realpath(before) != os.path.realpath(job.source)
    if other:
        series = f", series {source.series}" if source.series else ""
        raise CaseError(
            job.source,
            f"would be {target.name}, which is of {before}{series}; give another --name, --dataset or --out",
        )
    return source.left_out


def _say_left_out(job: Job, losses: tuple[str, ...]) -> int:
    for loss in losses:
        print(in_utf8(f"left out: {job.source}: {loss}"), file=sys.stderr, flush=True)
    return len(losses)


def plane_words(case: Case) -> list[str]:
    """Name the plane in which an imported volume is cut. Nothing for images and cases without source."""
    source = case.source
    return [plane_of(source.axes, source.direction)] if case.is_volume and source is not None else []


def _safe(name: str) -> str:
    plain = re.sub(r"[^\w.-]+", "_", name).strip("._") or "case"
    if len(plain.encode()) <= _LONGEST:
        return plain
    mark = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return f"{plain.encode()[:_LONGEST].decode(errors='ignore')}_{mark}"
