"""Training of all but the encoder's convolutional stage, on images never seen before.

That stage holds under one per cent of TinyViT's weights but works on every pixel, with 256 channels: on a CPU most of a step goes into its gradients.
What it finds, edges and textures, is learned early. So it stays as it is here, its batch norms folded into its convolutions, and the mask decoder
is shown a sample of an image's cells, see `cells`. Every step also asks about boxes on one image of noise: objects alone leave places and sizes out, see `kept`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..models import Sam
from ..models.tiny_vit import TinyViT
from ..quant import fold_batch_norm
from .cells import CellSample, decode_cells, masks_of_cells
from .kept import ON_NOTHING, inscribed, nothing
from .precision import channels_last, trains_in_bf16


def stem_parameters(encoder: TinyViT) -> list[nn.Parameter]:
    """The parameters of an encoder's stem."""
    return [*encoder.patch_embed.parameters(), *encoder.layers[0].parameters()]


def fixed_stem(encoder: TinyViT, dtype: torch.dtype) -> nn.Module:
    """A copy of an encoder's stem as it answers in evaluation, without batch norms and in a number format of its own."""
    stem = copy.deepcopy(nn.Sequential(encoder.patch_embed, encoder.layers[0])).eval()
    fold_batch_norm(stem)
    stem.requires_grad_(False)
    return channels_last(stem.to(dtype))


class BehindStem(nn.Module):
    """The part of a model behind its encoder's stem as a module of its own, which stands for the model in a phase with a fixed stem.

    Args:
        model: its stem's parameters are told that they need no gradient.

    Raises:
        ValueError: an encoder that has no such stem.
    """

    def __init__(self, model: Sam, device: str = "cpu") -> None:
        super().__init__()
        if not isinstance(model.image_encoder, TinyViT):
            raise ValueError(f"{model.config.name}: 'fixed stem' is for models with a TinyViT encoder; leave it out of float_phases")
        self.model, self.dtype = model, torch.bfloat16 if trains_in_bf16(model, device) else torch.float32
        self.stem = fixed_stem(model.image_encoder, self.dtype)
        for parameter in stem_parameters(model.image_encoder):
            parameter.requires_grad_(False)

    def forward(self, images: Tensor, rows: Tensor, boxes: Tensor, sample: CellSample) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S), boxes (N, 4), the image that each lies on, int64 (N,), and its sample of cells -> what `decode_cells` says of them: (N, cells, 16)
        and (N, 1)."""
        seen = self.stem(channels_last(images.to(self.dtype)))
        embeddings = self.model.image_encoder.behind_stem(seen).flatten(2).transpose(1, 2).float()
        return decode_cells(self.model, embeddings[rows[:, None], sample.index], boxes, sample)


def with_cells(batches: Iterable[dict], size: int, grid: int, seed: int) -> Iterator[dict]:
    """Batches of `PromptDataset` with an image of noise behind theirs, boxes on it, and a sample of cells for each box.

    Fields as in `kept.KeptEmbeddings.batches`, but in the place of cells image float32 (B + 1,3,S,S), and rows int64 (N,): the image that each box lies on.
    All draws depend on the seed and the batch's boxes only, so that training that resumes sees what it would have seen.
    """
    for batch in batches:
        boxes, masks = batch["boxes"].flatten(0, 1), batch["masks"].flatten(0, 1).float()
        draw = seed + int(boxes.double().sum() * 1e3)
        rng = np.random.default_rng(draw)
        # as many as make one of so many boxes lie there
        places, ellipses = inscribed(len(boxes) // (ON_NOTHING - 1), size, masks.shape[-1], rng)
        rows = torch.arange(len(batch["boxes"])).repeat_interleave(batch["boxes"].shape[1])
        rows = torch.cat([rows, torch.full((len(places),), len(batch["boxes"]))])
        boxes, masks = torch.cat([boxes, places]), torch.cat([masks, ellipses])
        drawn = CellSample.draw(boxes, size, grid, torch.Generator().manual_seed(draw))
        yield {
            "image": torch.cat([batch["image"], nothing(1, size, rng)]), "rows": rows, "boxes": boxes, "masks": masks_of_cells(masks, drawn.index),
            "index": drawn.index, "weights": drawn.weights, "near": drawn.near, "name": [*batch["name"], "nothing"],
        }  # fmt: skip
