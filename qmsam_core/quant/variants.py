"""Variants of the paper's recipe, for the figure of accuracy against speed and size (notebook 10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from brevitas.nn.mixin.parameter import QuantWeightMixin
from torch import nn

from .recipes import CURES, IMAGE_ATTENTION, PARTS, RECIPES, STEM, Recipe


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


def _cures() -> Iterator[Variant]:
    """Our recipe with none of its cures, without each of them, and with each alone."""
    ours = RECIPES["deploy"]
    yield Variant("ours, no cure", "cures", ours.with_cures())
    for name in CURES:
        others = [other for other in CURES if other != name]
        yield Variant(f"ours without {name}", "cures", ours.with_cures(*others))
    for name in CURES:
        yield Variant(f"ours, {name} alone", "cures", ours.with_cures(name))
    first = tuple(name for name in ours.in_float if name not in STEM)
    yield Variant("ours, first convolutions in int8", "cures", replace(ours, in_float=first))


VARIANTS = (
    _changed("the paper's", "quantisers"),
    Variant("ours", "quantisers", RECIPES["deploy"]),
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
    *_cures(),
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
