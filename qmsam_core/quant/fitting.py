"""Fit a recipe to data, layer by layer: ranges, zero points, channel factors and integer weights.

A layer is seen as a matrix product. What its input looks like is sampled from calibration slices. Everything
that a recipe leaves open is then chosen so that the layer's output changes least:

- the range that the codes of the input cover, and whether it is symmetric;
- factors that bring the channels of the input to similar ranges, undone in the weights
  (SmoothQuant, Xiao et al. 2023, with the exponent chosen by layer);
- scales of the weights, and their rounding one column after the other, where later columns make up for the
  error of earlier ones (GPTQ, Frantar et al. 2023);
- a shift of the bias that restores the mean of the output (Nagel et al. 2019).

Methods of the literature take the place of one of these choices, or add constant noise to the input
(NoisyQuant, paper reference [6]). `Recipe` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..models import Sam
from .matrix_form import MatrixForm, product
from .ranges import Range
from .recipes import Recipe
from .rounding import nearest, rounded, weight_scale
from .scale_choices import by_correlation, lsq_range, lsq_weight_scale, range_by_correlation
from .scales import finish_statistics, set_scale, switched_off, unset_scales

VECTORS = 2400  # inputs sampled of each layer over all batches
CHOICE = 800  # of them, those that judge a choice of ranges, fewer in layers wider than any of LiteMedSAM's
PRODUCTS = CHOICE * 9 * 256 * 256  # most multiplications for one judgement: the neck's, LiteMedSAM's largest
VALUES = 100_000  # values sampled of each input of a product of activations
RATIOS = (1.0, 0.92, 0.84, 0.76, 0.68, 0.6, 0.52, 0.44, 0.36, 0.28, 0.2, 0.14, 0.1, 0.07)
"""Shares of the largest range that clipping tries."""
WORTH = 2.0  # factors cost a pass over the input, so they must lower the squared error by this much
SMALLEST_FACTOR = 1 / 64  # a channel's factor lies between this and 1, up to a common factor
NOISES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Largest noise that the line search tries, in steps of the input's codes."""


@dataclass
class Seen:
    """What calibration saw of one input.

    Attributes:
        low: least value, of each channel (C,) for layers with weights, () for products.
        high: largest value, likewise.
        samples: vectors (n, G, K) for layers with weights, values (n,) for products.
    """

    low: Tensor | None = None
    high: Tensor | None = None
    samples: list[Tensor] = field(default_factory=list)

    def add(self, low: Tensor, high: Tensor, sample: Tensor) -> None:
        """Take account of one more batch, on the CPU."""
        low, high, sample = low.cpu(), high.cpu(), sample.cpu()
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        self.samples.append(sample)


