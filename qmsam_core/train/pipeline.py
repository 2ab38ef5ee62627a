"""One stage from files to files: parent model and index in, best checkpoint and history out; in this process or under torchrun."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
import yaml
from torch.utils.data import DataLoader

from ..data.index import SliceIndex
from ..data.licences import SOURCES, read_sources, source_of
from ..data.phantoms import write_phantoms
from ..data.prompts import PromptDataset
from ..data.slices import ModalityBalancedSampler, SliceDataset
from ..data.transforms import EvalTransform, TrainTransform
from ..models import CONFIGS, CheckpointError, Sam, build_model
from ..models.bundled import BUNDLED, HISTORY, edition_of
from ..params import Params
from ..phases import Phase, parse_phases
from ..provenance import environment, sha256, write_atomic
from ..quant import Recipe, calibrate, centre_cells, describe_model, find_recipe, load_model, quantize, save_model
from .loop import Data, evaluate, fit, write_history, writing
from .precision import autocast_for
from .pretrain import PARENT_HISTORY, Pretraining, pretrain, whole_history
from .stages import STAGES, schedule_of, teacher_name
from .step import Job, rank, world_size
from .teacher import CachedEncoder, EmbeddingCache, Teacher

EVALUATION_SLICES = 4  # a modality and epoch: enough to rank epochs by; the tables of the study score whole cases
CALIBRATION_BATCH = 4
NOT_THE_WORK = {"profile", "outputs_root", "data_root", "threads", "decode_block", "benchmark_runs"}  # what a stage learns does not depend on them; data go by content
SOURCES_OF_CHECKPOINTS = {
    "medsam": "the README of the official MedSAM repository (bowang-lab) links medsam_vit_b.pth; or teacher: self",
    "litemedsam": "the README of the LiteMedSAM branch of the official MedSAM repository (bowang-lab) links lite_medsam.pth; or float_checkpoint: null",
}


def make_teacher(params: Params, float_model: Path, cache: EmbeddingCache | None = None) -> tuple[Teacher, str]:
    """The teacher of stage one and its name for the tables: MedSAM's ViT-B where the parameters name one, else the float parent itself.

    Raises:
        ValueError: MedSAM's embedding grid does not have the student's shape; CheckpointError: its file does not fit.
    """
    device = device_of(params)
    if params.teacher != "self":
        student, medsam = CONFIGS[params.model], CONFIGS["medsam"]
        grids = (params.image_size // student.encoder.stride, medsam.image_size // medsam.encoder.stride)
        if (student.dim, grids[0]) != (medsam.dim, grids[1]):
            raise ValueError(
                f"teacher: MedSAM gives embeddings of {medsam.dim} x {grids[1]} x {grids[1]}, the student {params.model} at {params.image_size} px "
                f"{student.dim} x {grids[0]} x {grids[0]}; use litemedsam at 256 px, or teacher: self"
            )
        return Teacher(public_model("medsam", None, params.teacher, params.seed), device, cache), teacher_name(params)
    return Teacher(load_model(float_model), device, cache), teacher_name(params)


def public_model(name: str, image_size: int | None, checkpoint: str | None, seed: int) -> Sam:
    """`build_model`, whose complaint about a public checkpoint also says where people get it.

    Raises:
        CheckpointError: the file is missing, cut short or another network's: which keys and shapes, and where the right one is.
    """
    try:
        return build_model(name, image_size, checkpoint, seed)
    except CheckpointError as error:
        if name not in SOURCES_OF_CHECKPOINTS:
            raise
        raise CheckpointError(f"{error}; {SOURCES_OF_CHECKPOINTS[name]}") from error


def device_of(params: Params) -> str:
    """`cpu`, or this process's GPU where the parameters ask for one, or leave it open and there is one."""
    wanted = params.device == "cuda" or (params.device == "auto" and torch.cuda.is_available())
    if not wanted:
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError("device: cuda, but PyTorch sees no GPU here; use device: auto or cpu")
    return f"cuda:{rank() % torch.cuda.device_count()}"


def machine(device: str) -> str:
    """What trains, for the model card: GPU or CPU, and PyTorch's version."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}"
    cpu = environment()["cpu"]
    return f"{cpu['model']}, {cpu['cores']} cores, PyTorch {torch.__version__}"


def interpolation_of(params: Params, training: bool) -> str:
    """How slices are resized: area, as the public checkpoint was trained; the released code trains with nearest and deploys with cubic."""
    if "resize" not in params.released:
        return "area"
    return "nearest" if training else "cubic"


def evaluation_batches(params: Params, folder: Path, size: int, mask_size: int, slices: int = EVALUATION_SLICES) -> DataLoader:
    """This process's share of the fixed slices (at most so many a modality) by which epochs are judged, at an input size; `folder` holds `index_evaluation.npz`."""
    held_out = SliceIndex.load(folder / "index_evaluation.npz")
    judged = SliceDataset(held_out, EvalTransform(size, mask_size, interpolation_of(params, False)), params.seed)
    fixed = ModalityBalancedSampler(held_out, slices, params.seed)
    chosen = sorted(set(fixed.epoch_slices().tolist()))
    return DataLoader(judged, 8, sampler=chosen[rank() :: world_size()])


