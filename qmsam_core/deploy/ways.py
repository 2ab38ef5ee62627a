"""Ways in which OpenVINO executes a part of an export: the precision hint, and products in int8 or float."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import openvino.properties.hint as hints

LAYOUT = ("Reshape", "Transpose")
DEQUANTISATION = ("Multiply", "Subtract", "Convert")


@dataclass(frozen=True)
class Way:
    """How a part is executed.

    Attributes:
        hint: OpenVINO's precision hint, `f32` or `bf16`, for all that is not int8.
        float_products: products of two activations, as in attention, run in float although they are quantised
            in the export. Convolutions and linear layers stay int8. Masks come closer to the float model's.
    """

    hint: str = "f32"
    float_products: bool = False

    @classmethod
    def parse(cls, text: str) -> "Way":
        """Read what `str` writes."""
        hint, _, rest = text.partition(", ")
        return cls(hint, bool(rest))

    def __str__(self) -> str:
        return self.hint + (", products in float" if self.float_products else "")

    def compile(
        self, core: openvino.Core, model: str | Path | openvino.Model, settings: dict
    ) -> openvino.CompiledModel:
        """Compile a model or its IR file for the CPU, with OpenVINO's settings but the precision hint."""
        kind = openvino.Type.bf16 if self.hint == "bf16" else openvino.Type.f32
        settings = {**settings, hints.inference_precision: kind}
        if self.float_products:  # otherwise a file is given on, as a cached model then need not be read
            model = model.clone() if isinstance(model, openvino.Model) else core.read_model(model)
            products_in_float(model)
        return core.compile_model(model, "CPU", settings)


def random_inputs(ports: Iterable[openvino.ConstOutput]) -> list[np.ndarray]:
    """Make the inputs of a model to time it: float32 in 0..1, axes of any size have size 1."""
    generator = np.random.default_rng(0)
    shapes = ([axis.get_length() if axis.is_static else 1 for axis in port.partial_shape] for port in ports)
    return [generator.random(shape, dtype=np.float32) for shape in shapes]


def products_in_float(model: openvino.Model) -> int:
    """Take the quantisers off the products of two activations in place. Returns how many had some."""
    products = [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]
    changed = 0
    for product in products:
        ports = [_above_layout(product.input(i)) for i in (0, 1)]
        quantisers = [_quantiser(port.get_source_output().get_node()) for port in ports]
        if None in quantisers or any(_is_constant(quantiser) for quantiser in quantisers):
            continue
        for port, quantiser in zip(ports, quantisers):
            port.replace_source_output(quantiser.input_value(0))
        changed += 1
    return changed


def _above_layout(port: openvino.Input) -> openvino.Input:
    """Go up from an input through nodes that only change the layout, to the input of the topmost."""
    while (node := port.get_source_output().get_node()).get_type_name() in LAYOUT:
        port = node.input(0)
    return port


def _quantiser(node: openvino.Node) -> openvino.Node | None:
    """Find the quantiser whose dequantised codes this node puts out; None if it puts out something else."""
    while node.get_type_name() in DEQUANTISATION:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "FakeQuantize" else None


def _is_constant(quantiser: openvino.Node) -> bool:
    return quantiser.input_value(0).get_node().get_type_name() == "Constant"
