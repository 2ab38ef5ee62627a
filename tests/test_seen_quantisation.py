"""Figures of activations, blocks and embeddings, and their sentences, from made-up numbers."""

import numpy as np
import pandas as pd
import pytest

from qmsam_core.evaluate.activation_figure import activations_figure, read_activations
from qmsam_core.evaluate.blocks_figure import blocks_figure, read_blocks
from qmsam_core.evaluate.embedding_figure import (
    embedding_figure,
    principal_colours,
    read_embeddings,
    relative_difference,
)
from qmsam_core.quant.activation_values import Input
from qmsam_core.quant.ranges import Range

RNG = np.random.default_rng(0)
FC1, HYPER = "image_encoder.layers.2.blocks.3.mlp.fc1", "mask_decoder.output_hypernetworks_mlps.0.layers.2"
ACTIVATIONS = pd.DataFrame(
    [
        (FC1, "encoder", 1_000_000, -1.0, 2.0, 0.3, 6.7, 0.002, 100, 256, 40.0),
        (HYPER, "decoder", 200, 0.0, 9.0, 1.2, 7.5, 0.02, 70, 256, 6.0),
    ],
    columns=[
        *("quantiser", "part", "values", "low", "high", "mean magnitude", "range ratio"),
        *("clipped", "codes", "codes in all", "rounding db"),
    ],
)


def test_a_panel_says_what_is_kept_and_clipped(tmp_path):
    rules = {FC1: "the encoder's layer that clips most", HYPER: "the decoder's layer that loses most"}
    values = {name: Input(Range(0.01, -100, 155), *RNG.normal(size=(2, 500))) for name in rules}
    figure = activations_figure(ACTIVATIONS, values, rules)
    figure.savefig(tmp_path / "a.png")
    first, second = figure.axes[:2]
    assert (
        first.get_title()
        == "The encoder's layer that clips most\nencoder, level 3, block 4: input of MLP layer 1"
    )
    assert (
        "int8 keeps -1 to 2; 100 of 256 codes used\n0.20 % of 1,000,000 values clipped" in first.get_xlabel()
    )
    assert "2.00 % of 200 values clipped" in second.get_xlabel()
    activations_figure(ACTIVATIONS, values, {FC1: "alone"}).canvas.draw()


def test_the_activations_in_words():
    clipped, codes, worst = read_activations(ACTIVATIONS, {FC1: "", HYPER: ""})
    assert clipped == (
        "Of all values that come to the 2 quantisers on this slice, 0.20 % are clipped; most in decoder, "
        "MLP of mask 1: input of layer 3: 2.00 % of 200 values."
    )
    assert "Of the 1 quantisers" in codes and "1 uses less than half" in codes and "100 of 256" in codes
    assert "input of layer 3 loses most" in worst and "has 50 % of the size" in worst
    none = ACTIVATIONS.assign(clipped=0.0, values=200)
    first, *others = read_activations(none, {FC1: ""})
    assert "0.00 % are clipped" in first and "none of 200 values" in first and len(others) == 1


def blocks(first, last):
    table = pd.DataFrame(
        {
            "part": ["encoder"] * 3 + ["decoder"],
            "block": ["patch_embed", "layers.0.downsample", "neck", "mask_product"],
        }
    )
    return table.assign(**{"calibrated db": first, "after stage 3 db": last})


def test_a_block_as_in_float_says_so(tmp_path):
    figure = blocks_figure(blocks([np.inf, 30, 20, 25], [50, 20, 10, 26]))
    figure.savefig(tmp_path / "a.png")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["as in float"]
    assert axes.get_yticklabels()[1].get_text() == "encoder, level 1, downsampling"
    blocks_figure(blocks([np.inf] * 4, [np.inf] * 4)).canvas.draw()


def test_blocks_in_words():
    farther = read_blocks(blocks([np.inf, 30, 20, 25], [50, 20, 10, 25]))
    assert farther == [
        "After stage 3, the signal of the embedding is 10.0 dB over its difference to float: "
        "the difference has 32 % of its size.",
        "Along the encoder the difference grows most in neck.",
        "After stage 3, the signal of the mask logits is 25.0 dB over its difference to float: "
        "the difference has 6 % of its size.",
        "Compared with calibrated, after stage 3 is farther from float after 3 of 4 blocks and nearer "
        "after 0; they part most after encoder, patch embedding (-50.0 dB).",
    ]
    nearer = read_blocks(blocks([50, 20, 10, 25], [50, 20, 18, 25]))[-1]
    assert "farther from float after 0 of 4 blocks and nearer after 1" in nearer and "(+8.0 dB)" in nearer
    assert read_blocks(blocks([30, 20, 10, 5], [30, 20, 10, 5]))[-1].endswith("training has not moved it.")
    alone = blocks([30, 20, 10, 5], 0)[["part", "block", "calibrated db"]]
    assert not any("Compared" in sentence for sentence in read_blocks(alone))
    same = " ".join(read_blocks(blocks([np.inf] * 4, [np.inf] * 4)))
    assert "the embedding is float's" in same and "the mask logits are float's" in same


def test_equal_embeddings_have_equal_colours_and_no_difference():
    reference = RNG.normal(size=(8, 6, 6)).astype(np.float32)
    first, second, third = principal_colours(reference, reference.copy(), reference + 0.5)
    assert first.shape == (6, 6, 3) and first.min() >= 0 and first.max() <= 1
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - third).max() > 0.01
    assert relative_difference(reference, reference).max() == 0
    np.testing.assert_allclose(relative_difference(np.ones((4, 2, 2)), np.full((4, 2, 2), 1.1)), 0.1)


@pytest.mark.parametrize("number", [1, 2])
def test_the_box_is_drawn_on_the_image_whatever_the_frame(number):
    image, reference = np.zeros((3, 32, 32)), RNG.normal(size=(8, 8, 8))
    others = {f"model {k}": reference + 0.1 for k in range(number)}
    figure = embedding_figure(image, np.array([16.0, 16, 48, 40]), 64, reference, others)
    (box,) = figure.axes[0].patches
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((8, 8), 16, 12)
    figure.canvas.draw()


def test_embeddings_in_words():
    reference = np.ones((4, 8, 8))
    inside = reference.copy()
    inside[:, :4, :4] = 1.2
    inside[:, 4:, 4:] = 1.1
    (sentence,) = read_embeddings(np.array([0.0, 0, 32, 32]), 64, reference, {"after stage 3": inside})
    assert sentence.startswith(
        "After stage 3, the embedding of this image differs from float's by 8 % of its length"
    )
    assert "20 % at the worst position, 500 % more inside the box than around it" in sentence
    (whole,) = read_embeddings(np.array([0.0, 0, 64, 64]), 64, reference, {"int8": inside})
    assert "box" not in whole
