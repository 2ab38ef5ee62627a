"""Recipes: data that say how a model is quantised, and the Brevitas quantisers made from them.

A new recipe is a changed copy of another one:
`dataclasses.replace(RECIPES["paper"], name="paper, 4 bits", weight_bits=4, activation_bits=4)`.
The parts of the model to which a recipe is applied are an argument of `quantize`.

Source: paper section 2.2. Every quantisation node is "an 8-bit symmetric per-tensor signed integer
activations quantizer with a learned floating-point scale factor ... initialized from runtime statistics".
Biases, norms, activation functions and the prompt encoder stay in float.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from brevitas.core.stats import AbsPercentile
from brevitas.inject.enum import ScalingImplType, StatsOp
from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat
from brevitas.quant.base import IntQuant, PerTensorFloatScaling8bit
from brevitas.quant.solver.act import ActQuantSolver
from torch import Tensor, nn

from .fake_quant import FusedIntQuant

PARTS = {"encoder": "image_encoder", "decoder": "mask_decoder"}

IMAGE_ATTENTION = tuple(
    f"transformer.{name}.av_product"
    for name in (
        "layers.0.cross_attn_token_to_image",
        "layers.1.cross_attn_token_to_image",
        "final_attn_token_to_image",
    )
)
"""Products in which a token sums image features, weighted by its attention over the image.

A token's thousands of weights add up to one. If one token attends to a single cell, its weight sets the
scale. The weights of a token that attends to a large object are then all below half a step of eight bits. The
products are under one per cent of the decoder's work.
"""


ROUNDINGS = ("nearest", "gptq", "gpfq", "adaquant")
CHOICES = ("error", "correlation", "lsq")


STEM = ("patch_embed", "layers.0.blocks.0.conv1")
"""LiteMedSAM's first three convolutions, all 1x1, at full resolution; MobileSAM's are of these names too.

They are 3 % of the encoder's products, and no later layer can restore what they lose.
"""

LINEAR_ATTENTION = tuple(f"backbone.stages.4.op_list.{i}.context_module.main.q_product" for i in range(1, 7))
"""The second product of each linear attention of EfficientViT: what the keys gather, times the queries.

Its left input differs so much between heads that one scale for all costs a third of the decibels. The first
product bears int8.
"""


@dataclass(frozen=True)
class Recipe:
    """One way to quantise a model.

    Attributes:
        name: key of the recipe in `RECIPES`, or any name for a new recipe.
        weight_bits: bit width of weights; None leaves the model in float.
        activation_bits: bit width of activations; None leaves the model in float.
        per_channel: one weight scale per output channel instead of one per tensor.
        unsigned: use unsigned codes for inputs that follow a softmax or a ReLU. They are never negative, so
            signed codes would leave half of the range empty.
        fold_batch_norm: fold batch norm into the convolution before quantisation. The trained weights are
            then the deployed ones.
        percentile: percentile of |x| that initialises an activation's scale; None takes the maximum.
        statistics_batches: batches over which the statistic is averaged before the scale is learned.
        clean_export: remove parts of the exported graph that change no value (no-op clips, initialisers among
            the inputs).
        origin: where the recipe comes from.
        in_float: modules that stay in float with all they contain, by name within the encoder or decoder.
        zero_point: let the range of a layer's input be asymmetric, with a code of its own for zero. The codes
            are unsigned then. Products of activations keep symmetric ranges.
        clip: cut ranges where that lowers the error of the layer's output.
        channel_factors: exponents to try for factors that even out the channels of a layer's input and are
            undone in its weights. 1 makes all channels' ranges equal, 0 all columns of the weight.
            Empty: no factors. Depthwise convolutions always take 1.
        weight_scales_by_error: choose the weights' scales by the error of the layer's output instead of by
            the largest weight.
        rounding: how weights are rounded (`rounding`): to the `nearest` integer, column after column (`gptq`,
            `gpfq`), or learned (`adaquant`).
        bias_correction: shift biases so that the mean of each output is that of the float layer.
        choice: what chooses scales: the `error` of the layer's output, as `clip`, `zero_point` and
            `weight_scales_by_error` allow; the `correlation` of the output; or `lsq`, the mean magnitude of
            what is quantised (`scale_choices`). The last two take no zero points and no channel factors.
        noise: add constant noise before the quantiser of a layer's input and take its effect from the bias.
            Linear layers and 1x1 convolutions with a bias have it.
        sign_folding: before all else, change the sign of channels of queries and keys where the keys of an
            attention have two peaks (`sign_folding`).
    """

    name: str
    weight_bits: int | None = 8
    activation_bits: int | None = 8
    per_channel: bool = False
    unsigned: bool = False
    fold_batch_norm: bool = False
    percentile: float | None = None
    statistics_batches: int = 8
    clean_export: bool = True
    origin: str = ""
    in_float: tuple[str, ...] = ()
    zero_point: bool = False
    clip: bool = False
    channel_factors: tuple[float, ...] = ()
    weight_scales_by_error: bool = False
    rounding: str = "nearest"
    bias_correction: bool = False
    choice: str = "error"
    noise: bool = False
    sign_folding: bool = False

    def __post_init__(self) -> None:
        for name in ("in_float", "channel_factors"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives a list
        for name, known in (("rounding", ROUNDINGS), ("choice", CHOICES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if self.choice != "error" and (self.zero_point or self.channel_factors):
            raise ValueError(
                f"choice = {self.choice!r} with a zero point or channel factors; expected neither, or `error`"
            )

    @property
    def quantised(self) -> bool:
        """Whether anything is quantised at all."""
        return self.weight_bits is not None

    @property
    def fitted(self) -> bool:
        """Whether calibration fits each layer (`fitting.fit`) or takes the statistics as they are."""
        return any(getattr(self, name) != OFF[name] for name in CURES) or self.choice != "error" or self.noise

    def with_cures(self, *names: str) -> Recipe:
        """Return this recipe with these of its `CURES` alone, and without all others."""
        return replace(self, **{name: OFF[name] for name in CURES if name not in names})


CURES = ("zero_point", "clip", "channel_factors", "weight_scales_by_error", "rounding", "bias_correction")
"""Fields of a recipe that calibration chooses by the error of each layer's output."""

