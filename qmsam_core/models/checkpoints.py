"""Reading and writing weights: strict keys, no pickle code run, atomic, and errors that say what does not fit."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, another network's, or cannot be written. The message names the file and the first keys at fault."""


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a flat dict of tensors from a `.safetensors` file or a `.pth` file (weights only: nothing in it is executed)."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint (.pth or .safetensors)")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({first_line(error)}); is the download complete?"
        ) from error
    except Exception as error:  # pickle.UnpicklingError and its kin: foreign content
        raise CheckpointError(f"{path}: not a plain dict of tensors ({first_line(error)})") from error
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: holds {type(state).__name__}; expected a flat dict of tensors")
    return state


def first_line(error: Exception) -> str:
    """The first line of an error's text, shortened to fit a one-line message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def load_checkpoint(module: nn.Module, path: str | Path) -> None:
    """Load weights with strict keys and shapes; on any mismatch the module is left as it was.

    Raises:
        CheckpointError: which keys are missing, foreign or of another shape.
    """
    state = read_state(path)
    own = module.state_dict()
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own.keys() & state.keys()
        if state[k].shape != own[k].shape
    ]
    faults = [some("missing", missing), some("not of this model", foreign), some("wrong shape", sorted(shapes))]
    if any(faults):
        raise CheckpointError(
            f"{path}: does not fit {type(module).__name__} ({len(own)} keys): " + "; ".join(f for f in faults if f)
        )
    module.load_state_dict(state)


def some(what: str, items: list[str], most: int = 3) -> str:
    """`what` and the first few items with their count, or nothing."""
    if not items:
        return ""
    return f"{len(items)} {what}: {', '.join(items[:most])}" + (", ..." if len(items) > most else "")


def save_checkpoint(
    module: nn.Module, path: str | Path, metadata: dict[str, str] | None = None, dtype: torch.dtype | None = None
) -> str:
    """Write a module's state as safetensors, atomically, its floating-point tensors as `dtype` where one is given; returns the SHA-256 of the file.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; what was at `path` before is still there, and nothing beside it.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    state = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in state.items()}, part, metadata)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink()
        raise CheckpointError(f"{path}: cannot be written ({first_line(error)}); expected a writable folder with space left") from error
    return hashlib.sha256(path.read_bytes()).hexdigest()


def same_weights(a: nn.Module, b: nn.Module, statistics: bool = True) -> bool:
    """Whether two modules have the same keys and, bit by bit, the same parameters and buffers; without `statistics` buffers, such as a batch norm's, may differ."""
    x, y = (module.state_dict() if statistics else dict(module.named_parameters()) for module in (a, b))
    return x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)
