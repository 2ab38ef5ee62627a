"""Geometry to model size and back, normalisation, flips and jitter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmsam_core.data.transforms import (
    EvalTransform,
    Geometry,
    TrainTransform,
    flip_sample,
    jitter_box,
    mask_box,
)

SIDE = st.integers(1, 300)
SIZE = st.sampled_from([32, 48, 64, 96, 256])


@given(SIDE, SIDE, SIZE)
def test_longest_side_fills_the_input(height, width, size):
    g = Geometry.of(height, width, size)
    assert max(g.new_height, g.new_width) == size
    assert 1 <= g.new_height <= size and 1 <= g.new_width <= size
    assert abs(g.new_height - height * g.scale) <= 1 and abs(g.new_width - width * g.scale) <= 1


@settings(max_examples=60)
@given(SIDE, SIDE, SIZE, st.data())
def test_boxes_there_and_back_to_the_pixel(height, width, size, data):
    x = sorted(data.draw(st.tuples(st.integers(0, width - 1), st.integers(0, width - 1))))
    y = sorted(data.draw(st.tuples(st.integers(0, height - 1), st.integers(0, height - 1))))
    boxes = np.array([[x[0], y[0], x[1], y[1]]])
    g = Geometry.of(height, width, size)
    there = g.boxes(boxes)
    assert there.dtype == np.float32 and there.min() >= 0 and there.max() <= size
    np.testing.assert_array_equal(np.rint(there / g.scale), boxes)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_any_mask_survives_enlarging_exactly(height, width, extra, seed):
    """At twice the image's size or more, even noise comes back exactly, also at odd and non-square sizes."""
    mask = np.random.default_rng(seed).integers(0, 2, (height, width)).astype(np.uint8)
    g = Geometry.of(height, width, 2 * max(height, width) + extra)
    np.testing.assert_array_equal(g.mask_to_image((g.mask(mask) * 2.0 - 1)[None])[0], mask)


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 150), st.integers(8, 150), st.floats(0.5, 2), st.integers(0, 2**32 - 1))
def test_shapes_survive_any_size_to_the_models_pixel(height, width, factor, seed):
    rng = np.random.default_rng(seed)
    y, x = np.sort(rng.integers(0, height, 2)), np.sort(rng.integers(0, width, 2))
    shape = np.zeros((height, width), np.uint8)
    shape[y[0] : max(y[1], y[0] + 3) + 1, x[0] : max(x[1], x[0] + 3) + 1] = 1
    g = Geometry.of(height, width, max(32, int(factor * max(height, width))))
    back = g.mask_to_image((g.mask(shape) * 2.0 - 1)[None])[0]
    assert back.any() and np.abs(mask_box(back) - mask_box(shape)).max() <= np.ceil(1 / g.scale)


@settings(max_examples=40)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_same_size_is_the_identity(height, width, seed):
    side = max(height, width)
    mask = np.random.default_rng(seed).integers(0, 2, (height, width)).astype(np.uint8)
    g = Geometry.of(height, width, side)
    assert (g.scale, g.new_height, g.new_width) == (1, height, width)
    np.testing.assert_array_equal(g.mask(mask)[:height, :width], mask)
    assert not g.mask(mask)[height:].any() and not g.mask(mask)[:, width:].any()
    np.testing.assert_array_equal(g.mask_to_image((g.mask(mask) * 2.0 - 1)[None])[0], mask)


@pytest.mark.parametrize(
    "height, width, size, side",
    [(100, 77, 256, 64), (767, 1024, 1024, 256), (50, 50, 64, 16), (33, 64, 64, 64), (480, 640, 128, 128)],
)
def test_half_plane_keeps_its_edge(height, width, size, side):
    """A vertical edge in the logits keeps its place relative to the image's width at all sizes."""
    g = Geometry.of(height, width, size)
    edge = g.new_width / 2 * side / size
    logits = np.broadcast_to(edge - (np.arange(side) + 0.5), (1, side, side)).astype(np.float32)
    mask = g.mask_to_image(logits)[0]
    assert (mask == mask[:1]).all()
    assert abs(mask[0].sum() - width / 2) <= 1


