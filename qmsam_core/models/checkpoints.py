"""Read and write network weights: strict keys, no pickle code run, atomic writes, clear error messages."""

import hashlib
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..provenance.files import atomic_path, sha256
from ..provenance.weights import CheckpointError

log = logging.getLogger(__name__)

WRAPPERS = ("model", "state_dict")
"""Keys under which training scripts store a network's weights, beside optimiser, epoch and losses."""
PREFIX = "module."
"""Prefix that PyTorch's parallel wrappers put before every key."""


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a network's tensors by key from a `.safetensors` or `.pth` file. No code in it is executed.

    A `.pth` file may hold the dict of tensors itself, or a dict that has it under `model` or `state_dict`. If
    all keys begin with `module.`, this prefix is removed. One log line says what was unwrapped and what was
    not used.

    Raises:
        CheckpointError: the file does not exist, is damaged, or holds something else.
    """
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
    except Exception as error:  # pickle.UnpicklingError and others: foreign content
        raise CheckpointError(f"{path}: not a plain dict of tensors ({first_line(error)})") from error
    return unwrapped(state, path)


def unwrapped(content: object, path: Path) -> dict[str, torch.Tensor]:
    """Extract the tensors from the content of a `.pth` file, as `read_state` describes."""
    told = []
    wrapper = next(
        (name for name in WRAPPERS if isinstance(content, dict) and isinstance(content.get(name), dict)), None
    )
    state = content[wrapper] if wrapper else content
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(value, torch.Tensor) for value in state.values())
    ):
        found = (
            f"a dict with {', '.join(map(str, list(content)[:6]))}"
            if isinstance(content, dict)
            else type(content).__name__
        )
        raise CheckpointError(
            f"{path}: holds {found}; expected tensors by key, "
            f"or such a dict as {' or '.join(map(repr, WRAPPERS))}"
        )
    if wrapper:
        others = ", ".join(str(name) for name in content if name != wrapper)
        told.append(f"weights taken from {wrapper!r}" + (f"; {others} beside it not used" if others else ""))
    if all(key.startswith(PREFIX) for key in state):
        state = {key.removeprefix(PREFIX): value for key, value in state.items()}
        told.append(f"{PREFIX!r} taken off every key")
    if told:
        log.warning("%s: %s", path, "; ".join(told))
    return state


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, shortened to fit a one-line message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def load_checkpoint(module: nn.Module, path: str | Path) -> None:
    """Load weights with strict keys and shapes. On any mismatch the module stays as it was.

    Raises:
        CheckpointError: keys are missing, foreign or of another shape. The message names them.
    """
    load_state(module, read_state(path), path)


def load_state(module: nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Put tensors by key, read from `path`, into a module, as `load_checkpoint` does."""
    own = module.state_dict()
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own.keys() & state.keys()
        if state[k].shape != own[k].shape
    ]
    faults = [
        some("missing", missing),
        some("not of this model", foreign),
        some("wrong shape", sorted(shapes)),
    ]
    if any(faults):
        raise CheckpointError(
            f"{path}: does not fit {type(module).__name__} ({len(own)} keys): "
            + "; ".join(f for f in faults if f)
        )
    module.load_state_dict(state)


def some(what: str, items: list[str], most: int = 3) -> str:
    """Return the number of items, `what`, and the first `most` items; empty if there are none."""
    if not items:
        return ""
    return f"{len(items)} {what}: {', '.join(items[:most])}" + (", ..." if len(items) > most else "")


def save_checkpoint(module: nn.Module, path: str | Path, metadata: dict[str, str] | None = None) -> str:
    """Write a module's state as safetensors, atomically. Returns the SHA-256 of the file.

    Raises:
        CheckpointError: see `save_state`.
    """
    return save_state(module.state_dict(), path, metadata)


def save_state(
    state: dict[str, torch.Tensor], path: str | Path, metadata: dict[str, str] | None = None
) -> str:
    """Write tensors by key as safetensors, atomically. Returns the SHA-256 of the file.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written. What was at `path` is still there,
            and no partial file is left.
    """
    path = Path(path)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            save_file(state, part, metadata)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be written ({first_line(error)}); expected a writable folder with space left"
        ) from error
    return sha256(path)


def same_weights(a: nn.Module, b: nn.Module, statistics: bool = True) -> bool:
    """Test whether two modules have the same keys and bit-identical parameters and buffers.

    Without `statistics` only parameters are compared. Buffers, such as batch norm statistics, may differ.
    """
    x, y = (module.state_dict() if statistics else dict(module.named_parameters()) for module in (a, b))
    return x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 over names and values of a model's state. It does not depend on the file format."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
