"""The quickest way to run an export: what can be chosen, that it is measured once, and what it changes."""

import json
import shutil

import numpy as np
import openvino
import pytest
import torch
from small_data import rectangle_case

from qmsam_core.deploy import OpenVinoEngine, choice, open_engine
from qmsam_core.deploy import predict_arguments as arguments
from qmsam_core.deploy.choice import choose, ways_of
from qmsam_core.deploy.export import export_model
from qmsam_core.deploy.exported import FLOAT
from qmsam_core.deploy.parity import relative_error
from qmsam_core.deploy.predict import main as predict_command
from qmsam_core.deploy.ways import Way, products_in_float
from qmsam_core.models import build_model
from qmsam_core.quant import calibrate, quantize

BOX = np.array([[20.0, 20, 90, 80]], dtype=np.float32)
F32, IN_FLOAT = Way(), Way(float_products=True)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).random((1, 3, 128, 128), dtype=np.float32)


@pytest.fixture(scope="module")
def export(tmp_path_factory, image):
    """An int8 export of the narrow network, with the float one in its subfolder."""
    folder, model = tmp_path_factory.mktemp("export"), build_model("narrow", 128)
    made = quantize(model, "deploy")
    calibrate(made, lambda m, x: m(x, torch.from_numpy(BOX)), [torch.from_numpy(image)])
    export_model(made, folder, origin="test")
    export_model(model, folder / FLOAT, origin="test")
    return folder


@pytest.fixture
def clock(monkeypatch):
    """Let every part take the time of its way in `clock.times`, and count what was timed."""

    class Clock:
        times = {"f32": 10.0, "f32, products in float": 10.0, "bf16": 10.0, "bf16, products in float": 10.0}
        calls = 0

        def __call__(self, requests):
            self.calls += 1
            return {name: self.times[name] for name in requests}

    clock = Clock()
    monkeypatch.setattr(choice, "_by_turns", clock)
    monkeypatch.setattr(choice, "has_bf16", lambda: False)
    return clock


@pytest.mark.parametrize("way", [Way(), Way("bf16"), Way("f32", True), Way("bf16", True)])
def test_ways_are_read_as_they_are_written(way):
    assert Way.parse(str(way)) == way


@pytest.mark.parametrize("part, some", [("encoder", True), ("prepare", False), ("decoder", True)])
def test_products_lose_their_quantisers_and_linear_layers_keep_them(export, part, some):
    model = openvino.Core().read_model(export / f"{part}.xml")
    kinds = [node.get_type_name() for node in model.get_ordered_ops()]
    count = products_in_float(model)
    assert bool(count) == some
    left = [node.get_type_name() for node in model.get_ordered_ops()]
    assert kinds.count("MatMul") == left.count("MatMul")
    assert kinds.count("FakeQuantize") - left.count("FakeQuantize") == 2 * count
    assert products_in_float(model) == 0  # none is left


def test_products_in_float_bring_the_int8_embedding_no_further_from_the_float_one(export, image):
    exact = OpenVinoEngine(export / FLOAT, threads=1).embed(image)
    engines = (OpenVinoEngine(export, 1, str(way)) for way in (F32, IN_FLOAT))
    quantised, in_float = (relative_error(exact, engine.embed(image)) for engine in engines)
    assert 0 < in_float < 1.1 * quantised


def test_the_ways_are_the_hints_of_the_cpu_and_for_int8_both_kinds_of_products(monkeypatch):
    monkeypatch.setattr(choice, "has_bf16", lambda: True)
    assert ways_of({"recipe": "float"}, "encoder") == [Way("f32"), Way("bf16")]
    assert ways_of({"recipe": "deploy"}, "prepare") == [Way("f32"), Way("bf16")]
    assert len(ways_of({"recipe": "deploy"}, "decoder")) == 4
    monkeypatch.setattr(choice, "has_bf16", lambda: False)
    assert ways_of({"recipe": "deploy"}, "encoder") == [F32, IN_FLOAT]


def test_the_choice_is_measured_once_for_each_number_of_threads_and_kept(export, tmp_path, clock):
    clock.times = {"f32": 10.0, "f32, products in float": 8.0}
    said = []
    first = choose(export, 1, tmp_path, said.append)
    assert clock.calls == 6 and len(said) == 2 and said[0].startswith("measuring once")
    assert first.folder == export and first.ways == {"encoder": IN_FLOAT, "prepare": F32, "decoder": IN_FLOAT}
    assert (
        said[1].startswith("int8 (encoder f32, products in float, prepare f32, ")
        and "not taken: float" in said[1]
    )
    assert choose(export, 1, tmp_path) == first and clock.calls == 6
    choose(export, 2, tmp_path)
    assert clock.calls == 12 and len(list(tmp_path.iterdir())) == 2


def test_a_measurement_that_cannot_be_read_is_made_again(export, tmp_path, clock):
    first = choose(export, 1, tmp_path)
    (kept,) = tmp_path.iterdir()
    for damage in ("", "[]", "{}", json.dumps({"ms": {"": {}}})):
        kept.write_text(damage)
        before = clock.calls
        assert choose(export, 1, tmp_path) == first and clock.calls > before