def observe(
    model: Sam, layers: dict[str, nn.Module], run: Callable[[Sam, dict], object], batches: list, seed: int = 0
) -> dict[str, list[Seen]]:
    """Run the model with these layers in float and keep what their inputs look like, by layer's name."""
    seen: dict[str, list[Seen]] = {name: [] for name in layers}
    generator = torch.Generator().manual_seed(seed)

    def watch(name: str, form: MatrixForm | None) -> Callable:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found = seen[name] or [Seen() for _ in inputs]
            seen[name] = found
            for one, x in zip(found, inputs):
                x = x.detach().float()
                if form is None:
                    flat = x.reshape(-1)
                    chosen = torch.randint(len(flat), (VALUES // len(batches),), generator=generator)
                    one.add(flat.min(), flat.max(), flat[chosen])
                else:
                    dims = tuple(range(x.ndim - 1))
                    low, high = form.channels_last(x).amin(dims), form.channels_last(x).amax(dims)
                    one.add(low, high, form.vectors(x, -(-VECTORS // len(batches)), generator))

        return hook

    hooks = [
        layer.register_forward_pre_hook(watch(name, MatrixForm(layer) if hasattr(layer, "weight") else None))
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad(), switched_off(layers.values()):
            for batch in batches:
                run(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@dataclass
class Fitted:
    """What `fit_layer` has chosen for a layer with weights.

    Attributes:
        codes: range of the input's codes.
        factor: (C,), by which the input's channels are multiplied before they are quantised.
        integers: weight as integers, (G, R, K).
        scale: (outputs,), scales of the integers.
        shift: (outputs,), to be added to the bias.
        noise: (C,), to be added to the input's channels, times their factors, before they are quantised.
        error: squared error of the output on the samples, as a share of the output's square.
    """

    codes: Range
    factor: Tensor
    integers: Tensor
    scale: Tensor
    shift: Tensor
    noise: Tensor
    error: float


def fit_layer(form: MatrixForm, seen: Seen, recipe: Recipe, signed: bool = True) -> Fitted:
    """Choose ranges, factors, scales and integers of one layer.

    `signed` says whether the codes of a symmetric range have a sign. With a zero point both kinds are tried.
    """
    samples = torch.cat(seen.samples)
    matrix = form.matrix(form.layer.weight.detach().cpu())
    few = samples[torch.linspace(0, len(samples) - 1, judging(matrix, len(samples))).long()]
    choose = choose_by_error if recipe.choice == "error" else choose_otherwise
    codes, factor, scale = choose(form, seen, few, matrix, recipe, signed)
    columns, rows = form.by_column(factor), form.by_row(scale)
    scaled = matrix / columns[:, None]
    noise = torch.zeros(form.channels)
    if recipe.noise and form.takes_noise:
        noise = find_noise(few * columns, scaled, rows, codes, recipe)
    floats = samples * columns + form.by_column(noise)
    inputs = codes.apply(floats)
    corrected = recipe.bias_correction and form.layer.bias is not None
    integers = rounded(scaled, rows, inputs, floats, recipe, corrected)
    wanted = product(samples, matrix)
    difference = wanted - product(inputs, integers * rows)
    if corrected:
        shift = form.of_row(difference.mean(0)) * form.outputs / difference[0].numel()  # over its rows
    else:
        shift = -form.of_row(product(form.by_column(noise)[None], integers * rows)[0])
    error = (difference - form.by_row(shift)[..., 0]).square().mean() / wanted.square().mean()
    return Fitted(codes, factor, integers, scale, shift, noise, float(error))


def judging(matrix: Tensor, most: int) -> int:
    """Return how many of `most` input vectors judge the ranges of a layer with this weight (G, R, K)."""
    return max(1, min(CHOICE, most, PRODUCTS // matrix.numel()))


def choose_by_error(
    form: MatrixForm, seen: Seen, few: Tensor, matrix: Tensor, recipe: Recipe, signed: bool
) -> tuple[Range, Tensor, Tensor]:
    """Choose range, channel factors (C,) and weight scales (outputs,) by the error of the output on a few.

    `few` are input vectors (n, G, K) and `matrix` is the weight (G, R, K). The rest are `fit_layer`'s.
    """
    wanted = product(few, matrix)
    best: tuple | None = None
    factors = channel_factors(form, seen, matrix, recipe)
    for factor in factors:
        columns = form.by_column(factor)
        scaled, divided = matrix / columns[:, None], few * columns
        scale = weight_scale(form, scaled, divided, recipe)
        values = nearest(scaled, form.by_row(scale), recipe.weight_bits) * form.by_row(scale)
        low, high = float((seen.low * factor).min()), float((seen.high * factor).max())
        for codes in ranges(low, high, recipe, signed):
            error = float((product(codes.apply(divided), values) - wanted).square().mean())
            error *= 1.0 if factor is factors[0] else WORTH
            if best is None or error < best[0]:
                best = error, codes, factor, scale
    return best[1:]


def choose_otherwise(
    form: MatrixForm, seen: Seen, few: Tensor, matrix: Tensor, recipe: Recipe, signed: bool
) -> tuple[Range, Tensor, Tensor]:
    """Choose scales by correlation or as LSQ starts, see `scale_choices`. As `choose_by_error` otherwise."""
    low, high = float(seen.low.min()), float(seen.high.max())
    codes = Range.symmetric(low, high, recipe.activation_bits, signed)
    if recipe.choice == "lsq":
        codes, scale = lsq_range(few, codes), lsq_weight_scale(form, matrix, recipe)
    else:
        scale = weight_scale(form, matrix, few, recipe)
        codes, scale = by_correlation(form, matrix, few, codes, scale, recipe)
    return codes, torch.ones(form.channels), scale


def find_noise(few: Tensor, matrix: Tensor, rows: Tensor, codes: Range, recipe: Recipe) -> Tensor:
    """Find noise (K,) that lowers the error of the output, by a line search for its size.

    It is uniform, drawn once. The size 0 is among those tried.

    Args:
        few: input vectors (n, 1, K).
        matrix: float weights (1, R, K).
        rows: scales of the weights (1, R, 1).
        codes: range of the input's codes.
        recipe: its bits of weights.
    """
    drawn = 2 * torch.rand(few.shape[2], generator=torch.Generator().manual_seed(0)) - 1
    values, wanted = nearest(matrix, rows, recipe.weight_bits) * rows, product(few, matrix)
    tried = [size * codes.scale * drawn for size in NOISES]
    return min(
        tried, key=lambda one: float((product(codes.apply(few + one) - one, values) - wanted).square().mean())
    )


def channel_factors(form: MatrixForm, seen: Seen, matrix: Tensor, recipe: Recipe) -> list[Tensor]:
    """List the factors (C,) to try: all ones, and by recipe those that even out the channels' ranges.

    The inputs of a depthwise convolution are evened out completely, as its weights have scales of their own.
    """
    none = torch.ones(form.channels)
    if not recipe.channel_factors:
        return [none]
    inputs = torch.maximum(seen.low.abs(), seen.high.abs()).clamp_min(1e-6)
    if form.groups > 1:
        exponents, weights = (1.0,), none
    else:
        exponents = recipe.channel_factors
        weights = matrix.abs().amax((0, 1)).view(form.channels, -1).amax(1).clamp_min(1e-6)
    factors = []
    for exponent in exponents:
        divisor = inputs**exponent / weights ** (1 - exponent)
        factors.append(1 / (divisor / divisor.max()).clamp_min(SMALLEST_FACTOR))
    return factors if form.groups > 1 else [none, *factors]


def ranges(low: float, high: float, recipe: Recipe, signed: bool) -> list[Range]:
    """List the ranges to try for values in low..high."""
    bits, found = recipe.activation_bits, []
    for ratio in RATIOS if recipe.clip else (1.0,):
        if recipe.zero_point:
            # a short negative tail, such as GELU's, is kept whole
            bottom = ratio * low if low < -0.25 * high else max(low, -0.3 * ratio * high)
            found.append(Range.shifted(bottom, ratio * high, bits))
        found.append(Range.symmetric(ratio * low, ratio * high, bits, signed or recipe.zero_point))
    return found


def fit_product(seen: Seen, recipe: Recipe, signed: bool) -> Range:
    """Choose the range of one input of a product of activations, by default by the error of its values."""
    values = torch.cat(seen.samples)
    if recipe.choice != "error":
        whole = Range.symmetric(float(seen.low), float(seen.high), recipe.activation_bits, signed)
        return (lsq_range if recipe.choice == "lsq" else range_by_correlation)(values, whole)
    tried = (
        Range.symmetric(ratio * float(seen.low), ratio * float(seen.high), recipe.activation_bits, signed)
        for ratio in (RATIOS if recipe.clip else (1.0,))
    )
    return min(tried, key=lambda codes: float((codes.apply(values) - values).square().mean()))


def fit(model: Sam, run: Callable[[Sam, dict], object], batches: list) -> None:
    """Fit every quantised layer whose scales are not yet set, from what it sees while these layers are float.

    Layers that are quantised and set already keep computing in integers. What was seen is kept, and the
    layers are fitted, on the CPU.

    Args:
        model: freshly quantised, in whole or in part, by a recipe that is `fitted`.
        run: calls the model on one batch.
        batches: at least one.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if (hasattr(module, "weight_quant") or hasattr(module, "a_quant")) and unset_scales(module)
    }
    seen = observe(model, layers, run, batches)
    finish_statistics(model)
    with torch.autocast("cpu", enabled=False):  # errors this small want float32, whatever training takes
        for name, layer in layers.items():
            found = seen.pop(name)
            if not found:  # SAM's other hypernetworks, which are never computed
                continue
            if hasattr(layer, "a_quant"):
                for quantiser, one in zip((layer.a_quant.act_quant, layer.b_quant.act_quant), found):
                    set_scale(quantiser, fit_product(one, model.recipe, quantiser.is_signed).scale)
            else:
                fitted = fit_layer(MatrixForm(layer), found[0], model.recipe, layer.input_quant.is_signed)
                write(layer, fitted)


def write(layer: nn.Module, fitted: Fitted) -> None:
    """Put what `fit_layer` has chosen into a quantised layer."""
    form = MatrixForm(layer)
    zero_point = -fitted.codes.low if not layer.input_quant.is_signed else 0
    set_scale(layer.input_quant, fitted.codes.scale, zero_point)
    set_scale(layer.weight_quant, fitted.scale)
    with torch.no_grad():
        layer.weight.copy_(form.weight(fitted.integers * form.by_row(fitted.scale)))
        if layer.bias is not None:
            layer.bias += fitted.shift.to(layer.bias.device)
        if hasattr(layer, "input_factor"):
            layer.input_factor.copy_(fitted.factor)
        if hasattr(layer, "input_noise"):
            layer.input_noise.copy_(fitted.noise)
