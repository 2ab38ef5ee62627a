"""Where a quantised model loses: each block alone in a float model, and all blocks together.

A block alone says which block to mend. The whole model's output block by block says how the error grows on
its way. Both compare with the float model, so the labels play no part.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..models import Sam
from .recipes import PARTS

BLOCK = re.compile(
    r"patch_embed|layers\.\d+\.blocks\.\d+|layers\.\d+\.downsample|blocks\.\d+|neck"
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
    noise = float((output - reference).double().square().sum())
    signal = float(reference.double().square().sum())
    return 10 * float(np.log10(signal / noise)) if noise else float("inf")


def sensitivity(float_model: Sam, model: Sam, batches: Iterable[dict]) -> pd.DataFrame:
    """Measure each block of a quantised model, alone and in its place.

    Args:
        float_model: the model before quantisation.
        model: the quantised model, calibrated.
        batches: each with image (B, 3, S, S) and box (B, 4).

    Returns:
        One row per block: part, block, `alone db` (signal-to-noise of the part's output if only this block is
        quantised: the embedding, or the mask logits), `alone agreement` (mean Dice of the masks with float's,
        0..1), `so far db` (signal-to-noise of the block's own output with everything before it quantised).
    """
    blocks = list(blocks_of(model))
    alone: dict[tuple[str, str], list[tuple[float, float]]] = {block: [] for block in blocks}
    so_far: dict[tuple[str, str], list[float]] = {block: [] for block in blocks}
    mixed = copy.deepcopy(float_model).eval()
    with torch.no_grad():
        for batch in batches:
            image, box = batch["image"], batch["box"]
            expected, embedding, logits = outputs_by_block(float_model, image, box)
            found, _, _ = outputs_by_block(model, image, box)
            for block in blocks:
                so_far[block].append(signal_to_noise(expected[block], found[block]))
                part, name = block
                own = getattr(mixed, PARTS[part])
                kept = own.get_submodule(name)
                own.set_submodule(name, getattr(model, PARTS[part]).get_submodule(name))
                if part == "encoder":
                    encoded = mixed.image_encoder(image)
                    decoded = mixed.decode(encoded, box)[0]
                    noise = signal_to_noise(embedding, encoded)
                else:
                    decoded = mixed.decode(embedding, box)[0]
                    noise = signal_to_noise(logits, decoded)
                own.set_submodule(name, kept)
                alone[block].append((noise, float(mask_agreement(logits > 0, decoded > 0).mean())))
    rows = [(*block, *np.mean(alone[block], axis=0), np.mean(so_far[block])) for block in blocks]
    return pd.DataFrame(rows, columns=["part", "block", "alone db", "alone agreement", "so far db"])


def outputs_by_block(model: Sam, image: Tensor, box: Tensor) -> tuple[dict, Tensor, Tensor]:
    """Run a model and keep the output of every block (its last, if it has several), embedding and logits."""
    kept: dict[tuple[str, str], Tensor] = {}
    hooks = []
    for part, name in blocks_of(model):

        def keep(_: nn.Module, __: tuple, output, block=(part, name)) -> None:
            kept[block] = output[-1] if isinstance(output, tuple) else output

        hooks.append(getattr(model, PARTS[part]).get_submodule(name).register_forward_hook(keep))
    try:
        embedding = model.image_encoder(image)
        logits = model.decode(embedding, box)[0]
    finally:
        for hook in hooks:
            hook.remove()
    return kept, embedding, logits


def mask_agreement(first: Tensor, second: Tensor) -> Tensor:
    """Dice of binary masks (B, ...), one value each; 1 where both are empty."""
    first, second = first.flatten(1), second.flatten(1)
    size = first.sum(1) + second.sum(1)
    return torch.where(size > 0, 2 * (first & second).sum(1) / size.clamp_min(1), 1.0)
