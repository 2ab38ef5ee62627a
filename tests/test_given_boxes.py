"""The cases' own boxes by float, int8 and the ellipse: table, picture and sentences."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from box_engine import BoxEngine
from small_data import rectangle_case

from qmsam_core.deploy import Predictor
from qmsam_core.study.given_boxes import (
    agreement_reading,
    compared_row,
    dsc_reading,
    given_boxes_table,
    times_reading,
)


@pytest.fixture
def cases():
    return [rectangle_case("2DBox_US_0", 0, volume=False), rectangle_case("3DBox_CT_0", 1, volume=True)]


@pytest.fixture
def engines():
    return {"float": BoxEngine(), "int8": BoxEngine()}


def test_table(engines, cases):
    table = given_boxes_table(engines, cases, ["US", "CT"], "area")
    assert table["modality"].tolist() == ["US", "CT"] and table["boxes"].tolist() == [2, 2]
    times = ["image float ms", "box float ms", "image int8 ms", "box int8 ms"]
    assert (table[times] > 0).all(axis=None)
    assert (table["agreement int8"] == 1).all() and table["agreement ellipse"].between(0.7, 0.9).all()
    assert engines["float"].encoded == engines["int8"].encoded == 3, "once a case, and once to warm up"


def test_a_slice_without_boxes_has_no_numbers(engines, cases):
    bare = replace(cases[0], boxes=np.zeros((0, 4), int), labels=None)
    table = given_boxes_table(engines, [bare], ["US"], "area")
    assert table["boxes"].tolist() == [0] and table.drop(columns=["modality", "case", "boxes"]).isna().all(
        axis=None
    )


def test_row_of_the_picture(engines, cases):
    predictors = {name: Predictor(engine) for name, engine in engines.items()}
    row = compared_row(cases[1], predictors, {"int8": 0.5}, "CT")
    assert list(row.masks) == ["ground truth", "float", "int8", "ellipse"] and row.dsc == {"int8": 0.5}
    assert all(mask.shape == (40, 56) for mask in row.masks.values()) and row.boxes.shape == (2, 4)
    whole = Predictor(engines["int8"]).segment(cases[1])[1]
    assert np.array_equal(row.masks["int8"], whole), "a slice alone is segmented as within its volume"


def test_objects_of_other_slices_leave_no_gap_in_the_picture(engines, cases):
    labels = cases[1].labels.copy()
    labels[labels == 1] = 0
    labels[0, :3, :3] = 1  # the first object now lies on another slice than the second
    case = replace(cases[1], labels=labels, boxes=None).with_boxes()
    row = compared_row(case, {"int8": Predictor(engines["int8"])}, {}, "CT")
    assert len(row.boxes) == 1 and all(set(np.unique(mask)) == {0, 1} for mask in row.masks.values())


def made_table(quicker, int8, ellipse, modalities="CT MR US"):
    """Three cases: how many times as fast int8 was, and agreement with float."""
    images = 100 * np.array(quicker, float)
    return pd.DataFrame(
        {
            "modality": modalities.split(),
            "image float ms": images,
            "box float ms": 30.0,
            "image int8 ms": 100.0,
            "box int8 ms": 20.0,
            "agreement int8": int8,
            "agreement ellipse": ellipse,
        }
    )


GOOD, LOW = [0.98, 0.9, 0.95], [0.7, 0.8, 0.6]


@pytest.mark.parametrize(
    ("quicker", "told"),
    [
        ([2, 1.5, 3], "quicker with the image of every case (1.5 to 3.0 times as fast)."),
        ([0.5, 0.9, 0.8], "quicker with the image of no case (0.5 to 0.9 times as fast)."),
        ([0.5, 0.9, 2], "quicker with the image of 1 of 3 cases (0.5 to 2.0 times as fast)."),
        ([2, np.nan, 1.5], "quicker with the image of every case (1.5 to 2.0 times as fast)."),
    ],
)
def test_sentence_on_times(quicker, told):
    sentence = times_reading(made_table(quicker, GOOD, LOW))
    assert sentence.endswith(told)
    assert "int8 100 ms for the image and 20 ms for a box" in sentence


@pytest.mark.parametrize(
    ("int8", "ellipse", "told"),
    [
        (
            GOOD,
            LOW,
            ["95.0 % Dice, least in MR (90.0 %)", "reaches 70.0 %; int8 is nearer to float in every"],
        ),
        (
            LOW,
            GOOD,
            ["70.0 % Dice, least in US (60.0 %)", "as near to float as int8 or nearer in CT, MR, US."],
        ),
        (GOOD, [0.7, 0.9, 0.6], ["or nearer in MR."]),
        ([0.98, np.nan, 0.95], [0.7, np.nan, 0.6], ["96.5 % Dice, least in US"]),
        ([np.nan] * 3, [np.nan] * 3, ["nothing can be said"]),
    ],
)
def test_sentence_on_agreement(int8, ellipse, told):
    sentence = agreement_reading(made_table([2, 2, 2], int8, ellipse))
    assert all(part in sentence for part in told), sentence


def test_one_modality():
    table = made_table([2, 2, 2], GOOD, LOW).head(1)
    assert "98.0 % Dice, least" not in agreement_reading(table) and "98.0 % Dice" in agreement_reading(table)
    assert "(2.0 times as fast)" in times_reading(table)


def test_no_sentence_on_times_without_cases():
    assert times_reading(made_table([np.nan] * 3, GOOD, LOW)) == ""


def test_sentence_on_the_truth():
    dsc = pd.DataFrame({"float": [0.9, 0.8], "int8": [0.9, 0.7], "ellipse": [0.8, 0.75]})
    sentence = dsc_reading(dsc)
    assert (
        "2 cases shown score a DSC of 85.0 % in float, 80.0 % in int8 and 77.5 % with the ellipse" in sentence
    )
    assert sentence.endswith("int8 beats the ellipse in 1 of 2.")
    assert dsc_reading(dsc.head(0)) == ""