@pytest.mark.parametrize("out", [64, 16])
def test_mask_at_a_quarter_of_the_input(out):
    mask = np.zeros((50, 64), np.uint8)
    mask[10:30, 20:44] = 7
    small = Geometry.of(50, 64, 64).mask(mask, out)
    assert small.shape == (out, out) and small.dtype == np.uint8 and set(np.unique(small)) == {0, 7}
    edges = mask_box(small) + [0, 0, 1, 1]  # from inclusive maxima to edges
    np.testing.assert_allclose(edges / out, np.array([20, 10, 44, 30]) / 64, atol=0.51 / out)


def test_image_pads_bottom_right_and_normalises_in_the_papers_order():
    image = np.full((20, 40, 3), 100, np.uint8)
    image[0, 0] = 200
    g = Geometry.of(20, 40, 40)
    g = g.with_preprocessing(interpolation="nearest")
    paper, baseline = g.image(image), g.with_preprocessing(order="normalise_then_pad").image(image)
    assert paper.shape == (3, 40, 40) and paper.dtype == np.float32
    assert paper[0, 0, 0] == 1 and paper[0, 5, 5] == pytest.approx(0.5) and not paper[:, 20:].any()
    assert baseline[0, 0, 0] == 1 and baseline[0, 5, 5] == 0 and not baseline[:, 20:].any()


@pytest.mark.parametrize("interpolation", ["area", "nearest", "cubic"])
@pytest.mark.parametrize("shape", [(31, 17), (200, 300), (64, 64), (1, 90)])
def test_image_range(interpolation, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    out = Geometry.of(*shape, 64).with_preprocessing(interpolation=interpolation).image(image)
    assert out.shape == (3, 64, 64) and out.min() >= 0 and out.max() <= 1 and np.isfinite(out).all()


@pytest.mark.parametrize("horizontal, vertical", [(True, False), (False, True), (True, True), (False, False)])
def test_flip_moves_image_and_mask_together(horizontal, vertical):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    mask = image[..., 0] > 128
    flipped, flipped_mask = flip_sample(image, mask, horizontal, vertical)
    np.testing.assert_array_equal(flipped[..., 0] > 128, flipped_mask)
    again, _ = flip_sample(flipped, flipped_mask, horizontal, vertical)
    np.testing.assert_array_equal(again, image)


@given(st.integers(0, 2**32 - 1), st.floats(0, 20))
def test_jitter_only_grows_the_box_and_stays_inside(seed, amount):
    box = np.array([3, 4, 30, 20], np.float32)
    out = jitter_box(box, amount, 40, 25, np.random.default_rng(seed))
    assert (out[:2] <= box[:2]).all() and (out[2:] >= box[2:]).all()
    assert (out[:2] >= 0).all() and out[2] <= 39 and out[3] <= 24
    assert np.abs(out - box).max() <= amount + 1e-4


@settings(max_examples=40)
@given(
    st.integers(8, 200), st.integers(8, 200), st.sampled_from([(64, 64), (64, 16)]), st.integers(0, 2**32 - 1)
)
def test_samples_never_lose_their_object(height, width, sizes, seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    mask[rng.integers(height), rng.integers(width)] = 1
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    g = Geometry.of(height, width, sizes[0])
    for transform in (EvalTransform(*sizes), TrainTransform(*sizes, box_jitter=sizes[0] * 5 / 256)):
        picture, box, small = transform(image, mask, rng)
        assert picture.shape == (3, sizes[0], sizes[0]) and small.shape == (sizes[1], sizes[1])
        assert small.any() and set(np.unique(small)) == {0, 1}
        assert 0 <= box[0] <= box[2] <= g.new_width - 1 and 0 <= box[1] <= box[3] <= g.new_height - 1


def test_training_is_deterministic_in_its_generator_and_varies_with_it():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    mask = np.zeros((40, 50), np.uint8)
    mask[5:20, 8:22] = 1
    transform = TrainTransform(64, 64, box_jitter=1.25)
    first, again, other = (transform(image, mask, np.random.default_rng(seed)) for seed in (1, 1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other))
    with pytest.raises(ValueError, match="rng"):
        transform(image, mask)


def test_training_without_flips_and_jitter_is_evaluation():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    mask = np.zeros((40, 50), np.uint8)
    mask[5:20, 8:22] = 1
    plain = TrainTransform(64, 64)(image, mask, np.random.default_rng(1))  # draws no flip
    for a, b in zip(plain, EvalTransform(64, 64)(image, mask)):
        np.testing.assert_array_equal(a, b)
