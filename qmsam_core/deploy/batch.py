"""A folder of cases: read ahead, segmented, written behind; what is finished is kept, what fails is reported and the rest goes on."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.archive import CaseArchive, atomic_file
from ..data.cases import Case, CaseError, read_segmentation, write_segmentation
from .predictor import Predictor, Timing, check_boxes, run_ahead

TIMING = "timing.csv"
SAVE_SECONDS = 10.0
"""How often the timing table is written while cases are running, so that a run that is killed leaves most of it."""
FAILURES = (CaseError, OSError, MemoryError, RuntimeError, ValueError)
"""What a single case may fail with: its own content, the disk, memory, or the engine (OpenVINO and ONNX Runtime raise RuntimeError)."""
GIVE_UP = 3
"""Files in a row that could not be written before the batch ends: hours of work for a full disk help nobody, one file too large is no reason to stop."""


class OutputError(OSError):
    """The output folder cannot be written to; the message says why and what to do."""


def predict_folder(
    predictor: Predictor, cases: Iterable[Path], output: Path, log: Callable[[str], None] = print, done: Callable[[], None] = lambda: None
) -> list[dict]:
    """Segment many cases; one that fails is reported and the rest goes on. Finished outputs are kept, so a second call resumes.

    The next case is read while one is segmented and the last is written: three cases are in memory at most.

    Args:
        log: takes one line a failure. done: called after every case, finished, kept or failed.

    Returns:
        One row a case: case, status (`done`, `kept` or `failed: ...`), and the fields of `Timing`; of a kept case those of the earlier run.

    Raises:
        OutputError: the output folder cannot be made or written to, or three files in a row could not be; what is finished stays.
    """
    cases = list(cases)
    prepare_output(output, cases)
    table = TimingTable(output / TIMING)

    def settle(row: dict) -> None:
        table.add(row)
        if row["status"].startswith("failed"):
            log(f"{row['case']}: {row['status'].removeprefix('failed: ')}")
        done()

    try:
        with Writing(output, settle) as writing:
            for path, case, seconds in run_ahead(lambda path: load(path, output / path.name), cases, int(predictor.ahead > 0)):
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
        table.save()
    order = {path.name: k for k, path in enumerate(cases)}
    return sorted(table.rows, key=lambda row: order[row["case"]])


def prepare_output(output: Path, cases: list[Path]) -> None:
    """Make the folder, try that it can be written to, and clear what a killed run left half-written under hidden names."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with atomic_file(output / ".writable"):
            pass
        (output / ".writable").unlink()
    except OSError as error:
        raise OutputError(f"{output}: cannot be written to ({error.strerror or error}); give another folder with -o") from error
    names = {path.name for path in cases}
    for part in output.glob(".*.part"):
        if part.name[1:].rsplit(".", 2)[0] in names:
            part.unlink(missing_ok=True)


def load(path: Path, target: Path) -> tuple[Path, Case | Exception | None, float]:
    """A case with boxes and the seconds it took; the error where it cannot be used; None where its output is finished."""
    started = time.perf_counter()
    try:
        if finished(path, target):
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
        self._running = name, timing, self._pool.submit(timing.timed, "write", write_segmentation, self._output / name, segs)

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


class TimingTable:
    """Status and seconds of every case as CSV, written atomically now and then and at the end."""

    def __init__(self, path: Path) -> None:
        self._path, self._saved = path, time.monotonic()
        self._earlier = {row["case"]: row for row in read_timing(path)}
        self.rows: list[dict] = []

    def kept(self, name: str) -> dict:
        """The row of a case that an earlier run finished, with that run's seconds where they are known."""
        return {**self._earlier.get(name, {}), "case": name, "status": "kept"}

    def add(self, row: dict) -> None:
        """Take a row; write the table when it is time."""
        self.rows.append(row)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the table. A disk without room for it is no reason to lose the run: what is finished stays and is found again."""
        table = pd.DataFrame(self.rows, columns=["case", "status", *vars(Timing())])
        try:
            with atomic_file(self._path) as file:
                file.write(table.to_csv(index=False, float_format="%.6g").encode())
        except OSError:
            return
        self._saved = time.monotonic()


def read_timing(path: Path) -> Iterator[dict]:
    """Rows of an earlier timing table; none where there is none or it is not one."""
    try:
        yield from pd.read_csv(path).dropna(axis=1, how="all").to_dict("records")
    except (OSError, ValueError, KeyError):
        return


def one_line(error: BaseException) -> str:
    """The message of an error in one line, without the path where it names its file apart."""
    text = " ".join(str(getattr(error, "message", error)).split())
    return text or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
