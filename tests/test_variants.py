"""Recipes beyond the paper's, their sizes, and the figure that compares them."""

import itertools
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from matplotlib.collections import PathCollection

from qmsam_core.evaluate.tradeoff_figure import tradeoff_figure
from qmsam_core.models import build_model
from qmsam_core.quant import calibrate, quantize
from qmsam_core.quant.recipes import PARTS, RECIPES
from qmsam_core.quant.variants import VARIANTS, packed_megabytes


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_every_variant_quantises_its_parts_and_still_runs(variant):
    model = quantize(build_model("narrow", 64), variant.recipe, variant.parts)
    images, boxes = torch.rand(2, 3, 64, 64), torch.tensor([[5.0, 5, 50, 50]] * 2)
    calibrate(model, lambda m, x: m(x, boxes), [images])
    assert torch.isfinite(model.eval()(images, boxes)[0]).all()
    assert model.quantised_parts == tuple(sorted(variant.parts))


def test_sizes_follow_the_bit_widths():
    plain = build_model("narrow", 64)
    values = sum(v.numel() for v in (*plain.parameters(), *plain.buffers()) if v.is_floating_point())
    assert packed_megabytes(plain) == pytest.approx(4e-6 * values)
    recipes = {bits: replace(RECIPES["paper"], weight_bits=bits) for bits in (4, 8)}
    saved = {
        bits: packed_megabytes(plain) - packed_megabytes(quantize(build_model("narrow", 64), recipe))
        for bits, recipe in recipes.items()
    }
    assert saved[4] / saved[8] == pytest.approx(28 / 24, rel=0.01)
    parts = {part: packed_megabytes(quantize(build_model("narrow", 64), "paper", (part,))) for part in PARTS}
    assert packed_megabytes(plain) - saved[8] < min(parts.values())


def recipes_of(agreement, **columns):
    """Recipes `a`, `b`, ... of one family with these agreements."""
    known = {"name": list("abcdefgh"[: len(agreement)]), "family": "x", "mb": 10.0, "ms": 300.0}
    return pd.DataFrame({**known, "agreement": agreement, "agreement low": 0.6, **columns})


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_the_picture_names_every_recipe_in_the_order_of_its_agreement():
    recipes = recipes_of([0.9, 1.0, 0.95], name=["8 bit", "float", "ours"], ms=[100, 300, math.nan])
    agreement, size, time = tradeoff_figure(recipes).axes
    assert [label.get_text() for label in agreement.get_yticklabels()] == ["float", "ours", "8 bit"]
    assert texts(agreement) == ["100.0", "95.0", "90.0"]
    assert texts(size) == ["10"] * 3
    assert texts(time) == ["300", "not measured", "100"]


def test_a_recipe_far_worse_stands_on_the_edge_with_its_value():
    axes = tradeoff_figure(recipes_of([1.0, 0.95, 0.2])).axes[0]
    assert axes.get_xlim()[0] >= 64 and texts(axes) == ["100.0", "95.0", "20.0"]
    marks = [drawn for drawn in axes.collections if isinstance(drawn, PathCollection)]
    hollow = [len(mark.get_facecolor()) == 0 for mark in marks]
    assert hollow == [False, False, True]


def test_the_legend_has_families_and_no_numbers():
    figure = tradeoff_figure(recipes_of([0.9, 0.8], family=["bits", "trained"]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bits", "trained"]


def test_values_of_nineteen_recipes_lie_apart():
    names = [f"a name that leaves less room, {number}" for number in range(19)]
    recipes = recipes_of([0.8 + 0.001 * k for k in range(19)], name=names)
    figure = tradeoff_figure(recipes)
    figure.draw_without_rendering()
    for axes in figure.axes:
        extents = [text.get_window_extent() for text in axes.texts]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(extents, 2))
