"""What is finished in an output folder: three tables that several processes write together.

`predictor.json` names what made the outputs, the input that each was made from, and every mask that was ever
written here with its case. A file that it does not list is somebody else's and is never replaced.
`timing.csv` has a row a case, `objects.csv` a row an object. No process writes what it remembers: under a
reservation it reads the tables again, adds what it and others have finished, and replaces them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from ..provenance.files import atomic_file, remove_partial
from .predictor import Timing
from .reservations import Reservations

MADE = "predictor.json"
TIMING = "timing.csv"
OBJECTS = "objects.csv"

TIMING_COLUMNS = ("case", "status", *vars(Timing()))
MODEL = "model"
"""A last column of `timing.csv`, which it has where several models were chosen from: the one of the case."""
OBJECT_COLUMNS = (
    "file", "label", "name", "x_min", "y_min", "z_min", "x_max", "y_max", "z_max", "voxels", "ml",
)  # fmt: skip


class OutputError(OSError):
    """The output folder cannot be written. The message says why and what to do."""


class Records:
    """The records of one output folder, for one predictor. Only outputs of this predictor count.

    Records of another predictor are removed from disk before its first output is replaced. So a killed run
    leaves no output with a wrong record.

    Args:
        folder: the output folder.
        settings: what decides the masks, as JSON. The engine and the number of boxes decoded at once are no
            part of it, because they change no mask.
        reserved: reservations of the same folder.

    Attributes:
        known: whether the folder's outputs were made by this predictor.

    Raises:
        OutputError: another process writes outputs of other settings to the folder at this moment, or a
            table there is something else.
        OSError: the records of another predictor cannot be removed.
    """

    def __init__(self, folder: Path, settings: dict, reserved: Reservations) -> None:
        self._folder, self._settings, self._reserved = folder, settings, reserved
        self._pending: list[tuple[dict, str]] = []
        self._unrecorded: dict[str, dict] = {}
        self._seen: tuple | None = None
        self._cases: dict[str, str] = {}
        self._files: dict[str, str] = {}
        _check_tables(folder)
        with reserved.alone(MADE):
            for name in (MADE, TIMING, OBJECTS):
                remove_partial(folder / name)  # nobody writes them now
            stored = read_made(folder / MADE)
            self.known = stored.get("predictor") == settings
            if not self.known:
                self._begin(stored)
            self.earlier = read_timing(folder / TIMING)
        self._absorb()
        self._refresh()
        self._before = dict(self._cases)

    def holds(self, name: str, origin: str) -> bool:
        """Whether a case is finished, by this or another process, from the input that `origin` describes."""
        self._refresh()
        return self._cases.get(name) == origin

    def held_before(self, name: str, origin: str) -> bool:
        """Whether a case was finished before this process began."""
        return self._before.get(name) == origin

    def counts(self, origin: str) -> Callable[[dict], bool]:
        """Return a test whether a record there is of this predictor and of the input that `origin` says."""
        return lambda record: record["predictor"] == self._settings and record["origin"] == origin

    def others(self, name: str, target: Path) -> dict[str, str]:
        """Return what lies at a target and was not written here for this case.

        Returns:
            Paths below the output folder, each with the case that it was written for, "" if for none.
        """
        there = written_files(target)
        if not there or self._reserved.knows(name):  # a killed process had reserved it, and may have written
            return {}
        self._refresh()
        found = {self._below(path): self._files.get(self._below(path), "") for path in there}
        return {file: owner for file, owner in found.items() if owner != name}

    def masks_of(self, name: str) -> list[Path]:
        """Return the masks that were written for a case and not removed since, as far as is recorded."""
        self._refresh()
        return [self._folder / file for file, owner in self._files.items() if owner == name]

    def finish(self, name: str, origin: str, row: dict, objects: list[dict], target: Path) -> None:
        """Record a case that was reserved and whose output is written.

        On a full disk the record stays in memory for the next `save`. The reservation stays too: it tells a
        later process that the output is one of ours.
        """
        files = [self._below(path) for path in written_files(target)]
        record = {
            "predictor": self._settings,
            "origin": origin,
            "row": row,
            "objects": objects,
            "files": files,
        }
        try:
            self._reserved.finish(name, record)
        except OSError:
            self._unrecorded[name] = record

    def note(self, row: dict, origin: str = "") -> None:
        """Keep the row of a case that was kept, or failed with the input of `origin`, for the next `save`."""
        self._pending.append((row, origin))

    def kept(self, name: str) -> dict:
        """Return the row of a case that is finished already, with its times where they are known."""
        return {**self.earlier.get(name, {}), "case": name, "status": "kept"}

    def save(self, last: bool = False) -> None:
        """Take what was finished into the tables.

        Args:
            last: no later call tries again, so tables that cannot be written are an error.

        Raises:
            OutputError: another process has meanwhile begun to write outputs of other settings, or `last`.
        """
        try:
            self._absorb()
        except OutputError:
            raise
        except OSError as error:
            if last:
                for name in self._unrecorded:
                    self._reserved.abandon(name)
                raise OutputError(
                    f"{self._folder}: {MADE}, {TIMING} and {OBJECTS} could not be brought up to date "
                    f"({error.strerror or error}); finished masks are there; make room and give the same "
                    "command again"
                ) from error

    def _below(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _begin(self, stored: dict) -> None:
        """Write that this predictor has made nothing yet. `stored`: what was recorded of another one."""
        if stored and (user := self._reserved.in_use()):
            raise OutputError(
                f"{self._folder}: {user} writes outputs of another model or other settings to it; "
                "wait for it, or give another folder with -o"
            )
        old = [(name, r) for name, r in self._reserved.finished() if r["predictor"] != self._settings]
        self._write_made({}, self._merged(stored, dict(old)))
        for name, record in old:
            self._reserved.drop(name, record)

    def _merged(self, stored: dict, found: dict[str, dict]) -> dict[str, str]:
        """Masks with their cases: those recorded, and those of new records. What is gone is left out."""
        files = {
            file: name
            for file, name in stored.get("files", {}).items()
            if name not in found or (self._folder / file).exists()
        }
        return files | {file: name for name, record in found.items() for file in record.get("files", ())}

    def _absorb(self) -> None:
        with self._reserved.alone(MADE):
            lying = {n: r for n, r in self._reserved.finished() if r["predictor"] == self._settings}
            found = lying | self._unrecorded
            if not (found or self._pending):
                return
            stored = read_made(self._folder / MADE)
            if stored and stored.get("predictor") != self._settings:
                raise OutputError(
                    f"{self._folder}: another process began to write outputs of another model or other "
                    "settings to it; give another folder with -o"
                )
            cases = stored.get("cases", {}) | {name: record["origin"] for name, record in found.items()}
            self._write_timing([record["row"] for record in found.values()], cases)
            self._write_objects({name: record["objects"] for name, record in found.items()})
            self._write_made(cases, self._merged(stored, found))  # last: what it lists is in the tables
            for name, record in lying.items():
                self._reserved.drop(name, record)
            for name in self._unrecorded:
                self._reserved.release(name)
            self._pending, self._unrecorded = [], {}

    def _refresh(self) -> None:
        path = self._folder / MADE
        try:
            stat = path.stat()
        except OSError:
            self._seen, self._cases, self._files = None, {}, {}
            return
        if (seen := (stat.st_ino, stat.st_mtime_ns, stat.st_size)) != self._seen:
            stored = read_made(path)
            self._seen = seen
            self._files = stored.get("files", {})
            self._cases = dict(stored["cases"]) if stored.get("predictor") == self._settings else {}

    def _write_made(self, cases: dict[str, str], files: dict[str, str]) -> None:
        content = {"predictor": self._settings, "cases": cases, "files": files}
        with atomic_file(self._folder / MADE) as file:
            file.write(json.dumps(content, indent=1).encode())

    def _write_timing(self, rows: list[dict], cases: dict[str, str]) -> None:
        merged = read_timing(self._folder / TIMING) | {row["case"]: row for row in rows}
        for row, origin in self._pending:
            name = row["case"]
            # what one process could not do, another may have done since, from the very same input
            done_since = origin and cases.get(name) == origin and not self.held_before(name, origin)
            if not (row["status"].startswith("failed") and done_since):
                merged[row["case"]] = row
        model = (MODEL,) if any(row.get(MODEL) for row in merged.values()) else ()
        _write_table(self._folder / TIMING, list(merged.values()), (*TIMING_COLUMNS, *model))

    def _write_objects(self, found: dict[str, list[dict]]) -> None:
        if not found:
            return
        rows = [row for row in read_objects(self._folder / OBJECTS) if row["file"] not in found]
        rows += [{"file": name, **row} for name, objects in found.items() for row in objects]
        _write_table(self._folder / OBJECTS, rows, OBJECT_COLUMNS)


def read_made(path: Path) -> dict:
    """Read `predictor.json`. Empty if there is none or it is something else."""
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not (isinstance(stored, dict) and isinstance(stored.get("cases"), dict)):
        return {}
    return stored if isinstance(stored.get("files", {}), dict) else {}


def read_timing(path: Path) -> dict[str, dict]:
    """Read the rows of a timing table by case. Empty if there is none or it is something else."""
    try:
        columns, rows = _read_table(path)
        found = [{name: _timing(name, text) for name, text in row.items() if text} for row in rows]
    except (OSError, ValueError):
        return {}
    return {row["case"]: row for row in found if "case" in row} if _are_timing(columns) else {}


def _timing(column: str, text: str) -> str | float:
    """Value of a timing table. Names are texts: a case may be called 001 or NA."""
    return text if column in (*TIMING_COLUMNS[:2], MODEL) else float(text)


def read_objects(path: Path) -> list[dict]:
    """Read the rows of a table of objects, as texts. Empty if there is none or it is something else."""
    try:
        columns, rows = _read_table(path)
    except (OSError, ValueError):
        return []
    return rows if columns == OBJECT_COLUMNS else []


def written_files(target: Path) -> list[Path]:
    """List the masks that lie at a target: the file with its voxels' file, or all files of the folder."""
    if target.is_dir():
        return sorted(p for p in target.rglob("*") if p.is_file() and not p.name.startswith("."))
    voxels = [target.with_suffix(".zraw")] if target.suffix == ".mhd" else []
    return [path for path in (target, *voxels) if path.exists() or path.is_symlink()]


