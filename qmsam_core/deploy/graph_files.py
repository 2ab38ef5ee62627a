"""Write the graphs of a model as ONNX, OpenVINO IR and QONNX."""

import contextlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import openvino
import torch
from brevitas.export import export_onnx_qcdq, export_qonnx

from ..models import Sam
from .exported import REWRITTEN
from .graphs import Part, clean, parts_of

OPSET = 17


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence warnings, and send what Brevitas prints to stderr.

    The tracer warns of shape arithmetic, but here it is meant to be dynamic or constant.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def write_onnx(part: Part, folder: Path, style: str) -> dict[str, int]:
    """Export one part as `<name>.onnx`. Returns how many nodes and inputs the clean-up changed.

    Rewritten graphs contain no quantisers of Brevitas, so PyTorch's own exporter writes them.
    """
    path = folder / f"{part.name}.onnx"
    options = dict(
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        dynamic_axes={name: {0: "count"} for name in part.free},
        opset_version=OPSET,
        dynamo=False,
    )
    with quietly(), torch.no_grad():
        if style in REWRITTEN:
            torch.onnx.export(part.graph.eval(), tuple(part.inputs.values()), str(path), **options)
        else:
            export_onnx_qcdq(
                part.graph.eval(), args=tuple(part.inputs.values()), export_path=str(path), **options
            )
    model = onnx.load(path)
    removed = {} if style == "released" else clean(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return removed


def write_ir(part: Part, folder: Path, one_at_a_time: bool) -> None:
    """Convert a part to OpenVINO's IR. With `one_at_a_time` its free axes have size 1.

    OpenVINO then drops transposes that only relabel a layout. It cannot do so for unknown shapes. A block of
    several boxes would gain nothing, because a single box already fills the linear layers.
    """
    with tempfile.TemporaryDirectory() as plain:  # OpenVINO splits a path at its commas
        model = openvino.convert_model(shutil.copy(folder / f"{part.name}.onnx", plain))
    if one_at_a_time:
        model.reshape(
            {
                port: [d.get_length() if d.is_static else 1 for d in port.partial_shape]
                for port in model.inputs
            }
        )
    openvino.save_model(model, folder / f"{part.name}.xml", compress_to_fp16=False)


def write_qonnx(model: Sam, folder: Path) -> None:
    """Write `encoder.qonnx` and `decoder.qonnx`, where each quantiser is one node of the dialect QONNX.

    Their inputs have fixed sizes: one image, two boxes. `qonnx_check` runs the files.
    """
    for part in parts_of(model, "clean"):
        path = folder / f"{part.name}.qonnx"
        with quietly(), torch.no_grad():
            export_qonnx(
                part.graph.eval(),
                args=tuple(part.inputs.values()),
                export_path=str(path),
                input_names=list(part.inputs),
                output_names=list(part.outputs),
                opset_version=OPSET,
                dynamo=False,
            )
        graph = onnx.load(path)
        clean(graph)
        onnx.checker.check_model(graph)
        onnx.save(graph, path)