def make_data(params: Params, folder: Path, model: Sam, strategy: str | int | None = None) -> Data:
    """Training slices, the epoch's sampler and the evaluation batches of a quantised stage.

    Args:
        folder: of notebook 00, with `index_train.npz` and `index_evaluation.npz`.
        strategy: see `samples_per_modality`; None takes Ns of the parameters, or the paper's min rule.
    """
    train = SliceIndex.load(folder / "index_train.npz")
    sampler = ModalityBalancedSampler(
        train, strategy or params.samples_per_modality or "min", params.seed, rank(), world_size()
    )
    transform = TrainTransform(params.image_size, model.mask_size, interpolation_of(params, True))
    evaluation = evaluation_batches(params, folder, params.image_size, model.mask_size)
    return Data(SliceDataset(train, transform, params.seed), sampler, evaluation)


def quantise_and_calibrate(
    model: Sam, params: Params, parts: tuple[str, ...], data_folder: Path, recipe: Recipe | None = None
) -> Sam:
    """Quantise parts of a model by a recipe (the parameters', where none is given) and set the new scales from training slices, in the number format of training.

    Without further training this is post-training quantisation."""
    device, recipe = device_of(params), find_recipe(recipe or params.recipe)
    model = model.to(device)
    data = make_data(params, data_folder, model)
    loader = DataLoader(data.train, CALIBRATION_BATCH, sampler=data.sampler.epoch_slices().tolist())

    def run(m: Sam, batch: dict) -> object:
        return m(batch["image"].to(device), batch["box"].to(device))

    with autocast_for(model, device):
        if recipe.centred and "decoder" in parts:
            model = centre_cells(model, run, loader, recipe.statistics_batches)
        model = quantize(model, recipe, parts)
        calibrate(model, run, loader)
    return model.to("cpu")


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
    `pretrain`."""
    if params.float_data == "open" and rank() == 0:
        log(f"drawing {params.phantom_cases} phantoms, or keeping those already there")
        write_phantoms(data_folder / "float_phantoms", params.phantom_cases, params.seed + 1, imbalance=0, processes=os.cpu_count() or 1)
    if dist.is_initialized():
        dist.barrier()
    sources, device = float_sources(params, data_folder), device_of(params)
    model = build_model(params.model, params.image_size, parent, params.seed)
    masks = model.mask_size / model.image_size
    behind = inherited(parent) if parent else {}
    work = Pretraining(
        parse_phases(params.float_phases),
        lambda size, boxes: PromptDataset(sources, size, round(masks * size), boxes, params.seed),
        lambda size: evaluation_batches(params, data_folder, size, round(masks * size)),
        fingerprint(params, 0, parent, None, data_folder),
        device,
        {"phases": list(params.float_phases), "float_data": params.float_data, "seed": params.seed, "machine": machine(device)} | behind,
        [Phase.parse(phase) for phase in behind.get("parent_phases", [])],
    )
    if rank() == 0:
        keep_parent_history(parent, folder)
    return pretrain(model, work, folder, log)


def keep_parent_history(parent: Path | None, folder: Path) -> None:
    """Copy the history that lies beside a parent, with that of its own parent before it, to `folder`; nothing of an earlier training's stays there."""
    told = history_beside(parent) if parent else None
    if told is None:
        (folder / PARENT_HISTORY).unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / PARENT_HISTORY, lambda file: told.to_csv(file, index=False))


def history_beside(weights: Path) -> pd.DataFrame | None:
    """The whole history of given weights, of an edition or of a training's, where it lies beside them."""
    if edition_of(weights):
        return pd.read_csv(weights.with_name(HISTORY.name))
    return whole_history(weights.parent) if (weights.parent / "history.csv").is_file() else None


def inherited(parent: Path) -> dict:
    """What a description says about the weights that a training began with: their SHA-256, and how they were trained in turn, as far as they tell."""
    try:
        facts = describe_model(parent)
    except CheckpointError:  # an edition, or weights from elsewhere
        facts = edition_of(parent)
    machines = [*facts.get("parent_machines", []), *([facts["machine"]] if "machine" in facts else [])]
    return {"parent": sha256(parent), "parent_phases": [*facts.get("parent_phases", []), *facts.get("phases", [])], "parent_machines": machines}


