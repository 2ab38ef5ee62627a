"""The mask decoder on a sample of an image's cells: what a step of its training costs then does not depend on the image's size.

Most cells of the embedding say the same about a box: nothing. So those about the box are looked at, and of the others a few, each of which counts in the
tokens' attention to the image, and in the loss, for as many as it stands for. What tokens learn from the image is then, but for the draw, what they
would learn from all of it. At 224 px a box shows the decoder 192 cells instead of 3136.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models import Sam
from ..models.mask_decoder import MaskDecoder

CELLS = 192
NEAR_CELLS = 144  # at most so many about the box, if there are others
MARGIN, LEAST_MARGIN = 0.25, 4.0
"""How far about the box reaches beyond it: a share of its sides and some pixels."""
FAR = 0.3
"""What cross-entropy away from the box counts for, against that about the box."""


@dataclass(frozen=True)
class CellSample:
    """K cells for each of N boxes.

    Attributes:
        index: int64 (N, K), of cells row by row, none twice.
        weights: float32 (N, K), how many cells each stands for; they add up to the number of all.
        near: bool (N, K), whether a cell lies about the box.
    """

    index: Tensor
    weights: Tensor
    near: Tensor

    @classmethod
    def draw(cls, boxes: Tensor, size: int, grid: int, random: torch.Generator, cells: int = CELLS, near_cells: int = NEAR_CELLS) -> CellSample:
        """A sample for boxes (N, 4) of an input of `size` px with `grid` x `grid` cells; all cells, where there are no more than `cells`."""
        cells = min(cells, grid * grid)
        near_cells = near_cells if cells < grid * grid else cells
        about = cells_about(boxes, size, grid)
        lot = torch.rand(about.shape, generator=random, device=boxes.device)
        first = (lot + about).topk(near_cells, 1).indices  # those about the box; where there are too few, others fill up
        left = (lot - 2.0 * about).scatter(1, first, -9.0)
        index = torch.cat([first, left.topk(cells - near_cells, 1).indices], 1)
        near = about.gather(1, index)
        number, taken = about.sum(1, keepdim=True), near.sum(1, keepdim=True)
        others = (grid * grid - number) / (cells - taken).clamp(min=1)
        return cls(index, torch.where(near, number / taken.clamp(min=1), others), near)


def cells_about(boxes: Tensor, size: int, grid: int) -> Tensor:
    """Which cells of `grid` x `grid` touch the box (N, 4) of an input of `size` px or lie close to it: bool (N, grid^2)."""
    cell = size / grid
    low, high = boxes[:, :2], boxes[:, 2:] + 1
    margin = MARGIN * (high - low) + LEAST_MARGIN
    begins = torch.arange(grid, device=boxes.device) * cell
    x, y = ((begins + cell > (low - margin)[:, k, None]) & (begins < (high + margin)[:, k, None]) for k in (0, 1))
    return (y[:, :, None] & x[:, None, :]).flatten(1)


def masks_of_cells(masks: Tensor, index: Tensor) -> Tensor:
    """The 4 x 4 pixels of cells (N, K) of masks (N, 1, M, M), row by row: (N, K, 16)."""
    pixels = nn.functional.pixel_unshuffle(masks, 4).flatten(2).transpose(1, 2)
    return pixels.gather(1, index[..., None].expand(-1, -1, 16))


def decode_cells(model: Sam, cells: Tensor, boxes: Tensor, sample: CellSample) -> tuple[Tensor, Tensor]:
    """What `Sam.decode` says about the cells of a sample, from their embeddings (N, K, C): mask logits (N, K, 16), as `masks_of_cells`, and predicted IoU (N, 1)."""
    decoder, positions = model.mask_decoder, model.prompt_encoder.image_positions()
    tokens = decoder.tokens(model.prompt_encoder(boxes))
    cells = cells + model.prompt_encoder.dense().flatten()
    tokens, cells = decoder.transformer(cells, positions[0].flatten(1).T[sample.index], tokens, sample.weights)
    weights = decoder.output_hypernetworks_mlps[0](tokens[:, 1])
    return torch.einsum("nc,nkpc->nkp", weights, upscale(decoder, cells)), decoder.iou_prediction_head(tokens[:, 0])[:, :1]


def upscale(decoder: MaskDecoder, cells: Tensor) -> Tensor:
    """What the decoder's upscaling makes of each cell (N, K, C): (N, K, 16, C / 8). It looks at no neighbours, so that linear layers do."""
    first, norm, gelu, second, _ = decoder.output_upscaling
    for layer, normed in ((first, norm), (second, None)):
        cells = nn.functional.linear(cells, layer.weight.permute(2, 3, 1, 0).flatten(0, 2)).unflatten(-1, (4, -1)) + layer.bias
        if normed is not None:
            cells = nn.functional.layer_norm(cells, normed.weight.shape, normed.weight, normed.bias, normed.eps)
        cells = gelu(cells)
    quarters = cells.unflatten(3, (2, 2)).unflatten(2, (2, 2))  # N, K, row and column of the quarter, and within it
    return quarters.transpose(3, 4).flatten(2, 5)


def cell_loss(logits: Tensor, masks: Tensor, guessed: Tensor, sample: CellSample) -> Tensor:
    """Loss of mask logits (N, K, 16) of a sample against masks 0/1 of the same shape: Dice, cross-entropy, and the squared error of the predicted IoU (N, 1).

    Dice is that of the whole mask, estimated. Cross-entropy is averaged about each box and away from it: on the whole image it is about large objects,
    here a box of five pixels counts for as much as one that fills the image.
    """
    weights = sample.weights[..., None]
    likely = logits.sigmoid()
    both, either = (weights * likely * masks).sum((1, 2)), (weights * (likely + masks)).sum((1, 2))
    dice = 1 - (2 * both + 1) / (either + 1)
    errors = nn.functional.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(2)
    near, far = ((errors * part).sum(1) / part.sum(1).clamp(min=1) for part in (sample.near, ~sample.near))
    found, wanted = logits.detach() > 0, masks > 0.5
    union = (weights * (found | wanted)).sum((1, 2)).clamp(min=1)
    iou = (weights * (found & wanted)).sum((1, 2)) / union
    return (dice + near + FAR * far).mean() + nn.functional.mse_loss(guessed[:, 0], iou)
