"""Segment a folder of inputs. While one is segmented, the next is read and the last is written.

Finished outputs are kept. An input that fails is reported and the others continue. An output is finished if
it is readable, and was made by this predictor from this very input, as the folder's records say. A file that
was not written here for the same input is never replaced: that input fails, and the file is named. Several
processes may work on one output folder: each reserves an input before it begins, and leaves those that
others hold.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..data.archive import CaseError
from ..data.importers.notes import Loss
from ..provenance.files import atomic_file, remove_partial
from .by_modality import Choice, PredictorByModality
from .files.inputs import Input, name_of
from .files.mask_files import is_finished, target_of
from .files.reading import Reading
from .predictor import Predictor, Timing, check_boxes, run_ahead
from .records import MADE, MODEL, OBJECTS, OutputError, Records
from .reservations import Reservations
from .writing import FAILURES, Loaded, Writing, why

SAVE_SECONDS = 10.0
"""Seconds between updates of the tables. What is finished since lies in the reservations."""
WAIT_SECONDS = 1.0
"""Seconds between looks at what other processes hold, once there is nothing else to do."""


def predict_folder(
    predictor: Predictor | PredictorByModality,
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
        predictor: segments all cases, or chooses a model by the case's modality. A choice is logged once.
        cases: paths of case files, or inputs of `find_inputs` with the errors among them.
        output: folder for the masks, made if absent.
        log: takes one line per failure, and one line if existing outputs were made by something else.
        done: called after every input, whether finished, kept or failed.
        reading: how inputs become cases.
        apart: write one mask an object instead of one label map.

    Returns:
        One row per input: case, status (`done`, `kept`, `done elsewhere` by another process, or
        `failed: ...`), the fields of `Timing`, and `model` if there are several. A kept case has the times of
        the earlier run. `left_out` is the number of things in an input that could not be used.

    Raises:
        OutputError: the output folder cannot be made or written, one of its tables is something else,
            another process writes outputs of other settings to it, three files in a row could not be written,
            or at the end the tables could not. Finished outputs stay.
    """
    inputs = [Input.case(one) if isinstance(one, Path) else one for one in cases]
    prepare_output(output)
    with Reservations(output) as reserved:
        records = open_records(output, predictor, apart, reserved)
        batch = _Batch(predictor, output, log, done, reading or Reading(), apart, reserved, records)
        batch.warn_of_unknown(inputs)
        try:
            batch.run(inputs)
        except BaseException:
            records.save()
            raise
        records.save(last=True)
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


def open_records(
    output: Path, predictor: Predictor | PredictorByModality, apart: bool, reserved: Reservations
) -> Records:
    """Open the records of an output folder for a predictor."""
    settings = {name: getattr(predictor, name) for name in ("interpolation", "order", "propagate")}
    several = isinstance(predictor, PredictorByModality)
    source = predictor.source if several else predictor.engine.source
    settings = {"model": source, **settings, "one_mask_an_object": apart}
    try:
        return Records(output, settings, reserved)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(_not_writable(output, error)) from error


def _not_writable(output: Path, error: OSError) -> str:
    return f"{output}: cannot be written to ({error.strerror or error}); give another folder with -o"


class _Targets:
    """Targets of the inputs so far. One that is the same as another, or lies in it, is refused."""

    def __init__(self) -> None:
        self._owners: dict[Path, Input] = {}
        self._above: dict[Path, str] = {}

    def add(self, target: Path, one: Input) -> None:
        """Take a target for an input. Raises `CaseError` if another input has it, or one that overlaps."""
        other = self._owners.get(target, one)
        if other != one:
            raise CaseError(one.path, f"gives the same output {target} as {other.path}; rename one")
        around = next((self._owners[path].name for path in target.parents if path in self._owners), None)
        other = around or self._above.get(target)
        if other:
            raise CaseError(
                one.path, f"gives the output {target}, which overlaps with that of {other}; rename one"
            )
        self._owners[target] = one
        self._above.update(dict.fromkeys(target.parents, one.name))


