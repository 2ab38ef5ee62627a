"""Variants of the paper's recipe, for the figure of accuracy against speed and size (notebook 10)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from brevitas.nn.mixin.parameter import QuantWeightMixin
from torch import nn

from .recipes import CURES, IMAGE_ATTENTION, PARTS, RECIPES, STEM, Recipe


@dataclass(frozen=True)
class Variant:
    """A recipe and the parts of the model that it quantises.

    Attributes:
        family: the question it belongs to: the quantisers, the parts that are quantised, the cures of our
            recipe, or the literature.
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


START = replace(RECIPES["deploy"].with_cures(), name="start", in_float=IMAGE_ATTENTION)
"""What the methods of the literature start from.

Weights have a scale a channel, norms are folded, codes are unsigned where they can be. The attention over the
image is in float. Nothing is fitted.
"""


def _method(name: str, origin: str, **fields: object) -> Recipe:
    return replace(START, name=name, origin=origin, **fields)


METHODS = {
    recipe.name: recipe
    for recipe in (
        _method(
            "ptq_vit",
            "paper reference [8]: scales by the correlation of the output, biases corrected; without its "
            "ranking loss and its bits by layer",
            choice="correlation",
            bias_correction=True,
        ),
        _method(
            "adaquant",
            "paper reference [1]: rounding of the weights and bias learned layer by layer",
            rounding="adaquant",
            bias_correction=True,
        ),
        _method(
            "gpfq", "paper reference [16]: weights rounded along the path of the output", rounding="gpfq"
        ),
        _method("noisyquant", "paper reference [6]: constant noise before the quantisers", noise=True),
        _method(
            "qvit",
            "paper reference [5]: LSQ's start of the scales, all that needs no training; its layer norm "
            "of queries and keys changes the function, and so needs training",
            choice="lsq",
        ),
        _method(
            "ptq4sam",
            "PTQ4SAM: signs folded into queries and keys; without its quantiser of softmax outputs",
            sign_folding=True,
        ),
    )
}
"""Recipes of the literature by name: `START` and the method's own fields, so that what differs is the method.

N2UQ (paper reference [7]), which learns thresholds between uniform outputs, is missing. The thresholds with
the least squared error lie half-way between the outputs, and plain rounding has these. Others pay only once
the network is trained with them.
"""


def at_width(recipe: Recipe, width: str) -> Recipe:
    """Return a recipe at other bit widths, such as `W4A8`: four bits of weights, eight of activations.

    Raises:
        ValueError: the width is not of that form, with 2 to 16 bits each.
    """
    found = re.fullmatch(r"W(\d+)A(\d+)", width)
    weight_bits, activation_bits = map(int, found.groups()) if found else (0, 0)
    if not (2 <= weight_bits <= 16 and 2 <= activation_bits <= 16):
        raise ValueError(f"width = {width!r}; expected such as W4A8, with 2 to 16 bits each")
    if (weight_bits, activation_bits) == (recipe.weight_bits, recipe.activation_bits):
        return recipe
    return replace(
        recipe, name=f"{recipe.name}, {width}", weight_bits=weight_bits, activation_bits=activation_bits
    )


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
    *(Variant(name, "literature", recipe) for name, recipe in METHODS.items()),
)
"""The most telling first, for profiles that compare only a few."""


def variants(count: int) -> tuple[Variant, ...]:
    """Return the first `count` of `VARIANTS`; 0 takes all."""
    return VARIANTS[: count or None]


def packed_megabytes(model: nn.Module, part: str | None = None) -> float:
    """Compute the size of a model's parameters and buffers in 10^6 bytes, or of one of its `PARTS`.

    Quantised weights count as packed at their bit width, all other floating-point values as float32.
    """
    bits = {
        id(layer.weight): model.recipe.weight_bits
        for layer in model.modules()
        if isinstance(layer, QuantWeightMixin)
    }
    module = model if part is None else getattr(model, PARTS[part])
    values = {id(v): v for v in (*module.parameters(), *module.buffers()) if v.is_floating_point()}
    return sum(v.numel() * bits.get(key, 32) for key, v in values.items()) / 8e6
