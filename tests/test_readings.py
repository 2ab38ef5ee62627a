"""Sentences made from results: direction, size, exceptions by name, and what cannot be told."""

import numpy as np
import pandas as pd
import pytest

from qmsam_core.evaluate.readings.data import read_disk, read_lost, read_samples, read_sampling
from qmsam_core.evaluate.readings.recipes import read_apart, read_input_sizes, read_layer_share, read_recipes
from qmsam_core.evaluate.readings.speed import (
    WHOLE,
    read_backbones,
    read_engines,
    read_int8_gain,
    read_isa_gain,
    read_parts,
)
from qmsam_core.evaluate.wording import counted, direction, enumerated, fold, interval, percent


def test_names_in_a_row():
    assert [enumerated(names) for names in (["CT"], ["CT", "MR"], ["CT", "MR", "PET"])] == [
        "CT",
        "CT and MR",
        "CT, MR and PET",
    ]


def test_percent_is_all_only_where_it_is_all():
    assert [percent(share) for share in (1, 0.9999, 0.971)] == ["100.0 %", "99.9 %", "97.1 %"]


def test_intervals_without_width_or_ends_are_none():
    assert interval(-0.002, 0.03) == "95 %: -0.20 to +3.00"
    assert interval(0.1, 0.1) == interval(float("nan"), 0.1) == "too few cases for an interval"


def test_ratios_of_speed():
    assert [fold(ratio) for ratio in (2.0, 0.5, 1.001)] == [
        "2.00 times as fast",
        "2.00 times as slow",
        "as fast",
    ]


def test_an_interval_without_ends_tells_nothing():
    assert [direction(*ends) for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (np.nan, np.nan))] == [
        1,
        -1,
        0,
        0,
    ]


def test_counted():
    assert [counted(n, what) for n, what in ((0, "case"), (1, "box"), (2, "box"), (2, "modality"))] == [
        "0 cases",
        "1 box",
        "2 boxes",
        "2 modalities",
    ]


def engines(int8):
    rows = [("float", "PyTorch", 0.9), ("float", "OpenVINO", 0.3), ("int8", "OpenVINO", int8)]
    return pd.DataFrame(rows, columns=["precision", "engine", "seconds here"])


def test_engines_in_both_directions():
    assert read_engines(engines(0.15)) == [
        "The quickest arm is int8 on OpenVINO: 150 ms for an image and a box.",
        "It is 2.00 times as fast as the quickest float arm, OpenVINO, and 6.00 times as fast as PyTorch in "
        "float.",
    ]
    assert "float on OpenVINO: 300 ms" in read_engines(engines(0.6))[0]
    assert "no speed" in read_engines(engines(0.6))[1]


def isa(**gains):
    return pd.DataFrame(
        {"instruction set": list(gains), "part": WHOLE, "speed-up over best float": list(gains.values())}
    )


def test_instruction_sets_under_which_float_is_better_are_named():
    first, second = read_isa_gain(isa(AMX=1.1, AVX2=0.8))
    assert first.startswith(
        "AMX: int8 is 1.10 times as fast as the fastest float; AVX2: int8 is 1.25 times as slow"
    )
    assert second == "Float is the better choice under AVX2."
    assert (
        read_isa_gain(isa(AMX=1.1, AVX2=1.3))[1]
        == "Int8 is faster under every instruction set that was timed."
    )


def test_gain_beside_the_papers():
    table = pd.DataFrame(
        [
            ("Table 5", "OpenVINO", 0.98, 2.0, 1.9, 1.8, "OpenVINO, rewritten"),
            ("Table 5", "ONNX Runtime", 1.02, 0.7, np.nan, 0.6, "OpenVINO, rewritten"),
        ],
        columns=[
            "table",
            "engine",
            *(f"speed-up {x}" for x in ("paper", "over plain float", "over same graph", "over best float")),
            "best float",
        ],
    )
    first, second = read_int8_gain(table)
    assert "in the paper int8 is 1.02 times as slow as float" in first
    assert "2.00 times as fast as float exported plainly and 1.80 times as fast as the fastest" in first
    assert second == "Slower than the fastest float arm: int8 on ONNX Runtime (Table 5)."
    assert len(read_int8_gain(table[:1])) == 1


def test_boxes_from_which_the_decoder_outweighs_the_encoder():
    parts = pd.DataFrame(
        {"part": ["encoder", "prepare", "decoder"], "arm": "int8", "median_ms": [95.0, 5.0, 20.0]}
    )
    assert read_parts(parts, "int8") == [
        "In int8 an image costs 100 ms once, and every box 20 ms.",
        "With 6 boxes or more on an image, the boxes cost more than the image.",
    ]


