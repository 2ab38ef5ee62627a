"""Views of a slice: image, labels and boxes stay together however it is laid, turned, stretched or bent."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmsam_core.data.transforms import EvalTransform, Geometry, mask_box, min_max
from qmsam_core.data.views import View

SEEDS = st.integers(0, 2**32 - 1)


def picture(height=90, width=70):
    labels = np.zeros((height, width), np.uint8)
    labels[10:30, 5:25], labels[60:64, 50:55] = 3, 7
    return np.repeat((labels * 30)[..., None], 3, 2), labels


def shape_of(matrix, height, width):
    """Where the four corners of a slice lie in a view, (4,2)."""
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]])
    return corners @ matrix[:, :2].T + matrix[:, 2]


@given(SEEDS)
def test_image_and_labels_stay_together(seed):
    image, labels = picture()
    view = View.draw(labels, 64, np.random.default_rng(seed))
    seen, seen_labels, inside = view.of(image, labels)
    assert seen.shape == (64, 64, 3) and seen_labels.shape == inside.shape == (64, 64)
    assert not seen[~inside].any() and not seen_labels[~inside].any()
    bright = seen[..., 0].astype(int)
    assert np.abs(bright - 30 * seen_labels.astype(int)).mean() < 30  # they differ along borders, where the image is interpolated
    if (seen_labels == 3).sum() > 60:
        assert np.median(bright[seen_labels == 3]) > 60


def test_a_plain_whole_view_is_what_deployment_sees():
    rng = np.random.default_rng(0)
    image, (_, labels) = cv2.GaussianBlur(rng.integers(0, 256, (90, 70, 3), dtype=np.uint8), (0, 0), 2), picture()
    for size in (64, 128, 256):  # shrunk and enlarged
        view = View.draw(labels, size, rng, whole=1.0, plain=True)
        seen, seen_labels, inside = view.of(image, labels)
        geometry = Geometry.of(90, 70, size)
        content = (slice(geometry.new_height), slice(geometry.new_width))
        assert np.abs(min_max(seen) - geometry.image(image).transpose(1, 2, 0)).mean() < 0.03
        assert inside[content].mean() > 0.98
        assert (seen_labels == geometry.mask(labels)).mean() > 0.999


@given(SEEDS)
def test_a_whole_view_begins_at_the_upper_left_and_keeps_all(seed):
    _, labels = picture()
    view = View.draw(labels, 64, np.random.default_rng(seed), whole=1.0, plain=True)
    corners = shape_of(view.matrix, 90, 70)
    assert corners.min(0) == pytest.approx([0, 0]) and corners.max(0) == pytest.approx([70 * 64 / 90, 64])


@given(SEEDS)
def test_a_far_view_keeps_all_in_a_black_square(seed):
    image, labels = picture()
    view = View.draw(labels, 64, np.random.default_rng(seed), whole=0.0, far=1.0)
    assert 1 / 2.5 <= view.scale / view.whole <= 1
    if view.upright and np.abs(np.linalg.det(view.matrix[:, :2])) == pytest.approx(view.scale**2):
        corners = shape_of(view.matrix, 90, 70)
        if np.ptp(corners, 0).max() <= 64:
            assert corners.min() >= -1e-6 and corners.max() <= 64 + 1e-6


@given(SEEDS)
def test_a_near_view_shows_the_object_it_is_about(seed):
    _, labels = picture()
    view = View.draw(labels, 64, np.random.default_rng(seed), whole=0.0, far=0.0)
    assert view.of(*picture())[1].any()
    assert 0.8 - 1e-9 <= view.scale / view.whole <= 5 + 1e-9


@given(SEEDS)
def test_a_box_moves_with_an_upright_view(seed):
    image, labels = picture()
    view = View.draw(labels, 200, np.random.default_rng(seed), whole=0.7)
    seen = view.of(image, labels)[1] == 3
    if view.upright and seen.any():
        assert view.box(np.array([5, 10, 24, 29])) == pytest.approx(mask_box(seen), abs=1.01)


def test_an_enlarged_object_hangs_over_its_box_as_in_deployment():
    image, labels = picture(24, 20)
    labels[:] = 0
    labels[4:10, 6:12] = 1
    view = View.draw(labels, 240, np.random.default_rng(0), whole=1.0, plain=True)
    seen = view.of(image, labels)[1]
    deployed = Geometry.of(24, 20, 240).boxes(np.array([6, 4, 11, 9]))[0]
    box = mask_box(seen)
    assert box[:2] == pytest.approx(deployed[:2]) and box[2:] - view.overhang == pytest.approx(deployed[2:])
    shrunk = View.draw(labels, 16, np.random.default_rng(0), whole=1.0, plain=True)
    assert shrunk.overhang == 0
    assert EvalTransform(240, 240)(np.repeat(labels[..., None], 3, 2), labels == 1)[1] == pytest.approx(box)
