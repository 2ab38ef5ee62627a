"""One stage from files to files: parent model and index in, best checkpoint and history out; in this process or under torchrun."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data.index import SliceIndex
from ..data.slices import ModalityBalancedSampler, SliceDataset
from ..data.transforms import EvalTransform, TrainTransform
from ..models import CONFIGS, Sam, build_model
from ..params import Params
from ..provenance import sha256
from ..quant import calibrate, load_model, quantize, save_model
from .loop import Data, Job, evaluate, fit, rank, write_history
from .stages import STAGES, Stage, schedule_of

EVALUATION_SLICES = 8  # a modality and epoch: enough to rank epochs by; the tables of the study score whole cases
CALIBRATION_BATCH = 4
FLOAT_SAMPLES = 25  # slices a modality and epoch of the float baseline, whatever the size of the data
FLOAT_BATCH = 8  # the paper gives batch sizes of the quantised stages only


class Teacher:
    """A frozen float model whose embeddings the student of stage one learns to give.

    Args:
        model: the float parent, or MedSAM, whose larger input is filled by enlarging the student's.
    """

    def __init__(self, model: Sam, device: str) -> None:
        self.model = model.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, images: Tensor, boxes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Images (B, 3, S, S) -> embeddings (B, C, g, g), and mask logits at the student's size where boxes (B, 4) are given."""
        size = self.model.image_size
        factor = size / images.shape[-1]
        if factor != 1:
            images = nn.functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        embeddings = self.model.image_encoder(images)
        return embeddings, None if boxes is None else self.model.decode(embeddings, boxes * factor)[0]


