"""What training leaves of its optimiser steps: the losses of each, and the activation scales of some.

Losses are small and kept of every step. A model has some two hundred scales, so their rows are thinned: there
are at most `ROWS`, at equal distances, however long training is.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from torch import nn

from ..quant.scales import quantiser_name, scale_parameters

STEPS, SCALES = "steps.csv", "step_scales.csv"
ROWS = 256
"""Most rows of scales. A figure cannot show more."""


class StepRecord:
    """Losses and activation scales of the steps of one stage.

    Attributes:
        losses: a list of each loss by name, and of `epoch`, with one entry for each step that is done.
        scales: values of the learning scales, in the order of `names`, by the number of steps done before.
            The first are those before training.
        every: steps between two rows of `scales`, a power of two.
        names: quantisers whose scales learn.
    """

    def __init__(self, state: dict | None = None) -> None:
        """Begin a record, or go on with the `state` of an interrupted one."""
        state = state or {"losses": {}, "scales": {}, "every": 1, "names": []}
        self.losses: dict[str, list[float]] = state["losses"]
        self.scales: dict[int, list[float]] = state["scales"]
        self.every: int = state["every"]
        self.names: list[str] = state["names"]

    @property
    def state(self) -> dict:
        """What `__init__` needs to go on, of plain lists and numbers."""
        return vars(self)

    @property
    def steps(self) -> int:
        """Steps that are done."""
        return len(self.losses.get("epoch", ()))

    def add(self, epoch: int, losses: dict[str, float]) -> None:
        """Add the losses of a step, the same names each time."""
        for name, value in {"epoch": epoch, **losses}.items():
            self.losses.setdefault(name, []).append(value)

    def keep_scales(self, model: nn.Module) -> None:
        """Keep the present scales, if a row is due after so many steps. It costs a copy to the CPU."""
        if self.steps % self.every or self.steps in self.scales:
            return
        learning = {name: p for name, p in scale_parameters(model).items() if p.requires_grad}
        if not learning:
            return
        self.names = [quantiser_name(name) for name in learning]
        self.scales[self.steps] = torch.stack([p.detach().abs() for p in learning.values()]).tolist()
        if len(self.scales) > ROWS:
            self.every *= 2
            self.scales = {step: row for step, row in self.scales.items() if step % self.every == 0}

    def of_epoch(self, epoch: int) -> dict[str, list[float]]:
        """Return the losses of an epoch's steps by name."""
        chosen = [place for place, one in enumerate(self.losses.get("epoch", ())) if one == epoch]
        return {
            name: [values[place] for place in chosen]
            for name, values in self.losses.items()
            if name != "epoch"
        }

    def replace_epoch(self, epoch: int, losses: dict[str, list[float]]) -> None:
        """Put these losses in the place of those of an epoch, the last one."""
        for name, values in losses.items():
            self.losses[name][self.steps - len(values) :] = values

    def tables(self, stage: int) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield the names and contents of the files.

        `steps.csv` has the columns stage, epoch (from 0), step (from 0, over all epochs) and the losses.
        `step_scales.csv` has stage, step (steps done before) and a column for each quantiser: the largest
        magnitude that its codes can represent, or with a zero point the width of its range.
        """
        losses = pd.DataFrame(self.losses).rename_axis("step").reset_index()
        yield (
            STEPS,
            pd.DataFrame({"stage": stage, **losses[["epoch", "step"]], **losses.drop(columns="step")}),
        )
        scales = pd.DataFrame(list(self.scales.values()), columns=self.names)
        yield SCALES, pd.concat([pd.DataFrame({"stage": stage, "step": list(self.scales)}), scales], axis=1)