def test_a_way_that_saves_next_to_nothing_is_left(export, tmp_path, clock):
    clock.times = {"f32": 10.0, "f32, products in float": 9.8}
    assert set(choose(export, 1, tmp_path).ways.values()) == {F32}


def test_float_is_taken_where_it_is_quicker(export, tmp_path, monkeypatch, clock):
    def measured(folder, facts, threads):
        return {
            part: {"f32": 5.0 if facts["recipe"] == "float" else 10.0}
            for part in ("encoder", "prepare", "decoder")
        }

    monkeypatch.setattr(choice, "_measure", measured)
    said = []
    found = choose(export, 1, tmp_path, said.append)
    assert found.folder == export / FLOAT
    assert said[-1].startswith("float (f32) 15 ms") and "not taken: int8 (f32) 30 ms" in said[-1]


def test_an_export_without_float_is_measured_alone(export, tmp_path, clock):
    alone = tmp_path / "alone"
    shutil.copytree(export, alone, ignore=shutil.ignore_patterns(FLOAT))
    said = []
    assert choose(alone, 1, tmp_path / "cache", said.append).folder == alone
    assert clock.calls == 3 and "not taken" not in said[-1]


def test_a_cache_that_cannot_be_written_costs_only_time(export, tmp_path, clock):
    blocked = tmp_path / "file"
    blocked.touch()
    said = []
    assert choose(export, 1, blocked / "cache", said.append).folder == export
    assert "cannot be written" in said[1] and "--cache" in said[1]


def test_predict_measures_says_and_keeps_its_choice(export, tmp_path, capsys):
    rectangle_case("2DBox_US_0001", 1, False).save(tmp_path / "cases" / "2DBox_US_0001.npz")
    asked = [
        "-i",
        tmp_path / "cases",
        "--model",
        export,
        "--precision",
        "auto",
        "--cache",
        tmp_path / "cache",
        "--threads",
        1,
    ]
    heard = []
    for output in ("first", "second"):
        assert predict_command([*map(str, asked), "-o", str(tmp_path / output)]) == 0
        heard.append(capsys.readouterr().err)
    assert ["measuring once" in text for text in heard] == [True, False]
    assert all("ms an image and a box" in text for text in heard)
    masks = [np.load(tmp_path / output / "2DBox_US_0001.npz")["segs"] for output in ("first", "second")]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize(
    "options, message",
    [
        (("--cache", "folder", "--no-cache"), "--cache and --no-cache"),
        (("--precision", "bf16"), "this CPU has no bf16"),
        (("--image-size", "128"), "has its size; export it at another one"),
    ],
)
def test_options_that_contradict_each_other_or_the_cpu_are_refused(
    export, tmp_path, capsys, monkeypatch, options, message
):
    monkeypatch.setattr(arguments, "has_bf16", lambda: False)
    rectangle_case("2DBox_US_0001", 1, False).save(tmp_path / "cases" / "2DBox_US_0001.npz")
    asked = ["-i", str(tmp_path / "cases"), "-o", str(tmp_path / "out"), "--model", str(export), *options]
    assert predict_command(asked) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--memory-limit", "4G"), ("--no-cache",)])
def test_with_a_memory_limit_or_without_a_cache_nothing_is_measured(export, tmp_path, capsys, options):
    rectangle_case("2DBox_US_0001", 1, False).save(tmp_path / "cases" / "2DBox_US_0001.npz")
    asked = ["-i", str(tmp_path / "cases"), "-o", str(tmp_path / "out"), "--model", str(export)]
    assert predict_command([*asked, "--precision", "auto", "--threads", "1", *options]) == 0
    assert "measuring" not in capsys.readouterr().err


def test_an_environment_variable_that_means_nothing_is_named(export, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(arguments.PRECISION, "int4")
    rectangle_case("2DBox_US_0001", 1, False).save(tmp_path / "cases" / "2DBox_US_0001.npz")
    asked = ["-i", str(tmp_path / "cases"), "-o", str(tmp_path / "out"), "--model", str(export)]
    assert predict_command(asked) == 2
    assert "QMSAM_PRECISION=int4: expected one of auto, f32, bf16" in capsys.readouterr().err


def test_the_cache_is_the_user_s_own_unless_there_is_to_be_none(export, tmp_path, monkeypatch):
    monkeypatch.setenv(arguments.PRECISION, "auto")
    parsed = arguments.arguments_parser("").parse_args(["-i", "a", "-o", "b", "--no-cache"])
    assert parsed.precision == "auto" and arguments.cache_of(parsed) is None
    parsed = arguments.arguments_parser("").parse_args(["-i", "a", "-o", "b"])
    assert arguments.cache_of(parsed) == arguments.default_cache()


def test_every_engine_opens_the_same_export(export):
    assert {open_engine(kind, export, 1).source for kind in ("openvino", "onnxruntime")} == {
        OpenVinoEngine(export, 1, str(IN_FLOAT)).source
    }
