"""Files that training leaves in its folder: progress while it runs, and a mark when it has finished.

The mark identifies the finished work, so that the same work is not done again.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pandas as pd
import torch

from ..models import CheckpointError, Sam
from ..models.checkpoints import first_line
from ..provenance.files import FINISHED, atomic_path, sha256
from ..provenance.imported_modules import modules_digest
from ..quant import save_model
from .processes import rank
from .steps import SCALES, STEPS
from .trainer import TrainingError

SAVE_SECONDS = 180.0  # least time between two writes of the progress inside an epoch
LOG_SECONDS = 30.0
MODEL, HISTORY, PROGRESS, MARK = "model.safetensors", "history.csv", "progress.pt", FINISHED
RESULTS = (MODEL, HISTORY, STEPS, SCALES)
"""Files of a finished job."""
FORM = 2
"""Version of what the progress holds. Progress of another version is not taken up."""
SPACE = "what was saved before is intact: make space and start again"
LIBRARY = Path(__file__).parents[1]
CODE = ("train/", "models/", "quant/", "data/")  # subpackages that can change the trained weights


def save_progress(path: Path, **state: object) -> None:
    """Write the state needed to resume, atomically. A killed run leaves the old or the new file, both whole.

    Raises:
        TrainingError: the disk is full or the folder cannot be written. The previous file stays as it was.
    """
    with writing(path) as part:
        torch.save({"form": FORM, **state}, part)


def load_progress(path: Path, fingerprint: str, log: Callable[[str], None] = print) -> dict | None:
    """Read what `save_progress` wrote for the same job.

    Returns None if there is no file, or if it belongs to another job. The latter is logged.
    """
    if not path.is_file():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    if (state["fingerprint"], state.get("form")) == (fingerprint, FORM):
        return state
    log(
        f"{path}: progress of other work (parameters, data, parent, number of processes or version differ); "
        "training begins anew and overwrites it"
    )
    return None


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file beside `path`; on exit it replaces `path`.

    Raises:
        TrainingError: the file cannot be written. The previous file at `path` is still there.
    """
    try:
        with atomic_path(path) as part:
            yield part
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        raise TrainingError(
            f"{path}: cannot be written ({first_line(error)}); "
            f"expected a writable folder with space left; {SPACE}"
        ) from error


def save_weights(model: Sam, path: Path, **facts: object) -> None:
    """Call `save_model`; raise TrainingError if the file cannot be written. The previous file is kept."""
    try:
        save_model(model, path, **facts)
    except CheckpointError as error:
        raise TrainingError(f"{error}; {SPACE}") from error


def write_table(path: Path, table: pd.DataFrame, **options: object) -> None:
    """Write a table as CSV, readable during training; raise TrainingError on failure.

    `options` go to `DataFrame.to_csv`.
    """
    with writing(path) as part:
        table.to_csv(part, index=False, **options)


# Finished work ----------------------------------------------------------------------------------------------


def finish(folder: Path, fingerprint: str) -> None:
    """Mark the folder's model and tables as the complete result of a job, and delete the progress."""
    with writing(folder / MARK) as part:
        part.write_text(json.dumps(mark_of(folder, fingerprint), indent=2) + "\n", encoding="utf-8")
    (folder / PROGRESS).unlink(missing_ok=True)


def finished(
    folder: Path, fingerprint: str, log: Callable[[str], None] = print
) -> tuple[Path, pd.DataFrame] | None:
    """Return the checkpoint's path and the history that the same job and the same code left in the folder.

    Returns None if the job is not finished here, or if its files were changed since.
    """
    code_hash()  # cached now: the modules may be edited while training runs
    try:
        told = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if told != mark_of(folder, fingerprint) or "absent" in told.values():
        return None
    log(f"{folder}: finished before, and taken as it is")
    # The study treats an output older than the notebook's run as one that the notebook failed to write.
    if rank() == 0:
        for name in RESULTS:
            (folder / name).touch()
    return folder / MODEL, pd.read_csv(folder / HISTORY)


def forget(folder: Path) -> None:
    """Delete the mark of a finished job, so that the job is trained anew.

    Progress of an interrupted run is kept. Progress beside a finished job is a remnant and is deleted.
    """
    if (folder / MARK).is_file():
        (folder / MARK).unlink()
        (folder / PROGRESS).unlink(missing_ok=True)


def mark_of(folder: Path, fingerprint: str) -> dict[str, str]:
    """Compute the mark of a job for the folder's present files; a missing file counts as "absent"."""
    files = {name: sha256(folder / name) if (folder / name).is_file() else "absent" for name in RESULTS}
    return {"fingerprint": fingerprint, "code": code_hash(), **files}


@cache
def code_hash() -> str:
    """Hash the library's modules that training uses. A result of other code does not count as finished."""
    return modules_digest("import qmsam_core.train.pipeline", LIBRARY, CODE)
