"""Scores by object: sizes, contrast and bins have known values on drawn cases."""

import numpy as np
import pandas as pd
import pytest

from qmsam_core.data import Case
from qmsam_core.evaluate.agreement import dice_by_label
from qmsam_core.evaluate.object_scores import binned, contrast, score_objects

FRAME = pd.DataFrame({"modality": ["CT", "US"], "group": ["p1", "p2"]})


def square(side, label, size, shape=(128, 128), at=10):
    labels = np.zeros(shape, np.uint8)
    labels[at : at + size, at : at + size] = label
    return labels


def cases():
    """A volume with an object of 20 px and one of 10 px on another slice, and an image without label 1."""
    labels = np.stack([square(128, 1, 20), square(128, 2, 10, at=60), np.zeros((128, 128), np.uint8)])
    volume = Case("3DBox_CT_1", np.where(labels > 0, 200, 100).astype(np.uint8), None, labels, np.ones(3))
    labels = square(128, 2, 30)
    image = np.repeat(np.where(labels > 0, 50, 150).astype(np.uint8)[..., None], 3, axis=2)
    return [volume, Case("2DBox_US_1", image, None, labels, np.ones(3))]


def test_every_object_that_the_truth_has_is_scored_in_every_arm():
    found = cases()
    truth = [case.labels for case in found]
    empty = [np.zeros_like(labels) for labels in truth]
    table = score_objects(found, {"float": truth, "int8": empty}, FRAME, "float")
    assert list(zip(table["arm"], table["case"], table["object"])) == [
        (arm, case, label)
        for case, label in (("3DBox_CT_1", 1), ("3DBox_CT_1", 2), ("2DBox_US_1", 2))
        for arm in ("float", "int8")
    ]
    assert table["dsc"].tolist() == [1, 0] * 3 and table["agreement"].tolist() == [1, 0] * 3
    assert table["group"].tolist() == ["p1"] * 4 + ["p2"] * 2


def test_sizes_are_those_of_a_256_px_input():
    table = score_objects(cases(), {"float": [case.labels for case in cases()]}, FRAME, "float")
    assert table["size_px"].tolist() == pytest.approx([40, 20, 60])  # images of 128 px are enlarged twice


def test_contrast_is_in_pooled_standard_deviations():
    rng = np.random.default_rng(0)
    mask = square(128, 1, 40, at=40).astype(bool)
    grey = rng.normal(100, 10, mask.shape) + 30 * mask
    assert contrast(grey, mask, 8) == pytest.approx(3, abs=0.15)
    assert contrast(grey - 60 * mask, mask, 8) == pytest.approx(3, abs=0.15)


def test_contrast_of_even_areas_is_limited_and_of_no_surroundings_unknown():
    mask = square(128, 1, 40).astype(bool)
    assert contrast(np.where(mask, 105.0, 100.0), mask, 8) == pytest.approx(5)
    assert contrast(np.full(mask.shape, 7.0), mask, 8) == 0
    assert np.isnan(contrast(np.zeros((8, 8)), np.ones((8, 8), bool), 2))
    assert np.isnan(contrast(np.zeros((8, 8)), np.zeros((8, 8), bool), 2))


def objects(count, arm="int8"):
    """The DSC of object k is its size over 1000. Every two objects share a group."""
    sizes = np.arange(1, count + 1, dtype=float)
    known = {"arm": arm, "case": [f"c{k // 2}" for k in range(count)], "object": np.arange(count) % 2 + 1}
    return pd.DataFrame({**known, "group": known["case"], "size_px": sizes, "dsc": sizes / 1000})


def test_bins_hold_all_objects_in_order_and_their_intervals_hold_the_means():
    table = binned(pd.concat([objects(40), objects(40, "float")]), "size_px", "dsc")
    assert table.groupby("arm")["objects"].sum().tolist() == [40, 40]
    int8 = table[table["arm"] == "int8"]
    assert len(int8) == 5 and int8["middle"].is_monotonic_increasing
    assert ((int8["low"] <= int8["mean"]) & (int8["mean"] <= int8["high"])).all()
    assert int8["mean"].iloc[0] == pytest.approx(0.0045)


@pytest.mark.parametrize(("count", "bins"), [(1, 1), (15, 1), (16, 2), (400, 5)])
def test_few_objects_make_few_bins(count, bins):
    assert len(binned(objects(count), "size_px", "dsc")) == bins


def test_one_group_has_no_interval():
    table = binned(objects(2), "size_px", "dsc")
    assert table[["low", "high"]].isna().all(axis=None)


def test_dice_by_label_counts_what_is_in_neither_as_one():
    first, second = np.array([[1, 1, 2]]), np.array([[1, 0, 0]])
    assert dice_by_label(first, second, 3).tolist() == pytest.approx([2 / 3, 0, 1])
