"""One training step: what it is told, what is frozen, and the way from a batch to a step down the gradient."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..models import Sam
from .losses import distillation_loss, embedding_iou, mask_iou, segmentation_loss
from .precision import autocast_for, channels_last
from .stages import MODULES, MOMENTUM, Schedule, Stage
from .teacher import CachedEncoder, Teacher


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which epoch and step, on which samples, and what remains on disk."""


@dataclass(frozen=True)
class Job:
    """What `fit` needs to know besides model and data.

    Attributes:
        fingerprint: identity of the work; progress of another is not taken up.
        released: switches to the released code's behaviour (see `Params.released`).
        facts: written into the checkpoint's description.
        mixed_precision: bf16 autocast where it helps (see `autocast_for`); losses, weights, scales and quantisers' arithmetic stay float32.
    """

    stage: Stage
    schedule: Schedule
    batch_size: int
    fingerprint: str
    device: str = "cpu"
    released: tuple[str, ...] = ()
    facts: dict = field(default_factory=dict)
    mixed_precision: bool = True


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


class Student(nn.Module):
    """The model as a step calls it: from images, or from the embeddings of a frozen encoder. A module of its own, since DDP wraps a `forward`."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, boxes: Tensor, embeddings: Tensor | None) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S), boxes (B, 4), embeddings (B, C, g, g) or None -> mask logits (B, 1, M, M), embeddings."""
        if embeddings is None:
            return self.model(images, boxes)[:2]
        return self.model.decode(embeddings, boxes)[0], embeddings


class Trainer:
    """Model, optimiser, losses and number format of one stage.

    Args:
        model: trained in place, moved to the job's device; what the stage does not train is frozen.
        teacher, encoder: see `fit`.
    """

    def __init__(
        self, model: Sam, job: Job, teacher: Teacher | None = None, encoder: CachedEncoder | None = None
    ) -> None:
        self.job, self.teacher, self.encoder = job, teacher, encoder
        channels_last(model.to(job.device))
        learning = freeze_all_but(
            model, job.stage.trains, statistics_drift="frozen_statistics" in job.released
        )
        self.optimizer = torch.optim.SGD(learning, job.schedule.learning_rate, momentum=MOMENTUM)
        self.criterion = segmentation_loss("loss" in job.released)
        self.autocast = autocast_for(model, job.device) if job.mixed_precision else nullcontext()
        self.student: nn.Module = Student(model)
        if dist.is_initialized():
            self.student = DistributedDataParallel(self.student, find_unused_parameters=True)

    def set_rate(self, epoch: int) -> float:
        """Set the learning rate of an epoch, counted from 0, and return it."""
        rate = self.job.schedule.rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def step(self, batch: dict) -> dict[str, float]:
        """One step down the gradient of a batch's losses; returns them, `loss` their sum.

        Raises:
            TrainingError: a loss that is not finite, with the samples' names; the weights have not moved.
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
        """Losses of a batch by name; their sum is what is descended."""
        images, boxes, masks = (
            batch[k].to(self.job.device, non_blocking=True) for k in ("image", "box", "mask")
        )
        known = None if self.encoder is None else self.encoder(images)
        with self.autocast:
            logits, embeddings = self.student(channels_last(images), boxes, known)
        logits, embeddings = logits.float(), embeddings.float()
        yield "segmentation_loss", self.criterion(logits, masks)
        if self.teacher is not None:
            released = "distillation" in self.job.released
            taught, teacher_logits = self.teacher(images, boxes if released else None)
            overlap = mask_iou(teacher_logits, masks) if released else embedding_iou(embeddings, taught)
            yield "distillation_loss", distillation_loss(embeddings, taught, overlap)
