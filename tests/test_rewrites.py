"""What a rewrite changes for the engine's sake, and that it changes nothing else."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from brevitas.nn import QuantConv2d, QuantLinear
from brevitas.quant import Int8WeightPerChannelFloat, ShiftedUint8ActPerTensorFloat
from torch import nn

from qmsam_core.deploy.engines import OpenVinoEngine, open_engine
from qmsam_core.deploy.export import export_model
from qmsam_core.deploy.parity import relative_error
from qmsam_core.deploy.rewrites.constant_layers import FixedConvolution, FixedLinear
from qmsam_core.deploy.rewrites.constant_values import FixedQuantiser, int8_products
from qmsam_core.deploy.rewrites.token_layers import QuantisedLinear
from qmsam_core.deploy.rewrites.windows import Windows
from qmsam_core.models import build_model
from qmsam_core.quant import calibrate, quantize

QUANTISERS = {"weight_quant": Int8WeightPerChannelFloat, "input_quant": ShiftedUint8ActPerTensorFloat}


def in_int8(name, size):
    """Return a network in int8, calibrated, and the image (1, 3, size, size) that calibrated it."""
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    made = quantize(build_model(name, size), "deploy")
    calibrate(made, lambda m, x: m(x, torch.tensor([[10.0, 10, 90, 90]])), [image])
    return made, image


def calibrated(layer, inputs):
    """Return the layer after it has seen `inputs` in training mode, which sets scale and zero point."""
    layer.train()
    for _ in range(320):  # Brevitas collects statistics for 300 steps
        layer(inputs)
    return layer.eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("row", [None, 4])
def test_a_linear_layer_without_its_zero_point_puts_out_the_same(bias, row):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6) - 1.0
    layer = calibrated(QuantLinear(6, 5, bias=bias, **QUANTISERS), x)
    fixed = QuantisedLinear(layer, row=row)
    assert float(layer.input_quant.zero_point()) != 0 and fixed.input.low == 0
    with torch.no_grad():
        torch.testing.assert_close(fixed(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel, shifted", [(1, True), (3, False)])
def test_a_convolution_loses_its_zero_point_unless_zeros_are_padded(kernel, shifted):
    torch.manual_seed(0)
    x = torch.randn(1, 6, 9, 9) - 1.0
    layer = calibrated(QuantConv2d(6, 5, kernel, padding=kernel // 2, **QUANTISERS), x)
    fixed = FixedConvolution(layer)
    assert (fixed.input.low == 0) == shifted
    with torch.no_grad():
        torch.testing.assert_close(fixed(x), layer(x), atol=1e-5, rtol=1e-5)


def test_a_shift_by_hand():
    """Codes -3..4 at scale 0.5; the input 1.0 through weight 2 and bias 1 is 3."""
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 1.0)
    linear, quantiser = FixedLinear(layer), FixedQuantiser(None)
    quantiser.quantised, quantiser.low, quantiser.high = True, -3, 4
    quantiser.scale = torch.tensor(0.5)
    quantiser.without_zero_point(linear)
    assert (quantiser.low, quantiser.high) == (0, 7)
    assert float(quantiser.noise) == 1.5 and float(linear.bias) == -2.0
    assert float(linear(quantiser(torch.tensor([[1.0]])))) == 3.0


@pytest.mark.parametrize("side, window", [(5, 3), (6, 3)])
def test_windows_are_padded_with_the_token_and_merged_without_it(side, window):
    windows = Windows(window, side, channels=2)
    x = torch.arange(1.0, 1 + 2 * side**2 * 2).reshape(2, side**2, 2)
    padded = windows.pad(x, torch.full((1, 1, 2), -7.0))
    assert padded.shape == (2, 36, 2)
    assert int((padded == -7).sum()) == 2 * 2 * (36 - side**2)
    torch.testing.assert_close(windows.merge(windows.cut(padded)), x)


@pytest.mark.parametrize("groups, channels", [(1, 4), (4, 1), (2, 2)])
def test_a_convolution_in_float_takes_the_factors_of_its_input_into_its_weights(groups, channels):
    torch.manual_seed(0)
    factors, layer = torch.rand(4) + 0.5, nn.Conv2d(4, 8, 3, padding=1, groups=groups)
    layer.input_factor = factors
    x = torch.randn(2, 4, 5, 5)
    with int8_products(), torch.no_grad():
        fixed = FixedConvolution(layer)
        assert fixed.weight.values.shape == (8, channels, 3, 3)
        torch.testing.assert_close(fixed(x), layer(x * factors[:, None, None]))


def test_onnx_runtime_runs_linear_layers_in_int8_and_convolutions_in_float(tmp_path):
    model, image = in_int8("narrow", 128)
    folders = {style: tmp_path / style for style in ("fast", "linear")}
    for style, folder in folders.items():
        export_model(model, folder, style=style)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(folders["linear"] / "encoder.onnx", options)
    graph = onnx.load(tmp_path / "optimised.onnx", load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    linear = sum(isinstance(layer, nn.Linear) for layer in model.image_encoder.modules())
    # queries, keys and values are one layer in the model
    blocks = kinds.count("Softmax")
    assert kinds.count("MatMulIntegerToFloat") == linear + 2 * blocks
    assert not {"QLinearConv", "MatMulNBits", "ConvInteger"} & set(kinds)
    engines = [open_engine("onnxruntime", folder, threads=1) for folder in folders.values()]
    assert relative_error(*(engine.embed(image.numpy()) for engine in engines)) < 0.2


@pytest.mark.parametrize("name, size, in_float", [("narrow", 128, 3), ("narrow_vit", 256, 1)])
def test_openvino_runs_linear_layers_as_int8_convolutions_and_pads_int8(tmp_path, name, size, in_float):
    made, image = in_int8(name, size)
    export_model(made, tmp_path)
    engine = OpenVinoEngine(tmp_path, threads=1, profiling=True)
    engine.embed(image.numpy())
    layers = engine.layer_times("encoder").groupby("operation")["precision"].apply(list)
    assert not {"FullyConnected", "FullyConnectedCompressed", "Pad"} & set(layers.index)
    assert set(layers["Concat"]) == {"int8"}
    assert sum(precision != "int8" for precision in layers["Convolution"]) == in_float  # the first ones


def test_lanes_compute_at_the_same_time_what_the_engine_computes(tmp_path):
    made, image = in_int8("narrow", 128)
    export_model(made, tmp_path)
    engine, box = OpenVinoEngine(tmp_path, threads=2), np.float32([[10, 20, 90, 100]])
    lanes = engine.lanes()
    assert len(lanes) == 2 and engine.lanes() is lanes and lanes[0].source == engine.source
    images = [image.numpy(), image.numpy()[..., ::-1].copy()]
    expected = [engine.decode(engine.encode(one), box) for one in images]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda lane, one: lane.decode(lane.encode(one), box), lanes, images))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())
    alone = OpenVinoEngine(tmp_path, threads=1)
    assert alone.lanes() == [alone]
