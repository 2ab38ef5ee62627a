"""Exports and engines against PyTorch: same masks, stale exports, cleaned graphs, refused files."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_data import rectangle_case

from qmsam_core.data.transforms import Geometry
from qmsam_core.deploy import ENGINES, OpenVinoEngine, Predictor, open_engine, parity
from qmsam_core.deploy import export as exporting
from qmsam_core.deploy.export import LIBRARY, SHAPING, export_if_stale, export_model
from qmsam_core.deploy.exported import ExportError, export_digest, read_export
from qmsam_core.deploy.graphs import clean
from qmsam_core.deploy.parity import relative_error
from qmsam_core.deploy.pytorch_engine import PyTorchEngine
from qmsam_core.deploy.rewrites.constant_layers import FixedConvolution
from qmsam_core.models import build_model
from qmsam_core.provenance.imported_modules import modules_digest
from qmsam_core.quant import calibrate, find_recipe, load_model, quantize
from qmsam_core.timing.engine_arms import one_box

BOXES = np.array([[3, 4, 20, 17], [0, 0, 31, 31], [10, 12, 11, 12]], dtype=np.float32)
RECIPES = ("float", "paper", "released", "deploy")


def seasoned_model():
    """Return a narrow model at 32 px whose batch norms have seen some data."""
    model = build_model("narrow", 32).train()
    for k in range(4):
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(k))
        model(images, torch.tensor([[4.0, 4, 20, 25]]).repeat(4, 1))
    return model.eval()


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """An export of the narrow model for every recipe: recipe -> folder."""
    model, folders = seasoned_model(), {}
    for recipe in RECIPES:
        folders[recipe] = tmp_path_factory.mktemp(recipe)
        made = quantize(model, recipe)
        if recipe != "float":
            calibrate(
                made,
                lambda m, x: m(x, torch.tensor([[4.0, 4, 20, 25]])),
                [torch.rand(1, 3, 32, 32) for _ in range(3)],
            )
        export_model(made, folders[recipe], origin="test")
    return folders


@pytest.fixture
def images():
    return np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)


# Exports and engines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_float_engines_equal_pytorch_on_other_inputs_than_the_export_s(exports, images, engine):
    reference, other = (open_engine(kind, exports["float"], threads=1) for kind in ("pytorch", engine))
    embeddings = reference.encode(images)
    np.testing.assert_allclose(other.encode(images), embeddings, atol=1e-4)
    for count in (1, 3):  # an export takes any number of boxes
        logits = reference.decode(embeddings[:1], BOXES[:count])
        assert logits.shape == (count, 32, 32)
        np.testing.assert_allclose(other.decode(embeddings[:1], BOXES[:count]), logits, atol=1e-4)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("recipe", RECIPES[1:])
def test_int8_engines_follow_fake_quantisation(exports, images, recipe, engine):
    reference, other = (open_engine(kind, exports[recipe], threads=1) for kind in ("pytorch", engine))
    embeddings = reference.encode(images)
    # Here and there an engine rounds to the neighbouring step of the quantiser.
    assert relative_error(embeddings, other.encode(images)) < 0.05
    assert relative_error(reference.decode(embeddings[:1], BOXES), other.decode(embeddings[:1], BOXES)) < 0.05


def stir(model):
    """Give random values to parameters that start constant.

    These are attention biases, relative positions and norms.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.std() == 0 or parameter.numel() == 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model.eval()


@pytest.mark.parametrize("recipe", ["float", "deploy"])
@pytest.mark.parametrize(
    "name, size", [("narrow", 32), ("narrow_vit", 256), ("narrow_patches", 128), ("narrow_efficientvit", 64)]
)
def test_rewriting_leaves_the_function_alone(tmp_path, name, size, recipe):
    model = quantize(stir(build_model(name, size)), recipe)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.4, 0.2, 0.9, 0.9]]) * model.frame
    if recipe != "float":
        calibrate(model, lambda m, x: m(x, boxes), [images])
    plain, fast = tmp_path / "clean", tmp_path / "fast"
    facts = [export_model(model, folder, style=folder.name) for folder in (plain, fast)]
    assert [f["style"] for f in facts] == ["clean", "fast"]
    before, after = (open_engine("onnxruntime", folder, threads=1) for folder in (plain, fast))
    embeddings = before.encode(images.numpy())
    # A value rounded the other way is off by a whole step of its quantiser. Later layers see that difference.
    exact = recipe == "float"
    assert relative_error(embeddings, after.encode(images.numpy())) < (1e-5 if exact else 0.03)
    masks = before.decode(embeddings[:1], boxes.numpy())
    assert relative_error(masks, after.decode(embeddings[:1], boxes.numpy())) < (1e-5 if exact else 0.03)
    openvino = open_engine("openvino", fast, threads=1)
    assert relative_error(embeddings, openvino.encode(images.numpy())) < (1e-4 if exact else 0.05)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_model_quantised_in_one_part_is_exported_fast(tmp_path, images, part):
    model = quantize(seasoned_model(), "paper", (part,))
    calibrate(
        model, lambda m, x: m(x, torch.tensor([[4.0, 4, 20, 25]]).repeat(2, 1)), [torch.from_numpy(images)]
    )
    assert export_model(model, tmp_path, style="fast")["parts"] == [part]
    reference = one_box(PyTorchEngine(model), images[:1], BOXES[:1])
    for kind in ("onnxruntime", "openvino"):
        assert (
            relative_error(reference, one_box(open_engine(kind, tmp_path, threads=1), images[:1], BOXES[:1]))
            < 0.05
        ), kind


