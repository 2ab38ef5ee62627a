"""The arms of Tables 5 and 6 and the tables made of their times."""

import numpy as np
import pandas as pd
import pytest

from qmsam_core.deploy import ARMS, PAPER_ARMS, Arm, PyTorchEngine, parity_summary
from qmsam_core.deploy.arms import int8_gain, seconds_by_engine, timed_calls, timing_input
from qmsam_core.deploy.export import file_sizes
from qmsam_core.evaluate import PAPER
from qmsam_core.models import build_model


def test_the_paper_s_arms_are_those_of_its_tables():
    rows = set(zip(PAPER["table5"]["precision"], PAPER["table5"]["engine"]))
    assert {(arm.precision, arm.engine_label) for arm in PAPER_ARMS} == rows
    assert len({arm.label for arm in ARMS}) == len(ARMS)
    assert Arm("int8", "openvino", "bf16").label == "int8, OpenVINO, bf16 hint"


def test_timing_inputs_are_seeded_and_of_the_model_s_size():
    (image, box), (again, _) = timing_input(64, 3), timing_input(64, 3)
    assert image.shape == (1, 3, 64, 64) and image.dtype == box.dtype == np.float32
    assert box.tolist() == [[16, 16, 48, 48]] and np.array_equal(image, again)


@pytest.mark.parametrize("part, shape", [("both", (1, 32, 32)), ("encoder", (1, 64, 8, 8)), ("decoder", (1, 32, 32))])
def test_timed_calls_run_what_they_say(part, shape):
    arm = Arm("float", "pytorch")
    calls = timed_calls({arm: PyTorchEngine(build_model("nano", 32))}, 0, part)
    assert calls["float, PyTorch"]().shape == shape


def test_medians_become_seconds_and_gains_ratios():
    arms = (Arm("float", "openvino"), Arm("int8", "openvino"))
    timings = pd.DataFrame({"arm": [arm.label for arm in arms], "median_ms": [300.0, 100.0]})
    seconds = seconds_by_engine(timings, arms)
    assert seconds["seconds"].tolist() == [0.3, 0.1]
    table = seconds.rename(columns={"seconds": "seconds here"}).assign(**{"seconds paper": [0.574, 0.585]})
    (row,) = int8_gain({"Table 5": table}).to_dict("records")
    assert row == {
        "table": "Table 5",
        "engine": "OpenVINO",
        "paper": pytest.approx(0.574 / 0.585),
        "here": pytest.approx(3.0),
    }


def test_parity_is_weighted_by_masks():
    cases = pd.DataFrame(
        {"masks": [1, 3], "pixels_equal": [0.9, 1.0], "embedding_error": [0.2, 0.1], "logit_error": [0.0, 0.3]}
    )
    (row,) = parity_summary({("int8", "openvino"): cases}).to_dict("records")
    assert row["equal pixels"] == pytest.approx(0.975) and row["equal pixels, worst case"] == 0.9
    assert (row["masks"], row["embedding error"], row["logit error"]) == (4, 0.2, 0.3)


def test_sizes_are_in_megabytes_by_part():
    files = {f"{part}{ending}": {"bytes": 1_500_000} for part in ("encoder", "decoder") for ending in (".onnx", ".bin")}
    table = file_sizes({"int8": {"files": files}})
    assert len(table) == 4 and (table["mb"] == 1.5).all()
    assert set(table["arm"]) == {"int8, ONNX", "int8, OpenVINO weights"}
