"""Write the masks of one input while the next is segmented, and say why an input failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.archive import CaseError
from ..data.cases import Case
from ..data.importers.notes import Loss
from ..data.source import Source
from .files.grid_boxes import boxes_to_source
from .files.inputs import Input, missing
from .files.mask_files import write_masks
from .masks import MasksApart
from .predictor import Timing
from .records import OutputError

FAILURES = (Exception,)
"""Errors of a single case. A malformed header can raise anything inside a library, and the rest goes on."""
FORESEEN = (CaseError, OSError, MemoryError, RuntimeError, ValueError)
"""Errors whose message says enough: of the content, the disk, memory, or the engine (RuntimeError)."""
GIVE_UP = 3
"""The batch ends after this many files in a row could not be written. A full disk would fail for hours, but
one file that is too large is no reason to stop. Faults of the source do not count."""


@dataclass
class Loaded:
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


class Writing:
    """Write the masks of one input at a time in a thread. `start` waits for the last and settles it."""

    def __init__(self, output: Path, settle: Callable) -> None:
        self._output, self._settle = output, settle
        self._pool = ThreadPoolExecutor(1)
        self._lost = 0
        self._running: tuple[Loaded, Timing, Future] | None = None

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self.wait()
        except OutputError:
            if kind is None:
                raise
        finally:
            self._pool.shutdown()

    def start(self, loaded: Loaded, masks: np.ndarray | MasksApart, timing: Timing) -> None:
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
            self._lost += isinstance(error, OSError)
            if isinstance(error, OSError) and self._lost == GIVE_UP:
                raise OutputError(
                    f"{self._output}: {GIVE_UP} files in a row could not be written, "
                    f"the last for {one_line(error)}; "
                    "finished cases are kept, the same command goes on with the rest"
                ) from error
        else:
            self._lost = 0
            self._settle(loaded, timing, objects, None)


def _write(loaded: Loaded, masks: np.ndarray | MasksApart) -> list[dict]:
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
            row["ml"] = round(voxels[i] * float(np.prod(case.spacing)) / 1000, 6)
        rows.append(row)
    return rows


def why(one: Input | CaseError, error: BaseException) -> str:
    """Say in one line why an input failed. Another file than the input, such as its mask, is named."""
    if isinstance(one, Input) and isinstance(error, CaseError):
        own = {str(one.path), one.path.stem, one.name}
        if str(error.path) not in own:
            return " ".join(str(error).split())
    return one_line(error)


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, without the path where the error keeps its file separately."""
    text = " ".join(str(getattr(error, "message", error)).split())
    if isinstance(error, ModuleNotFoundError):
        return missing(error)
    if not isinstance(error, FORESEEN):
        return f"cannot be used ({type(error).__name__}: {text}); report it with the file if it looks right"
    return text or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
