"""Segment a folder of cases. While one case is segmented, the next is read and the last is written.

Finished outputs are kept. A case that fails is reported and the others continue. An output is finished if it
is readable, has its case's size, and was made by this predictor from this very input file. The last two are
recorded in `predictor.json` beside the outputs.
"""

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.archive import CaseArchive
from ..data.cases import Case, CaseError, read_segmentation, write_segmentation
from ..provenance.files import atomic_file
from .predictor import Predictor, Timing, check_boxes, run_ahead

TIMING = "timing.csv"
MADE = "predictor.json"
SAVE_SECONDS = 10.0
"""Seconds between saves of both files. After a kill, cases finished since the last save are made again."""
FAILURES = (CaseError, OSError, MemoryError, RuntimeError, ValueError)
"""Errors of a single case: its content, the disk, memory, or the engine (which raises RuntimeError)."""
GIVE_UP = 3
"""The batch ends after this many files in a row could not be written. A full disk would fail for hours, but
one file that is too large is no reason to stop."""


class OutputError(OSError):
    """The output folder cannot be written. The message says why and what to do."""


def predict_folder(
    predictor: Predictor,
    cases: Iterable[Path],
    output: Path,
    log: Callable[[str], None] = print,
    done: Callable[[], None] = lambda: None,
) -> list[dict]:
    """Segment many cases. Finished outputs are kept, so a second call resumes.

    A case that fails is reported and the others continue. At most three cases are in memory: one being read,
    one being segmented and one being written.

    Args:
        cases: paths of the case files.
        output: folder for the segmentations, made if absent.
        log: takes one line per failure, and one line if existing outputs were made by something else.
        done: called after every case, whether finished, kept or failed.

    Returns:
        One row per case: case, status (`done`, `kept` or `failed: ...`) and the fields of `Timing`. A kept
        case has the times of the earlier run.

    Raises:
        OutputError: the output folder cannot be made or written, or three files in a row could not be
            written. Finished outputs stay.
    """
    cases = list(cases)
    made = prepare_output(output, cases, predictor, log)
    table = TimingTable(output / TIMING)
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        table.save()
        made.save()
        saved = time.monotonic()

    def settle(row: dict) -> None:
        table.rows.append(row)
        if row["status"] == "done":
            made.add(row["case"])
        if row["status"].startswith("failed"):
            log(f"{row['case']}: {row['status'].removeprefix('failed: ')}")
        if time.monotonic() - saved > SAVE_SECONDS:
            save()
        done()

    try:
        with Writing(output, settle) as writing:
            for path, case, seconds in run_ahead(lambda path: load(path, output / path.name, made), cases):
                if case is None:
                    settle(table.kept(path.name))
                    continue
                if not isinstance(case, Exception):
                    try:
                        segs = predictor.segment(case)
                        predictor.timing.read = seconds
                        writing.start(path.name, segs, predictor.timing)
                        continue
                    except OutputError:
                        raise
                    except FAILURES as error:
                        case = error
                settle({"case": path.name, "status": f"failed: {one_line(case)}"})
    finally:
        save()
    order = {path.name: k for k, path in enumerate(cases)}
    return sorted(table.rows, key=lambda row: order[row["case"]])


def prepare_output(
    output: Path, cases: list[Path], predictor: Predictor, log: Callable[[str], None]
) -> "Made":
    """Make the output folder, check that it is writable, and remove partial files of a killed run.

    Returns the record of what is finished in the folder.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with atomic_file(output / ".writable"):
            pass
        (output / ".writable").unlink()
        made = Made(output / MADE, predictor)
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written to ({error.strerror or error}); give another folder with -o"
        ) from error
    names = {TIMING, MADE, *(path.name for path in cases)}
    for part in output.glob(".*.part"):
        if part.name[1:].rsplit(".", 2)[0] in names:
            part.unlink(missing_ok=True)
    if not made.known and (count := sum((output / path.name).exists() for path in cases)):
        log(
            f"{output}: {count} segmentations there are of another model or other settings, "
            "or of unknown origin; they are made again"
        )
    return made


def load(path: Path, target: Path, made: "Made") -> tuple[Path, Case | Exception | None, float]:
    """Load a case that has boxes, unless its output is finished.

    Returns the path, then the case (or its error, or None if its output is finished), then the seconds it
    took.
    """
    started = time.perf_counter()
    try:
        if made.holds(path) and finished(path, target):
            return path, None, 0.0
        case = Case.load(path).with_boxes()
        check_boxes(case)
    except FAILURES as error:
        return path, error, 0.0
    return path, case, time.perf_counter() - started


def finished(path: Path, target: Path) -> bool:
    """Test whether `target` is a readable segmentation of the case's size."""
    if not target.exists():
        return False
    try:
        segs = read_segmentation(target)
        with CaseArchive(path) as archive:
            shape = archive.header("imgs").shape
    except (CaseError, OSError):
        return False
    return segs.shape == shape or segs.shape == shape[:2]


