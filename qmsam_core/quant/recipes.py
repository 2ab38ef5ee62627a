"""Recipes: data that say how a model is quantised, and the Brevitas quantisers made from them.

A new recipe is a changed copy of another one:
`dataclasses.replace(RECIPES["paper"], name="paper, 4 bits", weight_bits=4, activation_bits=4)`.
The parts of the model to which a recipe is applied are an argument of `quantize`.

Source: paper section 2.2. Every quantisation node is "an 8-bit symmetric per-tensor signed integer
activations quantizer with a learned floating-point scale factor ... initialized from runtime statistics".
Biases, norms, activation functions and the prompt encoder stay in float.
"""

from dataclasses import dataclass

import torch
from brevitas.core.stats import AbsPercentile
from brevitas.inject.enum import ScalingImplType, StatsOp
from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat
from brevitas.quant.base import IntQuant, PerTensorFloatScaling8bit
from brevitas.quant.solver.act import ActQuantSolver
from torch import Tensor

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_float", tuple(self.in_float))  # JSON gives a list

    @property
    def quantised(self) -> bool:
        """Whether anything is quantised at all."""
        return self.weight_bits is not None


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
            in_float=IMAGE_ATTENTION,
            origin="ours: batch norm folded, one weight scale a channel, unsigned codes where nothing is "
            "negative; the weights of the mask decoder's attention over the image in float",
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


class TopPercentile(AbsPercentile):
    """Compute exactly Brevitas' percentile of |x|, but faster.

    It selects the few largest values instead of ordering all. The first training steps are thus not slow.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the percentile (0-D) of |x|, for x of any shape."""
        rank = int(0.01 * self.q * x.numel() + 0.5)  # counted from the smallest, as in Brevitas
        return torch.topk(x.abs().reshape(-1), x.numel() - rank + 1).values[-1]


def activation_quantizer(recipe: Recipe, non_negative: bool = False):
    """Return the Brevitas quantiser that a recipe puts on an input of a matrix multiplication.

    `non_negative` says that this input cannot be negative.
    """
    statistic = dict(scaling_stats_op=StatsOp.MAX)
    if recipe.percentile is not None:
        statistic = dict(
            scaling_stats_op=StatsOp.PERCENTILE,
            high_percentile_q=recipe.percentile,
            scaling_stats_impl=TopPercentile,
        )
    return LearnedScaleActivation.let(
        bit_width=recipe.activation_bits,
        collect_stats_steps=recipe.statistics_batches,
        int_quant=FusedIntQuant,
        signed=not (recipe.unsigned and non_negative),
        **statistic,
    )


def weight_quantizer(recipe: Recipe):
    """Return the Brevitas quantiser that a recipe puts on every weight.

    It is symmetric, with a narrow range and a scale from the weight's largest magnitude.
    """
    base = Int8WeightPerChannelFloat if recipe.per_channel else Int8WeightPerTensorFloat
    return base.let(bit_width=recipe.weight_bits, int_quant=FusedIntQuant)
