"""Samples of several boxes an image, and the views they are taken from."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_data import write_data

from qmsam_core.data import Case, SliceIndex
from qmsam_core.data.augment import Intensities, View, fade, loosen_box, present_labels
from qmsam_core.data.prompts import PromptDataset
from qmsam_core.data.transforms import mask_box


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return SliceIndex.build(write_data(tmp_path_factory.mktemp("cases")))


def picture(height=90, width=70):
    labels = np.zeros((height, width), np.uint8)
    labels[10:30, 5:25], labels[60:61, 50:51] = 3, 7
    image = np.repeat((labels * 20)[..., None], 3, 2).astype(np.uint8)
    return image, labels


def seen(seed, whole, image, labels):
    view = View.draw(labels, np.random.default_rng(seed), whole, far=0.0)
    return view, *view.of(image, labels)


@given(st.integers(0, 2**32 - 1))
def test_a_view_holds_an_object_and_image_and_labels_stay_together(seed):
    _, image, labels = seen(seed, 0.2, *picture())
    assert labels.max() > 0 and image.shape == (*labels.shape, 3)
    assert np.array_equal(image[..., 0], labels * 20)
    assert min(labels.shape) >= 32


@given(st.integers(0, 2**32 - 1))
def test_a_box_moves_with_the_view(seed):
    view, _, labels = seen(seed, 0.3, *picture())
    if (labels == 3).any():
        assert view.box(np.array([5, 10, 24, 29]), labels.shape).tolist() == mask_box(labels == 3).tolist()


def test_a_whole_view_keeps_every_pixel():
    image, labels = picture()
    _, _, seen_labels = seen(0, 1.0, image, labels)
    assert sorted(seen_labels.shape) == [70, 90] and seen_labels.sum() == labels.sum()


@given(st.integers(0, 2**32 - 1))
def test_a_far_view_keeps_every_pixel_in_a_black_square(seed):
    image, labels = picture()
    view = View.draw(labels, np.random.default_rng(seed), whole=0.0, far=1.0, largest=3.0)
    far_image, far_labels = view.of(image, labels)
    assert far_labels.shape == (view.side, view.side) and 90 <= view.side <= 270
    assert np.array_equal(np.sort(far_labels[far_labels > 0]), np.sort(labels[labels > 0]))
    assert np.array_equal(far_image[..., 0], far_labels * 20)
    assert view.box(np.array([5, 10, 24, 29]), far_labels.shape).tolist() == mask_box(far_labels == 3).tolist()


def test_some_of_a_volume_s_boxes_are_those_of_the_whole_volume(tmp_path):
    labels = np.zeros((3, 64, 64), np.uint8)
    labels[0, 10:20, 10:20] = labels[1, 5:30, 12:40] = labels[2, 15:18, 15:50] = 1
    Case("3DBox_CT_0", np.zeros((3, 64, 64), np.uint8), None, labels, np.ones(3)).with_boxes().save(tmp_path / "CT" / "3DBox_CT_0.npz")
    samples = PromptDataset([SliceIndex.build(tmp_path)], 64, 64, prompts=1, whole=1.0)
    areas = []
    for number in range(40):
        x_min, y_min, x_max, y_max = samples[number]["boxes"][0].tolist()
        areas.append(round((x_max - x_min + 1) * (y_max - y_min + 1)))
    assert 5 <= areas.count(25 * 40) <= 20  # three of ten; rows 5 to 29, columns 10 to 49, however mirrored


def test_labels_present():
    assert present_labels(picture()[1]).tolist() == [3, 7]
    assert present_labels(np.full((2, 2), 4)).tolist() == [4]


@given(st.integers(0, 2**32 - 1))
def test_a_loose_box_stays_near_and_inside(seed):
    box = np.array([10, 20, 29, 59], np.float32)
    loose = loosen_box(box, 64, 62, 5.0, np.random.default_rng(seed))
    shift = (loose - box) * (-1, -1, 1, 1)
    assert (shift[[0, 2]] <= 2 + 1e-5).all() and (shift[[1, 3]] <= 4 + 1e-5).all() and (shift >= -4 / 3 - 1e-5).all()
    assert loose[0] < loose[2] and loose[3] <= 61


def test_intensities_stay_in_range_and_follow_the_draws():
    content = torch.rand(3, 20, 30)
    for seed in range(30):
        changed = [Intensities()(content.clone(), np.random.default_rng(seed)) for _ in range(2)]
        assert torch.equal(*changed)
        assert changed[0].shape == (3, 20, 30) and changed[0].min() >= 0 and changed[0].max() <= 1


def test_a_sample_depends_on_its_number_and_the_seed_only(index):
    one, two, other = (PromptDataset([index], 64, 64, seed=seed) for seed in (0, 0, 1))
    one[3]
    assert all(torch.equal(one[8][key], two[8][key]) for key in ("image", "boxes", "masks"))
    assert not torch.equal(one[8]["boxes"], other[8]["boxes"])


def test_boxes_fit_their_masks_and_objects_come_once_before_any_comes_twice(index):
    samples = PromptDataset([index], 64, 64, prompts=3)
    for number in range(20):
        sample = samples[number]
        assert sample["image"].shape == (3, 64, 64) and sample["boxes"].shape == (3, 4) and sample["masks"].shape == (3, 1, 64, 64)
        for box, mask in zip(sample["boxes"].numpy(), sample["masks"][:, 0].numpy()):
            assert np.abs(box - mask_box(mask)).max() <= 6.5
        assert not torch.equal(sample["masks"][0], sample["masks"][1]) or len(sample["masks"].unique(dim=0)) == 1


def test_modalities_take_turns_and_sources_share_them(index):
    only_us = index.subset([row for row, m in enumerate(index.cases["modality"]) if m == "US"])
    samples = PromptDataset([index, only_us], 32, 32)
    assert [samples[n]["modality"] for n in range(4)] == ["CT", "US", "CT", "US"]


def test_no_object_anywhere_is_an_error():
    with pytest.raises(ValueError, match="no slice with an object"):
        PromptDataset([], 32, 32)


def test_a_faded_picture_shows_next_to_nothing_of_what_it_showed():
    content = torch.zeros(3, 40, 40)
    content[:, 10:30, 10:30] = 1
    for seed in range(20):
        faded = fade(content, np.random.default_rng(seed))
        step = faded[:, 10:30, 10:30].mean() - faded[:, :10].mean()
        assert abs(step) < 0.25 and faded.shape == content.shape and float(faded.mean()) == pytest.approx(float(content.mean()), abs=0.02)


def test_an_object_is_wanted_with_its_parts_as_often_as_told(index):
    dataset = PromptDataset([index], 64, 64)
    ring = np.zeros((64, 64), np.uint8)
    ring[10:50, 10:50], ring[20:30, 20:30] = 1, 2
    areas = {share: [dataset._ask(ring, {}, share, np.random.default_rng(seed))[1].sum((1, 2, 3)).max() for seed in range(60)] for share in (0.0, 0.8, 1.0)}
    assert set(areas[0.0]) == {1500} and set(areas[1.0]) == {1600}
    assert set(areas[0.8]) == {1500, 1600} and np.mean(np.array(areas[0.8]) == 1600) > 0.7
