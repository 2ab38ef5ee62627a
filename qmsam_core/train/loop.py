"""The training loop: train one stage on any number of processes and keep the best checkpoint.

An interrupted run can be resumed inside an epoch.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Sampler

from ..data.slices import SliceDataset
from ..models import Sam
from ..quant.scales import inactive_quantisers
from ..quant.sensitivity import mask_agreement
from .loading import loader_options
from .precision import autocast_for, channels_last
from .processes import rank, world_size
from .progress import (
    LOG_SECONDS,
    MODEL,
    PROGRESS,
    SAVE_SECONDS,
    finish,
    load_progress,
    save_progress,
    save_weights,
    write_history,
)
from .teacher import CachedEncoder, Teacher
from .trainer import Job, Trainer, TrainingError


@dataclass
class Data:
    """Training and evaluation data of a stage.

    Attributes:
        train: slices to learn from.
        sampler: draws the slices of an epoch from `train`.
        evaluation: batches on which every epoch is scored.
    """

    train: SliceDataset
    sampler: Sampler
    evaluation: Iterable[dict]


@dataclass
class Progress:
    """How far an epoch has come.

    Attributes:
        step: steps done.
        sums: sum over these steps of each loss, by name.
        seen: samples that this process has seen.
        seconds: time spent.
        waited: seconds of it spent waiting for samples.
    """

    step: int
    sums: dict[str, float]
    seen: int
    seconds: float
    waited: float


def train_epoch(
    trainer: Trainer,
    data: Data,
    epoch: int,
    begun: Progress | None,
    save: Callable[[Progress], None],
    log: Callable[[str], None],
) -> dict[str, float]:
    """Train for one epoch, or for the rest of an epoch that was interrupted.

    Args:
        trainer: makes the steps.
        data: training slices and sampler.
        epoch: counted from 0.
        begun: progress of the interrupted epoch; None starts the epoch at its first step.
        save: stores the progress; called between two steps, at most once per `SAVE_SECONDS`.
        log: takes one line at a time.

    Returns:
        The mean of each loss by name, `samples` (seen by all processes), `seconds`, and `loading_seconds`
        (part of `seconds` spent waiting for samples).

    Raises:
        TrainingError: a loss is not finite. The message names the samples.
    """
    job, at = trainer.job, begun or Progress(0, {}, 0, 0.0, 0.0)
    data.sampler.set_epoch(epoch)
    data.train.set_epoch(epoch)
    numbers, world = list(data.sampler), world_size()
    steps = -(-len(numbers) // job.batch_size)
    if world > 1:  # every rank must make the same number of steps
        steps = max(1, sum(data.sampler.samples.values()) // world // job.batch_size)
    loader = DataLoader(
        data.train, job.batch_size, sampler=numbers[at.step * job.batch_size :], **loader_options(job.device)
    )
    started = time.perf_counter() - at.seconds
    logged = saved = waiting_since = time.perf_counter()
    for _, batch in zip(range(at.step, steps), loader):
        at.waited += time.perf_counter() - waiting_since
        try:
            losses = trainer.step(batch)
        except TrainingError as error:
            where = f"stage {job.stage.number}, epoch {epoch}, step {at.step}"
            raise TrainingError(f"{where}: {error}; the last good epoch is kept") from None
        at.step, at.seen = at.step + 1, at.seen + len(batch["name"])
        at.sums = {name: at.sums.get(name, 0.0) + value for name, value in losses.items()}
        at.seconds = time.perf_counter() - started
        if time.perf_counter() - logged > LOG_SECONDS:
            logged = time.perf_counter()
            log(
                f"stage {job.stage.number} epoch {epoch + 1}: step {at.step}/{steps}, "
                f"loss {at.sums['loss'] / at.step:.4f}"
            )
        if time.perf_counter() - saved >= SAVE_SECONDS and at.step < steps:
            save(at)
            saved = time.perf_counter()
        waiting_since = time.perf_counter()
    means = mean_over_processes({name: value / at.step for name, value in at.sums.items()}, job.device)
    return {**means, "samples": at.seen * world, "seconds": at.seconds, "loading_seconds": at.waited}


def mean_over_processes(values: dict[str, float], device: str) -> dict[str, float]:
    """Average each value over all training processes; each must call this, with the same names."""
    if not dist.is_initialized():
        return values
    together = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(together)
    return dict(zip(values, (together / world_size()).tolist()))


def evaluate(model: Sam, batches: Iterable[dict], device: str = "cpu") -> float:
    """Compute the mean DSC (0..1) with the labels; see `mean_dice`."""
    return mean_dice(model, batches, device)["mask"]


@torch.no_grad()
def mean_dice(
    model: Sam, batches: Iterable[dict], device: str = "cpu", targets: tuple[str, ...] = ("mask",)
) -> dict[str, float]:
    """Compute the mean Dice (0..1) with each target at the size of the low-res mask.

    The mean is taken over the slices of each modality, then over the modalities without weights. bf16 is used
    where training uses it (`autocast_for`), in half to two thirds of the time. That is accurate enough to
    rank epochs and recipes. The study's accuracy tables score whole cases with the exported models.

    All training processes must call this. Each scores its own batches and gets the mean over all processes.

    Args:
        model: on `device`. It is scored in evaluation mode; the modes of its modules are restored afterwards.
        batches: with `image`, `box`, `modality` and the targets (at the low-res mask's size).
        targets: keys of masks in a batch: `mask` is the label, `float_mask` that of `with_float_masks`.

    Raises:
        ValueError: a quantiser of the model is switched off or has no scale, so that the score would be that
            of another model.
    """
    if idle := inactive_quantisers(model):
        raise ValueError(
            f"{len(idle)} quantisers of the model are switched off or have no scale, {idle[0]} among them; "
            "expected all to be active: calibrate the model first"
        )
    modes = {m: m.training for m in model.modules()}
    channels_last(model.eval())
    scores: dict[tuple[str, str], list[float]] = {}
    for batch in batches:
        with autocast_for(model, device):
            logits, _, _ = model(channels_last(batch["image"].to(device)), batch["box"].to(device))
        for target in targets:
            dice = mask_agreement(logits > 0, batch[target].to(device) > 0.5).tolist()
            for modality, value in zip(batch["modality"], dice):
                scores.setdefault((target, modality), []).append(value)
    for module, mode in modes.items():
        module.training = mode
    if dist.is_initialized():
        parts: list[dict] = [{} for _ in range(world_size())]
        dist.all_gather_object(parts, scores)
        scores = {m: sum((part.get(m, []) for part in parts), []) for m in sorted(set().union(*parts))}
    means = {target: [sum(v) / len(v) for (t, _), v in scores.items() if t == target] for target in targets}
    return {target: sum(found) / max(len(found), 1) for target, found in means.items()}


def with_float_masks(batches: Iterable[dict], teacher: Teacher, device: str) -> list[dict]:
    """Add to each batch, as `float_mask` (B, 1, M, M) bool, what the float teacher makes of it."""
    return [
        batch | {"float_mask": teacher(batch["image"].to(device), batch["box"].to(device))[1].cpu() > 0}
        for batch in batches
    ]


def fit(
    model: Sam,
    data: Data,
    job: Job,
    folder: Path,
    teacher: Teacher | None = None,
    encoder: CachedEncoder | None = None,
    log: Callable[[str], None] = print,
) -> tuple[Path, pd.DataFrame]:
    """Train one stage and keep its best epoch.

    Args:
        model: quantised and calibrated for the stage; trained in place.
        data: see `Data`.
        job: see `Job`. An interrupted run of the same fingerprint is resumed, also inside an epoch.
        folder: receives `model.safetensors` (the kept epoch) and `history.csv`. It also holds `progress.pt`
            during training. At the end it receives the mark that `finished` reads.
        teacher: see `Teacher`. If the job imitates it, the epoch that agrees best with its masks is kept,
            or the untrained model if that agrees better.
        encoder: computes the embeddings if the model's image encoder is frozen, see `CachedEncoder`.
        log: takes one line at a time.

    Returns:
        The path of the kept checkpoint, and the history with one row per epoch.

    Raises:
        TrainingError: a loss is not finite, or a file cannot be written.
    """
    # before the optimiser is made, because Brevitas replaces its scale parameters on loading
    begun, optimizer = resume(model, job, folder, log)
    trainer = Trainer(model, job, teacher, encoder)
    if optimizer:
        trainer.optimizer.load_state_dict(optimizer)
    judge = Judge(job, data.evaluation, teacher, log)
    if begun.start is None:
        begun.start = judge.start(model)
        keep_start(model, job, folder, begun.start, log)

    def save(epoch: Progress | None) -> None:
        if rank() == 0:
            save_progress(
                folder / PROGRESS,
                fingerprint=job.fingerprint,
                model=model.state_dict(),
                optimizer=trainer.optimizer.state_dict(),
                start=begun.start,
                history=json.dumps(begun.history),
                epoch=vars(epoch) if epoch else None,
            )

    for epoch in range(len(begun.history), job.schedule.epochs):
        rate = trainer.set_rate(epoch)
        row = {"stage": job.stage.number, "epoch": epoch, "learning_rate": rate}
        row |= train_epoch(trainer, data, epoch, begun.epoch, save, log) | judge(model)
        row |= {f"start_{name.removeprefix('eval_')}": value for name, value in begun.start.items()}
        earlier = [begun.start.get(judge.column, -1.0), *(h[judge.column] for h in begun.history)]
        row["best"] = row[judge.column] > max(earlier) or "checkpoint" in job.released
        begun.history.append(row)
        begun.epoch = None
        if rank() == 0:
            keep_epoch(model, job, folder, begun.history)
            save(None)
            log(describe(row, job))
        if dist.is_initialized():
            dist.barrier()
    if rank() == 0:
        finish(folder, job.fingerprint)
    return folder / MODEL, pd.DataFrame(begun.history)


class Judge:
    """Scores a model on the evaluation slices.

    Attributes:
        column: name of the score that chooses the epoch: the DSC with the labels, or for a job that imitates
            the agreement with the teacher's masks.
    """

    def __init__(
        self, job: Job, evaluation: Iterable[dict], teacher: Teacher | None, log: Callable[[str], None]
    ) -> None:
        self._job, self._evaluation, self._targets = job, evaluation, {"eval_dsc": "mask"}
        if job.imitates:
            log(f"stage {job.stage.number}: computes the float model's masks of the evaluation slices")
            self._targets["eval_agreement"] = "float_mask"
            self._evaluation = with_float_masks(evaluation, teacher, job.device)
        self.column = list(self._targets)[-1]

    def __call__(self, model: Sam) -> dict[str, float]:
        """Compute the mean Dice (0..1) by target; see `mean_dice`."""
        found = mean_dice(model, self._evaluation, self._job.device, tuple(self._targets.values()))
        return {name: found[target] for name, target in self._targets.items()}

    def start(self, model: Sam) -> dict[str, float]:
        """Score the model before training if the job imitates; else return {}.

        Such a model is calibrated and already close to its teacher, so training may also lead away from it.
        A model that learns from labels is new to its task, and is chosen among the trained ones.
        """
        return self(model) if self._job.imitates else {}


@dataclass
class Begun:
    """What an interrupted run of a job has left.

    Attributes:
        start: scores before training, see `Judge.start`; None if not yet known.
        history: a row for each finished epoch.
        epoch: progress of the epoch that was interrupted, None if none was.
    """

    start: dict[str, float] | None
    history: list[dict]
    epoch: Progress | None


def resume(model: Sam, job: Job, folder: Path, log: Callable[[str], None]) -> tuple[Begun, dict | None]:
    """Put what an interrupted run of the same job has learned into the model.

    Returns:
        What it has left, and the optimiser's state, None if there is nothing.
    """
    state = load_progress(folder / PROGRESS, job.fingerprint, log)
    if state is None:
        return Begun(None, [], None), None
    model.load_state_dict(state["model"])
    epoch = Progress(**state["epoch"]) if state["epoch"] else None
    begun = Begun(state["start"], json.loads(state["history"]), epoch)
    steps = f" and {epoch.step} steps" if epoch else ""
    log(f"stage {job.stage.number}: resumed after epoch {len(begun.history)}{steps}")
    return begun, state["optimizer"]


def keep_start(
    model: Sam, job: Job, folder: Path, scores: dict[str, float], log: Callable[[str], None]
) -> None:
    """Write the untrained model, which stays if no epoch is better. Nothing is done without scores."""
    if rank() or not scores:
        return
    log(f"stage {job.stage.number} before training: {scored(scores)}")
    save_weights(
        model, folder / MODEL, stage=job.stage.number, epoch=None, eval_dsc=scores["eval_dsc"], **job.facts
    )


def keep_epoch(model: Sam, job: Job, folder: Path, history: list[dict]) -> None:
    """Write the history, and the model if the last epoch is marked best; raise TrainingError on failure."""
    row = history[-1]
    if row["best"]:
        save_weights(
            model,
            folder / MODEL,
            stage=job.stage.number,
            epoch=row["epoch"],
            eval_dsc=row["eval_dsc"],
            **job.facts,
        )
    write_history(folder, history)


def scored(row: dict) -> str:
    """Format the scores of a model for the log."""
    agreed = f", agreement {100 * row['eval_agreement']:.2f} %" if "eval_agreement" in row else ""
    return f"eval DSC {100 * row['eval_dsc']:.2f} %{agreed}"


def describe(row: dict, job: Job) -> str:
    """Format one row of the history as a line of the log."""
    distilled = f", distillation {row['distillation_loss']:.5f}" if "distillation_loss" in row else ""
    mark = " *" if row["best"] else ""
    return (
        f"stage {row['stage']} epoch {row['epoch'] + 1}/{job.schedule.epochs}: "
        f"lr {row['learning_rate']:.5f}, loss {row['loss']:.4f}{distilled}, {scored(row)}, "
        f"{row['samples']} samples in {row['seconds']:.0f} s{mark}"
    )
