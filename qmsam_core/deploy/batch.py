"""A folder of cases: read ahead, segmented, written behind; what is finished is kept, what fails is reported and the rest goes on.

An output is finished where it is readable, of its case's size, and made by this predictor of this very input, as `predictor.json` beside it tells.
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
"""How often both are written while cases are running: a run that is killed leaves most of them, and what it finished since is made again."""
FAILURES = (CaseError, OSError, MemoryError, RuntimeError, ValueError)
"""What a single case may fail with: its own content, the disk, memory, or the engine (OpenVINO and ONNX Runtime raise RuntimeError)."""
GIVE_UP = 3
"""Files in a row that could not be written before the batch ends: hours of work for a full disk help nobody, one file too large is no reason to stop."""


class OutputError(OSError):
    """The output folder cannot be written to; the message says why and what to do."""


def predict_folder(
    predictor: Predictor,
    cases: Iterable[Path],
    output: Path,
    log: Callable[[str], None] = print,
    done: Callable[[], None] = lambda: None,
) -> list[dict]:
    """Segment many cases; one that fails is reported and the rest goes on. Finished outputs are kept, so a second call resumes.

    The next case is read while one is segmented and the last is written: three cases are in memory at most.

    Args:
        log: takes one line a failure, and one where outputs are there that something else made. done: called after every case, finished, kept or failed.

    Returns:
        One row a case: case, status (`done`, `kept` or `failed: ...`), and the fields of `Timing`; of a kept case those of the earlier run.

    Raises:
        OutputError: the output folder cannot be made or written to, or three files in a row could not be; what is finished stays.
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
            for path, case, seconds in run_ahead(
                lambda path: load(path, output / path.name, made), cases, int(predictor.ahead > 0)
            ):
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
    """Make the folder, try that it can be written to, clear what a killed run left half-written under hidden names; returns what is finished there."""
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
            f"{output}: {count} segmentations there are of another model or other settings, or of unknown origin; they are made again"
        )
    return made


def load(path: Path, target: Path, made: "Made") -> tuple[Path, Case | Exception | None, float]:
    """A case with boxes and the seconds it took; the error where it cannot be used; None where its output is finished."""
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
    """Whether a readable segmentation of the case's own size is there already."""
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
    """Writes one segmentation at a time in a thread; `start` first waits for the one before, and settles its row."""

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
        """Begin to write `segs` as `name`."""
        self.wait()
        self._running = (
            name,
            timing,
            self._pool.submit(timing.timed, "write", write_segmentation, self._output / name, segs),
        )

    def wait(self) -> None:
        """Until the file that was begun is written or reported. Raises `OutputError` when nothing can be written any more."""
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
                    f"{self._output}: {GIVE_UP} files in a row could not be written, the last for {one_line(error)}; "
                    "finished cases are kept, the same command goes on with the rest"
                ) from error
        else:
            self._lost = 0
            self._settle({"case": name, "status": "done", **vars(timing)})


class Made:
    """What made the outputs of a folder, as JSON: the predictor, and of every case the size and time of the file it was given.

    Only outputs of the predictor at work count. What is known of those of another is forgotten on disk before the first of them is replaced, so that a run
    that is killed leaves none that passes for what it is not.

    Attributes:
        known: whether the file was there and names this predictor. Which engine runs the model, and how many boxes at once, changes no mask and is left out.

    Raises:
        OSError: outputs of another predictor cannot be forgotten.
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
        """Whether the case's output was made of this very file; notes the file, to be asked before it is read. Raises `OSError` where there is none."""
        stat = path.stat()
        self._found[path.name] = f"{stat.st_size} bytes, {stat.st_mtime_ns} ns"
        return self._cases.get(path.name) == self._found[path.name]

    def add(self, name: str) -> None:
        """The output of a case is written, from the file that `holds` saw."""
        self._cases[name] = self._found[name]

    def save(self) -> None:
        """Write the file. A disk without room for it is no reason to end: what it does not hold is made again."""
        try:
            self._write()
        except OSError:
            return

    def _write(self) -> None:
        with atomic_file(self._path) as file:
            file.write(json.dumps({"predictor": self._predictor, "cases": self._cases}, indent=1).encode())


def read_made(path: Path) -> dict:
    """What `Made` wrote; empty where there is nothing or something else."""
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) and isinstance(stored.get("cases"), dict) else {}


class TimingTable:
    """Status and seconds of every case as CSV, written atomically. Rows of earlier runs stay until their case is settled anew.

    Attributes:
        rows: one for every case settled in this run.
    """

    COLUMNS = ("case", "status", *vars(Timing()))

    def __init__(self, path: Path) -> None:
        self._path, self._earlier = path, read_timing(path)
        self.rows: list[dict] = []

    def kept(self, name: str) -> dict:
        """The row of a case that an earlier run finished, with that run's seconds where they are known."""
        return {**self._earlier.get(name, {}), "case": name, "status": "kept"}

    def save(self) -> None:
        """Write the table. A disk without room for it is no reason to lose the run: what is finished stays and is found again."""
        rows = self._earlier | {row["case"]: row for row in self.rows}
        table = pd.DataFrame(list(rows.values()), columns=list(self.COLUMNS))
        try:
            with atomic_file(self._path) as file:
                file.write(table.to_csv(index=False, float_format="%.6g").encode())
        except OSError:
            return


def read_timing(path: Path) -> dict[str, dict]:
    """Rows of an earlier timing table by case; none where there is none or it is not one."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        return {}
    if not set(TimingTable.COLUMNS) <= set(table.columns):
        return {}
    table = table[list(TimingTable.COLUMNS)].dropna(subset="case").dropna(axis=1, how="all")
    return {row["case"]: row for row in table.to_dict("records")}


def one_line(error: BaseException) -> str:
    """The message of an error in one line, without the path where it names its file apart."""
    text = " ".join(str(getattr(error, "message", error)).split())
    return text or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
