"""Boxes on images whose embeddings are kept: what the prompt encoder and the mask decoder learn from alone.

Where a box lies, and that a mask fills it, needs many boxes and hardly any image; a box costs a small part of what an image costs. So the encoder
runs once over a number of images, and every step asks about some of them. Half of the boxes lie on images that show nothing but noise, where
the best answer is the ellipse inscribed in the box, of any size and at any place: objects alone leave places and sizes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data.prompts import PromptDataset
from ..models import Sam
from .cells import CellSample, decode_cells, masks_of_cells
from .precision import autocast_for, channels_last

ON_NOTHING = 2
"""Of so many boxes one lies on an image that shows nothing. With one of five a decoder that had been trained for six hours still drew rounded rectangles there,
with a Dice of 77 % at sides of 3 to 8 px and 91 to 94 % above 16 px; with one of two, half an hour behind a fixed stem makes it 88 and 95 to 97 %."""
EMPTY_IMAGES = 8
LEAST_SIDE, LARGEST_SIDE = 3.0, 0.85
"""Sides of boxes on nothing: at least so many pixels of the mask, whatever the image's size, and at most (as geometric mean) such a share of its side. With a
share as the least, the smallest boxes grew with the image: at 256 px a decoder drew ellipses of 3 px with a Dice of 71 %, at 112 px with one of 87 %."""
BATCH = 8


class Decoding(nn.Module):
    """The part of a model behind its image encoder as a module of its own, see `decode_cells`."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.decode = partial(decode_cells, model)
        self.prompt_encoder, self.mask_decoder = model.prompt_encoder, model.mask_decoder  # so that their parameters are found

    def forward(self, cells: Tensor, boxes: Tensor, sample: CellSample) -> tuple[Tensor, Tensor]:
        return self.decode(cells, boxes, sample)


class KeptEmbeddings:
    """Steps' worth of boxes on the embeddings of a number of images, computed by a model at its present size and with its present encoder.

    Args:
        samples: images with their boxes; the first `images` from `start` on are kept, in half precision: 2 MB each at 256 px.
        seed: of all draws; step `n` depends on it and on `n` only.
    """

    def __init__(self, model: Sam, samples: PromptDataset, images: int, seed: int, device: str = "cpu", start: int = 0) -> None:
        self.size, self.grid, self.mask_size, self.seed, self.device = model.image_size, model.embedding_size, model.mask_size, seed, device
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self.names: list[str] = []
        for sample in DataLoader(samples, BATCH, sampler=range(start, start + images)):
            kept.append((self._embed(model, sample["image"]), sample["boxes"], sample["masks"].bool()))
            self.names += sample["name"]
        self.embeddings, self.boxes, self.masks = (torch.cat(parts) for parts in zip(*kept))
        self.empty = self._embed(model, nothing(EMPTY_IMAGES, self.size, np.random.default_rng((seed, 0))))

    @torch.no_grad()
    def _embed(self, model: Sam, images: Tensor) -> Tensor:
        """Embeddings (B, g^2, C) in half precision, cells row by row, by the encoder as it is in evaluation."""
        training = model.training
        model.eval()
        with autocast_for(model, self.device):
            embeddings = model.image_encoder(channels_last(images.to(self.device)))
        model.train(training)
        return embeddings.flatten(2).transpose(1, 2).half().contiguous().cpu()

    def batches(self, boxes: int, step: int, stride: int = 1, first: int = 0) -> Iterator[dict]:
        """Batches from `step` on without end: boxes float32 (N,4), a sample of cells (int64 index, float32 weights and bool near, (N,K) each), their embeddings
        float32 (N,K,C) as cells and their pixels float32 (N,K,16) as masks, name.

        Of several processes that train together, each takes every `stride`th batch, from `first` on.
        """
        number = step * stride + first
        while True:
            yield self.batch(boxes, number)
            number += stride

    def batch(self, boxes: int, number: int) -> dict:
        """Batch `number` of so many boxes."""
        rng = np.random.default_rng((self.seed, 2, number))
        empty = boxes // ON_NOTHING
        places, masks = inscribed(empty, self.size, self.mask_size, rng)
        rows, asked = rng.integers(len(self.embeddings), size=boxes - empty), rng.integers(self.boxes.shape[1], size=boxes - empty)
        places, masks = torch.cat([places, self.boxes[rows, asked]]), torch.cat([masks, self.masks[rows, asked].float()])
        sample = CellSample.draw(places, self.size, self.grid, torch.Generator().manual_seed(int(rng.integers(2**62))))
        blank, something = torch.from_numpy(rng.integers(EMPTY_IMAGES, size=empty)), torch.from_numpy(rows)
        cells = [self.empty[blank[:, None], sample.index[:empty]], self.embeddings[something[:, None], sample.index[empty:]]]
        return {
            "cells": torch.cat(cells).float(), "boxes": places, "masks": masks_of_cells(masks, sample.index),
            "index": sample.index, "weights": sample.weights, "near": sample.near, "name": ["nothing"] * empty + [self.names[row] for row in rows],
        }  # fmt: skip


def nothing(number: int, size: int, rng: np.random.Generator) -> Tensor:
    """Images float32 (N,3,S,S) 0..1 of noise about some grey."""
    levels = rng.uniform((0.1, 0.01), (0.9, 0.2), (number, 2))[..., None, None, None]
    return torch.from_numpy(np.clip(levels[:, 0] + levels[:, 1] * rng.normal(0, 1, (number, 3, size, size)), 0, 1)).float()


def inscribed(number: int, size: int, mask_size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Boxes float32 (N,4) of any size and place in an image of `size` pixels, and the ellipses inscribed in them as masks float32 (N,1,M,M).

    A box reaches from the outer side of its first pixel to that of its last, as boxes of objects do.
    """
    least = LEAST_SIDE * size / mask_size
    side = np.exp(rng.uniform(np.log(least), np.log(LARGEST_SIDE * size), number))
    extent = np.clip(np.exp(rng.uniform(-0.6, 0.6, (2, number))) * side, least, size - 2)  # width, height
    low = rng.uniform(0, 1, (2, number)) * (size - extent)
    boxes = np.stack([*low, *(low + extent - 1)], 1).astype(np.float32)
    across, down = (((np.arange(mask_size) + 0.5) * size / mask_size - (low[k] + extent[k] / 2)[:, None]) / (extent[k] / 2)[:, None] for k in (0, 1))
    masks = (across[:, None, :] ** 2 + down[:, :, None] ** 2 <= 1).astype(np.float32)
    return torch.from_numpy(boxes), torch.from_numpy(masks)[:, None]