OFF = {one.name: one.default for one in fields(Recipe) if one.name in CURES}
"""Values of these fields that change nothing."""

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("float", weight_bits=None, activation_bits=None, origin="the float model, for comparison"),
        Recipe(
            "released",
            percentile=99.999,
            clean_export=False,
            origin="as the authors' released code quantises and exports it",
        ),
        Recipe(
            "paper", origin="the paper's quantisers (section 2.2); export cleaned without changing a value"
        ),
        Recipe(
            "deploy",
            per_channel=True,
            unsigned=True,
            fold_batch_norm=True,
            in_float=(*IMAGE_ATTENTION, "mask_product", *STEM, *LINEAR_ATTENTION),
            zero_point=True,
            clip=True,
            channel_factors=(0.0, 0.25, 0.5, 0.75, 1.0),
            weight_scales_by_error=True,
            rounding="gptq",
            bias_correction=True,
            origin="ours, fitted to data layer by layer: zero points, clipped ranges, channels evened out, "
            "weights rounded in turn, biases corrected; batch norm folded; in float the first convolutions, "
            "the mask decoder's attention over the image and its last product, and the second product of "
            "linear attention",
        ),
    )
}


def find_recipe(recipe: str | Recipe) -> Recipe:
    """Find a recipe by its name; a `Recipe` is returned as it is.

    Raises:
        ValueError: no recipe has that name. The message lists the names.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"recipe = {recipe!r}; expected one of {', '.join(RECIPES)}")
    return RECIPES[recipe]


class LearnedScaleActivation(IntQuant, PerTensorFloatScaling8bit, ActQuantSolver):
    """Symmetric signed per-tensor activation quantiser with a learned scale (straight-through estimator).

    The scale is initialised from run-time statistics.
    """

    scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS
    # None takes the true mean. Brevitas' running mean would give the first of few batches most of the weight.
    scaling_stats_momentum = None
    scaling_min_val = 1e-10


class StoredZeroPoint(nn.Module):
    """The code of zero, constant once calibration has set it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()))

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """Return the zero point (0-D), whatever the arguments."""
        return self.value


class TopPercentile(AbsPercentile):
    """Compute exactly Brevitas' percentile of |x|, but faster.

    It selects the few largest values instead of ordering all. The first training steps are thus not slow.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the percentile (0-D) of |x|, for x of any shape."""
        rank = int(0.01 * self.q * x.numel() + 0.5)  # counted from the smallest, as in Brevitas
        return torch.topk(x.abs().reshape(-1), x.numel() - rank + 1).values[-1]


def activation_quantizer(recipe: Recipe, non_negative: bool = False, shifted: bool = False):
    """Return the Brevitas quantiser that a recipe puts on an input of a matrix multiplication.

    `non_negative` says that this input cannot be negative, `shifted` that the quantiser has a zero point.
    """
    statistic = dict(scaling_stats_op=StatsOp.MAX)
    if recipe.percentile is not None:
        statistic = dict(
            scaling_stats_op=StatsOp.PERCENTILE,
            high_percentile_q=recipe.percentile,
            scaling_stats_impl=TopPercentile,
        )
    if shifted:
        statistic |= dict(zero_point_impl=StoredZeroPoint)
    return LearnedScaleActivation.let(
        bit_width=recipe.activation_bits,
        collect_stats_steps=recipe.statistics_batches,
        int_quant=FusedIntQuant,
        signed=not (shifted or recipe.unsigned and non_negative),
        **statistic,
    )


def weight_quantizer(recipe: Recipe):
    """Return the Brevitas quantiser that a recipe puts on every weight.

    It is symmetric, with a narrow range. The scale comes from the weight's largest magnitude. If the recipe
    is fitted, it is a parameter instead.
    """
    base = Int8WeightPerChannelFloat if recipe.per_channel else Int8WeightPerTensorFloat
    stored = dict(scaling_impl_type=ScalingImplType.PARAMETER, scaling_init=1.0) if recipe.fitted else {}
    return base.let(bit_width=recipe.weight_bits, int_quant=FusedIntQuant, **stored)
