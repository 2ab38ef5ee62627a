"""Variants of the paper's recipe, for the figure of accuracy against speed and size (notebook 10)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from brevitas.nn.mixin.parameter import QuantWeightMixin
from torch import nn

from .recipes import IMAGE_ATTENTION, PARTS, RECIPES, Recipe


@dataclass(frozen=True)
class Variant:
    """A recipe and the parts of the model that it quantises.

    Attributes:
        family: the question it belongs to: the quantisers, or the parts that are quantised.
        parts: see `quantize`.
    """

    name: str
    family: str
    recipe: Recipe
    parts: tuple[str, ...] = tuple(PARTS)


def _changed(name: str, family: str, parts: tuple[str, ...] = tuple(PARTS), **changes: object) -> Variant:
    return Variant(name, family, replace(RECIPES["paper"], name="paper", **changes), parts)


VARIANTS = (
    _changed("the paper's", "quantisers"),
    Variant("ours", "quantisers", RECIPES["deploy"]),
    Variant("ours, fitted layer by layer", "quantisers", RECIPES["fitted"]),
    _changed("encoder only", "parts", parts=("encoder",)),
    _changed("decoder only", "parts", parts=("decoder",)),
    _changed("decoder only, attention in float", "parts", parts=("decoder",), in_float=IMAGE_ATTENTION),
    _changed(
        "channel scales, norms folded, unsigned",
        "quantisers",
        per_channel=True,
        fold_batch_norm=True,
        unsigned=True,
    ),
)
"""The most telling first, for profiles that compare only a few."""


def variants(count: int) -> tuple[Variant, ...]:
    """Return the first `count` of `VARIANTS`; 0 takes all."""
    return VARIANTS[: count or None]


def packed_megabytes(model: nn.Module) -> float:
    """Compute the size of a model's parameters and buffers in 10^6 bytes.

    Quantised weights count as packed at their bit width, all other floating-point values as float32.
    """
    bits = {
        id(layer.weight): model.recipe.weight_bits
        for layer in model.modules()
        if isinstance(layer, QuantWeightMixin)
    }
    values = {id(v): v for v in (*model.parameters(), *model.buffers()) if v.is_floating_point()}
    return sum(v.numel() * bits.get(key, 32) for key, v in values.items()) / 8e6
