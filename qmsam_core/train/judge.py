"""Score a model on the evaluation slices, by the labels and by the float teacher's masks."""

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist

from ..models import Sam
from ..quant.scales import inactive_quantisers
from ..quant.sensitivity import mask_agreement
from .precision import autocast_for, channels_last
from .processes import world_size
from .teacher import Teacher
from .trainer import Job


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


def scored(row: dict) -> str:
    """Format the scores of a model for the log."""
    agreed = f", agreement {100 * row['eval_agreement']:.2f} %" if "eval_agreement" in row else ""
    return f"eval DSC {100 * row['eval_dsc']:.2f} %{agreed}"
