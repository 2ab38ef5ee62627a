"""Samples and samplers: what is drawn. All workers draw the same, and ranks partition the epoch."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmsam_core.data import Case, CaseError, SliceIndex, TrainTransform
from qmsam_core.data.index.scan import FileRecord
from qmsam_core.data.sampling import ModalityBalancedSampler, samples_per_modality
from qmsam_core.data.slices import SliceDataset
from qmsam_core.data.volumes import SliceReader


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("cases"), np.random.default_rng(0)
    for k in range(2):
        mask = np.zeros((6, 40, 30), np.uint8)
        mask[1:5, 5:20, 4:25], mask[2:4, 25:35, 10:20] = 1, 2
        Case("v", rng.integers(0, 256, mask.shape, dtype=np.uint8), None, mask, np.ones(3)).save(
            root / f"CT/3DBox_CT_{k}.npz"
        )
    mask = np.zeros((50, 60), np.uint8)
    mask[5:20, 5:30], mask[42, 52] = 1, 2  # object 2 vanishes at 16 px
    Case("i", rng.integers(0, 256, (50, 60, 3), dtype=np.uint8), None, mask, np.ones(3)).save(
        root / "US/2DBox_US_0.npz"
    )
    return SliceIndex.build(root)


def made_up(counts, empty_every=0):
    """Return an index of made-up files with one slice each.

    Args:
        counts: number of slices by modality.
        empty_every: n leaves every n-th slice without an object. With 0 all slices have one.
    """
    records = []
    for modality, count in counts.items():
        for k in range(count):
            ids = np.zeros(0, np.uint16) if empty_every and k % empty_every == 0 else np.ones(1, np.uint16)
            records.append(
                FileRecord(
                    f"{modality}/{k}.npz",
                    1,
                    1,
                    n_slices=1,
                    scanned=True,
                    label_counts=np.array([len(ids)], np.uint16),
                    label_ids=ids,
                )
            )
    return SliceIndex("root", records)


def test_sample_shapes_and_ranges(index):
    sample = SliceDataset(index, TrainTransform(32, 16, box_jitter=0.6), rng_seed=1)[1]
    assert sample["image"].shape == (3, 32, 32) and sample["image"].dtype == torch.float32
    assert 0 <= sample["image"].min() and sample["image"].max() <= 1
    assert sample["box"].shape == (4,) and sample["box"].dtype == torch.float32
    assert sample["mask"].shape == (1, 16, 16) and set(sample["mask"].unique().tolist()) == {0.0, 1.0}
    assert sample["modality"] == "CT" and sample["name"] == "3DBox_CT_0:1:1"


def test_draws_depend_on_seed_epoch_and_slice_only(index):
    def names_and_boxes(dataset, workers):
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=2, sampler=[2, 3, 8, 9, 12] * 3, num_workers=workers
        )
        batches = list(loader)
        return [n for b in batches for n in b["name"]], torch.cat([b["box"] for b in batches])

    results = []
    for workers in (0, 2):
        dataset = SliceDataset(index, TrainTransform(32, 32, box_jitter=0.6), rng_seed=5)
        dataset.set_epoch(2)
        results.append(names_and_boxes(dataset, workers))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=0)
    dataset.set_epoch(3)
    assert not torch.equal(names_and_boxes(dataset, 0)[1], results[0][1])


def test_set_epoch_reaches_running_workers(index):
    dataset = SliceDataset(index, TrainTransform(32, 32, box_jitter=0.6), rng_seed=5)
    loader = torch.utils.data.DataLoader(dataset, sampler=[1, 2, 3], num_workers=1, persistent_workers=True)
    first = torch.cat([b["box"] for b in loader])
    dataset.set_epoch(1)
    assert not torch.equal(torch.cat([b["box"] for b in loader]), first)
    dataset.set_epoch(0)
    assert torch.equal(torch.cat([b["box"] for b in loader]), first)


def test_all_labels_are_drawn_in_time_and_vanishing_ones_skipped(index):
    def drawn(size, i):
        dataset, names = SliceDataset(index, TrainTransform(size, size)), set()
        for epoch in range(30):
            dataset.set_epoch(epoch)
            names.add(dataset[i]["name"])
        return names

    assert drawn(32, 2) == {"3DBox_CT_0:2:1", "3DBox_CT_0:2:2"}
    assert drawn(16, 12) == {"2DBox_US_0:0:1"}


def test_empty_slice_is_refused(index):
    with pytest.raises(CaseError, match="slice 0 holds no object"):
        SliceDataset(index, TrainTransform(32, 32, box_jitter=0.6))[0]


COUNTS = {"CT": 1218411, "MR": 236804, "PET": 89059, "Microscopy": 1000}


@pytest.mark.parametrize(
    "strategy, expected",
    [
        ("min", {"CT": 1000, "MR": 1000, "PET": 1000, "Microscopy": 1000}),
        (0.1, {"CT": 121841, "MR": 23680, "PET": 8905, "Microscopy": 1000}),
        ("all", COUNTS),
        (900, {"CT": 900, "MR": 900, "PET": 900, "Microscopy": 900}),
    ],
)
def test_equations_of_section_4_4(strategy, expected):
    assert samples_per_modality(COUNTS, strategy) == expected


def test_a_share_draws_no_less_than_it_is_told():
    assert samples_per_modality({"CT": 100, "US": 5}, 0.02, least=1) == {"CT": 2, "US": 1}


@pytest.mark.parametrize(
    "counts, strategy",
    [
        ({"CT": 5}, "most"),
        ({"CT": 5}, 0),
        ({"CT": 5}, True),
        ({"CT": 5}, 1.5),
        ({"CT": 0}, "min"),
        ({}, "min"),
    ],
)
def test_impossible_sampling_is_refused(counts, strategy):
    with pytest.raises(ValueError):
        samples_per_modality(counts, strategy)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.sampled_from(["min", 0.1, "all", 7]), st.integers(0, 5), st.integers(0, 3))
def test_ranks_partition_the_epoch(world_size, strategy, seed, epoch):
    slices = made_up({"CT": 60, "MR": 23, "US": 5}, empty_every=4)
    parts = []
    for rank in range(world_size):
        sampler = ModalityBalancedSampler(slices, strategy, seed, rank, world_size)
        sampler.set_epoch(epoch)
        part = list(sampler)
        assert len(part) == len(sampler)
        parts.append(part)
    whole = ModalityBalancedSampler(slices, strategy, seed)
    whole.set_epoch(epoch)
    assert sorted(i for part in parts for i in part) == sorted(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_epochs_are_balanced_and_leave_out_empty_slices():
    slices = made_up({"CT": 60, "MR": 23, "US": 8}, empty_every=4)
    sampler = ModalityBalancedSampler(slices, "min", seed=1)
    drawn = list(sampler)
    assert all(slices.labels_on(i) for i in drawn) and len(set(drawn)) == len(drawn)
    counted = {m: sum(slices[i].modality == m for i in drawn) for m in slices.modalities}
    assert counted == {"CT": 6, "MR": 6, "US": 6}
    sampler.set_epoch(1)
    assert list(sampler) != drawn
    sampler.set_epoch(0)
    assert list(sampler) == drawn


def test_a_number_above_the_supply_repeats_evenly():
    slices = made_up({"CT": 10, "US": 3})
    drawn = list(ModalityBalancedSampler(slices, 7, seed=0))
    times = np.bincount([i for i in drawn if slices[i].modality == "US"])[10:]
    assert times.sum() == 7 and times.max() - times.min() <= 1


def test_modalities_without_objects_are_left_out():
    records = made_up({"CT": 4})._records + made_up({"PET": 1}, empty_every=1)._records
    assert ModalityBalancedSampler(SliceIndex("root", records)).samples == {"CT": 4}


def test_rank_outside_the_world_is_refused():
    with pytest.raises(ValueError, match="rank 2 of world size 2"):
        ModalityBalancedSampler(made_up({"CT": 2}), rank=2, world_size=2)


@pytest.mark.parametrize("cache_bytes", [0, 10_000, 10**7])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reader_equals_numpy_load_in_any_order(tmp_path, cache_bytes, order):
    rng = np.random.default_rng(0)
    paths = []
    for k in range(4):
        paths.append(tmp_path / f"{k}.npz")
        np.savez_compressed(
            paths[-1], imgs=np.asarray(rng.integers(0, 9, (9, 21, 23), dtype=np.uint8), order=order)
        )
    reader = SliceReader(cache_bytes)
    for _ in range(60):
        path, z = paths[rng.integers(4)], int(rng.integers(9))
        np.testing.assert_array_equal(reader.read(path, "imgs", z), np.load(path)["imgs"][z])
        assert reader._held <= cache_bytes
    with pytest.raises(CaseError, match="no slice 9"):
        reader.read(paths[0], "imgs", 9)


def test_reader_notices_a_changed_file_and_survives_pickling(tmp_path):
    path, reader = tmp_path / "a.npz", SliceReader()
    np.savez(path, imgs=np.zeros((3, 4, 5), np.uint8))
    assert not reader.read(path, "imgs", 1).any()
    np.savez(path, imgs=np.ones((4, 4, 5), np.uint8))
    assert reader.read(path, "imgs", 3).all()
    assert pickle.loads(pickle.dumps(reader)).read(path, "imgs", 0).all()
    path.unlink()
    with pytest.raises(CaseError, match="was it moved"):
        reader.read(path, "imgs", 0)
