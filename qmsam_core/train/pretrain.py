"""Training a float model from nothing, at rising resolution: what stage 0 is where no checkpoint is given.

The network runs at any input size, and an image of 48 px costs about a twentieth of one of 256 px. So the box and the common shapes are learned
small, borders and tiny objects at full size. Every image asks about several objects, since its embedding serves all of them.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from ..allocator import return_memory
from ..data.prompts import PromptDataset
from ..models import Sam
from ..models.filled_box import IMAGES, begin_with_filled_boxes, sharpen
from ..phases import PEAK, Phase, learning_rate
from .cells import CellSample, cell_loss
from .interruption import between_steps
from .loop import evaluate
from .losses import predicted_iou_loss, segmentation_loss
from .phase_batches import KEPT_FROM, PROMPTS, fresh_batches, kept_batches, phase_seed
from .precision import autocast_for, channels_last, compile_blocks
from .processes import rank, world_size
from .progress import HISTORY, LOG_SECONDS, MODEL, PROGRESS, SAVE_SECONDS, finish, load_progress, save_progress, save_weights, write_history, writing
from .step import TrainingError

WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 1.0
EVALUATIONS = 6  # a phase
AVERAGED_STEPS = 100
READ_AT_ONCE = 64  # evaluation batches that are kept in memory; more are read anew at every evaluation
PARENT_HISTORY = "parent_history.csv"  # beside the history: that of the weights a training began with


@dataclass(frozen=True)
class Pretraining:
    """What `pretrain` needs to know besides the model.

    Attributes:
        phases: resolutions in order, see `Phase`.
        samples: gives the training samples at an input size, with so many boxes an image. evaluation: gives evaluation batches at an input size, this
            process's share.
        fingerprint: identity of the work; progress of another is not taken up.
        facts: written into the checkpoint's description.
        earlier: the phases that the weights it begins with have behind them.
        seed: of what phases draw besides their samples, see `phase_seed`.
        parent: SHA-256 of the weights it begins with, or nothing. parent_history: their whole history as CSV, where it is known.
    """

    phases: Sequence[Phase]
    samples: Callable[[int, int], PromptDataset]
    evaluation: Callable[[int], DataLoader]
    fingerprint: str
    device: str = "cpu"
    facts: dict = field(default_factory=dict)
    earlier: Sequence[Phase] = ()
    seed: int = 0
    parent: str = ""
    parent_history: str = ""


@torch.no_grad()
def average_weights(averages: list[Tensor], news: list[Tensor], count: Tensor | int) -> None:
    """Exponential moving average over the last hundred steps or so, in place; over a tenth of the steps taken while they are fewer than a thousand."""
    share = max(1 / (1 + 0.1 * float(count)), 1 / AVERAGED_STEPS)
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, news, share)
    else:
        torch._foreach_copy_(averages, news)


class FloatTrainer:
    """Model, its moving average, optimiser and clock of one pretraining; see `pretrain`."""

    def __init__(self, model: Sam, work: Pretraining, folder: Path, log: Callable[[str], None]) -> None:
        self.work, self.folder, self.log = work, folder, log
        self.model = channels_last(model.to(work.device).train())
        self.forget()
        self.mask_loss, self.autocast = segmentation_loss(), autocast_for(self.model, work.device)
        self.history: list[dict] = []
        self.phase = self.steps = self.samples = 0  # steps of this phase, samples of all
        self.seconds = self.earlier = 0.0  # of this phase, of the phases before
        self.asked_to_stop = threading.Event()
        self.losses: list[float] = []  # since the last row of the history
        self.running: tuple[Tensor, int, list[str]] | None = None  # loss, step and samples of a step that may still be under way on a GPU
        resumed = self.resume()
        if work.parent and not resumed:
            self.save()  # a parent's history in this folder will be overwritten: from here on progress knows it, see `history_beside`
        if rank() == 0:
            self.keep_parent_history()
        if work.device != "cpu":
            compile_blocks(self.model)
        self.wrapped: nn.Module = self.model
        self.saved = time.perf_counter()

    def forget(self) -> None:
        """Begin the moving average and the optimiser's moments anew from the weights as they are."""
        self.average = AveragedModel(self.model, multi_avg_fn=average_weights, use_buffers=True).eval()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), PEAK, weight_decay=WEIGHT_DECAY, fused=True)

    def resume(self) -> bool:
        """Take up progress of the same work; whether there is any."""
        state = load_progress(self.folder / PROGRESS, self.work.fingerprint, self.log)
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = json.loads(state["history"])
        for name in ("phase", "steps", "samples", "seconds", "earlier"):
            setattr(self, name, state[name])
        self.log(f"float training: resumed in phase {self.phase + 1} at step {self.steps}")
        return True

    def keep_parent_history(self) -> None:
        """Put the history of the weights it began with beside its own; nothing of an earlier training's stays there."""
        path = self.folder / PARENT_HISTORY
        if not self.work.parent_history:
            path.unlink(missing_ok=True)
            return
        with writing(path) as part:
            part.write_text(self.work.parent_history, encoding="utf-8")

    def save(self) -> None:
        """Write all that resuming needs, and the curves so far, from the first process."""
        self.settle()
        if rank() == 0:
            if self.history:
                draw_curves(self.folder, self.history)
            save_progress(
                self.folder / PROGRESS, fingerprint=self.work.fingerprint, model=self.model.state_dict(), average=self.average.state_dict(),
                optimizer=self.optimizer.state_dict(), history=json.dumps(self.history), phase=self.phase, steps=self.steps, samples=self.samples,
                seconds=self.seconds, earlier=self.earlier, parent=self.work.parent, parent_history=self.work.parent_history,
            )  # fmt: skip
        self.saved = time.perf_counter()

    def run(self) -> None:
        """All phases that are left."""
        with between_steps(self.asked_to_stop):
            while self.phase < len(self.work.phases):
                self.run_phase(self.work.phases[self.phase])
                self.earlier += self.seconds
                self.phase, self.steps, self.seconds = self.phase + 1, 0, 0.0
                self.save()

    def run_phase(self, phase: Phase) -> None:
        """One resolution, from wherever it stands to its end."""
        self.optimizer.zero_grad(set_to_none=True)
        return_memory()  # of the last phase
        if self.steps == 0:
            self.prepare(phase)
        self.model.set_image_size(phase.size)
        self.average.module.set_image_size(phase.size)
        batch = max(1, phase.images // world_size())
        judged = self.work.evaluation(phase.size)
        judged = list(judged) if len(judged) <= READ_AT_ONCE else judged
        work, seed = self.work, phase_seed(self.work.seed, self.phase)
        if phase.kept:
            self.wrapped, loader = kept_batches(self.model, phase, self.phase, seed, work.samples, self.steps, batch, work.device, self.log)
        else:
            self.wrapped, loader = fresh_batches(self.model, phase, seed, work.samples, self.samples, batch, work.device)
        begun, logged = time.perf_counter() - self.seconds, time.perf_counter()
        waited, waiting_since = 0.0, time.perf_counter()
        done = phase.done(self.steps, self.seconds)
        for sample in loader:
            waited += time.perf_counter() - waiting_since
            if done >= 1:
                break
            loss = self.step(sample, learning_rate(self.work.phases, self.phase, done))
            self.settle()
            self.running = loss, self.steps, sample["name"]
            self.samples += batch * world_size() if not phase.kept else phase.kept if self.steps == 0 else 0  # kept images are read once
            self.steps += 1
            if time.perf_counter() - logged > LOG_SECONDS and self.losses:
                logged = time.perf_counter()
                self.log(f"{phase.size} px: {100 * done:.0f} %, step {self.steps}, loss {sum(self.losses) / len(self.losses):.4f}")
            before, done = done, phase.done(self.steps, self.shared_seconds(begun))
            if int(EVALUATIONS * done) > int(EVALUATIONS * before):
                self.judge(phase, judged, begun, waited)
                waited = 0.0
            if self.asked_to_stop.is_set():
                self.save()
                raise KeyboardInterrupt
            if time.perf_counter() - self.saved > SAVE_SECONDS:
                self.save()
            waiting_since = time.perf_counter()
        self.settle()
        if self.losses:
            self.judge(phase, judged, begun, waited)

    def prepare(self, phase: Phase) -> None:
        """What the weights need before a phase's first step: a decoder that begins anew, or, once one has, heads that look as near as the phase's cells are small.

        Processes that train together have the same weights and do the same.
        """
        before = [*self.work.earlier, *self.work.phases[: self.phase]]
        self.model.set_image_size(phase.size)
        if phase.new_decoder:
            samples = self.work.samples(phase.size, PROMPTS)
            first = KEPT_FROM * (1 + self.phase)
            images = torch.stack([samples[n]["image"] for n in range(first, first + IMAGES)])
            begin_with_filled_boxes(self.model, images, phase_seed(self.work.seed, self.phase))
            self.log(f"{phase.size} px: a new decoder, which fills the box")
            self.forget()
        elif any(earlier.new_decoder for earlier in before) and before[-1].size != phase.size:
            for module in (self.model, self.average.module):
                sharpen(module, phase.size / before[-1].size)

    def settle(self) -> None:
        """Read the loss of the step that was under way. A step later than it was taken, so that a GPU need not wait to be told the next.

        Raises:
            TrainingError: it is not finite, with the samples' names.
        """
        if self.running is None:
            return
        (loss, step, names), self.running = self.running, None
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(f"float training, step {step}: loss is {value} on {', '.join(names)}; progress is kept")
        self.losses.append(value)

    def shared_seconds(self, begun: float) -> float:
        """Seconds of this phase by the first process's clock, so that all processes decide alike."""
        clock = torch.tensor([time.perf_counter() - begun], dtype=torch.float64)
        if dist.is_initialized():
            clock = clock.to(self.work.device)
            dist.broadcast(clock, 0)
        self.seconds = clock.item()
        return self.seconds

    def step(self, sample: dict, learning_rate: float) -> Tensor:
        """One step down the gradient; returns the loss, a tensor on the device, see `settle`."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        sample = {name: value.to(self.work.device, non_blocking=True) for name, value in sample.items() if isinstance(value, Tensor)}
        with self.autocast:
            loss = self.loss_of_cells(sample) if "index" in sample else self.loss_of_images(sample)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        return loss.detach()

    def loss_of_images(self, sample: dict) -> Tensor:
        """Of images never seen before, each with some boxes."""
        logits, _, guessed = self.wrapped(channels_last(sample["image"]), sample["boxes"])
        logits, masks = logits.float(), sample["masks"].float().flatten(0, 1)
        return self.mask_loss(logits, masks) + predicted_iou_loss(guessed.float(), logits, masks)

    def loss_of_cells(self, sample: dict) -> Tensor:
        """Of boxes, each with a sample of cells: on kept embeddings, or on images whose stem stays as it is."""
        drawn = CellSample(sample["index"], sample["weights"], sample["near"])
        seen = (sample["cells"],) if "cells" in sample else (sample["image"], sample["rows"])
        logits, guessed = self.wrapped(*seen, sample["boxes"], drawn)
        return cell_loss(logits.float(), sample["masks"], guessed.float(), drawn)

    def judge(self, phase: Phase, judged: Iterable[dict], begun: float, waited: float) -> None:
        """Evaluate the averaged weights on batches of fixed slices; a row of the history."""
        self.settle()
        score = evaluate(self.average.module, judged, self.work.device)
        return_memory()  # evaluation's blocks have other sizes: kept, every round of it adds to what training holds
        self.shared_seconds(begun)
        row = {
            "stage": 0, "epoch": len(self.history), "phase": self.phase, "image_size": phase.size, "step": self.steps,
            "learning_rate": self.optimizer.param_groups[0]["lr"], "loss": sum(self.losses) / len(self.losses), "samples": self.samples - self.seen_before(),
            "seconds": self.earlier + self.seconds - self.spent_before(), "loading_seconds": waited, "eval_dsc": score, "best": True,
        }  # fmt: skip
        self.history, self.losses = [{**earlier, "best": False} for earlier in self.history] + [row], []
        if rank() == 0:
            write_history(self.folder, self.history)
        self.log(
            f"{phase.size} px, step {self.steps}: loss {row['loss']:.4f}, eval DSC {100 * score:.2f} %, {self.samples} images, "
            f"{(self.earlier + self.seconds) / 60:.1f} min"
        )

    def seen_before(self) -> int:
        """Samples that earlier rows of the history count."""
        return sum(row["samples"] for row in self.history)

    def spent_before(self) -> float:
        """Seconds that earlier rows of the history count."""
        return sum(row["seconds"] for row in self.history)


def whole_history(folder: Path) -> pd.DataFrame:
    """The history of a float training, behind that of the weights it began with where that is known; `phase` then counts on."""
    own, earlier = pd.read_csv(folder / HISTORY), folder / PARENT_HISTORY
    if not earlier.is_file():
        return own
    behind = pd.read_csv(earlier)
    if "phase" in own and "phase" in behind:
        own["phase"] += 1 + behind["phase"].max()
    return pd.concat([behind, own], ignore_index=True)


def draw_curves(folder: Path, history: list[dict]) -> None:
    """`curves.png`, to be looked at while training runs."""
    from ..evaluate.figures import training_curves  # not needed by a training process that only steps

    with writing(folder / "curves.png") as part:
        training_curves(pd.DataFrame(history)).savefig(part, dpi=110, format="png")


def pretrain(model: Sam, work: Pretraining, folder: Path, log: Callable[[str], None] = print) -> tuple[Path, pd.DataFrame]:
    """Train all weights of a float model and keep the moving average of the last ones.

    AdamW, warm-up and cosine over all phases (or up to one that begins anew, see `phases.learning_rate`), gradients clipped, Dice + focal +
    the error of the predicted IoU. In a phase with kept images the encoder stays as it is, in one with a fixed stem its first stage does, and the loss
    is `cell_loss`. No choice is made on the evaluation slices: they show where training stands.

    Args:
        model: trained in place; its input size changes with the phases and is its own again at the end.
        work: see `Pretraining`. Progress left in `folder` by an interrupted run of the same work is taken up.
        folder: gets `model.safetensors`, `history.csv`, `curves.png`, `progress.pt` while running, and at the end the mark that `finished` reads.

    Returns:
        Path of the checkpoint, described with its DSC at its own size, and the history, one row an evaluation at its phase's size.

    Raises:
        TrainingError: a loss that is not finite, with the samples' names, or a file that cannot be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the step under way, with all progress saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size, kept = model.image_size, folder / MODEL
    trainer = FloatTrainer(model, work, folder, log)
    trainer.run()
    final, score = trainer.average.module, trainer.history[-1]["eval_dsc"]
    final.set_image_size(size)
    if work.phases[-1].size != size:
        score = evaluate(final, work.evaluation(size), work.device)
    if rank() == 0:
        save_weights(final, kept, stage=0, eval_dsc=score, samples=trainer.samples, seconds=round(trainer.earlier), **work.facts)
        finish(folder, work.fingerprint)
    if dist.is_initialized():
        dist.barrier()
    return kept, pd.DataFrame(trainer.history)
