"""What is finished in an output folder: three tables that several processes write together.

`predictor.json` names what made the outputs, and the input that each was made from. `timing.csv` has a row a
case, `objects.csv` a row an object. No process writes what it remembers: under a reservation it reads the
tables again, adds what it and others have finished, and replaces them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ..provenance.files import atomic_file, remove_partial
from .predictor import Timing
from .reservations import Reservations

MADE = "predictor.json"
TIMING = "timing.csv"
OBJECTS = "objects.csv"

TIMING_COLUMNS = ("case", "status", *vars(Timing()))
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
        OutputError: another process writes outputs of other settings to the folder at this moment.
        OSError: the records of another predictor cannot be removed.
    """

    def __init__(self, folder: Path, settings: dict, reserved: Reservations) -> None:
        self._folder, self._settings, self._reserved = folder, settings, reserved
        self._pending: list[dict] = []
        self._seen: tuple | None = None
        self._cases: dict[str, str] = {}
        with reserved.alone(MADE):
            for name in (MADE, TIMING, OBJECTS):
                remove_partial(folder / name)  # nobody writes them now
            stored = read_made(folder / MADE)
            self.known = stored.get("predictor") == settings
            if not self.known:
                self._begin(anew=bool(stored))
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

    def finish(self, name: str, origin: str, row: dict, objects: list[dict]) -> None:
        """Record a case that was reserved and whose output is written."""
        record = {"predictor": self._settings, "origin": origin, "row": row, "objects": objects}
        self._reserved.finish(name, record)

    def note(self, row: dict) -> None:
        """Keep the row of a case that failed or was kept, for the next `save`."""
        self._pending.append(row)

    def kept(self, name: str) -> dict:
        """Return the row of a case that is finished already, with its times where they are known."""
        return {**self.earlier.get(name, {}), "case": name, "status": "kept"}

    def save(self) -> None:
        """Take what was finished into the tables. A full disk is no error: outputs without a record are made
        again.

        Raises:
            OutputError: another process has meanwhile begun to write outputs of other settings.
        """
        try:
            self._absorb()
        except OutputError:
            raise
        except OSError:
            return

    def _begin(self, anew: bool) -> None:
        """Write that this predictor has made nothing yet. `anew`: the records there are of another one."""
        if anew and (user := self._reserved.in_use()):
            raise OutputError(
                f"{self._folder}: {user} writes outputs of another model or other settings to it; "
                "wait for it, or give another folder with -o"
            )
        self._write_made({})
        for name, record in list(self._reserved.finished()):
            if record["predictor"] != self._settings:
                self._reserved.drop(name, record)

    def _absorb(self) -> None:
        with self._reserved.alone(MADE):
            found = [
                (name, record)
                for name, record in self._reserved.finished()
                if record["predictor"] == self._settings
            ]
            if not (found or self._pending):
                return
            stored = read_made(self._folder / MADE)
            if stored and stored.get("predictor") != self._settings:
                raise OutputError(
                    f"{self._folder}: another process began to write outputs of another model or other "
                    "settings to it; give another folder with -o"
                )
            cases = {**stored.get("cases", {}), **{name: record["origin"] for name, record in found}}
            self._write_made(cases)
            self._write_timing([record["row"] for _, record in found], cases)
            self._write_objects(dict((name, record["objects"]) for name, record in found))
            for name, record in found:
                self._reserved.drop(name, record)
            self._pending = []

    def _refresh(self) -> None:
        path = self._folder / MADE
        try:
            stat = path.stat()
        except OSError:
            self._seen, self._cases = None, {}
            return
        if (seen := (stat.st_ino, stat.st_mtime_ns, stat.st_size)) != self._seen:
            stored = read_made(path)
            self._seen = seen
            self._cases = dict(stored["cases"]) if stored.get("predictor") == self._settings else {}

    def _write_made(self, cases: dict[str, str]) -> None:
        content = {"predictor": self._settings, "cases": cases}
        with atomic_file(self._folder / MADE) as file:
            file.write(json.dumps(content, indent=1).encode())

    def _write_timing(self, rows: list[dict], cases: dict[str, str]) -> None:
        merged = read_timing(self._folder / TIMING) | {row["case"]: row for row in rows}
        for row in self._pending:
            # what one process could not do, another may have done since
            if not (row["status"].startswith("failed") and row["case"] in cases):
                merged[row["case"]] = row
        _write_table(self._folder / TIMING, list(merged.values()), TIMING_COLUMNS)

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
    return stored if isinstance(stored, dict) and isinstance(stored.get("cases"), dict) else {}


def read_timing(path: Path) -> dict[str, dict]:
    """Read the rows of a timing table by case. Empty if there is none or it is something else."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        return {}
    if not set(TIMING_COLUMNS) <= set(table.columns):
        return {}
    table = table[list(TIMING_COLUMNS)].dropna(subset="case").dropna(axis=1, how="all")
    return {row["case"]: row for row in table.to_dict("records")}


def read_objects(path: Path) -> list[dict]:
    """Read the rows of a table of objects, as texts. Empty if there is none or it is something else."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        return []
    return table.to_dict("records") if tuple(table.columns) == OBJECT_COLUMNS else []


def _write_table(path: Path, rows: list[dict], columns: tuple[str, ...]) -> None:
    with atomic_file(path) as file:
        table = pd.DataFrame(rows, columns=list(columns))
        file.write(table.to_csv(index=False, float_format="%.6g").encode())