def test_networks():
    table = pd.DataFrame({"network": ["A", "B"], "int8 gain": [0.9, 2.0], "ms a GMAC, int8": [3.0, 5.0]})
    sentences = read_backbones(table)
    assert "most for B (2.00" in sentences[0] and "A suits this CPU best" in sentences[1]
    assert sentences[2] == "In float are quicker: A."
    assert read_backbones(table[1:]) == ["B in int8 is 2.00 times as fast as its fastest float arm."]


def test_imbalance():
    table = pd.DataFrame({"modality": ["CT", "US"], "samples paper": [1000, 1], "samples here": [20, 2]})
    first, second = read_samples(table)
    assert first == "CT has 10 times the slices of US; in the paper CT has 1,000 times those of US."
    assert second
    assert read_samples(table.assign(**{"samples here": [800, 1]}))[1] == ""


def test_share_of_the_largest_modality():
    drawn = pd.DataFrame({"modality": ["CT", "US"], "all": [30, 10], "as many of each": [10, 10]})
    assert (
        "75 % of an epoch are CT; with as many of each, 50 % are of each of 2 modalities"
        in read_sampling(drawn)[0]
    )


def test_disk_and_lost_objects():
    disk = pd.DataFrame(
        {"as": ["compressed cases", "unpacked slices"], "paper (MB)": [1, 60], "here (MB)": [2.0, 40.0]}
    )
    assert "20 times their space; the paper's would 60" in read_disk(disk)[0]
    lost = pd.DataFrame(
        {"px": [64, 64, 256], "modality": ["CT", "US", "CT"], "objects": 5, "lost": [2, 1, 1]}
    )
    assert read_lost(lost) == [
        "At 64 px, 3 objects of CT and US leave no pixel.",
        "At 256 px, 1 object of CT leaves no pixel.",
    ]
    assert read_lost(lost[:0])[0].startswith("No object")


@pytest.fixture
def recipes():
    rows = [
        ("the paper's", "quantisers", 0.75, 0.5, "PET"),
        ("ours", "quantisers", 0.97, 0.92, "OCT"),
        ("decoder only", "parts", 0.99, 0.97, "CT"),
        ("float", "float", 1.0, 1.0, "CT"),
        ("after stage 1", "trained", 0.96, 0.9, "CT"),
        ("after stage 3", "trained", 0.94, 0.9, "CT"),
    ]
    return pd.DataFrame(rows, columns=["name", "family", "agreement", "agreement low", "weakest"])


def test_best_recipe_is_of_the_whole_model(recipes):
    first, second = read_recipes(recipes)
    assert "'ours' keeps the float masks best: 97.0 % agreement, 92.0 % in OCT" in first
    assert 'furthest from float is "the paper\'s", with 75.0 %' in first
    assert second == "This run's own training ends at 94.0 %, below the 96.0 % that it had earlier."
    assert read_recipes(recipes[:-1])[1].endswith("its best stage.")
    assert len(read_recipes(recipes[:4])) == 1


def test_smaller_inputs():
    table = pd.DataFrame(
        {
            "px": [256, 256, 192, 128],
            "precision": ["float", "int8", "int8", "int8"],
            "ms": [200.0, 100.0, 60.0, 30.0],
            "difference": [0, 0, 0.001, -0.02],
            "difference low": [0, 0, -0.01, -0.03],
            "difference high": [0, 0, 0.012, -0.01],
        }
    )
    first, second = read_input_sizes(table)
    assert "192 px takes 60 % of its time" in first and first.endswith("no difference that can be told.")
    assert "128 px takes 30 %" in second and second.endswith("to float at 256 px.")


def test_calibrated_apart():
    table = pd.DataFrame(
        {
            "modality": ["CT", "MR", "PET", "Average"],
            "difference low": [0.01, -0.03, np.nan, 0.0],
            "difference high": [0.02, -0.01, np.nan, 0.0],
        }
    )
    assert read_apart(table) == [
        "Calibrated apart, CT agrees better with float.",
        "Worse apart: MR.",
        "For PET it cannot be told.",
    ]
    assert read_apart(table[1:3])[0].startswith("No modality gains")
    assert read_apart(table[:0]) == ["This run calibrates no modality apart."]


def test_time_in_int8():
    share = pd.DataFrame({"arm": ["int8, encoder", "int8_released, encoder"], "time in int8": [0.7, np.nan]})
    assert "the encoder spends 0 % of its time in int8" in read_layer_share(share)[0]
