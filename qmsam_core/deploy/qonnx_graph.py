"""QONNX files: their operator `Quant` in standard ONNX, so that ONNX Runtime runs them, and what is in them.

No engine knows `Quant`. An ONNX file may bring the definition of an operator with it, as a function. So the
nodes of a file stay as they are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from .exported import ExportError

DOMAIN = "qonnx.custom_op.general"

QUANT = onnx.parser.parse_function(
    f"""
<domain: "{DOMAIN}", opset_import: ["" : 17]>
Quant <signed, narrow, rounding_mode> (x, scale, zero_point, bits) => (y)
{{
  signed_int = Constant <value_int: int = @signed> ()
  narrow_int = Constant <value_int: int = @narrow> ()
  sign = Cast <to = 1> (signed_int)
  narrowed = Cast <to = 1> (narrow_int)
  one = Constant <value_float = 1.0> ()
  two = Constant <value_float = 2.0> ()
  magnitude_bits = Sub (bits, sign)
  magnitudes = Pow (two, magnitude_bits)
  unsigned = Sub (one, sign)
  lost_above = Mul (unsigned, narrowed)
  largest = Sub (magnitudes, one)
  high = Sub (largest, lost_above)
  smallest = Sub (narrowed, magnitudes)
  low = Mul (sign, smallest)
  ratio = Div (x, scale)
  shifted = Add (ratio, zero_point)
  code = Round (shifted)
  bounded = Min (code, high)
  clamped = Max (bounded, low)
  centred = Sub (clamped, zero_point)
  y = Mul (centred, scale)
}}
"""
)
"""`Quant` as an ONNX function: y = (clamp(round(x / scale + zero_point), low, high) - zero_point) * scale.

Codes are -2^(b-1)..2^(b-1)-1 if signed and 0..2^b-1 if not. `narrow` leaves out the smallest signed or the
largest unsigned code. Source: the specification of `Quant` (IntQuant) in the package `qonnx`.
"""


def run_qonnx(path: str | Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a QONNX file on ONNX Runtime and return its outputs.

    Args:
        path: a file whose only custom nodes are `Quant`, rounding to the nearest integer, half to even.
        inputs: arrays of the sizes of the file's inputs, by name.

    Raises:
        ExportError: the file has other custom nodes or another rounding.
    """
    return session_of(read_qonnx(path)).run(None, dict(inputs))


def read_qonnx(path: str | Path) -> onnx.ModelProto:
    """Read a QONNX file and add the definition of its operator `Quant`.

    Raises:
        ExportError: there is no such file, or it has nodes that `QUANT` does not define.
    """
    if not Path(path).is_file():
        raise ExportError(f"{path}: no such file; write it by `python -m qmsam_core.deploy.export --qonnx`")
    model = onnx.load(path)
    for node in model.graph.node:
        rounding = attributes(node).get("rounding_mode", b"ROUND").decode()
        if node.domain and (node.domain, node.op_type, rounding) != (DOMAIN, "Quant", "ROUND"):
            raise ExportError(
                f"{path}: node {node.name} is {node.domain}.{node.op_type}, rounding {rounding}; "
                f"expected {DOMAIN}.Quant, rounding ROUND, the only custom node that can be run here"
            )
    model.functions.append(QUANT)
    return model


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a model on ONNX Runtime. No operators are fused, so each is computed as it is written."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every function that is defined in a file
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def attributes(node: onnx.NodeProto) -> dict:
    """Return the attributes of a node by name. Texts are bytes."""
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def quant_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """List the quantisers of a QONNX file in the order in which they run."""
    return [node for node in model.graph.node if node.domain == DOMAIN]


def kinds(model: onnx.ModelProto) -> str:
    """Count a file's quantisers by kind, such as `36 signed narrow, 12 unsigned`."""
    found: Counter[str] = Counter()
    for node in quant_nodes(model):
        signed, narrow = (attributes(node)[name] for name in ("signed", "narrow"))
        found[("signed" if signed else "unsigned") + " narrow" * narrow] += 1
    return ", ".join(f"{count} {kind}" for kind, count in found.most_common())


def without_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a QONNX model in which only weights are quantised."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {one.name for one in copy.graph.initializer}
    for node in quant_nodes(copy):
        if node.input[0] not in weights:
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.attribute[:]
    return copy


def run_alone(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], given: Sequence[np.ndarray | None]
) -> list[np.ndarray]:
    """Run quantisers of a file apart from each other.

    `given` has the values for each node, or None for the values in the file. The outputs have their order.
    """
    constants = [node for node in model.graph.node if node.op_type == "Constant"]
    inputs, alone, outputs = {}, [], []
    for k, (node, values) in enumerate(zip(nodes, given)):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.output[0] = f"alone_{k}"
        if values is not None:
            copy.input[0] = f"given_{k}"
            inputs[copy.input[0]] = values
        alone.append(copy)
        outputs.append(helper.make_tensor_value_info(copy.output[0], onnx.TensorProto.FLOAT, None))
    ports = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, v.shape) for n, v in inputs.items()]
    graph = helper.make_graph(
        [*constants, *alone], "quantisers", ports, outputs, initializer=model.graph.initializer
    )
    apart = helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )
    return session_of(apart).run(None, inputs) if nodes else []


def refused_by_finn(model: onnx.ModelProto) -> list[str]:
    """Name the quantisers of activations that FINN's conversion stops at.

    It takes no zero point other than 0, and unsigned codes only behind a ReLU. Source: FINN's
    `ConvertQuantActToMultiThreshold` and its `QuantIdentityHandler`.
    """
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    constants = {one.name: one for one in model.graph.initializer}
    return [
        node.name
        for node in quant_nodes(model)
        if node.input[0] not in constants
        and (
            numpy_helper.to_array(constants[node.input[2]]).any()
            or not attributes(node)["signed"]
            and makers.get(node.input[0]) != "Relu"
        )
    ]
