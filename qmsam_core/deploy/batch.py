"""Segment a folder of inputs. While one is segmented, the next is read and the last is written.

Finished outputs are kept. An input that fails is reported and the others continue. An output is finished if
it is readable, and was made by this predictor from this very input, as the folder's records say. Several
processes may work on one output folder: each reserves an input before it begins, and leaves those that
others hold.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data.archive import CaseError
from ..data.cases import Case
from ..data.importers.notes import Loss
from ..data.source import Source
from ..provenance.files import atomic_file, remove_partial
from .grid_boxes import boxes_to_source
from .inputs import Input
from .mask_files import is_finished, target_of, write_masks
from .predictor import MasksApart, Predictor, Timing, check_boxes, run_ahead
from .reading import Reading
from .records import OutputError, Records
from .reservations import Reservations

SAVE_SECONDS = 10.0
"""Seconds between updates of the tables. What is finished since lies in the reservations."""
WAIT_SECONDS = 1.0
"""Seconds between looks at what other processes hold, once there is nothing else to do."""
FAILURES = (CaseError, OSError, MemoryError, RuntimeError, ValueError)
"""Errors of a single case: its content, the disk, memory, or the engine (which raises RuntimeError)."""
GIVE_UP = 3
"""The batch ends after this many files in a row could not be written. A full disk would fail for hours, but
one file that is too large is no reason to stop."""


def predict_folder(
    predictor: Predictor,
    cases: Iterable[Path | Input | CaseError],
    output: Path,
    log: Callable[[str], None] = print,
    done: Callable[[], None] = lambda: None,
    reading: Reading | None = None,
    apart: bool = False,
) -> list[dict]:
    """Segment many inputs. Finished outputs are kept, so a second call resumes.

    An input that fails is reported and the others continue. At most three are in memory: one being read, one
    being segmented and one being written.

    Args:
        cases: paths of case files, or inputs of `find_inputs` with the errors among them.
        output: folder for the masks, made if absent.
        log: takes one line per failure, and one line if existing outputs were made by something else.
        done: called after every input, whether finished, kept or failed.
        reading: how inputs become cases.
        apart: write one mask an object instead of one label map.

    Returns:
        One row per input: case, status (`done`, `kept`, `done elsewhere` by another process, or
        `failed: ...`) and the fields of `Timing`. A kept case has the times of the earlier run. `left_out` is
        the number of things in an input that could not be used.

    Raises:
        OutputError: the output folder cannot be made or written, another process writes outputs of other
            settings to it, or three files in a row could not be written. Finished outputs stay.
    """
    inputs = [Input.case(one) if isinstance(one, Path) else one for one in cases]
    prepare_output(output)
    with Reservations(output) as reserved:
        records = open_records(output, predictor, apart, reserved)
        batch = _Batch(predictor, output, log, done, reading or Reading(), apart, reserved, records)
        batch.warn_of_unknown(inputs)
        try:
            batch.run(inputs)
        finally:
            records.save()
    return batch.rows


def prepare_output(output: Path) -> None:
    """Make the output folder and check that it is writable."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with atomic_file(output / ".writable"):
            pass
        (output / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(_not_writable(output, error)) from error


def open_records(output: Path, predictor: Predictor, apart: bool, reserved: Reservations) -> Records:
    """Open the records of an output folder for a predictor."""
    settings = {name: getattr(predictor, name) for name in ("interpolation", "order", "propagate")}
    settings = {"model": predictor.engine.source, **settings, "one_mask_an_object": apart}
    try:
        return Records(output, settings, reserved)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(_not_writable(output, error)) from error


def _not_writable(output: Path, error: OSError) -> str:
    return f"{output}: cannot be written to ({error.strerror or error}); give another folder with -o"


@dataclass
class _Loaded:
    """What reading an input gave: a case to segment, an error, or a reason to pass over it.

    Attributes:
        one: the input, or the error that stands for it.
        state: `read`, `failed`, `kept`, `elsewhere` (finished by another process) or `held` (by another).
        content: the case or the error.
        origin: what its output is made from.
        source: where its masks go; None for npz.
        target: file or folder of its masks.
        seconds: it took to read.
        notes: what was noticed while it was read.
    """

    one: Input | CaseError
    state: str
    content: Case | BaseException | None = None
    origin: str = ""
    source: Source | None = None
    target: Path | None = None
    seconds: float = 0.0
    notes: Sequence[str] = ()

    @property
    def left_out(self) -> int:
        """Number of things in the input that could not be used."""
        return sum(isinstance(note, Loss) for note in self.notes)


@dataclass
class _Batch:
    predictor: Predictor
    output: Path
    log: Callable[[str], None]
    done: Callable[[], None]
    reading: Reading
    apart: bool
    reserved: Reservations
    records: Records
    _settled: dict[str, dict] = field(default_factory=dict)
    _saved: float = field(default_factory=time.monotonic)

    @property
    def rows(self) -> list[dict]:
        """Rows of all inputs, in the order given."""
        return [self._settled[name] for name in self._order]

    def run(self, inputs: list[Input | CaseError]) -> None:
        """Settle every input. Those that other processes hold come last, until they are done or given up."""
        self._order = [name_of(one) for one in inputs]
        taken: dict[Path, str] = {}
        waited = False
        while inputs:
            before = len(inputs)
            inputs = self._once(inputs, taken)
            if inputs and len(inputs) == before:
                if not waited:
                    holder = self.reserved.holder(name_of(inputs[0])) or "another process"
                    self.log(f"waiting for {len(inputs)} cases of other processes, the first of {holder}")
                    waited = True
                time.sleep(WAIT_SECONDS)
                self.records.save()  # what others finished lies there until someone takes it in

    def _once(self, inputs: list[Input | CaseError], taken: dict[Path, str]) -> list[Input | CaseError]:
        """Settle what can be. Returns the inputs that other processes hold."""
        held = []
        with Writing(self.output, self._written) as writing:
            for loaded in run_ahead(lambda one: self._load(one, taken), inputs):
                if loaded.state == "held":
                    held.append(loaded.one)
                elif loaded.state == "read":
                    self._segment(loaded, writing)
                else:
                    self._settle(loaded)
        return held

    def _load(self, one: Input | CaseError, taken: dict[Path, str]) -> _Loaded:
        """Reserve and read an input that has boxes, unless its output is finished."""
        started = time.perf_counter()
        if isinstance(one, CaseError):
            return _Loaded(one, "failed", one)
        reserved = False
        try:
            origin, source = self.reading.origin(one), self.reading.source(one)
            target = target_of(one, source, self.output, self.apart)
            if taken.setdefault(target, one.name) != one.name:
                raise CaseError(one.path, f"gives the same output {target} as {taken[target]}; rename one")
            if state := self._finished(one, origin, target):
                return _Loaded(one, state)
            reserved = self.reserved.take(one.name, self.records.counts(origin))
            if not reserved:
                return _Loaded(one, "held")
            if state := self._finished(one, origin, target):  # by another process, just before
                self.reserved.release(one.name)
                return _Loaded(one, state)
            remove_partial(target)
            case, notes = self.reading.case(one)
            check_boxes(case)
        except FAILURES as error:
            if reserved:
                self.reserved.release(one.name)
            return _Loaded(one, "failed", error)
        if source is None and one.kind != "npz":
            source = case.source
        return _Loaded(one, "read", case, origin, source, target, time.perf_counter() - started, notes)

    def _finished(self, one: Input, origin: str, target: Path) -> str:
        if not (self.records.holds(one.name, origin) and is_finished(target, one)):
            return ""
        return "kept" if self.records.held_before(one.name, origin) else "elsewhere"

    def _segment(self, loaded: _Loaded, writing: "Writing") -> None:
        case = loaded.content
        for note in loaded.notes:
            self.log(f"{loaded.one.name}: {'left out' if isinstance(note, Loss) else 'note'}: {note}")
        try:
            masks = self.predictor.segment_apart(case) if self.apart else self.predictor.segment(case)
            self.predictor.timing.read = loaded.seconds
            writing.start(loaded, masks, self.predictor.timing)
        except OutputError:
            raise
        except FAILURES as error:
            self._failed(loaded, error)

    def _written(self, loaded: _Loaded, timing: Timing, objects: list[dict], error: BaseException | None):
        if error is not None:
            self._failed(loaded, error)
            return
        row = {"case": loaded.one.name, "status": "done", **vars(timing)}
        try:
            self.records.finish(loaded.one.name, loaded.origin, row, objects)
        except OSError:  # a full disk; an output without a record is made again
            self.reserved.release(loaded.one.name)
        self._add({**row, "left_out": loaded.left_out})

    def _failed(self, loaded: _Loaded, error: BaseException) -> None:
        self.reserved.release(loaded.one.name)
        self._settle(_Loaded(loaded.one, "failed", error))

    def _settle(self, loaded: _Loaded) -> None:
        name = name_of(loaded.one)
        if loaded.state == "failed":
            row = {"case": name, "status": f"failed: {one_line(loaded.content)}"}
            self.log(f"{name}: {one_line(loaded.content)}")
            self.records.note(row)
        elif loaded.state == "kept":
            row = self.records.kept(name)
            self.records.note(row)
        else:
            row = {"case": name, "status": "done elsewhere"}
        self._add(row)

    def _add(self, row: dict) -> None:
        self._settled[row["case"]] = row
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.records.save()
            self._saved = time.monotonic()
        self.done()

    def warn_of_unknown(self, inputs: list[Input | CaseError]) -> None:
        """Say how many outputs there are that this predictor did not make."""
        if self.records.known:
            return
        plain = [one for one in inputs if isinstance(one, Input)]
        count = sum(target_of(one, None, self.output, self.apart).exists() for one in plain)
        if count:
            self.log(
                f"{self.output}: {count} segmentations there are of another model or other settings, "
                "or of unknown origin; they are made again"
            )


def name_of(one: Input | CaseError) -> str:
    """Name of an input in tables and messages."""
    return one.name if isinstance(one, Input) else str(one.path)


class Writing:
    """Write the masks of one input at a time in a thread. `start` waits for the last and settles it."""

    def __init__(self, output: Path, settle: Callable) -> None:
        self._output, self._settle = output, settle
        self._pool = ThreadPoolExecutor(1)
        self._lost = 0
        self._running: tuple[_Loaded, Timing, Future] | None = None

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

    def start(self, loaded: _Loaded, masks: np.ndarray | MasksApart, timing: Timing) -> None:
        """Start to write masks. The time goes into `timing`."""
        self.wait()
        self._running = (loaded, timing, self._pool.submit(timing.timed, "write", _write, loaded, masks))

    def wait(self) -> None:
        """Wait until the current masks are written or failed. Raises `OutputError` after many failures."""
        if self._running is None:
            return
        (loaded, timing, future), self._running = self._running, None
        try:
            objects = future.result()
        except FAILURES as error:
            self._settle(loaded, timing, [], error)
            self._lost += 1
            if self._lost == GIVE_UP:
                raise OutputError(
                    f"{self._output}: {GIVE_UP} files in a row could not be written, "
                    f"the last for {one_line(error)}; "
                    "finished cases are kept, the same command goes on with the rest"
                ) from error
        else:
            self._lost = 0
            self._settle(loaded, timing, objects, None)


def _write(loaded: _Loaded, masks: np.ndarray | MasksApart) -> list[dict]:
    write_masks(loaded.target, loaded.source, masks, loaded.content)
    return objects_of(loaded.content, loaded.source, masks)


def objects_of(case: Case, source: Source | None, masks: np.ndarray | MasksApart) -> list[dict]:
    """Describe each object for `objects.csv`.

    Boxes are in voxels from 0 on the grid that the masks are written on. `ml` is there for volumes.
    """
    count = len(case.boxes)
    if isinstance(masks, MasksApart):
        voxels = [int(masks[i].sum()) for i in range(count)]
    else:
        voxels = np.bincount(masks.reshape(-1), minlength=count + 1)[1:].tolist()
    boxes = case.boxes if source is None else boxes_to_source(source, case.boxes)
    half = boxes.shape[1] // 2
    rows = []
    for i, box in enumerate(boxes.tolist()):
        row = {"label": i + 1, "name": case.names[i] if case.names else "", "voxels": voxels[i]}
        for end, values in (("min", box[:half]), ("max", box[half:])):
            row |= {f"{axis}_{end}": value for axis, value in zip("xyz", values)}
        if case.is_volume:
            row["ml"] = voxels[i] * float(np.prod(case.spacing)) / 1000
        rows.append(row)
    return rows


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, without the path where the error keeps its file separately."""
    text = " ".join(str(getattr(error, "message", error)).split())
    return text or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