def test_the_other_styles_compute_the_same_masks(tmp_path, images):
    model = quantize(seasoned_model(), "paper")
    calibrate(
        model, lambda m, x: m(x, torch.tensor([[4.0, 4, 20, 25]]).repeat(2, 1)), [torch.from_numpy(images)]
    )
    reference = PyTorchEngine(model)
    embedding = reference.encode(images[:1])
    for style in ("released", "clean"):  # the other tests here export the style "fast"
        folder = tmp_path / f"with, a comma, {style}"
        export_model(model, folder, style=style)
        for kind in ("onnxruntime", "openvino"):
            logits = open_engine(kind, folder, threads=1).decode(embedding, BOXES)
            assert relative_error(reference.decode(embedding, BOXES), logits) < 0.05, (style, kind)
    carried = [o.name for o in onnx.load(tmp_path / "with, a comma, released" / "decoder.onnx").graph.output]
    assert carried == ["masks", "iou"]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_is_prepared_belongs_to_one_embedding_of_one_engine(exports, images, engine):
    first, second = (open_engine(engine, exports[recipe], threads=1) for recipe in ("paper", "deploy"))
    one, other = first.encode(images[:1]), first.encode(images[1:])
    both = first.encode(images)
    np.testing.assert_allclose(first.decode(one, BOXES), first.decode(np.asarray(one), BOXES), atol=1e-5)
    np.testing.assert_allclose(first.decode(both[1:], BOXES), first.decode(other, BOXES), atol=0.05)
    # NumPy passes on the subclass of its operands. What was prepared for `one` must not come along.
    changed = one * 0 + np.asarray(other)
    np.testing.assert_allclose(first.decode(changed, BOXES), first.decode(other, BOXES), atol=1e-5)
    np.testing.assert_allclose(second.decode(one, BOXES), second.decode(np.asarray(one), BOXES), atol=1e-5)


def test_an_export_is_made_again_only_when_it_is_stale(tmp_path):
    model = build_model("narrow", 32)
    first = export_if_stale(model, tmp_path)
    stamp = (tmp_path / "export.json").stat().st_mtime_ns
    assert (
        export_if_stale(model, tmp_path) == first and (tmp_path / "export.json").stat().st_mtime_ns == stamp
    )
    assert export_if_stale(model, tmp_path, style="clean")["style"] == "clean"
    model.mask_decoder.iou_token.weight.data += 1
    assert export_if_stale(model, tmp_path, style="clean")["weights"] != first["weights"]
    spoil_file(tmp_path)
    export_if_stale(model, tmp_path, style="clean")
    read_export(tmp_path)


def test_an_export_of_another_exporter_or_recipe_is_stale(tmp_path, monkeypatch):
    model = build_model("narrow", 32)
    facts, exporter, made = export_if_stale(model, tmp_path), exporting.exporter(), []
    monkeypatch.setattr(exporting, "export_model", lambda *arguments: made.append(arguments))

    def stale():
        made.clear()
        export_if_stale(model, tmp_path)
        return bool(made)

    assert not stale() and set(exporter) == {"modules", "torch", "onnx", "brevitas", "openvino"}
    for part in exporter:
        monkeypatch.setattr(exporting, "exporter", lambda part=part: exporter | {part: "changed"})
        assert stale(), part
    monkeypatch.setattr(exporting, "exporter", lambda: exporter)
    assert not stale()
    # The recipe changes. Its name and the weights do not.
    model.recipe = replace(find_recipe("float"), per_channel=True)
    assert stale()
    del model.recipe
    (tmp_path / "export.json").write_text(
        json.dumps({key: value for key, value in facts.items() if key != "exporter"})
    )
    assert stale()  # an export that does not name its exporter


