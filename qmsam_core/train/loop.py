"""The training loop: one stage from its first epoch to its best checkpoint, on any number of processes, resumable after every epoch."""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler

from ..data.slices import SliceDataset
from ..models import Sam
from ..quant import save_model
from .losses import distillation_loss, embedding_iou, mask_iou, segmentation_loss
from .stages import MODULES, MOMENTUM, Schedule, Stage


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which epoch and step, on which samples, and what remains on disk."""


@dataclass(frozen=True)
class Job:
    """What `fit` needs to know besides model and data. `released` names switches to the released code's behaviour (see `Params.released`)."""

    stage: Stage
    schedule: Schedule
    batch_size: int
    fingerprint: str
    device: str = "cpu"
    released: tuple[str, ...] = ()
    facts: dict = field(default_factory=dict)


@dataclass
class Data:
    """Slices to learn from and the sampler that draws an epoch of them; slices to judge every epoch by."""

    train: SliceDataset
    sampler: Sampler
    evaluation: Iterable[dict]


def rank() -> int:
    """This process among those that train together; 0 when it trains alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def freeze_all_but(model: Sam, trains: tuple[str, ...], statistics_drift: bool = False) -> list[nn.Parameter]:
    """Freeze every module that is not named: no gradients, and batch-norm statistics that do not move, unless they drift as in the released code.

    Returns the parameters that learn.
    """
    model.train(statistics_drift)
    for name in MODULES:
        getattr(model, name).requires_grad_(name in trains)
        if name in trains:
            getattr(model, name).train()
    return [p for p in model.parameters() if p.requires_grad]


def step_losses(
    model: nn.Module,
    batch: dict,
    job: Job,
    criterion: nn.Module,
    teacher: Callable[[Tensor], tuple[Tensor, Tensor]] | None,
) -> dict[str, Tensor]:
    """Losses of one batch; their sum is what is descended."""
    images, boxes, masks = (batch[k].to(job.device, non_blocking=True) for k in ("image", "box", "mask"))
    logits, embeddings, _ = model(images, boxes)
    losses = {"segmentation_loss": criterion(logits, masks)}
    if teacher is not None:
        released = "distillation" in job.released
        taught, teacher_logits = teacher(images, boxes if released else None)
        overlap = mask_iou(teacher_logits, masks) if released else embedding_iou(embeddings, taught)
        losses["distillation_loss"] = distillation_loss(embeddings, taught, overlap)
    return losses


def train_epoch(
    model: nn.Module, data: Data, job: Job, optimizer, teacher, epoch: int, log: Callable[[str], None]
) -> dict[str, float]:
    """One pass over the epoch's sample; returns mean losses, the number of samples seen by all processes, seconds, and how many
    of them were spent waiting for samples.

    Raises:
        TrainingError: a loss that is not finite, with the names of the samples.
    """
    data.sampler.set_epoch(epoch)
    data.train.set_epoch(epoch)
    world = world_size()
    loader = DataLoader(
        data.train,
        job.batch_size,
        sampler=data.sampler,
        num_workers=4 if job.device != "cpu" else 0,
        pin_memory=job.device != "cpu",
    )
    steps = (
        len(loader) if world == 1 else max(1, sum(data.sampler.samples.values()) // world // job.batch_size)
    )  # the same number on every rank
    criterion = segmentation_loss("loss" in job.released)
    started = logged = waiting_since = time.perf_counter()
    sums, seen, waited = {}, 0, 0.0
    for step, batch in zip(range(steps), loader):
        waited += time.perf_counter() - waiting_since
        losses = step_losses(model, batch, job, criterion, teacher)
        total = sum(losses.values())
        if not torch.isfinite(total):
            raise TrainingError(
                f"stage {job.stage.number}, epoch {epoch}, step {step}: loss is {total.item()} on {', '.join(batch['name'])}; the last good epoch is kept"
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        for name, value in {"loss": total, **losses}.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        seen += len(batch["name"])
        if time.perf_counter() - logged > 30:
            logged = time.perf_counter()
            log(
                f"stage {job.stage.number} epoch {epoch}: step {step + 1}/{steps}, loss {sums['loss'] / (step + 1):.4f}"
            )
        waiting_since = time.perf_counter()
    means = {name: value / steps for name, value in sums.items()}
    return {
        **means,
        "samples": seen * world,
        "seconds": time.perf_counter() - started,
        "loading_seconds": waited,
    }


@torch.no_grad()
def evaluate(model: Sam, batches: Iterable[dict], device: str = "cpu") -> float:
    """Mean DSC at the low-res mask's size: over the slices of a modality, then over modalities unweighted. The model's modes are left as found.

    Processes that train together each judge their own batches and must all call this; each gets the mean over all of them.
    """
    modes = {m: m.training for m in model.modules()}
    model.eval()
    scores: dict[str, list[float]] = {}
    for batch in batches:
        logits, _, _ = model(batch["image"].to(device), batch["box"].to(device))
        a, b = logits > 0, batch["mask"].to(device) > 0.5
        dice = 2 * (a & b).flatten(1).sum(1) / (a.flatten(1).sum(1) + b.flatten(1).sum(1)).clamp(min=1)
        for modality, value in zip(batch["modality"], dice.tolist()):
            scores.setdefault(modality, []).append(value)
    for module, mode in modes.items():
        module.training = mode
    if dist.is_initialized():
        parts: list[dict] = [{} for _ in range(world_size())]
        dist.all_gather_object(parts, scores)
        scores = {m: sum((part.get(m, []) for part in parts), []) for m in sorted(set().union(*parts))}
    return sum(sum(v) / len(v) for v in scores.values()) / max(len(scores), 1)


def save_progress(path: Path, **state: object) -> None:
    """Write what resuming needs, atomically: a killed run leaves the previous epoch's file or this one's, never half of one."""
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    os.replace(part, path)


def load_progress(path: Path, fingerprint: str) -> dict | None:
    """What `save_progress` wrote for the same job; None when there is nothing or it belongs to another job."""
    if not path.is_file():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state if state["fingerprint"] == fingerprint else None


def fit(
    model: Sam, data: Data, job: Job, folder: Path, teacher=None, log: Callable[[str], None] = print
) -> tuple[Path, pd.DataFrame]:
    """Train one stage and keep its best epoch.

    Args:
        model: quantised and calibrated as the stage wants it; trained in place.
        data: see `Data`.
        job: see `Job`. Progress left in `folder` by an interrupted run of the same fingerprint is taken up.
        folder: gets `model.safetensors` (the epoch that goes on), `history.csv`, and `progress.pt` while running.
        teacher: called with images (B, 3, S, S) and boxes (B, 4) or None; gives embeddings (B, C, g, g) and mask logits or None.
        log: takes one line at a time.

    Returns:
        The path of the kept checkpoint, and the history, one row an epoch.
    """
    kept, progress = folder / "model.safetensors", folder / "progress.pt"
    state = load_progress(progress, job.fingerprint)
    history: list[dict] = json.loads(state["history"]) if state else []
    if state:
        model.load_state_dict(
            state["model"]
        )  # before the optimiser is made: Brevitas puts new parameters in place of its scales on loading
        log(f"stage {job.stage.number}: resumed after epoch {history[-1]['epoch']}")
    model.to(job.device)
    learning = freeze_all_but(model, job.stage.trains, statistics_drift="frozen_statistics" in job.released)
    optimizer = torch.optim.SGD(learning, job.schedule.learning_rate, momentum=MOMENTUM)
    if state:
        optimizer.load_state_dict(state["optimizer"])
    wrapped = DistributedDataParallel(model, find_unused_parameters=True) if dist.is_initialized() else model
    for epoch in range(len(history), job.schedule.epochs):
        rate = job.schedule.rate(epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        row = {"stage": job.stage.number, "epoch": epoch, "learning_rate": rate}
        row |= train_epoch(wrapped, data, job, optimizer, teacher, epoch, log)
        row["eval_dsc"] = evaluate(model, data.evaluation, job.device)
        if rank() == 0:
            best = max([h["eval_dsc"] for h in history], default=-1.0)
            row["best"] = row["eval_dsc"] > best or "checkpoint" in job.released
            history.append(row)
            if row["best"]:
                save_model(model, kept, stage=job.stage.number, epoch=epoch, eval_dsc=row["eval_dsc"], **job.facts)
            write_history(folder, history)
            save_progress(
                progress,
                fingerprint=job.fingerprint,
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
                history=json.dumps(history),
            )
            log(describe(row, job))
        if dist.is_initialized():
            dist.barrier()
    if rank() == 0:
        progress.unlink(missing_ok=True)
    return kept, pd.DataFrame(history)


def write_history(folder: Path, history: list[dict]) -> None:
    """`history.csv`, one row an epoch, readable while training runs."""
    part = folder / "history.csv.part"
    pd.DataFrame(history).to_csv(part, index=False)
    os.replace(part, folder / "history.csv")


def describe(row: dict, job: Job) -> str:
    """One line for the log."""
    distilled = f", distillation {row['distillation_loss']:.5f}" if "distillation_loss" in row else ""
    mark = " *" if row["best"] else ""
    return (
        f"stage {row['stage']} epoch {row['epoch'] + 1}/{job.schedule.epochs}: lr {row['learning_rate']:.5f}, loss {row['loss']:.4f}{distilled}, "
        f"eval DSC {100 * row['eval_dsc']:.2f} %, {row['samples']} samples in {row['seconds']:.0f} s{mark}"
    )
