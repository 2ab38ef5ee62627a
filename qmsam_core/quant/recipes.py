"""Recipes: what is quantised and how, as data, and the Brevitas quantisers they stand for.

Any combination is a recipe: `dataclasses.replace(RECIPES["paper"], name="paper, 4 bits", weight_bits=4, activation_bits=4)`; which parts of the model
it is applied to, `quantize` is told.

Paper section 2.2: every quantisation node is "an 8-bit symmetric per-tensor signed integer activations quantizer with a learned floating-point
scale factor ... initialized from runtime statistics"; biases, norms, activation functions and the prompt encoder stay in float.
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
"""Where a token gathers what it has seen in the image: of thousands of weights that add up to one, those of a token that looks at a large object are all below
half a step of eight bits once some other token has looked at a single cell. The product is under one per cent of the decoder's work."""


@dataclass(frozen=True)
class Recipe:
    """One way to quantise a model.

    Attributes:
        weight_bits, activation_bits: bit widths; None leaves the model in float.
        per_channel: one weight scale an output channel instead of one a tensor.
        unsigned: unsigned codes where an input cannot be negative (behind softmax and ReLU), so that no half of the range stays empty.
        fold_batch_norm: fold batch norm into the convolution before quantisation, so that what is trained is what is deployed.
        percentile: statistic that initialises an activation's scale, over |x|; None takes the maximum.
        statistics_batches: how many batches the statistic is averaged over before the scale becomes a learned parameter.
        clean_export: remove what an export carries that changes no value (no-op clips, initialisers among the inputs).
        in_float: modules that stay in float with all that is in them, by their names within the encoder or the decoder.
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
        object.__setattr__(self, "in_float", tuple(self.in_float))  # a list, where it was read from JSON

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
            origin="ours: batch norm folded, one weight scale a channel, unsigned codes where nothing is negative; the weights of the "
            "mask decoder's attention over the image in float",
        ),
    )
}


def find_recipe(recipe: str | Recipe) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: naming the recipes there are.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"recipe = {recipe!r}; expected one of {', '.join(RECIPES)}")
    return RECIPES[recipe]


class LearnedScaleActivation(IntQuant, PerTensorFloatScaling8bit, ActQuantSolver):
    """Symmetric signed per-tensor activation quantiser; its scale is set from run-time statistics, then learned (straight-through estimator)."""

    scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS
    scaling_stats_momentum = (
        None  # a true mean: Brevitas' running one would leave the first of a few batches most of the weight
    )
    scaling_min_val = 1e-10


class TopPercentile(AbsPercentile):
    """Brevitas' percentile of |x|, the very same value, by selecting the few largest instead of ordering all: the first steps do not crawl."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the percentile, 0-D."""
        rank = int(0.01 * self.q * x.numel() + 0.5)  # as Brevitas counts, from the smallest
        return torch.topk(x.abs().reshape(-1), x.numel() - rank + 1).values[-1]


def activation_quantizer(recipe: Recipe, non_negative: bool = False):
    """The Brevitas quantiser that a recipe puts on an input of a matrix multiplication; `non_negative` where that input cannot be negative."""
    statistic = dict(scaling_stats_op=StatsOp.MAX)
    if recipe.percentile is not None:
        statistic = dict(
            scaling_stats_op=StatsOp.PERCENTILE,
            high_percentile_q=recipe.percentile,
            scaling_stats_impl=TopPercentile,
        )
    return LearnedScaleActivation.let(
        bit_width=recipe.activation_bits, collect_stats_steps=recipe.statistics_batches, int_quant=FusedIntQuant,
        signed=not (recipe.unsigned and non_negative), **statistic,
    )  # fmt: skip


def weight_quantizer(recipe: Recipe):
    """The Brevitas quantiser that a recipe puts on every weight: symmetric, narrow range, scale from the weight's largest magnitude."""
    base = Int8WeightPerChannelFloat if recipe.per_channel else Int8WeightPerTensorFloat
    return base.let(bit_width=recipe.weight_bits, int_quant=FusedIntQuant)
