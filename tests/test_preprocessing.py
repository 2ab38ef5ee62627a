"""Preprocessing of each network: the official code's numbers, and what each choice does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wave_pattern import wave_image

from qmsam_core.data.preprocessing import PREPROCESSING, Preprocessing, min_max
from qmsam_core.data.transforms import Geometry

PARITY = np.load(Path(__file__).parent / "reference" / "preprocess_parity.npz")
NETWORKS = {"evit": ("efficientvit_sam", 512, 16), "mobilesam": ("mobilesam", 1024, 32)}


@pytest.mark.parametrize("image", ["small", "big"])
@pytest.mark.parametrize("network", NETWORKS)
def test_images_boxes_and_masks_are_those_of_the_official_code(network, image):
    name, size, step = NETWORKS[network]
    height, width = PARITY[f"{image}_size"]
    pixels = np.floor(255 * wave_image(height, width) + 0.5).astype(np.uint8)
    assert pixels.sum(dtype=np.int64) == PARITY[f"{image}_image_sum"]
    geometry = Geometry.of(int(height), int(width), size, 1024, PREPROCESSING[name])
    expected = PARITY[f"{image}_{network}_image_sample"]
    found = geometry.image(pixels)
    assert found.shape == (3, size, size)
    np.testing.assert_allclose(found[:, ::step, ::step], expected, atol=2e-5)
    boxes = geometry.boxes(PARITY[f"{image}_boxes"])
    np.testing.assert_allclose(boxes, PARITY[f"{image}_{network}_boxes"], atol=1e-3)
    rows, columns = np.mgrid[:256, :256]
    logits = np.sin(4 * np.pi * rows / 256) + np.cos(6 * np.pi * columns / 256)
    expected = PARITY[f"{image}_{network}_mask_sample"] > 0
    mask = geometry.mask_to_image(logits[None].astype(np.float32))[0]
    assert (mask[::16, ::16] == expected).mean() > 0.999


def test_a_frame_apart_scales_boxes_and_not_images():
    boxes = np.array([[0, 10, 40, 60]])
    same, apart = Geometry.of(80, 100, 64), Geometry.of(80, 100, 64, 1024)
    np.testing.assert_allclose(apart.boxes(boxes), 16 * same.boxes(boxes), rtol=1e-6)
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    np.testing.assert_array_equal(apart.image(image), same.image(image))


def test_boxes_are_shifted_where_the_prompt_encoder_s_half_pixel_is_not_wanted():
    shifted = replace(PREPROCESSING["litemedsam"], box_shift=-0.5)
    np.testing.assert_allclose(
        Geometry.of(64, 64, 64, preprocessing=shifted).boxes([[4, 8, 12, 16]]), [[3.5, 7.5, 11.5, 15.5]]
    )


def test_constant_image_is_zero():
    assert not min_max(np.full((3, 3, 3), 9, np.uint8)).any()


@pytest.mark.parametrize("name", PREPROCESSING)
def test_every_way_gives_an_input_of_the_right_shape_and_masks_of_the_slice(name):
    image = np.random.default_rng(0).integers(0, 256, (31, 77, 3), dtype=np.uint8)
    geometry = Geometry.of(31, 77, 64, 64, PREPROCESSING[name])
    out = geometry.image(image)
    assert out.shape == (3, 64, 64) and out.dtype == np.float32 and not out[:, geometry.new_height :].any()
    assert geometry.mask_to_image(np.ones((2, 64, 64), np.float32)).all()
    assert geometry.mask_to_image(np.ones((2, 64, 64), np.float32)).shape == (2, 31, 77)


def test_pillow_averages_where_it_makes_smaller():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = Preprocessing("pillow").resize(stripes, 16, 16)[4:-4, 4:-4]
    assert abs(small.astype(int) - 100).max() <= 1
    assert set(np.unique(Preprocessing("nearest").resize(stripes, 16, 16))) <= {0, 200}
