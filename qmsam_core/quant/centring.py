"""The mask decoder's cells brought about zero: the same answers from smaller numbers, which eight bits resolve finer.

A channel of the image's cells may hold next to the same large value in all of them; it costs a float network nothing to learn so. One scale a tensor has
to reach that far, and what differs between cells, such as their place, is left with few of its steps. Attention needs no such value: what it says to
queries, keys and values is a constant, which belongs into their biases. (The idea is that of Outlier Suppression+, Wei et al. 2023.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from ..models import Sam


def centre_cells(model: Sam, run: Callable[[Sam, Tensor], object], batches: Iterable, most: int = 8) -> Sam:
    """A copy of a model that gives the same masks, the cells that its decoder's blocks see about zero in every channel.

    The middle of each channel's range is taken off where the cells are made (the dense prompt, the norm behind a block) and given back by biases: of the
    projections that see them, and of the one whose output is added to them. What comes behind the last block stays as it is.

    Args:
        model: its decoder in float.
        run: calls the model on one batch, as for `calibrate`. batches: at most so many of them are used.

    Raises:
        ValueError: a decoder that is quantised already, or no batch at all.
    """
    if "decoder" in getattr(model, "quantised_parts", ()):
        raise ValueError("centre_cells: the decoder is quantised already; expected it in float")
    model = copy.deepcopy(model)
    blocks = model.mask_decoder.transformer.layers
    ranges: list[tuple[Tensor, Tensor] | None] = [None] * len(blocks)

    def watch(number: int, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        cells = inputs[0].detach().float().flatten(0, -2)
        low, high = cells.amin(0), cells.amax(0)
        known = ranges[number] or (low, high)
        ranges[number] = torch.minimum(known[0], low), torch.maximum(known[1], high)

    hooks = [block.cross_attn_token_to_image.v_proj.register_forward_pre_hook(partial(watch, number)) for number, block in enumerate(blocks)]
    try:
        with torch.no_grad():
            for batch in islice(batches, most):
                run(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    made_by = [model.prompt_encoder.no_mask_embed.weight, *(block.norm4.bias for block in blocks)]
    for block, made, seen in zip(blocks, made_by, ranges):
        if seen is None:
            raise ValueError("centre_cells: no batch was given, so the ranges are not known; expected at least one")
        middle = (seen[0] + seen[1]) / 2
        reads, answers = block.cross_attn_token_to_image, block.cross_attn_image_to_token
        with torch.no_grad():
            made -= middle
            for layer in (reads.k_proj, reads.v_proj, answers.q_proj):
                layer.bias += layer.weight @ middle
            answers.out_proj.bias += middle
    return model
