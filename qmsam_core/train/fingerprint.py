"""The identity of a stage's job. Only the same job resumes its progress or reuses its finished result."""

import hashlib
import json
from pathlib import Path

from ..data.sampling import Strategy
from ..params import Params
from ..provenance.files import sha256
from .processes import device_of, world_size
from .stages import STAGES

READS = (
    "image_size",
    "released",
    "samples_per_modality",
    "warmup_epochs",
    "annealing_epochs",
    "box_jitter",
    "learning_rate",
    "optimizer",
    "scale_rate",
    "learns_from",
    "seed",
    "epoch_slices",
)
"""Parameters that decide what a stage learns and reports.

Network and earlier recipe belong to the parent, whose file is hashed. Data are hashed by content. Paths and
speed settings do not count.
"""


def fingerprint(
    params: Params,
    number: int,
    parent: Path,
    strategy: Strategy | None,
    data_folder: Path,
    float_model: Path | None = None,
) -> str:
    """Hash everything that a stage learns from, as SHA-256 in hex. The arguments are those of `run_stage`.

    It covers parameters, parent, teacher, data, number of processes and kind of device.
    """
    files = {
        "parent": parent,
        **{part: data_folder / f"index_{part}.npz" for part in ("train", "evaluation")},
    }
    values = params.model_dump(mode="json")
    stage = STAGES[number]
    read = {name: values[name] for name in READS}
    read |= {
        "strategy": strategy,
        "batch_size": params.batch_size[number - 1],
        "released": sorted(params.released),
    }
    read |= {"recipe": params.recipe} if stage.quantises else {}
    if has_teacher(params, number):
        files["teacher"] = float_model if params.teacher == "self" else Path(params.teacher)
    facts = [
        number,
        read,
        {name: content(path) for name, path in files.items()},
        device_of(params).split(":")[0],
        world_size(),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def has_teacher(params: Params, number: int) -> bool:
    """Return whether a stage uses the teacher: stage 1 always, stage 3 also where the released code does."""
    asked = params.learns_from == "float" or number == 3 and "distillation" in params.released
    return STAGES[number].distils or asked


def content(path: Path | None) -> str | None:
    """SHA-256 of a file, or None if there is none. Later code that needs the file raises a better error."""
    return sha256(path) if path is not None and Path(path).is_file() else None
