"""Changes of a picture's looks: in range, drawn from the generator alone, black outside the slice, and each what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmsam_core.data import pictures
from qmsam_core.data.pictures import degrade, distract, fade, noise_field, recolour, repaint, scatter, vary

SEEDS = st.integers(0, 2**32 - 1)


def scene():
    labels = np.zeros((48, 48), np.uint8)
    labels[10:30, 8:26], labels[33:40, 30:44] = 1, 2
    image = np.random.default_rng(0).integers(0, 60, (48, 48, 3), dtype=np.uint8) + (labels * 80)[..., None].astype(np.uint8)
    content = np.zeros((48, 48), bool)
    content[:, :44] = True
    return image * content[..., None], labels * content, content


def other():
    return np.random.default_rng(1).integers(0, 256, (48, 48, 3), dtype=np.uint8)


@given(SEEDS, st.booleans())
def test_a_varied_picture_is_in_range_black_outside_and_follows_its_draws(seed, repainted):
    image, labels, content = scene()
    one, two = (vary(image, labels, content, other, repainted, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(one, two)
    assert one.shape == (48, 48, 3) and one.dtype == np.float32 and one.min() >= 0 and one.max() <= 1
    assert not one[~content].any()


@given(SEEDS)
def test_every_change_keeps_shape_and_is_finite(seed):
    image = (scene()[0] / 255).astype(np.float32)
    rng = np.random.default_rng(seed)
    for changed in (distract(image, other, rng), recolour(image, rng), degrade(image, rng), fade(image, rng)):
        assert changed.shape == image.shape and changed.dtype == np.float32 and np.isfinite(changed).all()


@given(SEEDS)
def test_scattered_shapes_lie_on_top_within_the_slice(seed):
    _, labels, content = scene()
    scattered = scatter(labels, content, np.random.default_rng(seed))
    assert not scattered[~content].any()
    assert np.array_equal(scattered[scattered <= 2], labels[scattered <= 2]) and scattered.max() <= 6


def test_a_repainted_picture_shows_its_objects_by_paint_alone():
    _, labels, _ = scene()
    grey = np.full((48, 48, 3), 0.5, np.float32)
    differences = []
    for seed in range(30):
        painted = repaint(grey, labels, grey, np.random.default_rng(seed))
        inner, outer = painted[14:26, 12:22], painted[2:6, 2:40]
        assert inner.std((0, 1)).max() < 0.05 and outer.std((0, 1)).max() < 0.08
        differences.append(np.abs(inner.mean((0, 1)) - outer.mean((0, 1))).max())
    assert min(differences) < 0.1 and max(differences) > 0.5  # from invisible to plain


def test_a_faded_picture_shows_next_to_nothing_of_what_it_showed():
    picture = np.zeros((40, 40, 3), np.float32)
    picture[10:30, 10:30] = 1
    for seed in range(20):
        faded = fade(picture, np.random.default_rng(seed))
        assert abs(faded[10:30, 10:30].mean() - faded[:10].mean()) < 0.25 and float(faded.mean()) == pytest.approx(float(picture.mean()), abs=0.02)


def test_shares_say_how_often(monkeypatch):
    image, labels, content = scene()
    faded = []
    monkeypatch.setattr(pictures, "fade", lambda picture, rng: faded.append(1) or picture)
    for seed in range(400):
        vary(image, labels, content, other, False, np.random.default_rng(seed))
    assert 0.04 < len(faded) / 400 < 0.13


def test_noise_fields_are_normalised():
    for seed in range(5):
        field = noise_field((30, 40), np.random.default_rng(seed))
        assert field.shape == (30, 40) and field.std() == pytest.approx(1, abs=1e-3) and field.mean() == pytest.approx(0, abs=1e-4)