@dataclass
class _Batch:
    predictor: Predictor | PredictorByModality
    output: Path
    log: Callable[[str], None]
    done: Callable[[], None]
    reading: Reading
    apart: bool
    reserved: Reservations
    records: Records
    _settled: dict[str, dict] = field(default_factory=dict)
    _saved: float = field(default_factory=time.monotonic)
    _choices: dict[str, Choice] = field(default_factory=dict)
    _named: set[str] = field(default_factory=set)

    @property
    def rows(self) -> list[dict]:
        """Rows of all inputs, in the order given."""
        return [self._settled[name] for name in self._order]

    def run(self, inputs: list[Input | CaseError]) -> None:
        """Settle every input. Those that other processes hold come last, until they are done or given up."""
        self._order = [name_of(one) for one in inputs]
        taken = _Targets()
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

    def _once(self, inputs: list[Input | CaseError], taken: _Targets) -> list[Input | CaseError]:
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

    def _load(self, one: Input | CaseError, taken: _Targets) -> Loaded:
        """Reserve and read an input that has boxes, unless its output is finished."""
        started = time.perf_counter()
        if isinstance(one, CaseError):
            return Loaded(one, "failed", one)
        reserved, origin = False, ""
        try:
            origin, source = self._origin(one), self.reading.source(one)
            target = target_of(one, source, self.output, self.apart)
            taken.add(target, one)
            if state := self._finished(one, origin, target):
                return Loaded(one, state)
            self._check_own(one, target)
            reserved = self.reserved.take(one.name, self.records.counts(origin))
            if not reserved:
                return Loaded(one, "held")
            if state := self._finished(one, origin, target):  # by another process, just before
                self.reserved.release(one.name)
                return Loaded(one, state)
            remove_partial(target)
            case, notes = self.reading.case(one)
            check_boxes(case)
        except FAILURES as error:
            if reserved:
                self.reserved.release(one.name)
            return Loaded(one, "failed", error, origin)
        if source is None and one.kind != "npz":
            source = case.source
        return Loaded(one, "read", case, origin, source, target, time.perf_counter() - started, notes)

    def _origin(self, one: Input) -> str:
        """Describe what an input's masks are made from. Of several models it names the one chosen."""
        origin = self.reading.origin(one)
        if isinstance(self.predictor, PredictorByModality):
            choice = self._choices[one.name] = self.predictor.choose(one, self.reading)
            origin = f"{origin}, model {choice.model}"
        return origin

    def _predictor_of(self, one: Input) -> Predictor:
        if not isinstance(self.predictor, PredictorByModality):
            return self.predictor
        choice = self._choices[one.name]
        if choice.modality not in self._named:
            self._named.add(choice.modality)
            self.log(str(choice))
        return self.predictor.of(choice.model)

    def _finished(self, one: Input, origin: str, target: Path) -> str:
        if not (self.records.holds(one.name, origin) and is_finished(target, one)):
            return ""
        own = (path for path in self.records.masks_of(one.name) if target in path.parents)
        if not all(path.exists() for path in own):  # one of the masks apart was removed
            return ""
        return "kept" if self.records.held_before(one.name, origin) else "elsewhere"

    def _check_own(self, one: Input, target: Path) -> None:
        """Raise `CaseError` if something lies at the target that was not written here for this input."""
        for file, owner in self.records.others(one.name, target).items():
            what = f"is a mask of {owner}" if owner else f"was not written by this program, says {MADE},"
            raise CaseError(
                self.output / file,
                f"{what} and would be replaced; move it away, or give another folder with -o",
            )

    def _segment(self, loaded: Loaded, writing: Writing) -> None:
        case = loaded.content
        for note in loaded.notes:
            self.log(f"{loaded.one.name}: {'left out' if isinstance(note, Loss) else 'note'}: {note}")
        try:
            predictor = self._predictor_of(loaded.one)
            masks = predictor.segment_apart(case) if self.apart else predictor.segment(case)
            predictor.timing.read = loaded.seconds
            writing.start(loaded, masks, predictor.timing)
        except OutputError:
            raise
        except FAILURES as error:
            self._failed(loaded, error)

    def _written(self, loaded: Loaded, timing: Timing, objects: list[dict], error: BaseException | None):
        if error is not None:
            self._failed(loaded, error)
            return
        row = {"case": loaded.one.name, "status": "done", **vars(timing)}
        if choice := self._choices.get(loaded.one.name):
            row[MODEL] = choice.model
        self.records.finish(loaded.one.name, loaded.origin, row, objects, loaded.target)
        self._add({**row, "left_out": loaded.left_out})

    def _failed(self, loaded: Loaded, error: BaseException) -> None:
        self.reserved.release(loaded.one.name)
        self._settle(Loaded(loaded.one, "failed", error, loaded.origin))

    def _settle(self, loaded: Loaded) -> None:
        name = name_of(loaded.one)
        if loaded.state == "failed":
            reason = why(loaded.one, loaded.content) + self._left_over(name)
            row = {"case": name, "status": f"failed: {reason}"}
            self.log(f"{name}: {reason}")
            self.records.note(row, loaded.origin)
        elif loaded.state == "kept":
            row = self.records.kept(name)
            self.records.note(row)
        else:
            row = {"case": name, "status": "done elsewhere"}
        self._add(row)

    def _left_over(self, name: str) -> str:
        """Say which masks an earlier run left for a case that failed now."""
        masks = [path for path in self.records.masks_of(name) if path.exists()]
        more = f" and {len(masks) - 1} more" if len(masks) > 1 else ""
        return f"; {masks[0]}{more} and its rows of {OBJECTS} are of an earlier run" if masks else ""

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
        targets = [(one, target_of(one, None, self.output, self.apart)) for one in plain]
        count = sum(path.exists() and not self.records.others(one.name, path) for one, path in targets)
        if count:
            self.log(
                f"{self.output}: {count} segmentations there are of another model or other settings; "
                "they are made again"
            )