@pytest.mark.parametrize(
    "module, stale",
    [
        ("deploy/export.py", True),
        ("deploy/graphs.py", True),
        ("deploy/rewrites/decoder.py", True),
        ("deploy/rewrites/windows.py", True),
        ("models/tiny_vit.py", True),
        ("quant/recipes.py", True),
        ("deploy/batch.py", False),
        ("data/index/slice_index.py", False),
        ("evaluate/metrics.py", False),
    ],
)
def test_the_exporter_is_the_code_that_shapes_an_export(tmp_path, module, stale):
    library = tmp_path / LIBRARY.name
    shutil.copytree(LIBRARY, library, ignore=shutil.ignore_patterns("__pycache__"))
    asked = "import qmsam_core.deploy.export", library, SHAPING
    assert modules_digest(*asked) == exporting.exporter()["modules"]
    (library / module).write_text((library / module).read_text() + "\n# changed\n")
    assert (modules_digest(*asked) != exporting.exporter()["modules"]) == stale


def test_two_convolutions_in_float_become_one():
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(3, 5, 1), torch.nn.Conv2d(5, 4, 1)
    norm = torch.nn.BatchNorm2d(4).eval()
    norm.running_mean.uniform_()
    x = torch.rand(2, 3, 6, 6)
    with torch.no_grad():
        merged = FixedConvolution(second, norm).after(FixedConvolution(first))
        torch.testing.assert_close(merged(x), norm(second(first(x))))
        wide = torch.nn.Conv2d(3, 5, 3)
        with pytest.raises(ValueError, match="two 1x1 convolutions in float"):
            FixedConvolution(second).after(FixedConvolution(wide))


def test_engines_know_what_they_run_whichever_they_are(exports, tmp_path):
    sources = {
        recipe: {open_engine(kind, exports[recipe], threads=1).source for kind in ENGINES}
        for recipe in ("float", "paper")
    }
    assert [len(found) for found in sources.values()] == [1, 1] and sources["float"] != sources["paper"]
    # The source stays the same when the model is exported again.
    assert {
        export_digest(export_model(load_model(exports["float"] / "model.safetensors"), tmp_path))
    } == sources["float"]
    model = build_model("narrow", 32)
    one, other = PyTorchEngine(model), PyTorchEngine(build_model("narrow", 32, seed=5))
    assert one.source == PyTorchEngine(model).source != other.source


@pytest.mark.parametrize("threads", [1, 2])
def test_pytorch_runs_on_as_many_threads_as_asked_for(exports, threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        open_engine("pytorch", exports["float"], threads)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_qonnx_is_a_by_product(tmp_path, images):
    model = quantize(seasoned_model(), "paper")
    calibrate(
        model, lambda m, x: m(x, torch.tensor([[4.0, 4, 20, 25]]).repeat(2, 1)), [torch.from_numpy(images)]
    )
    export_model(model, tmp_path, qonnx=True)
    for part in ("encoder", "decoder"):
        kinds = {(node.domain, node.op_type) for node in onnx.load(tmp_path / f"{part}.qonnx").graph.node}
        assert ("qonnx.custom_op.general", "Quant") in kinds


def test_an_unknown_style_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one of released, clean, fast"):
        export_model(build_model("narrow", 32), tmp_path, style="quick")


def test_the_clean_up_changes_no_value_and_frees_the_convolutions(exports, images):
    import onnxruntime

    graph = onnx.load(exports["released"] / "encoder.onnx")
    before = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {"images": images[:1]})[0]
    removed = clean(graph)
    onnx.checker.check_model(graph)
    after = onnxruntime.InferenceSession(graph.SerializeToString())
    assert removed["clips"] > 0 and [i.name for i in after.get_inputs()] == ["images"]
    np.testing.assert_allclose(after.run(None, {"images": images[:1]})[0], before, atol=1e-5)


