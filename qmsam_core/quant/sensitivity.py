"""Where a quantised model loses: each block alone in a float model, and all blocks together.

A block alone says which block to mend. The whole model's output block by block says how the error grows on
its way. Both compare with the float model, so the labels play no part.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..models import Sam
from .recipes import PARTS
from .scales import ACTIVATIONS, switched_off

BLOCK = re.compile(
    r"patch_embed|layers\.\d+\.blocks\.\d+|layers\.\d+\.downsample|blocks\.\d+|neck"
    r"|backbone\.stages\.\d+\.op_list\.\d+"
    r"|transformer\.layers\.\d+|transformer\.final_attn_token_to_image"
    r"|output_upscaling|output_hypernetworks_mlps\.0|mask_product"
)
"""Blocks of the encoders and of the decoder, by name within their part."""


def blocks_of(model: Sam) -> Iterator[tuple[str, str]]:
    """List the blocks of a model as (part, name within the part), in the order of `BLOCK`'s networks."""
    for part, attribute in PARTS.items():
        for name, _ in getattr(model, attribute).named_modules():
            if BLOCK.fullmatch(name):
                yield part, name


def signal_to_noise(reference: Tensor, output: Tensor) -> float:
    """Signal-to-quantisation-noise ratio in dB: the reference's energy over that of the difference.

    Infinite where both are equal.
    """
    noise, signal = (float(x.square().sum(dtype=torch.float64)) for x in (output - reference, reference))
    return 10 * float(np.log10(signal / noise)) if noise else float("inf")


@torch.no_grad()
def followed(float_model: Sam, model: Sam, batches: Iterable[dict]) -> pd.DataFrame:
    """Follow a quantised model from block to block. It costs a pass of either model a batch.

    Args:
        float_model: the model before quantisation.
        model: the quantised model, calibrated.
        batches: each with image (B, 3, S, S) and box (B, 4).

    Returns:
        One row per block: part, block, `so far db` (signal-to-noise of the block's own output with everything
        before it quantised; infinite where nothing is).
    """
    blocks, so_far = list(blocks_of(model)), []
    for batch in batches:
        expected, found = (outputs_by_block(m, batch["image"], batch["box"]) for m in (float_model, model))
        so_far.append([signal_to_noise(expected[block], found[block]) for block in blocks])
    table = pd.DataFrame(blocks, columns=["part", "block"])
    return table.assign(**{"so far db": np.mean(so_far, axis=0)})


def followed_each(float_model: Sam, models: Mapping[str, Sam], batches: Sequence[dict]) -> pd.DataFrame:
    """Follow several quantised models of one float model, see `followed`.

    Returns:
        One row per block: part, block and `<name> db` for each of the models.
    """
    tables = {name: followed(float_model, model, batches) for name, model in models.items()}
    columns = {f"{name} db": table["so far db"] for name, table in tables.items()}
    return next(iter(tables.values()))[["part", "block"]].assign(**columns)


@torch.no_grad()
def embeddings_of(models: Iterable[Sam], batch: dict) -> list[np.ndarray]:
    """Return the embedding (C, g, g) of the batch's first image by each of some models, float32."""
    return [model.image_encoder(batch["image"][:1])[0].cpu().numpy() for model in models]


@torch.no_grad()
def sensitivity(float_model: Sam, model: Sam, batches: Sequence[dict]) -> pd.DataFrame:
    """Measure each block of a quantised model, alone and in its place. It costs a pass for each block.

    Args:
        float_model: the model before quantisation.
        model: the quantised model, calibrated.
        batches: each with image (B, 3, S, S) and box (B, 4).

    Returns:
        One row per block: part, block, `alone db` (signal-to-noise of the part's output if only this block is
        quantised: the embedding, or the mask logits), `alone agreement` (mean Dice of the masks with float's,
        0..1), `so far db` (see `followed`).
    """
    table = followed(float_model, model, batches)
    alone: list[list[tuple[float, float]]] = [[] for _ in range(len(table))]
    mixed = copy.deepcopy(float_model).eval()
    for batch in batches:
        image, box = batch["image"], batch["box"]
        embedding = float_model.image_encoder(image)
        logits = float_model.decode(embedding, box)[0]
        for measured, part, name in zip(alone, table["part"], table["block"]):
            own = getattr(mixed, PARTS[part])
            kept = own.get_submodule(name)
            own.set_submodule(name, getattr(model, PARTS[part]).get_submodule(name))
            encoded = mixed.image_encoder(image) if part == "encoder" else embedding
            decoded = mixed.decode(encoded, box)[0]
            own.set_submodule(name, kept)
            output = (embedding, encoded) if part == "encoder" else (logits, decoded)
            agreed = float(mask_agreement(logits > 0, decoded > 0).mean())
            measured.append((signal_to_noise(*output), agreed))
    table.insert(2, "alone db", [np.mean([noise for noise, _ in rows]) for rows in alone])
    table.insert(3, "alone agreement", [np.mean([agreed for _, agreed in rows]) for rows in alone])
    return table


@torch.no_grad()
def embedding_noise(float_model: Sam, model: Sam, batches: Sequence[dict]) -> tuple[float, float]:
    """Tell how much of the noise is the weights'.

    Returns:
        Mean signal-to-noise of the embedding in dB: of the quantised model, and with its activations in
        float, so that only the weights are rounded.
    """
    found = []
    for batch in batches:
        expected, encoder = float_model.image_encoder(batch["image"]), model.image_encoder
        whole = signal_to_noise(expected, encoder(batch["image"]))
        with switched_off([encoder], ACTIVATIONS):
            found.append((whole, signal_to_noise(expected, encoder(batch["image"]))))
    whole, weights = np.mean(found, axis=0)
    return float(whole), float(weights)


@torch.no_grad()
def whole_agreement(float_model: Sam, model: Sam, batches: Sequence[dict]) -> float:
    """Mean Dice (0..1) of the quantised model's low-res masks with the float model's."""
    found = []
    for batch in batches:
        expected, given = (one(batch["image"], batch["box"])[0] > 0 for one in (float_model, model))
        found.append(float(mask_agreement(expected, given).mean()))
    return float(np.mean(found))


def outputs_by_block(model: Sam, image: Tensor, box: Tensor) -> dict[tuple[str, str], Tensor]:
    """Run a model and return the output of every block, its last if it has several, by part and name."""
    kept: dict[tuple[str, str], Tensor] = {}
    hooks = []
    for part, name in blocks_of(model):

        def keep(_: nn.Module, __: tuple, output, block=(part, name)) -> None:
            kept[block] = output[-1] if isinstance(output, tuple) else output

        hooks.append(getattr(model, PARTS[part]).get_submodule(name).register_forward_hook(keep))
    try:
        model(image, box)
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def mask_agreement(first: Tensor, second: Tensor) -> Tensor:
    """Dice of binary masks (B, ...), one value each; 1 where both are empty."""
    first, second = first.flatten(1), second.flatten(1)
    size = first.sum(1) + second.sum(1)
    return torch.where(size > 0, 2 * (first & second).sum(1) / size.clamp_min(1), 1.0)
