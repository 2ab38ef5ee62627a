"""Samples of several boxes an image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_data import write_data

from qmsam_core.data import Case, SliceIndex
from qmsam_core.data import prompts
from qmsam_core.data.prompts import PromptDataset, loosen_box, redraw
from qmsam_core.data.transforms import mask_box
from qmsam_core.data.views import View


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return SliceIndex.build(write_data(tmp_path_factory.mktemp("cases")))


def test_some_of_a_volume_s_boxes_are_those_of_the_whole_volume(tmp_path, monkeypatch):
    plain = View.draw
    labels = np.zeros((3, 64, 64), np.uint8)
    labels[0, 10:20, 10:20] = labels[1, 5:30, 12:40] = labels[2, 15:18, 15:50] = 1
    Case("3DBox_CT_0", np.zeros((3, 64, 64), np.uint8), None, labels, np.ones(3)).with_boxes().save(tmp_path / "CT" / "3DBox_CT_0.npz")
    monkeypatch.setattr(View, "draw", classmethod(lambda cls, labels, size, rng, **_: plain(labels, size, rng, whole=1.0, plain=True)))
    samples = PromptDataset([SliceIndex.build(tmp_path)], 64, 64, prompts=1)
    areas = []
    for number in range(40):
        x_min, y_min, x_max, y_max = samples[number]["boxes"][0].tolist()
        areas.append(round((x_max - x_min + 1) * (y_max - y_min + 1)))
    assert 20 <= areas.count(25 * 40) <= 36  # seven of ten; rows 5 to 29, columns 10 to 49


def write_squares(folder, sides):
    """Images of 512 px with one square object each, as cases of ultrasound."""
    for number, side in enumerate(sides):
        labels = np.zeros((512, 512), np.uint8)
        labels[101 : 101 + side, 101 : 101 + side] = 1
        image = np.repeat(40 + 90 * labels[..., None], 3, -1)
        Case(f"2DBox_US_{number}", image, None, labels, np.ones(3)).with_boxes().save(folder / "US" / f"2DBox_US_{number}.npz")
    return PromptDataset([SliceIndex.build(folder)], 32, 32, prompts=2)


def test_slices_whose_objects_are_lost_at_a_small_size_are_passed_over(tmp_path, monkeypatch):
    plain = View.draw
    monkeypatch.setattr(View, "draw", classmethod(lambda cls, labels, size, rng, **_: plain(labels, size, rng, whole=1.0, plain=True)))
    samples = write_squares(tmp_path / "some", [3, 200])  # of 16 pixels of the slice a small view sees one
    assert {samples[number]["name"] for number in range(8)} == {"2DBox_US_1:0"}
    with pytest.raises(ValueError, match="US: no object is visible at 32 px"):
        write_squares(tmp_path / "none", [3])[0]


@given(st.integers(0, 2**32 - 1))
def test_a_loose_box_stays_near_and_inside(seed):
    box = np.array([10.0, 20, 29, 59])
    loose = loosen_box(box, 200, np.random.default_rng(seed))
    shift = (loose - box) * (-1, -1, 1, 1)
    assert (shift[[0, 2]] <= 2 + 1e-5).all() and (shift[[1, 3]] <= 4 + 1e-5).all() and (shift >= -4 / 3 - 1e-5).all()
    assert loose[0] < loose[2] and loosen_box(box, 60, np.random.default_rng(seed))[3] <= 59


@given(st.integers(0, 2**32 - 1))
def test_a_redrawn_mask_is_another_annotator_s(seed):
    mask = np.zeros((64, 64), bool)
    mask[20:44, 16:50] = True
    drawn = redraw(mask, np.random.default_rng(seed))
    assert 2 * (mask & drawn).sum() / (mask.sum() + drawn.sum()) > 0.85
    speck = np.zeros((64, 64), bool)
    speck[3, 4] = True
    assert np.array_equal(redraw(speck, np.random.default_rng(seed)), speck)


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


def test_an_object_is_wanted_with_its_parts_as_often_as_told(index, monkeypatch):
    monkeypatch.setattr(prompts, "REDRAWN", 0.0)
    dataset = PromptDataset([index], 64, 64)
    ring = np.zeros((64, 64), np.uint8)
    ring[10:50, 10:50], ring[20:30, 20:30] = 1, 2
    view = View.draw(ring, 64, np.random.default_rng(0), whole=1.0, plain=True)
    areas = {share: [dataset._ask(ring, view, {}, share, np.random.default_rng(seed))[1].sum((1, 2, 3)).max() for seed in range(60)] for share in (0.0, 0.8, 1.0)}
    assert set(areas[0.0]) == {1500} and set(areas[1.0]) == {1600}
    assert set(areas[0.8]) == {1500, 1600} and np.mean(np.array(areas[0.8]) == 1600) > 0.7
