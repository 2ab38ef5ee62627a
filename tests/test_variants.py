"""Recipes beyond the paper's, their sizes, and the figure that compares them."""

import itertools
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

from qmsam_core.evaluate.tradeoff_figure import joined, tradeoff_figure
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


def test_the_picture_shows_every_way_and_leaves_out_unknown_times():
    recipes = pd.DataFrame(
        {
            "name": ["float", "8 bit", "4 bit"],
            "family": ["float", "bits", "bits"],
            "agreement": [1.0, 0.95, 0.5],
            "mb": [40.0, 10, 5],
            "ms": [300.0, 100, math.nan],
        }
    )
    figure = tradeoff_figure(recipes)
    left, right = figure.axes
    assert {text.get_text() for text in left.texts} == {"1", "2", "3 (50 %)"}
    assert not any(text.get_text().startswith("3") for text in right.texts)
    assert left.get_ylim()[0] > 60  # the axis leaves out the one far worse, so that the others are readable
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1  float", "2  8 bit", "3  4 bit"]


@pytest.mark.parametrize(
    "sizes", [[0.218, 0.355, 0.79, 1.176], [5.0, 9.9, 10.4, 39.0], [5.15, 5.28, 5.44, 5.78]]
)
def test_numbers_along_the_axis_do_not_run_into_each_other(sizes):
    recipes = pd.DataFrame(
        {
            "name": list("abcd"),
            "family": ["x"] * 4,
            "agreement": [0.8, 0.7, 0.75, 0.6],
            "mb": sizes,
            "ms": sizes,
        }
    )
    figure = tradeoff_figure(recipes)
    figure.draw_without_rendering()
    for axes in figure.axes:
        inside = [
            label
            for label, at in zip(axes.get_xticklabels(which="both"), axes.get_xticks())
            if axes.get_xlim()[0] <= at <= axes.get_xlim()[1]
        ]
        boxes = sorted((label.get_window_extent() for label in inside), key=lambda box: box.x0)
        assert len(boxes) >= 3 and all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))


def test_marks_that_touch_share_a_label():
    near = [10.0, 10.1, 10.05, 40.0]
    recipes = pd.DataFrame(
        {
            "name": list("abcd"),
            "family": ["x"] * 4,
            "agreement": [0.9, 0.9005, 0.9, 0.5],
            "mb": near,
            "ms": near,
        }
    )
    left, right = tradeoff_figure(recipes).axes
    assert (
        [text.get_text() for text in left.texts]
        == [text.get_text() for text in right.texts]
        == ["1-3", "4 (50 %)"]
    )


def test_numbers_lie_on_nothing():
    """The values are a published run's. Its int8 models have nearly the same size, so their labels crowd."""
    sizes = [
        39.21,
        10.44,
        8.04,
        5.64,
        5.64,
        10.44,
        10.38,
        10.44,
        10.38,
        22.16,
        27.49,
        10.44,
        10.44,
        10.53,
        10.53,
        10.47,
        22.1,
        10.47,
        10.47,
    ]
    scores = [
        0.8786,
        0.8589,
        0.5188,
        0.0802,
        0.0582,
        0.8494,
        0.8559,
        0.8501,
        0.8639,
        0.8785,
        0.8619,
        0.8662,
        0.8556,
        0.8575,
        0.8736,
        0.8692,
        0.8757,
        0.8663,
        0.8714,
    ]
    names = [f"a name that leaves less room, {number}" for number in range(len(sizes))]
    recipes = pd.DataFrame(
        {"name": names, "family": ["x"] * len(sizes), "agreement": scores, "mb": sizes, "ms": sizes}
    )
    for axes in tradeoff_figure(recipes).axes:
        extents = [text.get_window_extent() for text in axes.texts]
        marks = [axes.transData.transform((size, 100 * score)) for size, score in zip(sizes, scores)]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(extents, 2))
        assert not any(extent.contains(*mark) for extent in extents for mark in marks)


@pytest.mark.parametrize(
    "numbers, text", [([], ""), ([3], "3"), ([1, 2], "1, 2"), ([1, 2, 3, 7, 9, 10, 11, 12], "1-3, 7, 9-12")]
)
def test_joined(numbers, text):
    assert joined(numbers) == text
