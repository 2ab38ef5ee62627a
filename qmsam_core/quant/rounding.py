"""Weights as integers: their scales, and four ways to round.

These are rounding to the nearest, one column after the other (GPTQ, Frantar et al. 2023; GPFQ, paper
reference [16]), and learned (AdaQuant, Hubara et al., paper reference [1]).
"""

import torch
from torch import Tensor

from .matrix_form import MatrixForm
from .recipes import Recipe

WEIGHT_RATIOS = tuple(0.5 + 0.02 * k for k in range(26))
BLOCK = 64  # columns whose errors are passed on together
DAMPING = 0.01  # added to the diagonal of a Hessian, as a share of its mean
STEPS, RATE = 200, 0.003  # of Adam, when rounding is learned; the rate starts there, in steps of the integers


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


def rounded(
    matrix: Tensor, scale: Tensor, inputs: Tensor, floats: Tensor, recipe: Recipe, centred: bool
) -> Tensor:
    """Round weights as a recipe says.

    Args:
        matrix: float weights (G, R, K).
        scale: (G, R, 1).
        inputs: quantised inputs (n, G, K).
        floats: the same inputs before they were quantised.
        recipe: its rounding and its bits of weights.
        centred: whether a bias makes up for the mean error of each output. Rounding that is learned then
            leaves it out of account.

    Returns:
        Integers (G, R, K), float32.
    """
    bits = recipe.weight_bits
    if recipe.rounding == "nearest":
        return nearest(matrix, scale, bits)
    if recipe.rounding == "gptq":
        return round_in_turn(matrix, second_moments(inputs), scale, bits)
    if recipe.rounding == "gpfq":
        return follow_path(matrix, second_moments(inputs), second_moments(inputs, floats), scale, bits)
    if centred:
        inputs, floats = inputs - inputs.mean(0), floats - floats.mean(0)
    return learned(matrix, second_moments(inputs), second_moments(inputs, floats), scale, bits)


def second_moments(inputs: Tensor, others: Tensor | None = None) -> Tensor:
    """Mean outer product of vectors with themselves, or with others: (n, G, K) -> (G, K, K) float64."""
    x = inputs.movedim(1, 0)
    y = x if others is None else others.movedim(1, 0)
    return (x.transpose(1, 2) @ y).double() / len(inputs)


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


def follow_path(matrix: Tensor, moments: Tensor, cross: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Round weights column by column, so that the output so far stays near the float output so far (GPFQ).

    With float inputs X and quantised inputs Y, column t becomes the grid's value nearest to
    <Y_t, u> / ||Y_t||^2. Here u is the sum of w_s X_s for s <= t, less the sum of q_s Y_s for s < t. The
    products of inputs are all that this needs of them.

    Args:
        matrix: float weights (G, R, K).
        moments: second moments of the quantised inputs (G, K, K).
        cross: second moments of quantised with float inputs, (G, K, K).
        scale: (G, R, 1).
        bits: bit width; the range is narrow.

    Returns:
        Integers (G, R, K), float32. Columns whose input is always 0 are rounded to the nearest.
    """
    top, weights, step = 2 ** (bits - 1) - 1, matrix.double(), scale.double()
    wanted = weights @ cross.tril().transpose(1, 2)  # <Y_t, sum of w_s X_s>
    energy = moments.diagonal(dim1=1, dim2=2)[:, None]  # (G, 1, K)
    values = torch.zeros_like(weights)
    for t in range(weights.shape[2]):
        before = (values[..., :t] @ moments[:, t, :t, None])[..., 0]
        target = (wanted[..., t] - before) / energy[..., t].clamp_min(1e-30)
        target = torch.where(energy[..., t] > 0, target, weights[..., t])
        values[..., t] = (target / step[..., 0]).round().clamp(-top, top) * step[..., 0]
    return (values / step).round().float()


def learned(matrix: Tensor, moments: Tensor, cross: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Learn an offset V of the weights that lowers ||W X - Q(W + V) Y||^2, by Adam (AdaQuant).

    X are float inputs and Y quantised ones. The squared error over all samples is a function of their second
    moments, so every step sees all samples. Gradients pass straight through the rounding.

    Args and result are those of `follow_path`. The error is never above that of rounding to the nearest.
    """
    moments, cross, weights = moments.float(), cross.float(), matrix / scale
    target = matrix @ cross.transpose(1, 2) / scale
    offset = torch.zeros_like(weights, requires_grad=True)
    optimiser = torch.optim.Adam([offset], RATE)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, STEPS)
    best = least = None
    with torch.no_grad():
        for _ in range(STEPS):
            integers = nearest(weights + offset, torch.ones_like(scale), bits)
            gradient = integers @ moments - target
            # of each row, less a constant: q H q - 2 q t
            error = (integers * (gradient - target)).sum(2, keepdim=True)
            better = torch.ones_like(error, dtype=torch.bool) if best is None else error < least
            best = integers if best is None else torch.where(better, integers, best)
            least = error if least is None else torch.where(better, error, least)
            offset.grad = gradient
            optimiser.step()
            decay.step()
    return best
