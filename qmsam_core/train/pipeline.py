"""Run one training stage from files to files, in this process or under torchrun.

The inputs are the parent model and the slice indices. The outputs are the kept checkpoint and the history.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import yaml

from ..data.sampling import Strategy
from ..models import CONFIGS, CheckpointError, build_model, checkpoint_path
from ..params import Params
from ..provenance.files import sha256
from ..quant import describe_model, load_model, quantize
from ..quant.scales import finish_statistics
from .calibration import quantise_and_calibrate
from .fingerprint import fingerprint, has_teacher
from .judge import evaluate
from .loop import fit
from .processes import check_gpus, device_of, rank, uses_gpu
from .progress import MARK, MODEL, PROGRESS, finished, load_progress, save_weights, writing
from .stage_data import evaluation_batches, make_data
from .stages import STAGES, Stage, schedule_of, teacher_name
from .teacher import CachedEncoder, EmbeddingCache, Teacher
from .trainer import Job

WHERE_MEDSAM_IS = (
    "the README of the official MedSAM repository (bowang-lab) links medsam_vit_b.pth; or teacher: self"
)


def make_teacher(params: Params, float_model: Path, cache: EmbeddingCache) -> tuple[Teacher, str]:
    """Load the teacher of stage one and return it with its name for the tables.

    Args:
        params: `teacher` is `self` for the float parent, or the path of MedSAM's ViT-B.
        float_model: checkpoint of the float parent.
        cache: stores the teacher's embeddings.

    Raises:
        ValueError: the shapes of MedSAM's and the student's embeddings differ.
        CheckpointError: MedSAM's file is missing, damaged or of another network.
    """
    device = device_of(params)
    if params.teacher != "self":
        student, medsam = CONFIGS[params.model], CONFIGS["medsam"]
        grids = (
            student.encoder.embedding_grid(params.image_size),
            medsam.encoder.embedding_grid(medsam.image_size),
        )
        if (student.dim, grids[0]) != (medsam.dim, grids[1]):
            raise ValueError(
                f"teacher: MedSAM gives embeddings of {medsam.dim} x {grids[1]} x {grids[1]}, "
                f"the student {params.model} at {params.image_size} px "
                f"{student.dim} x {grids[0]} x {grids[0]}; use litemedsam at 256 px, or teacher: self"
            )
        try:
            medsam = build_model("medsam", checkpoint=params.teacher)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {WHERE_MEDSAM_IS}") from error
        return Teacher(medsam, device, cache), teacher_name(params)
    return Teacher(load_model(float_model), device, cache), teacher_name(params)


def make_float_baseline(params: Params, data_folder: Path, folder: Path) -> tuple[Path, float]:
    """Write the float parent of all quantised models, at the run's input size, as `folder/model.safetensors`.

    All training processes must call this. The first one writes the file.

    Args:
        params: `float_checkpoint` names the source of the weights.
        data_folder: output folder of notebook 00.
        folder: made if absent.

    Returns:
        Path of the model, and its mean DSC (0..1) on the slices that score every epoch.

    Raises:
        CheckpointError: the weights are missing, damaged or of another network.
        TrainingError: the folder cannot be written.
    """
    path = checkpoint_path(params.float_checkpoint, params.model)
    model = build_model(params.model, params.image_size, path)
    score = evaluate(model, evaluation_batches(params, data_folder, model.image_size, model.mask_size))
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(
            model, folder / MODEL, origin=params.float_checkpoint, origin_sha256=sha256(path), eval_dsc=score
        )
    return folder / MODEL, score


def run_stage(
    params: Params,
    number: int,
    data_folder: Path,
    folder: Path,
    parent: Path,
    float_model: Path | None = None,
    strategy: Strategy | None = None,
    log: Callable[[str], None] = print,
) -> tuple[Path, pd.DataFrame]:
    """Run one stage in this process, which may be one of several under torchrun.

    If the same job is already finished in `folder`, its result is returned without training.

    Args:
        number: 1 to 3, see `STAGES`.
        data_folder: output folder of notebook 00.
        folder: receives checkpoint and history, see `fit`.
        parent: checkpoint to start from.
        float_model: the float parent, which is the teacher of stage one if no MedSAM is given.
        strategy: see `make_data`.

    Returns:
        Path of the kept checkpoint, and the history.

    Raises:
        CheckpointError: the parent or the teacher is missing or does not fit.
        TrainingError: a loss is not finite, or the folder cannot be written.
    """
    trial = folder / f"trial-{rank()}"
    with writing(trial) as partial:  # fail now, not after the first epoch, if the folder cannot be written
        folder.mkdir(parents=True, exist_ok=True)
        partial.touch()
    trial.unlink()
    work = fingerprint(params, number, parent, strategy, data_folder, float_model)
    if (done := finished(folder, work, log)) is not None:
        return done
    if rank() == 0:
        (folder / MARK).unlink(missing_ok=True)
    stage = STAGES[number]
    model = load_model(parent)
    if stage.quantises and load_progress(folder / PROGRESS, work, log=lambda _: None) is not None:
        model = quantize(model, params.recipe, stage.quantises)
        finish_statistics(model)  # the scales are in the progress, which `fit` takes up
    elif stage.quantises:
        log(f"stage {number}: quantises and calibrates the {' and the '.join(stage.quantises)}")
        model = quantise_and_calibrate(model, params, stage.quantises, data_folder)
    data = make_data(params, data_folder, model, strategy)
    cache = EmbeddingCache(data_folder / "embeddings")
    teacher, encoder, taught_by = None, None, describe_model(parent).get("teacher", "")
    if has_teacher(params, number):
        teacher, taught_by = make_teacher(params, float_model, cache)
    if "image_encoder" not in stage.trains and "frozen_statistics" not in params.released:
        encoder = CachedEncoder(model, device_of(params), cache)
    before = {key: value for key, value in describe_model(parent).items() if key in ("samples", "hours")}
    job = make_job(params, stage, work, before | ({"teacher": taught_by} if taught_by else {}))
    return fit(model, data, job, folder, teacher, encoder, log)


def make_job(params: Params, stage: Stage, work: str, facts: dict) -> Job:
    """Collect the settings of a stage's job from the parameters; `work` is its fingerprint."""
    return Job(
        stage,
        schedule_of(params),
        params.batch_size[stage.number - 1],
        work,
        device_of(params),
        params.released,
        params.optimizer,
        params.scale_rate,
        params.learns_from == "float",
        facts,
    )


def launch_stage(
    params: Params, number: int, data_folder: Path, folder: Path, **options
) -> tuple[Path, pd.DataFrame]:
    """Call `run_stage`, in this process or in `params.processes` processes under torchrun.

    Arguments and result are those of `run_stage`.

    Raises:
        ValueError: training uses GPUs, and there are more processes than GPUs.
        RuntimeError: torchrun failed. Its output has gone to `log`.
    """
    if params.processes == 1:
        return run_stage(params, number, data_folder, folder, **options)
    if uses_gpu(params):
        check_gpus(params.processes)
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
                f"stage {number}: torchrun of {params.processes} processes "
                f"ended with exit code {done.returncode}; see above"
            )
    finally:
        Path(file.name).unlink()
    return folder / "model.safetensors", pd.read_csv(folder / "history.csv")
