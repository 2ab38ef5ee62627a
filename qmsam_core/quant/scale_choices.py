"""Scales chosen otherwise than by the error of a layer's output, as two references of the paper do.

- `correlation`: scales that maximise the Pearson correlation of the layer's output with the float output
  (Liu et al. 2021, paper reference [8]). Their ranking loss on attention and their bits by layer are left
  out. Inputs of products of activations take the correlation of their own values.
- `lsq`: 2 mean|x| / sqrt(Qp), where LSQ starts to learn scales (Q-ViT, paper reference [5]). Qp is the
  largest code.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from .matrix_form import MatrixForm, product
from .ranges import Range
from .recipes import Recipe
from .rounding import nearest

SHARES = sorted((0.5 + 0.05 * k for k in range(15)), key=lambda share: abs(share - 1))
"""Shares of a scale's start that are tried, 0.5..1.2. The start comes first, so that it wins a tie."""
TIE = 1e-6
"""Correlations closer than this count as equal, and the first wins.

The samples that judge hold few of the largest values. Without this, slightly finer steps would pay for
clipping these.
"""
TURNS = 2  # of the alternation between the scale of the input and those of the weights


def correlation(first: Tensor, second: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Pearson correlation over these dims, which disappear; 0 where one of the tensors is constant."""
    first, second = (x.double() - x.double().mean(dims, keepdim=True) for x in (first, second))
    norms = first.square().sum(dims).sqrt() * second.square().sum(dims).sqrt()
    return (first * second).sum(dims) / norms.clamp_min(1e-20)


def first_best(scores: Tensor) -> Tensor:
    """Return the index along the first axis of the first score that is as good as the best, see `TIE`."""
    return torch.from_numpy((scores >= scores.amax(0) - TIE).numpy().argmax(0, keepdims=True))[0]


def by_correlation(
    form: MatrixForm, matrix: Tensor, inputs: Tensor, codes: Range, scale: Tensor, recipe: Recipe
) -> tuple[Range, Tensor]:
    """Choose the scales of a layer by the correlation of its output.

    The scale of the input and those of the weights take turns. The input's scale is judged by all outputs
    together, the scale of an output channel by that channel.

    Args:
        form: the layer.
        matrix: float weights (G, R, K).
        inputs: float vectors (n, G, K).
        codes: range of the input's codes to start from.
        scale: (outputs,), scales of the weights to start from.
        recipe: its bits, and whether each output channel has a scale.

    Returns:
        Chosen range, and scales of the weights (outputs,).
    """
    wanted, start, chosen = product(inputs, matrix), codes, scale
    bits = recipe.weight_bits

    def weights(scale: Tensor) -> Tensor:
        rows = form.by_row(scale)
        return nearest(matrix, rows, bits) * rows

    for _ in range(TURNS):
        values = weights(chosen)
        tried = [replace(start, scale=share * start.scale) for share in SHARES]
        scores = [correlation(product(one.apply(inputs), values), wanted, (0, 1, 2)) for one in tried]
        codes = tried[first_best(torch.stack(scores))]
        quantised = codes.apply(inputs)
        scores = torch.stack(
            [
                form.of_row(correlation(product(quantised, weights(share * scale)), wanted, (0,)))
                for share in SHARES
            ]
        )
        if not recipe.per_channel:
            scores = scores.sum(1, keepdim=True).expand_as(scores)
        chosen = torch.tensor(SHARES)[first_best(scores)] * scale
    return codes, chosen


def range_by_correlation(values: Tensor, codes: Range) -> Range:
    """Choose the scale of an input of a product by the correlation of its values (n,) before and after."""
    tried = [replace(codes, scale=share * codes.scale) for share in SHARES]
    return tried[first_best(torch.stack([correlation(one.apply(values), values, (0,)) for one in tried]))]


def lsq_range(values: Tensor, codes: Range) -> Range:
    """Return the range whose scale is LSQ's start for these values, of any shape."""
    return replace(codes, scale=max(2 * float(values.abs().mean()) / math.sqrt(codes.high), 1e-10))


def lsq_weight_scale(form: MatrixForm, matrix: Tensor, recipe: Recipe) -> Tensor:
    """Return LSQ's start for the scales of the weights (G, R, K): (outputs,)."""
    means = matrix.abs().mean(2).reshape(form.outputs, -1).mean(1)
    means = means if recipe.per_channel else means.mean().expand(form.outputs)
    return (2 * means / math.sqrt(2 ** (recipe.weight_bits - 1) - 1)).clamp_min(1e-12)