def _check_tables(folder: Path) -> None:
    """Raise `OutputError` if something else has the name of a table. An empty file is nothing."""
    readers = {MADE: read_made, TIMING: _is_timing, OBJECTS: _is_objects}
    for name, read in readers.items():
        path = folder / name
        if path.exists() and not (path.is_file() and (not path.stat().st_size or read(path))):
            raise OutputError(
                f"{path}: is no {name} of this program and would be replaced; "
                "move it away, or give another folder with -o"
            )


def _is_timing(path: Path) -> bool:
    return _are_timing(_columns(path))


def _are_timing(columns: tuple[str, ...]) -> bool:
    return columns in (TIMING_COLUMNS, (*TIMING_COLUMNS, MODEL))


def _is_objects(path: Path) -> bool:
    return _columns(path) == OBJECT_COLUMNS


def _columns(path: Path) -> tuple[str, ...]:
    try:
        return _read_table(path)[0]
    except ValueError:
        return ()


def _read_table(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Read columns and rows of a CSV table as texts. pandas would take longer to load than all else here.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no UTF-8, no CSV, or a row has more or fewer fields than the header.
    """
    try:
        header, *rows = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))
        return tuple(header), [dict(zip(header, row, strict=True)) for row in rows if row]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _write_table(path: Path, rows: list[dict], columns: tuple[str, ...]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    with atomic_file(path) as file:
        file.write(text.getvalue().encode(errors="backslashreplace"))
