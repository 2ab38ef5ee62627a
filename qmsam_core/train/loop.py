"""The training loop: train one stage on any number of processes and keep the best checkpoint.

An interrupted run can be resumed inside an epoch.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pandas as pd
import torch.distributed as dist
from torch.utils.data import DataLoader, Sampler

from ..data.slices import SliceDataset
from ..models import Sam
from .judge import Judge, scored
from .loading import loader_options
from .processes import mean_over_processes, rank, world_size
from .progress import (
    HISTORY,
    LOG_SECONDS,
    MODEL,
    PROGRESS,
    SAVE_SECONDS,
    finish,
    load_progress,
    save_progress,
    save_weights,
    write_table,
)
from .steps import StepRecord
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
        seen: samples that this process has seen.
        seconds: time spent.
        waited: seconds of it spent waiting for samples.
    """

    step: int
    seen: int
    seconds: float
    waited: float


def train_epoch(
    trainer: Trainer,
    data: Data,
    epoch: int,
    begun: Progress | None,
    record: StepRecord,
    save: Callable[[Progress], None],
    log: Callable[[str], None],
) -> dict[str, float]:
    """Train for one epoch, or for the rest of an epoch that was interrupted.

    Args:
        trainer: makes the steps.
        data: training slices and sampler.
        epoch: counted from 0.
        begun: progress of the interrupted epoch; None starts the epoch at its first step.
        record: receives the losses of each step and the scales; see `StepRecord`. It holds those of the
            epoch's steps that were done before.
        save: stores the progress; called between two steps, at most once per `SAVE_SECONDS`.
        log: takes one line at a time.

    Returns:
        The mean of each loss by name, `samples` (seen by all processes), `seconds`, and `loading_seconds`
        (part of `seconds` spent waiting for samples).

    Raises:
        TrainingError: a loss is not finite. The message names the samples.
    """
    job, at = trainer.job, begun or Progress(0, 0, 0.0, 0.0)
    loader, steps = batches_of_epoch(data, epoch, job, at.step)
    started = time.perf_counter() - at.seconds
    logged = saved = waiting_since = time.perf_counter()
    record.keep_scales(trainer.model)
    for _, batch in zip(range(at.step, steps), loader):
        at.waited += time.perf_counter() - waiting_since
        try:
            losses = trainer.step(batch)
        except TrainingError as error:
            where = f"stage {job.stage.number}, epoch {epoch}, step {at.step}"
            raise TrainingError(f"{where}: {error}; the last good epoch is kept") from None
        at.step, at.seen = at.step + 1, at.seen + len(batch["name"])
        record.add(epoch, losses)
        record.keep_scales(trainer.model)
        at.seconds = time.perf_counter() - started
        if time.perf_counter() - logged > LOG_SECONDS:
            logged = time.perf_counter()
            log(
                f"stage {job.stage.number} epoch {epoch + 1}: step {at.step}/{steps}, "
                f"loss {fmean(record.of_epoch(epoch)['loss']):.4f}"
            )
        if time.perf_counter() - saved >= SAVE_SECONDS and at.step < steps:
            save(at)
            saved = time.perf_counter()
        waiting_since = time.perf_counter()
    record.replace_epoch(epoch, mean_over_processes(record.of_epoch(epoch), job.device))
    means = {name: fmean(values) for name, values in record.of_epoch(epoch).items()}
    spent = {"samples": at.seen * world_size(), "seconds": at.seconds, "loading_seconds": at.waited}
    return means | spent


