"""Weights as integers: their scales, and rounding to the nearest or one column after the other (GPTQ)."""

import torch
from torch import Tensor

from .matrix_form import MatrixForm
from .recipes import Recipe

WEIGHT_RATIOS = tuple(0.5 + 0.02 * k for k in range(26))
BLOCK = 64  # columns whose errors are passed on together
DAMPING = 0.01  # added to the diagonal of a Hessian, as a share of its mean


def weight_scale(form: MatrixForm, matrix: Tensor, inputs: Tensor, recipe: Recipe) -> Tensor:
    """Choose the scale of each output channel, (outputs,), by error or from the largest weight."""
    top = 2 ** (recipe.weight_bits - 1) - 1
    largest = matrix.abs().amax(2).reshape(form.outputs, -1).amax(1).clamp_min(1e-12) / top
    if not recipe.per_channel:
        largest = largest.max().expand(form.outputs)
    if not recipe.weight_scales_by_error:
        return largest.clone()
    importance = inputs.square().mean(0)[:, None]  # (G, 1, K)
    best, chosen = None, largest.clone()
    for ratio in WEIGHT_RATIOS:
        rows = form.by_row(ratio * largest)
        error = (nearest(matrix, rows, recipe.weight_bits) * rows - matrix).square().mul(importance).sum(2)
        error = form.of_row(error)
        if not recipe.per_channel:
            error = error.sum().expand(form.outputs)
        better = torch.ones_like(error, dtype=torch.bool) if best is None else error < best
        best = error if best is None else torch.where(better, error, best)
        chosen = torch.where(better, ratio * largest, chosen)
    return chosen


def nearest(matrix: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Round weights to the nearest integer of the narrow range."""
    top = 2 ** (bits - 1) - 1
    return (matrix / scale).round_().clamp_(-top, top)


def second_moments(inputs: Tensor) -> Tensor:
    """Mean outer product of the input vectors: (n, G, K) -> (G, K, K) float64."""
    x = inputs.movedim(1, 0)
    return (x.transpose(1, 2) @ x).double() / len(inputs)


def round_in_turn(matrix: Tensor, moments: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Round weights column by column, the rest of each row making up for the error so far (GPTQ).

    Args:
        matrix: float weights (G, R, K).
        moments: second moments of the quantised inputs (G, K, K).
        scale: (G, R, 1).
        bits: bit width; the range is narrow.

    Returns:
        Integers (G, R, K), float32. Columns of large inputs are rounded first.
    """
    top = 2 ** (bits - 1) - 1
    rest, hessian = matrix.double().clone(), moments.clone()
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    damping = DAMPING * diagonal.mean(1, keepdim=True) + 1e-12
    order = diagonal.argsort(1, descending=True)
    hessian = hessian + torch.diag_embed(damping.expand_as(diagonal))
    hessian = hessian.gather(1, order[:, :, None].expand_as(hessian))
    hessian = hessian.gather(2, order[:, None].expand_as(hessian))
    columns = order[:, None].expand_as(rest)
    rest = rest.gather(2, columns)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    step, integers, errors = scale[..., 0].double(), torch.empty_like(rest), torch.empty_like(rest)
    for start in range(0, rest.shape[2], BLOCK):
        end = min(start + BLOCK, rest.shape[2])
        for k in range(start, end):
            integers[..., k] = (rest[..., k] / step).round().clamp(-top, top)
            errors[..., k] = (rest[..., k] - integers[..., k] * step) / inverse[:, k, k, None]
            rest[..., k + 1 : end] -= errors[..., k, None] * inverse[:, k, None, k + 1 : end]
        # the columns behind a block wait for its end, so that memory is passed over less often
        rest[..., end:] -= errors[..., start:end] @ inverse[:, start:end, end:]
    return torch.empty_like(integers).scatter_(2, columns, integers).float()
