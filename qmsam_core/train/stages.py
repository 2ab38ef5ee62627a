"""The training stages as data, and their learning-rate schedule (paper section 3.3, Table 3)."""

import math
from dataclasses import dataclass

import pandas as pd

from ..params import Params

MODULES = ("image_encoder", "prompt_encoder", "mask_decoder")
MOMENTUM = 0.9  # Table 3
FIRST, LAST = 0.01, 0.001  # learning rates of the first and the last epoch, as fractions of the largest


@dataclass(frozen=True)
class Stage:
    """One training stage.

    Attributes:
        number: 1 to 3, as in the paper.
        quantises: parts that are quantised at its start.
        trains: modules that learn. All others are frozen, with their batch-norm statistics.
        distils: whether the teacher's embeddings enter the loss.
    """

    number: int
    title: str
    quantises: tuple[str, ...]
    trains: tuple[str, ...]
    distils: bool = False


STAGES = {
    stage.number: stage
    for stage in (
        Stage(1, "quantised image encoder", ("encoder",), ("image_encoder",), distils=True),
        Stage(2, "quantised mask decoder", ("decoder",), ("mask_decoder",)),
        Stage(3, "end to end", (), MODULES),
    )
}


@dataclass(frozen=True)
class Schedule:
    """Number of epochs of a stage, and the learning rate of each epoch.

    The rate rises linearly from `FIRST` to 1 over `warmup` epochs. It then falls to `LAST` along a cosine
    over `annealing` epochs. All three are fractions of `learning_rate`. The peak epoch belongs to both parts.
    The half-period of the cosine is thus annealing - 1, and the paper's 5 and 10 epochs make 14 in total.
    With `released`, both parts are one epoch longer, as in the released code. One epoch of annealing is the
    peak epoch alone.
    """

    learning_rate: float
    warmup: int
    annealing: int
    released: bool = False

    @property
    def epochs(self) -> int:
        """Number of epochs: 14 with the paper's 5 and 10. The released code runs 5 + 10 + 1."""
        return self.warmup + self.annealing + (1 if self.released else -1)

    def rate(self, epoch: int) -> float:
        """Compute the learning rate of an epoch, counted from 0."""
        peak = self.warmup if self.released else self.warmup - 1
        if epoch < peak:
            return self.learning_rate * (FIRST + (1 - FIRST) * epoch / peak)
        half_period = self.annealing if self.released else self.annealing - 1
        cosine = 0.5 * (1 + math.cos(math.pi * (epoch - peak) / max(half_period, 1)))
        return self.learning_rate * (LAST + (1 - LAST) * cosine)


def schedule_of(params: Params) -> Schedule:
    """Make the schedule of the quantised stages from the parameters."""
    return Schedule(
        params.learning_rate,
        params.warmup_epochs,
        params.annealing_epochs,
        released="schedule" in params.released,
    )


def teacher_name(params: Params) -> str:
    """Name the teacher of stage 1's encoder, as in the tables."""
    return "the float parent" if params.teacher == "self" else "MedSAM ViT-B"


def protocol(params: Params) -> pd.DataFrame:
    """Make Table 3 for these parameters: one row per stage, the paper's columns except the training time."""
    rows = []
    for number in (1, 2, 3):
        schedule = schedule_of(params)
        rows.append(
            {
                "stage": number,
                "batch_size": params.batch_size[number - 1],
                "pretrained_model": f"{params.model} ({params.float_checkpoint})",
                "world_size": params.processes,
                "samples_per_modality": params.samples_per_modality or "smallest modality",
                "optimizer": {"sgd": "SGD", "adam": "Adam"}[params.optimizer],
                "momentum": MOMENTUM if params.optimizer == "sgd" else float("nan"),
                "epochs": schedule.epochs,
                "learning_rate": schedule.learning_rate,
                "warmup_epochs": schedule.warmup,
                "annealing_epochs": schedule.annealing,
            }
        )
    return pd.DataFrame(rows)


def stage_budgets(histories: pd.DataFrame) -> pd.DataFrame:
    """Sum up the training cost of each strategy and stage, and of all stages of a strategy (stage "all").

    Args:
        histories: rows of `fit`'s histories, with a column `strategy`.

    Returns:
        Columns strategy, stage (text), epochs, samples (seen by all processes), hours (training without
        evaluation) and per_sample_ms.
    """
    both = pd.concat([histories, histories.assign(stage="all")])
    spent = both.groupby(["strategy", "stage"], sort=False).agg(
        epochs=("epoch", "size"), samples=("samples", "sum"), seconds=("seconds", "sum")
    )
    spent = (
        spent.reset_index().sort_values("strategy", kind="stable", ignore_index=True).astype({"stage": str})
    )
    spent["hours"], spent["per_sample_ms"] = (
        spent["seconds"] / 3600,
        1000 * spent["seconds"] / spent["samples"],
    )
    return spent.drop(columns="seconds")


def stage_summary(
    history: pd.DataFrame, dsc_before: float, teacher: str, paper: pd.DataFrame
) -> pd.DataFrame:
    """List the cost and the result of one stage beside the paper's, in text columns quantity, paper, here.

    Args:
        history: history of one stage, from `fit`.
        dsc_before: evaluation DSC of the stage's parent model, 0..1.
        teacher: name of the teacher of stage 1's encoder.
        paper: the paper's Table 3, with columns stage, epochs, training_hours.
    """
    budget = paper.set_index("stage").loc[int(history["stage"].iloc[0])]
    best, kept = history.loc[history["best"].astype(bool), "eval_dsc"], "best epoch"
    if best.empty:
        best, kept = history["start_dsc"], "not trained, as no epoch agreed better with float"
    rows = [
        ("epochs", f"{budget['epochs']:g}", str(len(history))),
        ("samples seen", "", f"{history['samples'].sum():,.0f}"),
        ("training time (hours)", f"{budget['training_hours']:g}", f"{history['seconds'].sum() / 3600:.3f}"),
        (
            "share of it spent on reading samples",
            "",
            f"{history['loading_seconds'].sum() / history['seconds'].sum():.1%}",
        ),
        ("teacher of the encoder", "MedSAM ViT-B", teacher),
        ("DSC on the evaluation slices, before", "", f"{100 * dsc_before:.2f} %"),
        (f"DSC on the evaluation slices, {kept}", "", f"{100 * best.iloc[-1]:.2f} %"),
    ]
    return pd.DataFrame(rows, columns=["quantity", "paper", "here"])
