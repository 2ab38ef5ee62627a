"""QONNX files against the fake-quantised model: the same values, and every change of a quantiser is found."""

import shutil

import numpy as np
import onnx
import pytest
import torch
from brevitas.core.function_wrapper import Identity, RoundSte, TensorClamp
from brevitas.core.quant import IntQuant
from onnx import TensorProto, helper, numpy_helper

from qmsam_core.deploy import qonnx_check
from qmsam_core.deploy.exported import FORMAT, ExportError, put_in_place
from qmsam_core.deploy.graph_files import write_qonnx
from qmsam_core.deploy.qonnx_check import (
    agrees,
    checked_model,
    main,
    other_inputs,
    qonnx_parity,
    run_and_watch,
    wrong_quantisers,
)
from qmsam_core.deploy.qonnx_graph import (
    DOMAIN,
    QUANT,
    quant_nodes,
    read_qonnx,
    refused_by_finn,
    run_qonnx,
    session_of,
)
from qmsam_core.quant import RECIPES, save_model

RECIPE_NAMES = [name for name, recipe in RECIPES.items() if recipe.quantised]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function that returns a narrow network of a recipe and the folder with its QONNX files."""
    made = {}

    def write(recipe, name="narrow", size=32):
        if (recipe, name) not in made:
            model, folder = checked_model(name, recipe, size), tmp_path_factory.mktemp(f"{name}_{recipe}")
            write_qonnx(model, folder)
            made[recipe, name] = model, folder
        return made[recipe, name]

    return write


# The operator -----------------------------------------------------------------------------------------------


def one_quantiser(size, signed, narrow, scale, zero_point, bits):
    """Return a model with one `Quant` on `size` values."""
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("scale", scale), ("zero_point", zero_point), ("bits", bits))
    ]
    node = helper.make_node(
        "Quant",
        ["x", "scale", "zero_point", "bits"],
        ["y"],
        domain=DOMAIN,
        signed=signed,
        narrow=narrow,
        rounding_mode="ROUND",
    )
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (size,)) for name in "xy"]
    graph = helper.make_graph([node], "one", ports[:1], ports[1:], initializer=constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[QUANT])


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed, narrow", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_operator_is_brevitas_integer_quantiser(signed, narrow, bits):
    scale, zero_point = 0.25, 0 if signed else 2
    x = np.arange(-300, 300, dtype=np.float32) / 8  # multiples of half a step, so ties are among them
    theirs = IntQuant(
        narrow_range=bool(narrow),
        signed=bool(signed),
        float_to_int_impl=RoundSte(),
        tensor_clamp_impl=TensorClamp(),
        input_view_impl=Identity(),
    )(torch.tensor(scale), torch.tensor(float(zero_point)), torch.tensor(float(bits)), torch.from_numpy(x))
    (ours,) = session_of(one_quantiser(len(x), signed, narrow, scale, zero_point, bits)).run(None, {"x": x})
    np.testing.assert_array_equal(ours, theirs.numpy())


# Files of networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe, name, size", [*((r, "narrow", 32) for r in RECIPE_NAMES), ("deploy", "narrow_vit", 256)]
)
def test_files_compute_what_the_model_computes(written, recipe, name, size):
    model, folder = written(recipe, name, size)
    table = qonnx_parity(model, folder).set_index("part")
    assert list(table.index) == ["encoder", "decoder"]
    assert agrees(table).all()
    assert table.loc["decoder", "pixels_equal"] > 0.99
    unsigned = table["kinds"].str.contains("unsigned")
    assert unsigned.all() if RECIPES[recipe].zero_point else not unsigned.any()


def test_every_quantiser_that_takes_part_is_in_the_file(written):
    model, folder = written("deploy")
    for (part, inputs), name in zip(other_inputs(model, 1), ("encoder", "decoder")):
        used = run_and_watch(part, inputs)[1]
        assert len(used) == len(quant_nodes(read_qonnx(folder / f"{name}.qonnx")))


def set_constant(graph, name, change):
    """Change a constant of a file."""
    tensor = next(one for one in graph.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)).astype(np.float32), name))


CHANGES = {
    "zero point": lambda graph, node: set_constant(graph, node.input[2], lambda value: value + 1),
    "scale": lambda graph, node: set_constant(graph, node.input[1], lambda value: value * 1.001),
    "bits": lambda graph, node: set_constant(graph, node.input[3], lambda value: value - 1),
    "sign": lambda graph, node: set_attribute(node, "signed"),
    "narrow": lambda graph, node: set_attribute(node, "narrow"),
}
"""Changes of a quantiser of an activation, each the smallest of its kind."""


def set_attribute(node, name):
    """Turn a flag of a node round."""
    flag = next(one for one in node.attribute if one.name == name)
    flag.i = 1 - flag.i


def parts_watched(model):
    """Return the decoder of a model and the names of the quantisers that take part."""
    part, inputs = list(other_inputs(model, 1))[1]
    return part.graph, run_and_watch(part, inputs)[1]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("recipe", ["paper", "deploy"])
def test_a_changed_quantiser_is_found(written, recipe, change):
    model, folder = written(recipe)
    graph, (network, used) = read_qonnx(folder / "decoder.qonnx"), parts_watched(model)
    node = next(n for n in graph.graph.node if n.name.endswith("k_proj/input_quant/export_handler/Quant"))
    for place in (1, 2, 3):  # a constant may be shared by several nodes
        own = numpy_helper.from_array(constant(graph, node.input[place]), f"own_{place}")
        graph.graph.initializer.append(own)
        node.input[place] = own.name
    CHANGES[change](graph, node)
    assert wrong_quantisers(graph, network, used) == [
        "mask_decoder.transformer.layers.0.self_attn.k_proj.input_quant"
    ]


def constant(graph, name):
    """Return the value of a constant of a file."""
    return numpy_helper.to_array(next(one for one in graph.graph.initializer if one.name == name))


def test_a_changed_weight_is_found(written):
    model, folder = written("deploy")
    graph, (network, used) = read_qonnx(folder / "decoder.qonnx"), parts_watched(model)
    node = next(n for n in graph.graph.node if n.name.endswith("k_proj/weight_quant/export_handler/Quant"))
    step = constant(graph, node.input[1]).max()
    set_constant(graph, node.input[0], lambda weight: weight + step * (np.arange(weight.size) == 0).reshape(
        weight.shape
    ))  # fmt: skip
    assert wrong_quantisers(graph, network, used) == [
        "mask_decoder.transformer.layers.0.self_attn.k_proj.weight_quant"
    ]


def test_a_change_between_the_quantisers_is_found(written, tmp_path):
    model, folder = written("paper")
    for part in ("encoder", "decoder"):
        graph = onnx.load(folder / f"{part}.qonnx")
        if part == "decoder":
            name = "mask_decoder.transformer.layers.0.norm1.bias"
            set_constant(graph, name, lambda bias: bias + 1e-3 * (np.arange(len(bias)) % 2))
        onnx.save(graph, tmp_path / f"{part}.qonnx")
    assert list(agrees(qonnx_parity(model, tmp_path))) == [True, False]


def test_a_missing_and_an_unknown_quantiser_are_named(written):
    model, folder = written("paper")
    graph, (network, used) = read_qonnx(folder / "decoder.qonnx"), parts_watched(model)
    node = next(n for n in graph.graph.node if n.name.endswith("k_proj/input_quant/export_handler/Quant"))
    node.name = "/somewhere/export_handler/Quant"
    assert wrong_quantisers(graph, network, used) == [
        "/somewhere/export_handler/Quant",
        "mask_decoder.transformer.layers.0.self_attn.k_proj.input_quant (not in the file)",
    ]


@pytest.mark.parametrize(
    "field, value, found",
    [
        ("op_type", "Trunc", "Trunc, rounding ROUND"),
        ("domain", "onnx.brevitas", "onnx.brevitas.Quant"),
        ("rounding", "FLOOR", "rounding FLOOR"),
    ],
)
def test_nodes_that_are_not_defined_here_are_refused(tmp_path, field, value, found):
    model = one_quantiser(4, 1, 0, 1.0, 0, 8)
    del model.functions[:]
    node = model.graph.node[0]
    if field == "rounding":
        next(one for one in node.attribute if one.name == "rounding_mode").s = value.encode()
    else:
        setattr(node, field, value)
    onnx.save(model, tmp_path / "one.qonnx")
    with pytest.raises(ExportError, match=found):
        run_qonnx(tmp_path / "one.qonnx", {"x": np.zeros(4, np.float32)})


# FINN -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before, signed, zero_point, refused",
    [("Relu", 0, 0, 0), ("Relu", 0, 3, 1), ("Neg", 0, 0, 1), ("Neg", 1, 0, 0), ("Neg", 1, 3, 1)],
)
def test_finn_takes_no_zero_points_and_unsigned_codes_only_behind_a_relu(before, signed, zero_point, refused):
    model = one_quantiser(4, signed, 0, 1.0, zero_point, 8)
    model.graph.node[0].input[0] = "before"
    model.graph.node.insert(0, helper.make_node(before, ["x"], ["before"]))
    assert len(refused_by_finn(model)) == refused


def test_finn_takes_what_the_paper_quantises(written):
    for part in ("encoder", "decoder"):
        refused = {
            r: refused_by_finn(read_qonnx(written(r)[1] / f"{part}.qonnx")) for r in ("paper", "deploy")
        }
        assert not refused["paper"] and refused["deploy"]


# Command line -----------------------------------------------------------------------------------------------


def test_the_command_checks_an_export(written, tmp_path, capsys):
    model, files = written("paper")
    work = shutil.copytree(files, tmp_path / "work")
    save_model(model, work / "model.safetensors", origin="test")
    put_in_place(work, tmp_path, {"format": FORMAT, "model": "narrow"})
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("narrow") >= 2
    (tmp_path / "encoder.qonnx").unlink()
    assert main([str(tmp_path)]) == 2
    assert "encoder.qonnx: missing" in capsys.readouterr().err


def test_the_command_fails_if_a_quantiser_differs(written, tmp_path, capsys, monkeypatch):
    model, folder = written("paper")
    table = qonnx_parity(model, folder).assign(model="narrow", recipe="paper")
    table.at[0, "wrong"] = ["neck.0.input_quant"]
    monkeypatch.setattr(qonnx_check, "check", lambda *_: [table])
    assert main(["narrow"]) == 1
    assert "narrow paper encoder: neck.0.input_quant computes something else" in capsys.readouterr().out


def test_the_command_refuses_what_is_neither_network_nor_folder(tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 2
    assert "expected a folder written by" in capsys.readouterr().err
    with pytest.raises(ExportError, match="no such file; write it by"):
        read_qonnx(tmp_path / "encoder.qonnx")
