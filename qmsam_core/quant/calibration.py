"""Set the scales of a freshly quantised model from data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..models import Sam
from .fitting import fit
from .scales import finish_statistics, unset_scales
from .sign_folding import fold_signs


class Slice(Protocol):
    """A slice that calibrates, such as `data.boxed_slices.BoxedSlice`."""

    def inputs(self, network: Sam) -> tuple[np.ndarray, np.ndarray, object]:
        """Return the network's image (3, S, S), its boxes (n, 4) in px of the frame, and whatever else."""


def calibrate(model: Sam, run: Callable[[Sam, Tensor], object], batches: Iterable) -> int:
    """Set the activation scales from run-time statistics, without gradients.

    Afterwards the scales are ordinary learned parameters.

    Args:
        model: freshly quantised.
        run: calls the model on one batch, e.g. `lambda model, batch: model(batch["image"], batch["box"])`.
        batches: at most `recipe.statistics_batches` of them are used.

    Returns:
        Number of batches used.

    Raises:
        ValueError: there is no batch.
    """
    used = list(islice(batches, model.recipe.statistics_batches))
    if not used:
        raise ValueError(
            "calibrate: no batch was given, so the activation scales cannot be set; expected at least one"
        )
    if model.recipe.sign_folding:
        fold_signs(model, run, used)
    if model.recipe.fitted:
        fit(model, run, used)
        return len(used)
    for scaling in unset_scales(model):  # not the whole model, so that batch-norm statistics stay as they are
        scaling.train()
    with torch.no_grad():
        for batch in used:
            run(model, batch)
    finish_statistics(model)
    return len(used)


def calibrate_on(model: Sam, slices: Sequence[Slice]) -> int:
    """Set the scales of a freshly quantised model from slices and the largest box of each.

    The slices are spread over as many batches as the recipe takes, so that each of them counts.
    """
    inputs = [one.inputs(model) for one in slices]
    size = -(-len(inputs) // model.recipe.statistics_batches)
    batches = [
        {
            "image": torch.from_numpy(np.stack([image for image, _, _ in inputs[i : i + size]])),
            "box": torch.from_numpy(np.stack([boxes[0] for _, boxes, _ in inputs[i : i + size]])),
        }
        for i in range(0, len(inputs), size)
    ]
    return calibrate(model, lambda m, batch: m(batch["image"], batch["box"]), batches)
