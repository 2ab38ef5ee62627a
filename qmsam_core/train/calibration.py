"""Calibration: set quantiser scales from training slices, for our recipes and for other tools."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..models import Sam
from ..params import Params
from ..quant import Recipe, calibrate, find_recipe, quantize
from .precision import autocast_for, channels_last
from .processes import device_of
from .stage_data import make_data

BATCH = 4


def calibration_batches(params: Params, data_folder: Path, model: Sam) -> DataLoader:
    """Load training slices with boxes, drawn as an epoch is: as many per modality, the same at every call."""
    data = make_data(params, data_folder, model)
    return DataLoader(data.train, BATCH, sampler=data.sampler.epoch_slices().tolist())


def calibration_slices(params: Params, data_folder: Path, model: Sam) -> tuple[np.ndarray, np.ndarray]:
    """Return the slices that calibrate `params.recipe`, for use by another tool.

    Returns:
        Images float32 (n, 3, S, S), 0..1, and one box per image, float32 (n, 4), model px.
    """
    batches = list(
        islice(calibration_batches(params, data_folder, model), find_recipe(params.recipe).statistics_batches)
    )
    images, boxes = (torch.cat([batch[name] for batch in batches]).numpy() for name in ("image", "box"))
    return images, boxes


def quantise_and_calibrate(
    model: Sam, params: Params, parts: tuple[str, ...], data_folder: Path, recipe: Recipe | None = None
) -> Sam:
    """Quantise parts of a model and set the new scales from training slices, in training's number format.

    Without further training this is post-training quantisation. The result is on the CPU.

    Args:
        model: see `quantize`.
        parts: see `quantize`.
        data_folder: output folder of notebook 00.
        recipe: None takes `params.recipe`.
    """
    device, recipe = device_of(params), find_recipe(recipe or params.recipe)
    model = model.to(device)
    loader = calibration_batches(params, data_folder, model)

    def run(m: Sam, batch: dict) -> object:
        return m(channels_last(batch["image"].to(device)), batch["box"].to(device))

    with autocast_for(model, device):
        model = quantize(model, recipe, parts)
        calibrate(model, run, loader)
    return model.to("cpu")
