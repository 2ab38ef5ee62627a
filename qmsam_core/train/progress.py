"""What training leaves in its folder: progress while it runs, and afterwards a mark that says which work the folder holds, so that it is not done again."""

import hashlib
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
from ..provenance.imported_modules import modules_reached
from ..quant import save_model
from .processes import rank
from .trainer import TrainingError

SAVE_SECONDS = 180.0  # between two savings of what resuming needs
LOG_SECONDS = 30.0
MODEL, HISTORY, PROGRESS, MARK = "model.safetensors", "history.csv", "progress.pt", FINISHED
SPACE = "what was saved before is intact: make space and start again"
LIBRARY = Path(__file__).parents[1]
CODE = {"train", "models", "quant", "data"}  # what of the library can change what is learned


def save_progress(path: Path, **state: object) -> None:
    """Write what resuming needs, atomically: a killed run leaves the previous file or this one's, never half of one.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; the previous file is left as it was.
    """
    with writing(path) as part:
        torch.save(state, part)


def load_progress(path: Path, fingerprint: str, log: Callable[[str], None] = print) -> dict | None:
    """What `save_progress` wrote for the same job; None when there is nothing or, which is logged, it belongs to another job."""
    if not path.is_file():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["fingerprint"] == fingerprint:
        return state
    log(
        f"{path}: progress of other work (parameters, data, parent or number of processes differ); training begins anew and overwrites it"
    )
    return None


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Gives the name of a file beside `path` to be written; afterwards it takes the place of `path`.

    Raises:
        TrainingError: it cannot be written; what was at `path` before is still there.
    """
    try:
        with atomic_path(path) as part:
            yield part
    except (OSError, RuntimeError) as error:  # the second: how torch.save tells of a full disk
        raise TrainingError(
            f"{path}: cannot be written ({first_line(error)}); expected a writable folder with space left; {SPACE}"
        ) from error


def save_weights(model: Sam, path: Path, **facts: object) -> None:
    """`save_model`. Raises TrainingError where the file cannot be written; what was there before still is."""
    try:
        save_model(model, path, **facts)
    except CheckpointError as error:
        raise TrainingError(f"{error}; {SPACE}") from error


def write_history(folder: Path, history: list[dict]) -> None:
    """`history.csv`, one row an epoch, readable while training runs. Raises TrainingError where it cannot be written."""
    with writing(folder / HISTORY) as part:
        pd.DataFrame(history).to_csv(part, index=False)


# Work that is done --------------------------------------------------------------------------------------------------------------------------


def finish(folder: Path, fingerprint: str) -> None:
    """Say that the folder's model and history are the result of that work, from its first epoch to its last. Progress is needed no longer."""
    with writing(folder / MARK) as part:
        part.write_text(json.dumps(mark_of(folder, fingerprint), indent=2) + "\n", encoding="utf-8")
    (folder / PROGRESS).unlink(missing_ok=True)


def finished(
    folder: Path, fingerprint: str, log: Callable[[str], None] = print
) -> tuple[Path, pd.DataFrame] | None:
    """What the same work, by the same code, left here: checkpoint and history. None where it is not finished, or its files were changed since."""
    code_hash()  # now: of the modules as they were loaded, not as they may be edited while training runs
    try:
        told = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if told != mark_of(folder, fingerprint) or "absent" in told.values():
        return None
    log(f"{folder}: finished before, and taken as it is")
    if (
        rank() == 0
    ):  # the study takes a file that is older than a notebook's run for one that the notebook failed to write
        for name in (MODEL, HISTORY):
            (folder / name).touch()
    return folder / MODEL, pd.read_csv(folder / HISTORY)


def forget(folder: Path) -> None:
    """Let what is finished in a folder be trained anew. Progress of a training that broke off is left; beside finished work there can only be a remnant."""
    if (folder / MARK).is_file():
        (folder / MARK).unlink()
        (folder / PROGRESS).unlink(missing_ok=True)


def mark_of(folder: Path, fingerprint: str) -> dict[str, str]:
    """What the mark of that work would say of the folder as it is; files that are missing go as absent."""
    files = {
        name: sha256(folder / name) if (folder / name).is_file() else "absent" for name in (MODEL, HISTORY)
    }
    return {"fingerprint": fingerprint, "code": code_hash(), **files}


@cache
def code_hash() -> str:
    """Hash of the library's modules that training rests on: what other code trained is not taken for finished."""
    reached = [p.relative_to(LIBRARY) for p in modules_reached("import qmsam_core.train.pipeline", LIBRARY)]
    listing = [f"{p.as_posix()} {sha256(LIBRARY / p)}" for p in reached if p.parts[0] in CODE]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()