@pytest.mark.parametrize("largest, removed", [(127, 1), (128, 0)])
def test_only_clips_that_do_nothing_are_removed(largest, removed):
    weight = numpy_helper.from_array(np.array([-127, 5, largest], dtype=np.int32), "w")
    bounds = [
        numpy_helper.from_array(np.array(v, dtype=np.int32), n) for n, v in (("low", -127), ("high", 127))
    ]
    nodes = [
        helper.make_node("Clip", ["w", "low", "high"], ["c"]),
        helper.make_node("Identity", ["c"], ["y"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.INT32, [3])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [], [output], [weight, *bounds]),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    assert clean(model)["clips"] == removed
    assert len(model.graph.node) == 2 - removed


def test_the_norm_behind_a_quantised_convolution_is_not_disturbed(tmp_path, images):
    made = quantize(seasoned_model(), "paper")
    calibrate(made, lambda m, x: m.image_encoder(x), [torch.from_numpy(images)])
    facts = export_model(made, tmp_path)
    assert facts["removed"]["encoder"]["shielded_norms"] == 1  # the first convolution of the neck has a bias
    assert (
        relative_error(PyTorchEngine(made).encode(images), OpenVinoEngine(tmp_path, threads=1).encode(images))
        < 0.03
    )


def test_frame_and_preprocessing_travel_from_the_command_line_to_the_engines(tmp_path):
    arguments = ["--model", "narrow_efficientvit", "--recipe", "float", "-o", str(tmp_path)]
    assert exporting.main([*arguments, "--size", "32", "--frame", "48", "--preprocessing", "daft"]) == 0
    for kind in ("openvino", "pytorch"):
        engine = open_engine(kind, tmp_path, threads=1)
        assert (engine.image_size, engine.frame, engine.preprocessing) == (32, 48, "daft")
    predictor = Predictor(engine)
    assert (predictor.interpolation, predictor.order) == ("area", "normalise_then_pad")
    boxes = Geometry.within(engine, 30, 60).boxes([[10, 5, 40, 20]])
    assert boxes.tolist() == [[8, 4, 32, 16]]  # of 48 px, rounded down


def test_a_quantised_checkpoint_takes_another_size_and_keeps_its_frame(exports, tmp_path, capsys):
    checkpoint = str(exports["paper"] / "model.safetensors")
    arguments = ["--model", "narrow", "--checkpoint", checkpoint, "-o", str(tmp_path / "out")]
    assert exporting.main([*arguments, "--frame", "64"]) == 2
    assert "is quantised for its own input" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert exporting.main([*arguments, "--size", "64"]) == 0
    assert "at 64 px, with the scales of 32 px" in capsys.readouterr().out
    engine = open_engine("openvino", tmp_path / "out", threads=1)
    image = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    masks = one_box(engine, image, BOXES[:1])
    assert engine.image_size == 64 and masks.shape == (1, 64, 64) and np.isfinite(masks).all()


def test_an_int8_export_is_smaller_and_says_what_it_is(exports):
    facts = {recipe: read_export(exports[recipe]) for recipe in ("float", "paper")}
    size = {
        recipe: sum(f["bytes"] for n, f in facts[recipe]["files"].items() if n.endswith(".bin"))
        for recipe in facts
    }
    assert size["paper"] < 0.4 * size["float"]
    assert (
        facts["paper"]["model"],
        facts["paper"]["image_size"],
        facts["paper"]["recipe"],
        facts["paper"]["origin"],
    ) == ("narrow", 32, "paper", "test")


def test_openvino_runs_the_cleaned_convolutions_in_int8(exports, images):
    engine = OpenVinoEngine(exports["paper"], threads=1, profiling=True)
    one_box(engine, images[:1], BOXES[:1])
    layers = engine.layer_times("encoder")
    assert set(layers.columns) == {"name", "operation", "precision", "ms"}
    matrices = layers[layers["operation"].isin(["Convolution", "FullyConnected"])]
    assert (matrices["precision"] == "int8").all()


def spoil_file(folder):
    (folder / "decoder.onnx").write_bytes(b"x")


def spoil_description(folder):
    (folder / "export.json").write_text("{")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (spoil_file, "changed since the export"),
        (spoil_description, "not JSON"),
        (lambda f: (f / "export.json").unlink(), "no such file"),
    ],
)
def test_a_spoiled_export_is_refused(tmp_path, spoil, words):
    export_model(build_model("narrow", 32), tmp_path)
    spoil(tmp_path)
    with pytest.raises(ExportError, match=words):
        open_engine("onnxruntime", tmp_path)


def test_unknown_engines_are_refused(exports):
    with pytest.raises(ValueError, match="expected one of openvino, onnxruntime, pytorch"):
        open_engine("tensorrt", exports["float"])


def test_parity_of_an_engine_with_itself_is_perfect(exports):
    engine = open_engine("pytorch", exports["float"])
    cases = [rectangle_case("3DBox_CT_a", 1, True), rectangle_case("2DBox_US_a", 2, False)]
    table = parity(engine, {"itself": engine}, cases, slices=2, boxes=2)["itself"]
    # The volume gives two slices (of three with objects) with two objects each, the image two objects.
    assert table["masks"].tolist() == [4, 2]
    assert (table["pixels_equal"] == 1).all() and (table["logit_error"] == 0).all()


def test_the_pytorch_engine_is_the_model_itself(images):
    model = build_model("narrow", 32)
    engine = PyTorchEngine(model)
    with torch.no_grad():
        expected = model.decode(model.image_encoder(torch.from_numpy(images[:1])), torch.from_numpy(BOXES))[
            0
        ][:, 0]
    np.testing.assert_array_equal(engine.decode(engine.encode(images[:1]), BOXES), expected)


def test_neither_openvino_nor_nncf_reports_its_use():
    from openvino.tools.ovc import convert_impl

    assert sys.modules["openvino_telemetry"] is None and convert_impl.tm.__name__.endswith("telemetry_stub")
