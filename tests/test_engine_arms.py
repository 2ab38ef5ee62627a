"""The arms (model and engine) of Tables 5 and 6, and the tables made from their times."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from qmsam_core.deploy import engines, parity_summary
from qmsam_core.deploy.engines import has_bf16
from qmsam_core.deploy.export import export_model
from qmsam_core.deploy.exported import ExportError, file_sizes
from qmsam_core.deploy.parity import relative_error
from qmsam_core.deploy.post_training import nncf_export
from qmsam_core.deploy.pytorch_engine import PyTorchEngine
from qmsam_core.evaluate import PAPER
from qmsam_core.models import build_model
from qmsam_core.timing import engine_arms, engine_speed
from qmsam_core.timing.engine_arms import (
    ARMS,
    FLOAT_FAST,
    FLOAT_FAST_BF16,
    ISA_ARMS,
    PAPER_ARMS,
    Arm,
    int8_gain,
    isa_gain,
    runnable,
    seconds_by_engine,
    timed_calls,
    timing_input,
)
from qmsam_core.timing.engine_speed import instruction_sets, start_times, time_against, time_large, time_under


def test_the_paper_s_arms_are_those_of_its_tables():
    rows = set(zip(PAPER["table5"]["precision"], PAPER["table5"]["engine"]))
    assert {(arm.precision, arm.engine_label) for arm in PAPER_ARMS} == rows
    assert len({arm.label for arm in ARMS}) == len(ARMS)
    assert Arm("int8", "openvino", "bf16").label == "int8, OpenVINO, bf16 hint"


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_s_spec_is_read_back(arm):
    assert Arm.parse(arm.spec) == arm
    assert Arm.parse(arm.export) == Arm(arm.precision, "openvino", "f32", arm.variant)


def test_a_hint_that_an_engine_would_ignore_is_refused():
    with pytest.raises(ValueError, match="onnxruntime knows no hint 'bf16'"):
        Arm.parse("int8:onnxruntime:bf16")


@pytest.mark.parametrize(
    "text", ["int4", "int8:tensorrt", "int8:openvino:f16", "int8_slow", "int8:openvino:f32:more", ""]
)
def test_other_specs_are_refused(text):
    with pytest.raises(ValueError, match="expected <float|int8>"):
        Arm.parse(text)


def test_speed_times_every_part_in_a_process_held_to_an_instruction_set(tmp_path):
    model = build_model("narrow", 32)
    export_model(model, tmp_path / "float", style="clean")
    export_model(model, tmp_path / "float_fast", style="fast")
    arms = [Arm("float", "openvino"), Arm("float", "openvino", variant="fast")]
    table = time_under("AVX2", tmp_path, arms, threads=1, runs=2)
    counts = table.groupby("part", sort=False)["arm"].count().to_dict()
    assert counts == {"encoder": 2, "prepare": 1, "decoder": 2, "both": 2}
    assert (table["median_ms"] > 0).all() and (table["runs"] == 2).all()
    with pytest.raises(RuntimeError, match="int8/export.json: no such file"):
        time_under("AVX2", tmp_path, [Arm("int8", "openvino")], threads=1, runs=1)


def test_arms_timed_in_pairs_share_the_first_one_s_scale(monkeypatch):
    float_arm, others = (
        Arm("float", "openvino"),
        [Arm("int8", "openvino"), Arm("int8", "openvino", variant="nncf")],
    )
    # The machine is three times slower during the second pair.
    asked, clock = [], iter([1.0, 3.0])

    def pair(isa, folder, arms, threads, runs, seed, parts):
        asked.append([arm.label for arm in arms])
        slow = next(clock)
        return pd.DataFrame(
            {
                "part": "both",
                "arm": asked[-1],
                "median_ms": [100 * slow, 40 * slow],
                "min_ms": [90 * slow, 30 * slow],
                "ratio_to_first": [1.0, 0.4],
            }
        )

    monkeypatch.setattr(engine_speed, "time_under", pair)
    table = time_against(float_arm, others, "exports", 1, 3).set_index("arm")
    assert asked == [[float_arm.label, other.label] for other in others] and list(table.index) == [
        float_arm.label,
        *(o.label for o in others),
    ]
    assert table["median_ms"].tolist() == pytest.approx([200, 80, 80]) and table[
        "min_ms"
    ].tolist() == pytest.approx([180, 60, 60])


def test_of_a_large_model_two_engines_at_most_share_a_process(monkeypatch):
    asked = []

    def under(isa, folder, arms, threads, runs, seed, parts):
        asked.append(list(arms))
        return pd.DataFrame({"part": "both", "arm": [arm.label for arm in arms], "median_ms": 1.0})

    monkeypatch.setattr(engine_speed, "time_under", under)
    table = time_large(PAPER_ARMS, "exports", 1, 3)
    order = ("pytorch", "onnxruntime", "openvino")
    by_engine = sorted(PAPER_ARMS, key=lambda arm: order.index(arm.engine))
    assert table["arm"].tolist() == [arm.label for arm in by_engine]
    assert len(asked) == 3 and max(map(len, asked)) == 2


def test_starts_are_timed_without_a_cache_cold_and_warm(tmp_path):
    export_model(build_model("narrow", 32), tmp_path)
    starts = start_times(tmp_path, threads=1)
    assert (
        starts["start"].tolist() == ["no cache", "cold cache", "warm cache"] and (starts["seconds"] > 0).all()
    )


def test_nncf_makes_an_export_that_openvino_runs(tmp_path):
    pytest.importorskip("nncf")
    export_model(build_model("narrow", 32), tmp_path / "float", style="clean")
    images = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    boxes = np.array([[4, 4, 20, 25], [2, 8, 30, 30]], np.float32)
    facts = nncf_export(tmp_path / "float", tmp_path / "int8_nncf", images, boxes)
    assert facts["recipe"].startswith("NNCF") and set(facts["files"]) == {
        f"{part}.{kind}" for part in ("encoder", "decoder") for kind in ("xml", "bin")
    }
    before, after = (Arm.parse(name).open(tmp_path, 1) for name in ("float", "int8_nncf"))
    assert relative_error(before.encode(images), after.encode(images)) < 0.3
    with pytest.raises(ExportError, match="expected a float export"):
        nncf_export(tmp_path / "int8_nncf", tmp_path / "again", images, boxes)


def test_timing_inputs_are_seeded_and_of_the_model_s_size():
    (image, box), (again, _) = timing_input(64, 3), timing_input(64, 3)
    assert image.shape == (1, 3, 64, 64) and image.dtype == box.dtype == np.float32
    assert box.tolist() == [[16, 16, 48, 48]] and np.array_equal(image, again)


@pytest.mark.parametrize(
    "part, shape", [("both", (1, 32, 32)), ("encoder", (1, 64, 8, 8)), ("decoder", (1, 32, 32))]
)
def test_timed_calls_run_what_they_say(part, shape):
    arm = Arm("float", "pytorch")
    calls = timed_calls({arm: PyTorchEngine(build_model("narrow", 32))}, 0, part)
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
        "speed-up paper": pytest.approx(0.574 / 0.585),
        "speed-up over plain float": pytest.approx(3.0),
        "speed-up over same graph": pytest.approx(np.nan, nan_ok=True),
        "speed-up over best float": pytest.approx(3.0),
        "best float": "OpenVINO",
    }


@pytest.mark.parametrize(
    "flags, more",
    [
        (["avx2"], set()),
        (["avx2", "avx_vnni"], {"AVX2_VNNI"}),
        (["avx2", "avx512_vnni"], set()),
        (["avx2", "avx512_vnni", "amx_tile"], {"AVX512_CORE_VNNI"}),
    ],
)
def test_instruction_sets_are_those_that_the_cpu_has(monkeypatch, flags, more):
    monkeypatch.setattr(engine_speed, "cpu_info", lambda: {"flags": flags})
    assert set(instruction_sets()) == {"ALL", "AVX2"} | more


@pytest.mark.parametrize(
    "held, possible",
    [("ALL", True), ("AVX512_CORE_AMX", True), ("AVX512_CORE_BF16", True), ("AVX512_CORE_VNNI", False)]
    + [("AVX2_VNNI", False), ("AVX2", False)],
)
def test_a_cpu_that_is_held_to_less_has_no_bf16(monkeypatch, held, possible):
    monkeypatch.setenv(engines.ISA, held)
    monkeypatch.setattr(engines.openvino, "Core", lambda: SimpleNamespace(get_property=lambda *_: ["BF16"]))
    assert has_bf16() is possible


@pytest.mark.parametrize("bf16", [True, False])
def test_arms_under_the_bf16_hint_need_a_cpu_with_bf16(monkeypatch, bf16):
    monkeypatch.setattr(engine_arms, "has_bf16", lambda: bf16)
    left_out = {arm.label for arm in ARMS} - {arm.label for arm in runnable(ARMS)}
    assert left_out == (set() if bf16 else {arm.label for arm in ARMS if arm.hint == "bf16"})


def test_int8_is_compared_with_plain_float_with_its_own_graph_and_with_the_best_float_arm():
    seconds = {
        ("float", "OpenVINO"): 0.4,
        ("float", "OpenVINO, rewritten"): 0.3,
        ("float", "OpenVINO, bf16 hint"): 0.2,
        ("float", "OpenVINO, rewritten, bf16 hint"): 0.15,
        ("int8", "OpenVINO"): 0.1,
        ("int8", "OpenVINO, released style"): 0.2,
        ("int8", "OpenVINO, bf16 hint"): 0.1,
        ("float", "ONNX Runtime"): 0.4,
        ("int8", "ONNX Runtime"): 0.5,
    }
    columns = ["precision", "engine", "seconds paper", "seconds here"]
    gain = int8_gain(
        {"Table 5": pd.DataFrame([(*arm, np.nan, s) for arm, s in seconds.items()], columns=columns)}
    ).set_index("engine")
    over = {name: gain[f"speed-up over {name}"] for name in ("plain float", "same graph", "best float")}
    assert over["plain float"].to_dict() == pytest.approx(
        {"OpenVINO": 4, "OpenVINO, released style": 2, "OpenVINO, bf16 hint": 2, "ONNX Runtime": 0.8}
    )
    assert over["same graph"].dropna().to_dict() == pytest.approx({"OpenVINO": 3, "OpenVINO, bf16 hint": 1.5})
    assert over["best float"]["OpenVINO"] == pytest.approx(1.5) and over["best float"][
        "ONNX Runtime"
    ] == pytest.approx(0.3)
    assert (
        set(gain["best float"]) == {"OpenVINO, rewritten, bf16 hint"} and gain["speed-up paper"].isna().all()
    )


def test_gains_of_an_instruction_set_count_what_the_decoder_needs_prepared():
    ms = {
        "encoder": (400, 300, 150, 250, 100),
        "prepare": (None, 4, 4, None, 2),
        "decoder": (30, 16, 20, 20, 8),
    }
    labels = [arm.label for arm in ISA_ARMS]
    rows = [
        ("AVX2", part, arm, value)
        for part, values in ms.items()
        for arm, value in zip(labels, values)
        if value
    ]
    table = pd.DataFrame(rows, columns=["instruction set", "part", "arm", "median_ms"])
    gain = isa_gain(table).set_index("part")
    whole = gain.loc["an image and a box"]
    assert gain["speed-up over plain float"].to_dict() == pytest.approx(
        {"encoder": 4, "decoder": 3, "an image and a box": 430 / 110}
    )
    assert gain["speed-up over same graph"].to_dict() == pytest.approx(
        {"encoder": 3, "decoder": 2, "an image and a box": 320 / 110}
    )
    assert (
        whole["speed-up over best float"] == pytest.approx(174 / 110)
        and whole["best float"] == FLOAT_FAST_BF16.label
    )
    assert gain.loc["decoder", "best float"] == FLOAT_FAST.label
    assert set(gain["best int8"]) == {"int8, OpenVINO"}
    without = isa_gain(table[table["arm"] != FLOAT_FAST_BF16.label]).set_index("part")
    assert without.loc["encoder", "best float"] == FLOAT_FAST.label
    quick = pd.DataFrame([("AVX2", "encoder", labels[-1], 50.0)], columns=table.columns)
    encoder = isa_gain(pd.concat([table, quick])).set_index("part").loc["encoder"]
    assert encoder["best int8"] == "int8, OpenVINO, bf16 hint, products in float"
    assert encoder["speed-up over best float"] == 3
    assert encoder["speed-up over same graph"] == 3  # the float graph under the same hint


def test_parity_is_weighted_by_masks():
    cases = pd.DataFrame(
        {
            "masks": [1, 3],
            "pixels_equal": [0.9, 1.0],
            "embedding_error": [0.2, 0.1],
            "logit_error": [0.0, 0.3],
        }
    )
    (row,) = parity_summary({("int8", "openvino"): cases}).to_dict("records")
    assert row["equal pixels"] == pytest.approx(0.975) and row["equal pixels, worst case"] == 0.9
    assert (row["masks"], row["embedding error"], row["logit error"]) == (4, 0.2, 0.3)


def test_sizes_are_in_megabytes_by_part():
    files = {
        f"{part}{ending}": {"bytes": 1_500_000}
        for part in ("encoder", "decoder")
        for ending in (".onnx", ".bin")
    }
    table = file_sizes({"int8": {"files": files}})
    assert len(table) == 4 and (table["mb"] == 1.5).all()
    assert set(table["arm"]) == {"int8, ONNX", "int8, OpenVINO weights"}