def make_teacher(params: Params, float_model: Path) -> tuple[Teacher, str]:
    """The teacher of stage one and its name for the tables: MedSAM's ViT-B where the parameters name one, else the float parent itself.

    Raises:
        ValueError: MedSAM's embedding grid does not have the student's shape; CheckpointError: its file does not fit.
    """
    device = device_of(params)
    if params.teacher == "medsam":
        student, medsam = CONFIGS[params.model], CONFIGS["medsam"]
        grids = (params.image_size // student.encoder.stride, medsam.image_size // medsam.encoder.stride)
        if (student.dim, grids[0]) != (medsam.dim, grids[1]):
            raise ValueError(
                f"teacher: medsam gives embeddings of {medsam.dim} x {grids[1]} x {grids[1]}, the student {params.model} at {params.image_size} px "
                f"{student.dim} x {grids[0]} x {grids[0]}; use litemedsam at 256 px, or teacher: self"
            )
        model = build_model("medsam", checkpoint=params.teacher_checkpoint)
        return Teacher(model, device), "MedSAM ViT-B"
    return Teacher(load_model(float_model), device), "the float parent"


def device_of(params: Params) -> str:
    """`cpu`, or this process's GPU where the parameters ask for one, or leave it open and there is one."""
    wanted = params.device == "cuda" or (params.device == "auto" and torch.cuda.is_available())
    if not wanted:
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError("device: cuda, but PyTorch sees no GPU here; use device: auto or cpu")
    return f"cuda:{rank() % torch.cuda.device_count()}"


def interpolation_of(params: Params, training: bool) -> str:
    """How slices are resized: area, as the public checkpoint was trained; the released code trains with nearest and deploys with cubic."""
    if "resize" not in params.released:
        return "area"
    return "nearest" if training else "cubic"


def make_data(params: Params, stage: Stage, folder: Path, model: Sam, strategy: str | int | None = None) -> Data:
    """Training slices, the epoch's sampler and the evaluation batches of a stage.

    Args:
        folder: of notebook 00, with `index_train.npz` and `index_evaluation.npz`.
        strategy: see `samples_per_modality`; None takes Ns of the parameters, or the paper's min rule. The float baseline, which has everything to
            learn, takes `FLOAT_SAMPLES` of each modality, again and again where there are fewer.
    """
    train, held_out = (SliceIndex.load(folder / f"index_{part}.npz") for part in ("train", "evaluation"))
    chosen = strategy or (FLOAT_SAMPLES if stage.number == 0 else params.samples_per_modality or "min")
    world = dist.get_world_size() if dist.is_initialized() else 1
    sampler = ModalityBalancedSampler(train, chosen, params.seed, rank(), world)
    judged = SliceDataset(
        held_out, EvalTransform(params.image_size, model.mask_size, interpolation_of(params, False)), params.seed
    )
    fixed = ModalityBalancedSampler(held_out, EVALUATION_SLICES, params.seed)
    transform = TrainTransform(params.image_size, model.mask_size, interpolation_of(params, True))
    return Data(
        SliceDataset(train, transform, params.seed),
        sampler,
        DataLoader(judged, 8, sampler=sorted(set(fixed.epoch_slices().tolist()))),
    )


def prepare_model(params: Params, stage: Stage, parent: Path | None, data_folder: Path) -> Sam:
    """The model a stage starts from: the parent's, quantised where the stage says, its new scales set from training slices.

    Raises:
        CheckpointError: a parent that is missing or does not fit.
    """
    if parent is None:
        return build_model(params.model, params.image_size, params.float_checkpoint, params.seed)
    model = load_model(parent)
    return quantise_and_calibrate(model, params, stage.quantises, data_folder) if stage.quantises else model


def quantise_and_calibrate(model: Sam, params: Params, parts: tuple[str, ...], data_folder: Path) -> Sam:
    """Quantise parts of a model by the parameters' recipe and set the new scales from training slices; without further training this is post-training quantisation."""
    model = quantize(model, params.recipe, parts)
    data = make_data(params, STAGES[1], data_folder, model)
    loader = DataLoader(data.train, CALIBRATION_BATCH, sampler=data.sampler.epoch_slices().tolist())
    calibrate(model, lambda m, batch: m(batch["image"], batch["box"]), loader)
    return model


def make_float_baseline(
    params: Params, data_folder: Path, folder: Path, log: Callable[[str], None] = print
) -> tuple[Path, pd.DataFrame]:
    """The float parent of all quantised models: the given checkpoint, or one trained here.

    Args:
        data_folder: of notebook 00. folder: gets `model.safetensors`, and `history.csv` with one row an epoch, a single one for a given checkpoint.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or of another model.
    """
    if params.float_checkpoint is None and params.float_epochs > 0:
        return launch_stage(params, 0, data_folder, folder, log=log)
    model = build_model(params.model, params.image_size, params.float_checkpoint, params.seed)
    folder.mkdir(parents=True, exist_ok=True)
    score = evaluate(model, make_data(params, STAGES[0], data_folder, model).evaluation)
    origin = params.float_checkpoint or f"random weights, seed {params.seed}"
    save_model(model, folder / "model.safetensors", origin=origin, stage=0, eval_dsc=score)
    history = [{"stage": 0, "epoch": 0, "eval_dsc": score, "samples": 0, "seconds": 0.0, "best": True}]
    write_history(folder, history)
    return folder / "model.safetensors", pd.DataFrame(history)


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
        number: 0 to 3, see `STAGES`.
        data_folder: of notebook 00. folder: gets checkpoint and history, see `fit`.
        parent: checkpoint to start from; None only for stage 0.
        float_model: the float parent, teacher of stage one where no MedSAM is given.
        strategy: see `make_data`.

    Returns:
        Path of the checkpoint that goes on, and the history.
    """
    stage = STAGES[number]
    folder.mkdir(parents=True, exist_ok=True)
    model = prepare_model(params, stage, parent, data_folder)
    data = make_data(params, stage, data_folder, model, strategy)
    teacher, taught_by = None, ""
    if stage.distils or (number == 3 and "distillation" in params.released):
        teacher, taught_by = make_teacher(params, float_model)
    job = Job(
        stage, schedule_of(stage, params), FLOAT_BATCH if number == 0 else params.batch_size[number - 1], fingerprint(params, number, parent, strategy, data_folder),
        device_of(params), params.released, {"teacher": taught_by} if taught_by else {},
    )  # fmt: skip
    return fit(model, data, job, folder, teacher, log)


def fingerprint(params: Params, number: int, parent: Path | None, strategy: str | int | None, data_folder: Path) -> str:
    """Identity of a stage's work: interrupted progress is taken up only by the same work."""
    facts = [
        params.model_dump(mode="json", exclude={"threads", "benchmark_runs", "decode_block"}),
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