def make_float_baseline(
    params: Params, data_folder: Path, folder: Path, log: Callable[[str], None] = print
) -> tuple[Path, pd.DataFrame]:
    """The float parent of all quantised models: the given checkpoint, or one trained here.

    Args:
        data_folder: of notebook 00. folder: gets `model.safetensors`, and `history.csv` with one row an evaluation, a single one for a given checkpoint.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or of another model.
    """
    if params.float_checkpoint is None and params.float_phases:
        return launch_stage(params, 0, data_folder, folder, log=log)
    model = public_model(params.model, params.image_size, params.float_checkpoint, params.seed)
    folder.mkdir(parents=True, exist_ok=True)
    score = evaluate(model, evaluation_batches(params, data_folder, model.image_size, model.mask_size))
    origin = params.float_checkpoint or f"random weights, seed {params.seed}"
    save_model(model, folder / "model.safetensors", origin=origin, stage=0, eval_dsc=score)
    history = [{"stage": 0, "epoch": 0, "eval_dsc": score, "samples": 0, "seconds": 0.0, "best": True}]
    write_history(folder, history)
    return folder / "model.safetensors", pd.DataFrame(history)


def how_trained(params: Params, history: pd.DataFrame) -> pd.DataFrame:
    """The history of the float parent's training: `history` of `make_float_baseline`, or the bundled checkpoint's own where that was taken."""
    return pd.read_csv(HISTORY) if params.float_checkpoint == BUNDLED and HISTORY.is_file() else history


def run_stage(
    params: Params,
    number: int,
    data_folder: Path,
    folder: Path,
    parent: Path | None = None,
    float_model: Path | None = None,
    strategy: str | int | None = None,
    log: Callable[[str], None] = print,
) -> tuple[Path, pd.DataFrame]:
    """Run one stage in this process (one of several under torchrun).

    Args:
        number: 0 for the float baseline, or 1 to 3, see `STAGES`.
        data_folder: of notebook 00. folder: gets checkpoint and history, see `fit` and `pretrain`.
        parent: checkpoint to start from; stage 0 starts from random weights without one.
        float_model: the float parent, teacher of stage one where no MedSAM is given.
        strategy: see `make_data`.

    Returns:
        Path of the checkpoint that goes on, and the history.

    Raises:
        CheckpointError: a parent, or a teacher, that is missing or does not fit.
        TrainingError: a loss that is not finite, or a folder that cannot be written.
    """
    with writing(folder / f"trial-{rank()}") as trial:  # told now, not after the first epoch
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
    trial.with_suffix("").unlink()
    if number == 0:
        return train_float(params, data_folder, folder, log, parent)
    stage = STAGES[number]
    model = load_model(parent)
    if stage.quantises:
        model = quantise_and_calibrate(model, params, stage.quantises, data_folder)
    data = make_data(params, data_folder, model, strategy)
    cache = EmbeddingCache(data_folder / "embeddings")
    teacher, encoder, taught_by = None, None, describe_model(parent).get("teacher", "")
    if stage.distils or (number == 3 and "distillation" in params.released):
        teacher, taught_by = make_teacher(params, float_model, cache)
    if "image_encoder" not in stage.trains and "frozen_statistics" not in params.released:
        encoder = CachedEncoder(model, device_of(params), cache)
    job = Job(
        stage, schedule_of(params), params.batch_size[number - 1], fingerprint(params, number, parent, strategy, data_folder),
        device_of(params), params.released, {"teacher": taught_by} if taught_by else {},
    )  # fmt: skip
    return fit(model, data, job, folder, teacher, encoder, log)


def fingerprint(params: Params, number: int, parent: Path | None, strategy: str | int | None, data_folder: Path) -> str:
    """Identity of a stage's work: interrupted progress is taken up only by the same work."""
    facts = [
        params.model_dump(mode="json", exclude=NOT_THE_WORK),
        number,
        strategy,
        parent and sha256(parent),
        sha256(data_folder / "index_train.npz"),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def launch_stage(params: Params, number: int, data_folder: Path, folder: Path, **options) -> tuple[Path, pd.DataFrame]:
    """`run_stage`, in this process or, where `params.processes` asks for more, in that many under torchrun; same arguments and result.

    Raises:
        RuntimeError: torchrun failed; its output has been printed.
    """
    if params.processes == 1:
        return run_stage(params, number, data_folder, folder, **options)
    log = options.get("log", print)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
        yaml.safe_dump(params.model_dump(mode="json"), file)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={params.processes}",
        "-m",
        "qmsam_core.train",
        file.name,
    ]
    command += ["--stage", str(number), "--data", str(data_folder), "-o", str(folder)]
    for name in ("parent", "float_model", "strategy"):
        if options.get(name) is not None:
            command += [f"--{name.replace('_', '-')}", str(options[name])]
    try:
        done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in done.stdout:
            log(line.rstrip())
        if done.wait():
            raise RuntimeError(
                f"stage {number}: torchrun of {params.processes} processes ended with exit code {done.returncode}; see above"
            )
    finally:
        Path(file.name).unlink()
    return folder / "model.safetensors", pd.read_csv(folder / "history.csv")