class Writing:
    """Write one segmentation at a time in a thread. `start` waits for the last one and settles its row."""

    def __init__(self, output: Path, settle: Callable[[dict], None]) -> None:
        self._output, self._settle = output, settle
        self._pool = ThreadPoolExecutor(1)
        self._lost = 0
        self._running: tuple[str, Timing, Future] | None = None

    def __enter__(self) -> "Writing":
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self.wait()
        except OutputError:
            if kind is None:
                raise
        finally:
            self._pool.shutdown()

    def start(self, name: str, segs: np.ndarray, timing: Timing) -> None:
        """Start to write `segs` as `name`. The time goes into `timing`."""
        self.wait()
        self._running = (
            name,
            timing,
            self._pool.submit(timing.timed, "write", write_segmentation, self._output / name, segs),
        )

    def wait(self) -> None:
        """Wait until the current file is written or failed. Raises `OutputError` after too many failures."""
        if self._running is None:
            return
        (name, timing, future), self._running = self._running, None
        try:
            future.result()
        except FAILURES as error:
            self._settle({"case": name, "status": f"failed: {one_line(error)}"})
            self._lost += 1
            if self._lost == GIVE_UP:
                raise OutputError(
                    f"{self._output}: {GIVE_UP} files in a row could not be written, "
                    f"the last for {one_line(error)}; "
                    "finished cases are kept, the same command goes on with the rest"
                ) from error
        else:
            self._lost = 0
            self._settle({"case": name, "status": "done", **vars(timing)})


class Made:
    """Record of what made the outputs of a folder, kept as JSON.

    It holds the predictor's settings, and the size and time of each case's input file. The engine and the
    number of boxes at once are left out, because they change no mask. Only outputs of the current predictor
    count. Records of another predictor are removed from disk before its first output is replaced. So a killed
    run leaves no output with a wrong record.

    Attributes:
        known: whether the file existed and names this predictor.

    Raises:
        OSError: the records of another predictor cannot be removed.
    """

    def __init__(self, path: Path, predictor: Predictor) -> None:
        self._path = path
        settings = {name: getattr(predictor, name) for name in ("interpolation", "order", "propagate")}
        self._predictor = {"model": predictor.engine.source, **settings}
        stored = read_made(path)
        self.known = stored.get("predictor") == self._predictor
        self._cases: dict[str, str] = dict(stored["cases"]) if self.known else {}
        self._found: dict[str, str] = {}
        if stored and not self.known:
            self._write()

    def holds(self, path: Path) -> bool:
        """Test whether the case's output was made from this very file. Call it before the file is read.

        It notes the file's size and time for `add`. Raises `OSError` if there is no such file.
        """
        stat = path.stat()
        self._found[path.name] = f"{stat.st_size} bytes, {stat.st_mtime_ns} ns"
        return self._cases.get(path.name) == self._found[path.name]

    def add(self, name: str) -> None:
        """Record that a case's output was written, made from the file that `holds` saw."""
        self._cases[name] = self._found[name]

    def save(self) -> None:
        """Write the file. A full disk is no error here, because outputs without a record are made again."""
        try:
            self._write()
        except OSError:
            return

    def _write(self) -> None:
        with atomic_file(self._path) as file:
            file.write(json.dumps({"predictor": self._predictor, "cases": self._cases}, indent=1).encode())


def read_made(path: Path) -> dict:
    """Read the file that `Made` wrote. Empty if there is none or it is something else."""
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) and isinstance(stored.get("cases"), dict) else {}


class TimingTable:
    """Status and times of every case as CSV, written atomically. Earlier rows stay until replaced.

    Attributes:
        rows: one row per case settled in this run.
    """

    COLUMNS = ("case", "status", *vars(Timing()))

    def __init__(self, path: Path) -> None:
        self._path, self._earlier = path, read_timing(path)
        self.rows: list[dict] = []

    def kept(self, name: str) -> dict:
        """Return the row of a case that an earlier run finished, with its times where they are known."""
        return {**self._earlier.get(name, {}), "case": name, "status": "kept"}

    def save(self) -> None:
        """Write the table. A full disk is no error here: finished outputs stay and are found again."""
        rows = self._earlier | {row["case"]: row for row in self.rows}
        table = pd.DataFrame(list(rows.values()), columns=list(self.COLUMNS))
        try:
            with atomic_file(self._path) as file:
                file.write(table.to_csv(index=False, float_format="%.6g").encode())
        except OSError:
            return


def read_timing(path: Path) -> dict[str, dict]:
    """Read the rows of an earlier timing table by case. Empty if there is none or it is something else."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        return {}
    if not set(TimingTable.COLUMNS) <= set(table.columns):
        return {}
    table = table[list(TimingTable.COLUMNS)].dropna(subset="case").dropna(axis=1, how="all")
    return {row["case"]: row for row in table.to_dict("records")}


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, without the path where the error keeps its file separately."""
    text = " ".join(str(getattr(error, "message", error)).split())
    return text or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