def batches_of_epoch(data: Data, epoch: int, job: Job, done: int) -> tuple[DataLoader, int]:
    """Return the batches of an epoch that are left after `done` steps, and the number of all its steps."""
    data.sampler.set_epoch(epoch)
    data.train.set_epoch(epoch)
    numbers, world = list(data.sampler), world_size()
    steps = -(-len(numbers) // job.batch_size)
    if world > 1:  # every rank must make the same number of steps
        steps = max(1, sum(data.sampler.samples.values()) // world // job.batch_size)
    left = numbers[done * job.batch_size :]
    return DataLoader(data.train, job.batch_size, sampler=left, **loader_options(job.device)), steps


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
        folder: receives `model.safetensors` (the kept epoch), `history.csv`, and the files of `StepRecord`.
            It also holds `progress.pt` during training. At the end it receives the mark that `finished`
            reads.
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
        begun.epoch = epoch
        if rank() == 0:
            begun.save(folder, trainer)

    for epoch in range(len(begun.history), job.schedule.epochs):
        row = {"stage": job.stage.number, "epoch": epoch, "learning_rate": trainer.set_rate(epoch)}
        row |= train_epoch(trainer, data, epoch, begun.epoch, begun.record, save, log) | judge(model)
        row |= {f"start_{name.removeprefix('eval_')}": value for name, value in begun.start.items()}
        earlier = [begun.start.get(judge.column, -1.0), *(h[judge.column] for h in begun.history)]
        row["best"] = row[judge.column] > max(earlier) or "checkpoint" in job.released
        begun.history.append(row)
        if rank() == 0:
            keep_epoch(model, job, folder, begun.history, begun.record)
        save(None)
        if rank() == 0:
            log(describe(row, job))
        if dist.is_initialized():
            dist.barrier()
    if rank() == 0:
        finish(folder, job.fingerprint)
    return folder / MODEL, pd.DataFrame(begun.history)


@dataclass
class Begun:
    """How far a job has come.

    Attributes:
        start: scores before training, see `Judge.start`; None if not yet known.
        history: a row for each finished epoch.
        epoch: progress of the epoch that was interrupted, None if none was.
        record: losses and scales of the steps that are done.
    """

    start: dict[str, float] | None
    history: list[dict]
    epoch: Progress | None
    record: StepRecord

    def save(self, folder: Path, trainer: Trainer) -> None:
        """Write what `resume` needs."""
        save_progress(
            folder / PROGRESS,
            fingerprint=trainer.job.fingerprint,
            model=trainer.model.state_dict(),
            optimizer=trainer.optimizer.state_dict(),
            start=self.start,
            history=json.dumps(self.history),
            epoch=vars(self.epoch) if self.epoch else None,
            record=self.record.state,
        )


def resume(model: Sam, job: Job, folder: Path, log: Callable[[str], None]) -> tuple[Begun, dict | None]:
    """Put what an interrupted run of the same job has learned into the model.

    Returns:
        What it has left, and the optimiser's state, None if there is nothing.
    """
    state = load_progress(folder / PROGRESS, job.fingerprint, log)
    if state is None:
        return Begun(None, [], None, StepRecord()), None
    model.load_state_dict(state["model"])
    epoch = Progress(**state["epoch"]) if state["epoch"] else None
    begun = Begun(state["start"], json.loads(state["history"]), epoch, StepRecord(state["record"]))
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


def keep_epoch(model: Sam, job: Job, folder: Path, history: list[dict], record: StepRecord) -> None:
    """Write the history and the record of the steps, and the model if the last epoch is marked best.

    Raises TrainingError on failure.
    """
    row = history[-1]
    if row["best"]:
        save_weights(
            model,
            folder / MODEL,
            stage=job.stage.number,
            epoch=row["epoch"],
            eval_dsc=row["eval_dsc"],
            **job.facts | spent(history, job.facts),
        )
    write_table(folder / HISTORY, pd.DataFrame(history))
    for name, table in record.tables(job.stage.number):
        write_table(folder / name, table, float_format="%.8g")


def spent(history: list[dict], before: dict) -> dict[str, float]:
    """Add the samples and hours of a stage to those of the stages before it."""
    hours = before.get("hours", 0) + sum(row["seconds"] for row in history) / 3600
    return {
        "samples": before.get("samples", 0) + sum(row["samples"] for row in history),
        "hours": round(hours, 3),
    }


def describe(row: dict, job: Job) -> str:
    """Format one row of the history as a line of the log."""
    distilled = f", distillation {row['distillation_loss']:.5f}" if "distillation_loss" in row else ""
    mark = " *" if row["best"] else ""
    return (
        f"stage {row['stage']} epoch {row['epoch'] + 1}/{job.schedule.epochs}: "
        f"lr {row['learning_rate']:.2g}, loss {row['loss']:.4f}{distilled}, {scored(row)}, "
        f"{row['samples']} samples in {row['seconds']:.0f} s{mark}"
    )
