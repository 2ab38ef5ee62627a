"""One training step: its settings, the frozen modules, the losses and the optimiser."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..models import Sam
from ..quant import scale_parameters
from ..quant.scales import weight_scale_parameters
from .losses import (
    distillation_loss,
    embedding_iou,
    mask_divergence,
    mask_iou,
    relative_error,
    segmentation_loss,
)
from .precision import autocast_for, channels_last
from .stages import MODULES, MOMENTUM, Schedule, Stage
from .teacher import CachedEncoder, Teacher


class TrainingError(RuntimeError):
    """Training cannot continue. The message names the place, the cause and what is kept on disk."""


@dataclass(frozen=True)
class Job:
    """Settings of `fit` besides model and data.

    Attributes:
        batch_size: samples per step of this process.
        fingerprint: identity of the job. Progress of a job with another fingerprint is not resumed.
        released: switches to the released code's behaviour (see `Params.released`).
        optimizer: see `Params.optimizer`.
        scale_rate: see `Params.scale_rate`.
        imitates: learn from the teacher's embeddings and masks alone, not from labels.
        facts: written into the checkpoint's description.
    """

    stage: Stage
    schedule: Schedule
    batch_size: int
    fingerprint: str
    device: str = "cpu"
    released: tuple[str, ...] = ()
    optimizer: str = "sgd"
    scale_rate: float = 1.0
    imitates: bool = False
    facts: dict = field(default_factory=dict)


def freeze_all_but(model: Sam, trains: tuple[str, ...], statistics_drift: bool = False) -> list[nn.Parameter]:
    """Freeze every module that is not named, and return the parameters that learn.

    Scales of weights that were set by error stay as they are. The weights lie on the grid that these span. A
    grid that moves would round all of them anew.

    Args:
        model: changed in place.
        trains: names of the modules that learn, from `MODULES`.
        statistics_drift: let batch-norm statistics of frozen modules change, as in the released code. By
            default they do not change.
    """
    model.train(statistics_drift)
    for name in MODULES:
        getattr(model, name).requires_grad_(name in trains)
        if name in trains:
            getattr(model, name).train()
    for scale in weight_scale_parameters(model):
        scale.requires_grad_(False)
    return [p for p in model.parameters() if p.requires_grad]


class Student(nn.Module):
    """The model as a training step calls it. It is a separate module because DDP wraps a `forward`."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, boxes: Tensor, embeddings: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute mask logits (B, 1, M, M) and embeddings (B, C, g, g).

        Images have shape (B, 3, S, S), boxes (B, 4). If embeddings of a frozen encoder are given, they are
        used instead of the images.
        """
        if embeddings is None:
            return self.model(images, boxes)[:2]
        return self.model.decode(embeddings, boxes)[0], embeddings


def optimizer_of(model: Sam, learning: list[nn.Parameter], job: Job) -> torch.optim.Optimizer:
    """Make the optimiser of a job. `times` of a group is its multiple of the learning rate.

    Adam's steps do not depend on the size of the gradient. Those of a scale are therefore taken relative to
    the scale, because a range of 0.1 and a range of 100 need other steps.
    """
    scales = {id(p) for p in scale_parameters(model).values()}
    groups = [{"params": [p for p in learning if id(p) not in scales], "times": 1.0}]
    rate, learned = job.schedule.learning_rate, [p for p in learning if id(p) in scales]
    if job.optimizer == "adam":
        groups += [{"params": [p], "times": job.scale_rate * float(p.detach().abs().mean())} for p in learned]
        return torch.optim.Adam(groups, rate)
    groups.append({"params": learned, "times": job.scale_rate})
    return torch.optim.SGD(groups, rate, momentum=MOMENTUM)


class Trainer:
    """Model, optimiser, losses and number format of one stage.

    Args:
        model: trained in place and moved to the job's device. Modules that the stage does not train are
            frozen.
        job: see `Job`.
        teacher: see `fit`.
        encoder: see `fit`.
    """

    def __init__(
        self, model: Sam, job: Job, teacher: Teacher | None = None, encoder: CachedEncoder | None = None
    ) -> None:
        self.model, self.job, self.teacher, self.encoder = model, job, teacher, encoder
        channels_last(model.to(job.device))
        learning = freeze_all_but(
            model, job.stage.trains, statistics_drift="frozen_statistics" in job.released
        )
        self.optimizer = optimizer_of(model, learning, job)
        self.criterion = segmentation_loss("loss" in job.released)
        self.autocast = autocast_for(model, job.device)
        self.student: nn.Module = Student(model)
        if dist.is_initialized():
            self.student = DistributedDataParallel(self.student, find_unused_parameters=True)

    def set_rate(self, epoch: int) -> float:
        """Set the learning rate of an epoch, counted from 0, and return it."""
        rate = self.job.schedule.rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["times"]
        return rate

    def step(self, batch: dict) -> dict[str, float]:
        """Make one optimiser step on a batch. Return its losses by name, with their sum as `loss`.

        Raises:
            TrainingError: a loss is not finite. The message names the samples. The weights are not changed.
        """
        losses = dict(self.losses(batch))
        total = sum(losses.values())
        if not torch.isfinite(total):
            raise TrainingError(f"loss is {total.item()} on {', '.join(batch['name'])}")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        return {name: value.item() for name, value in {"loss": total, **losses}.items()}

    def losses(self, batch: dict) -> Iterator[tuple[str, Tensor]]:
        """Yield the losses of a batch by name; the optimiser minimises their sum."""
        images, boxes, masks = (
            batch[k].to(self.job.device, non_blocking=True) for k in ("image", "box", "mask")
        )
        known = None if self.encoder is None else self.encoder(images)
        with self.autocast:
            logits, embeddings = self.student(channels_last(images), boxes, known)
        logits, embeddings = logits.float(), embeddings.float()
        if self.job.imitates:
            taught, teacher_logits = self.teacher(images, boxes)
            yield "mask_loss", mask_divergence(logits, teacher_logits)
            if known is None:
                yield "distillation_loss", relative_error(embeddings, taught)
            return
        yield "segmentation_loss", self.criterion(logits, masks)
        if self.teacher is not None:
            released = "distillation" in self.job.released
            taught, teacher_logits = self.teacher(images, boxes if released else None)
            overlap = mask_iou(teacher_logits, masks) if released else embedding_iou(embeddings, taught)
            yield "distillation_loss", distillation_loss(embeddings, taught, overlap)
