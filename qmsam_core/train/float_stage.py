"""Stage 0 from files to files: what the float parent learns from, and what is known of the weights that it begins with."""

import hashlib
import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist

from ..data.index import SliceIndex
from ..data.licences import SOURCES, read_sources, source_of
from ..data.phantoms import write_phantoms
from ..data.prompts import PromptDataset
from ..models import CheckpointError, build_model
from ..models.bundled import HISTORY, edition_of
from ..params import Params
from ..phases import Phase, parse_phases
from ..provenance import environment, sha256
from ..quant import describe_model
from .fingerprint import fingerprint
from .pretrain import Pretraining, pretrain, whole_history
from .processes import device_of, rank
from .progress import PROGRESS
from .stage_data import evaluation_batches


def float_sources(params: Params, data_folder: Path) -> list[SliceIndex]:
    """What the float baseline learns from: the training part; or, for a checkpoint to give away, its openly licensed cases, and phantoms.

    Raises:
        ValueError: `float_data: open` on data whose sources are not stated, or not open.
    """
    train = SliceIndex.load(data_folder / "index_train.npz")
    if params.float_data == "data":
        return [train]
    sources = read_sources(train.root)
    names = [Path(path).relative_to(train.root).as_posix() for path in train.cases["path"]]
    found = [source_of(name, sources) for name in names]
    rows = [number for number, source in enumerate(found) if source is not None and source["open"]]
    if not rows:
        raise ValueError(f"float_data: open, but {train.root / SOURCES} names no case under an open licence; use float_data: data")
    phantoms = SliceIndex.build(data_folder / "float_phantoms", cache=data_folder / "float_phantoms_index.npz")
    return [train.subset(rows), phantoms]


def train_float(
    params: Params, data_folder: Path, folder: Path, log: Callable[[str], None] = print, parent: Path | None = None
) -> tuple[Path, pd.DataFrame]:
    """Train the float baseline from nothing, or from the weights of `parent`, by the parameters' phases, in this process (one of several under torchrun); see
    `pretrain`.

    Raises:
        ValueError: no phase is given, or see `float_sources`.
    """
    if not params.float_phases:
        raise ValueError("float_phases: found [], which trains nothing; expected at least one phase, for example '64 px, 8 images, 450 steps'")
    if params.float_data == "open" and rank() == 0:
        log(f"drawing {params.phantom_cases} phantoms, or keeping those already there")
        write_phantoms(data_folder / "float_phantoms", params.phantom_cases, params.seed + 1, imbalance=0, processes=os.cpu_count() or 1)
    if dist.is_initialized():
        dist.barrier()
    sources, device = float_sources(params, data_folder), device_of(params)
    model = build_model(params.model, params.image_size, parent, params.seed)
    masks = model.mask_size / model.image_size
    behind = inherited(parent) if parent else {}
    told = history_beside(parent) if parent else None
    seed = data_seed(params.seed, behind.get("parent"))
    work = Pretraining(
        parse_phases(params.float_phases),
        lambda size, boxes: PromptDataset(sources, size, round(masks * size), boxes, seed),
        lambda size: evaluation_batches(params, data_folder, size, round(masks * size)),
        fingerprint(params, 0, parent, None, data_folder),
        device,
        {"phases": list(params.float_phases), "float_data": params.float_data, "seed": params.seed, "machine": machine(device)} | behind,
        [Phase.parse(phase) for phase in behind.get("parent_phases", [])],
        seed,
        behind.get("parent", ""),
        "" if told is None else told.to_csv(index=False),
    )
    return pretrain(model, work, folder, log)


def data_seed(seed: int, parent: str | None) -> int:
    """Seed of a training's samples: that of the parameters, mixed with the SHA-256 of the weights it begins with. What these have seen does not come again."""
    return seed if parent is None else int(hashlib.sha256(f"{seed} {parent}".encode()).hexdigest()[:15], 16)


def machine(device: str) -> str:
    """What trains, for the model card: GPU or CPU, and PyTorch's version."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}"
    cpu = environment()["cpu"]
    return f"{cpu['model']}, {cpu['cores']} cores, PyTorch {torch.__version__}"


def history_beside(weights: Path) -> pd.DataFrame | None:
    """The whole history of given weights, of an edition or of a training's, where it lies beside them.

    A training that begins with weights in its own folder writes its history over theirs, and keeps theirs in its progress until it has its own weights.
    """
    if edition_of(weights):
        return pd.read_csv(weights.with_name(HISTORY.name))
    if (weights.parent / PROGRESS).is_file():
        begun = torch.load(weights.parent / PROGRESS, map_location="cpu", weights_only=True)
        if begun.get("parent") == sha256(weights):
            return pd.read_csv(StringIO(begun["parent_history"])) if begun["parent_history"] else None
    return whole_history(weights.parent) if (weights.parent / "history.csv").is_file() else None


def inherited(parent: Path) -> dict:
    """What a description says about the weights that a training began with: their SHA-256, and how they were trained in turn, as far as they tell."""
    try:
        facts = describe_model(parent)
    except CheckpointError:  # an edition, or weights from elsewhere
        facts = edition_of(parent)
    machines = [*facts.get("parent_machines", []), *([facts["machine"]] if "machine" in facts else [])]
    return {"parent": sha256(parent), "parent_phases": [*facts.get("parent_phases", []), *facts.get("phases", [])], "parent_machines": machines}
