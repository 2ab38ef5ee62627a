"""Weights for a mask decoder to begin with: asked about a box, it answers with that box filled.

A decoder from random weights spends most of its training on finding out where a box lies: attention has to learn to compare places that are given as
waves (`RandomPositions`), of which a useful comparison is a fine balance. But a place can be read from waves by a linear map, to a fraction of a pixel
and blind to what an image shows, and so the comparison can be written down:

- Self-attention of the first block hands every token the long waves of both corners.
- In the first block's attention from the image to the tokens, each head compares the places of the cells with one side of the box: the logit at the
  corner's token is the distance from the side, at the first mask's token nothing, so that the softmax of the two is a sigmoid of the distance. Four heads
  see a cell or so on either side of a side, four a good part of the image. Each writes into a direction that neither content nor places use.
- In the second block and at the end, two heads of the tokens' attention look at what is inside the box and two at what is outside.
- Upscaling shifts the distances to the middle of each pixel and takes away from the mask what lies outside; the first mask's weights multiply that.

All other weights are random as ever, and all of them learn. Only TinyViT's decoder has been begun like this.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy.linalg import hadamard
from torch import Tensor, nn

from .mask_decoder import CrossAttention
from .sam import Sam, build_model

HEADS = 8
FREQUENCIES = (0.08, 4.0)
"""Waves per half image side, in equal ratios along each axis. Short enough for neighbouring cells, long enough to read a place without ambiguity."""
STEEPNESS = 2.0  # logit a cell, of the heads that see the nearest cells
FAR = 8.0  # logit a half side of the image, of those that see far
MARK = 4.0  # how long the vectors are by which tokens are told apart
CHOSEN, LEFT_OUT = 14.0, -90.0  # logits that settle a softmax
GATE = 8.0  # how far a cell's vector moves between outside and inside
SIDES = tuple(product((0, 1), (0, 1)))
"""Left, upper, right, lower: corner, axis."""
IMAGES = 24
LEAST_SILENT = 0.01  # mean square along a direction that nothing uses


@dataclass(frozen=True)
class Reading:
    """A linear map to a place x, y in -1..1: vectors (..., C) @ `weight` (C,2) + `offset` (2,)."""

    weight: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, waves: Tensor, places: Tensor, mean: Tensor, covariance: Tensor) -> Reading:
        """Least squares over waves (P,C) of places (P,2), to each of which something of that mean (C,) and covariance (C,C) is added."""
        centre = waves.mean(0)
        square = (waves - centre).T @ (waves - centre) / len(waves) + covariance + 1e-5 * torch.eye(len(centre), dtype=waves.dtype)
        weight = torch.linalg.solve(square, (waves - centre).T @ places / len(waves))
        return cls(weight.float(), (places.mean(0) - (centre + mean) @ weight).float())


def begin_with_filled_boxes(model: Sam, images: Tensor, seed: int = 0) -> None:
    """Give a model a new prompt encoder and a new mask decoder, in place, which answer a box with that box filled, at the model's present size or near it.

    Args:
        model: with an image encoder that has learned something, since what its embeddings leave unused is measured here.
        images: (B, 3, S, S) in 0..1 at the model's size, some tens of the kind that it is used on.
        seed: of the weights that are random.

    Raises:
        ValueError: a decoder with other than 8 heads of 16 channels, or embeddings that use every direction.
    """
    attention = model.mask_decoder.transformer.layers[0].cross_attn_image_to_token
    if attention.heads != HEADS or attention.q_proj.out_features != 16 * HEADS:
        raise ValueError(f"{model.config.name}: a decoder of {attention.heads} heads; expected {HEADS} of 16 channels, as LiteMedSAM's")
    new = build_model(model.config.name, model.image_size, seed=seed)  # all is made there, so that a failure leaves the model as it was
    new.image_encoder.load_state_dict(model.image_encoder.state_dict())
    with torch.no_grad():
        embeddings = embed(new, images)
        directions = _write_attention(new, torch.cat([e.permute(0, 2, 3, 1).reshape(-1, e.shape[1]) for e in embeddings]), seed)
        _write_upscaling(new, embeddings[0], directions, seed)
    model.prompt_encoder.load_state_dict(new.prompt_encoder.state_dict())
    model.mask_decoder.load_state_dict(new.mask_decoder.state_dict())


def embed(model: Sam, images: Tensor) -> list[Tensor]:
    """Embeddings (B, C, g, g) of images at the model's size and, for what else an encoder says, at half and at twice that size."""
    size, embeddings = model.image_size, []
    for scaled, number in ((size, len(images)), (max(32, size // 32 * 16), len(images)), (min(256, 2 * size), max(1, len(images) // 2))):
        model.set_image_size(scaled)
        inputs = images[:number] if scaled == size else nn.functional.interpolate(images[:number], (scaled, scaled), mode="bilinear", antialias=True)
        embeddings.append(torch.cat([model.image_encoder(image[None]) for image in inputs]))
    model.set_image_size(size)
    return embeddings


def sharpen(model: Sam, ratio: float) -> None:
    """Make the heads that see the nearest cells `ratio` times as steep, in place: cells are so many times smaller from here on.

    With it a decoder begun at one size goes on at another, see `begin_with_filled_boxes`.
    """
    attention = model.mask_decoder.transformer.layers[0].cross_attn_image_to_token
    with torch.no_grad():
        for head in range(len(SIDES)):
            rows = slice(head * _channels(attention), (head + 1) * _channels(attention))
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight[rows] *= ratio**0.5
                projection.bias[rows] *= ratio**0.5


def _channels(attention: CrossAttention) -> int:
    """Channels a head."""
    return attention.q_proj.out_features // attention.heads


def _silent(squares: Tensor, readings: Tensor, number: int) -> Tensor:
    """Orthonormal directions (C, number), float32, along which vectors of these mean squares (C,C) are next to nothing; each sums to zero, so that layer norm
    takes no mean off it, none is seen by the readings (C,R), and they are turned so that no channel holds one alone: quantised, it would drown the others."""
    channels = len(squares)
    values, vectors = torch.linalg.eigh(squares + 100 / channels + 100 * readings @ readings.T)
    if values[number - 1] > LEAST_SILENT:
        raise ValueError(
            f"a new decoder needs {number} directions that embeddings and places leave unused, found mean square {values[number - 1]:.1e}; "
            f"expected at most {LEAST_SILENT}: let the encoder learn first, or at a larger size"
        )
    turn = torch.linalg.qr(torch.randn(number, number, generator=torch.Generator().manual_seed(0), dtype=vectors.dtype))[0]
    return (vectors[:, :number] @ turn).float()


def _clear(*layers: nn.Linear) -> None:
    for layer in layers:
        layer.weight.zero_()
        layer.bias.zero_()


def _write_attention(model: Sam, content: Tensor, seed: int) -> Tensor:
    """Write frequencies, tokens and attention for an encoder whose cells are like `content` (N, C). Returns the directions (C, 8) in which cells hold the sides."""
    prompts, decoder = model.prompt_encoder, model.mask_decoder
    half = content.shape[1] // 2
    ratios = torch.logspace(*np.log10(FREQUENCIES).tolist(), half // 2)
    matrix = torch.zeros(2, half)
    matrix[0, : half // 2], matrix[1, half // 2 :] = ratios, ratios
    prompts.pe_layer.positional_encoding_gaussian_matrix.copy_(matrix)

    centres = (torch.arange(128) + 0.5) / 128
    places = torch.cartesian_prod(centres, centres)
    waves, places = prompts.pe_layer(places).double(), (2 * places - 1).double()
    content = content.double() + prompts.no_mask_embed.weight.double()
    nothing = torch.zeros(2 * half, dtype=torch.double)
    cell = Reading.fit(waves, places, content.mean(0), torch.cov(content.T))
    corner = Reading.fit(waves, places, nothing, torch.diag(nothing))
    readings = torch.cat([cell.weight, corner.weight], 1).double()
    tokens = 1 + len(decoder.mask_tokens.weight) + 2
    waves_held = _channels(decoder.transformer.layers[0].self_attn)
    silent = _silent(waves.T @ waves / len(waves), readings, 2 * tokens + 2 * waves_held)
    marks, marks_held, corners_held = silent.split([tokens, tokens, 2 * waves_held], 1)
    directions = _silent(waves.T @ waves / len(waves) + content.T @ content / len(content), readings, HEADS)

    fixed = [decoder.iou_token.weight, *decoder.mask_tokens.weight[:, None]]
    for row, mark in zip((*fixed, prompts.point_embeddings[2].weight, prompts.point_embeddings[3].weight), marks.T):
        row.copy_(MARK * mark[None])
    first, second = decoder.transformer.layers
    _share_corners(first.self_attn, marks, marks_held, corners_held)
    seen = torch.linalg.qr(torch.cat([corner.weight, marks, torch.ones(2 * half, 1)], 1))[0]  # what the image is compared with
    for layer in (first.mlp.lin2, first.cross_attn_token_to_image.out_proj):
        layer.weight -= seen @ (seen.T @ layer.weight)
        layer.bias -= seen @ (seen.T @ layer.bias)
    free = first.self_attn.out_proj.weight[:, 3 * waves_held :]
    free -= seen @ (seen.T @ free)
    _compare_sides(first.cross_attn_image_to_token, cell, corner, marks, marks_held, directions, model.embedding_size, seed)
    inside = directions.sum(1)
    for attention in (second.cross_attn_token_to_image, decoder.transformer.final_attn_token_to_image):
        for head, side in enumerate((2.0, 1.0, -1.0, -2.0)):
            row = head * _channels(attention)
            attention.q_proj.weight[row] = 0
            attention.q_proj.bias[row] = 4.0
            attention.k_proj.weight[row] = 0.15 * side * inside
            attention.k_proj.bias[row] = 0
    return directions


def _share_corners(attention: CrossAttention, marks: Tensor, marks_held: Tensor, corners_held: Tensor) -> None:
    """Heads 0 and 1 hand every token the long waves of the two corners, head 2 its own mark; the other heads stay random, but weak."""
    channels, tokens = _channels(attention), marks.shape[1]
    strength = CHOSEN / attention.scale
    own = 2 * channels
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.bias.zero_()
        projection.weight[: 3 * channels] = 0
    quarter = marks.shape[0] // 4  # sines of x, of y, cosines of x, of y
    chosen = torch.linspace(0, 0.64 * quarter, channels // 4).round().long()
    waves = torch.cat([chosen + part * quarter for part in range(4)])
    for head in (0, 1):
        row = head * channels
        attention.q_proj.bias[row] = strength
        attention.k_proj.weight[row] = marks[:, tokens - 2 + head] / MARK
        attention.v_proj.weight[row + torch.arange(channels), waves] = 1
    attention.q_proj.weight[own : own + tokens] = marks.T * strength / MARK
    for projection in (attention.k_proj, attention.v_proj):
        projection.weight[own : own + tokens] = marks.T / MARK
    out = attention.out_proj
    out.bias.zero_()
    out.weight[:, : 3 * channels] = 0
    out.weight[:, 3 * channels :] *= 0.3
    out.weight[:, : 2 * channels] = corners_held
    out.weight[:, own : own + tokens] = MARK * marks_held


def _compare_sides(
    attention: CrossAttention, cell: Reading, corner: Reading, marks: Tensor, marks_held: Tensor, directions: Tensor, grid: int, seed: int
) -> None:
    """Every head compares cells with one side of the box, see `SIDES`: heads 0 to 3 steeply, 4 to 7 so that they see far.

    Not by a bounded sum of sines, which fills boxes better before anything is learned, and holds better in 8 bits: it is slower to learn from. After 300
    steps of 32 boxes at 112 px, heads rotated in both, such a decoder had 67 % on the evaluation slices, this one 80 %.
    """
    channels, first_corner, mask = _channels(attention), marks.shape[1] - 2, 1
    random = torch.Generator().manual_seed(seed)
    _clear(attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
    for head, (steepness, (which, axis)) in enumerate(product((STEEPNESS * grid / 2, FAR), SIDES)):
        row, token, sign = head * channels, first_corner + which, 1 - 2 * which
        root = (steepness / attention.scale) ** 0.5
        attention.q_proj.weight[row] = sign * root * cell.weight[:, axis]  # place of the cell times: is this the corner?
        attention.q_proj.bias[row] = sign * root * cell.offset[axis]
        attention.k_proj.weight[row] = root * marks[:, token] / MARK
        attention.q_proj.bias[row + 1] = root  # one times: place of the corner
        attention.k_proj.weight[row + 1] = -sign * root * corner.weight[:, axis]
        attention.k_proj.bias[row + 1] = -sign * root * corner.offset[axis]
        root = (-LEFT_OUT / attention.scale) ** 0.5  # all tokens but these two
        attention.q_proj.bias[row + 2] = root
        attention.k_proj.weight[row + 2] = root * (marks[:, token] + marks[:, mask]) / MARK
        attention.k_proj.bias[row + 2] = -root
        attention.v_proj.weight[row] = marks_held[:, token] / 9  # about as long as layer norm leaves a mark
        attention.out_proj.weight[:, row] = GATE * directions[:, head]
        attention.out_proj.bias -= GATE / 2 * directions[:, head]
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):  # able to learn something else besides
            projection.weight[row + 3 : row + channels].normal_(0, 0.02, generator=random)
        attention.out_proj.weight[:, row + 1 : row + channels].normal_(0, 0.02, generator=random)


def rotate_heads(attention: CrossAttention, seed: int = 0) -> None:
    """Turn the queries and keys of every head by one rotation of its channels, in place; logits stay what they are.

    A comparison that stands in two channels alone is at the mercy of how those are rounded. A Hadamard matrix behind random signs spreads it over all
    channels, whose errors average out: quantised with the paper's recipe and calibrated, a trained decoder lost 0.9 points of Dice instead of 2.2.
    The idea is that of QuaRot (Ashkboos et al. 2024), where it keeps outliers small. It is for weights that have learned: rotated before,
    a new decoder learns slower, 80 instead of 84 % on the evaluation slices after 300 steps of 32 boxes at 112 px.

    Raises:
        ValueError: heads whose channels are no power of two.
    """
    channels = _channels(attention)
    random = torch.Generator().manual_seed(seed)
    for head in range(attention.heads):
        signs = 2.0 * torch.randint(0, 2, (channels,), generator=random) - 1
        rotation = torch.from_numpy(hadamard(channels)) * signs / channels**0.5
        rows = slice(head * channels, (head + 1) * channels)
        with torch.no_grad():
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight[rows] = (rotation.double() @ projection.weight[rows].double()).float()
                projection.bias[rows] = (rotation.double() @ projection.bias[rows].double()).float()


def _write_upscaling(model: Sam, embeddings: Tensor, directions: Tensor, seed: int) -> None:
    """Write upscaling and the first mask's weights by what cells hold of the sides when the model is asked about boxes on embeddings (B, C, g, g)."""
    upscaling = model.mask_decoder.output_upscaling
    cells, distances = _ask(model, embeddings, seed)
    held = torch.einsum("ncyx,ch->nhyx", cells, directions[:, : len(SIDES)])
    vectors = cells.permute(0, 2, 3, 1).reshape(-1, cells.shape[1])
    mean = vectors.mean(0)
    constant = torch.linalg.solve(torch.cov(vectors.T) + 1e-4 * torch.eye(len(mean)), mean)
    constant /= constant @ mean  # its product with any cell is 1: what a bias that differs from pixel to pixel is made of
    first, second = upscaling[0], upscaling[3]
    first.weight[:, 10:] *= 0.5
    first.weight[:, :10] = 0
    for side, (which, axis) in enumerate(SIDES):
        near = distances[:, side].abs() < 0.6
        slope, offset = np.polyfit(distances[:, side][near].numpy(), held[:, side][near].numpy(), 1).tolist()
        for sign, channel in ((1, 2 * side), (-1, 2 * side + 1)):  # of a pair GELU leaves the difference as it was
            first.bias[channel] = -sign * offset / slope
            for pixel in product((0, 1), (0, 1)):
                shift = (1 - 2 * which) * (pixel[1 - axis] - 0.5) / 2
                first.weight[:, channel, *pixel] = sign * (directions[:, side] / slope + shift * constant)
    first.bias[8:10] = torch.tensor([8.0, -8.0])  # outweigh the others, so that layer norm divides by about the same everywhere
    spread = first(cells[:8]).std(1, unbiased=False).mean().item()
    second.weight[:, :5] = 0
    second.bias[:5] = 0
    steepness = 8.0
    for side, (which, axis) in enumerate(SIDES):
        second.weight[2 * side, side] = -steepness * spread
        second.weight[2 * side + 1, side] = steepness * spread
        for pixel in product((0, 1), (0, 1)):
            shift = (1 - 2 * which) * (pixel[1 - axis] - 0.5) / 4
            second.weight[8, side, *pixel] = -steepness * shift * spread / 8
    second.bias[4] = 2.0
    product_weights = model.mask_decoder.output_hypernetworks_mlps[0].layers[2]
    product_weights.weight[:5] *= 0.1
    product_weights.bias[:4] = -4.0
    product_weights.bias[4] = 1.0


def _ask(model: Sam, embeddings: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """What cells hold before upscaling when asked about four boxes on each embedding, (N, C, g, g), and their distances in cells from each side, positive
    inside, (N, 4, g, g)."""
    size, grid = model.image_size, model.embedding_size
    rng = np.random.default_rng(seed)
    extent = rng.uniform(0.15, 0.6, (4 * len(embeddings), 2)) * size
    low = rng.uniform(0, 1, extent.shape) * (size - extent)
    boxes = torch.from_numpy(np.concatenate([low, low + extent - 1], 1)).float()
    sparse = model.prompt_encoder(boxes)
    positions = model.prompt_encoder.image_positions()
    cells = []
    for row, tokens in enumerate(sparse):
        image = embeddings[row // 4 : row // 4 + 1] + model.prompt_encoder.dense()
        cells.append(model.mask_decoder.transform(image, positions, tokens[None])[1])
    centres = (torch.arange(grid) + 0.5) * size / grid - 0.5
    spread = {0: centres[None, None, :].expand(1, grid, grid), 1: centres[None, :, None].expand(1, grid, grid)}
    low, high = boxes[:, :2, None, None] - 0.5, boxes[:, 2:, None, None] + 0.5
    distances = [(1 - 2 * which) * (spread[axis] - (low, high)[which][:, axis]) * grid / size for which, axis in SIDES]
    return torch.cat(cells), torch.stack(distances, 1)
