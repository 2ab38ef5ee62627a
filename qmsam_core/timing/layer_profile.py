"""Profile a part of an export on OpenVINO: every node's time and bytes, and how far it is from its limit.

    python -m qmsam_core.timing.layer_profile exported/ --part encoder --precision bf16
    python -m qmsam_core.timing.layer_profile exported/ --isa AVX2 -o nodes.csv

A node cannot be quicker than the machine moves its bytes, nor than it multiplies. Bandwidth and peak are
measured by the same command, on the same engine, threads and instruction set. What a node needs beyond its
limit is arithmetic of another kind (GELU, softmax, rounding), or what other kernels or a fusion could save.
"""

import argparse
import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openvino
import openvino.opset13 as ops
import pandas as pd

from ..deploy.engines import has_bf16, settings_of
from ..deploy.exported import parts_in, read_export
from ..deploy.ways import Way
from ..provenance.files import write_atomic
from .engine_speed import INSTRUCTION_SETS, restart_under

BYTES = {"f32": 4, "i32": 4, "bf16": 2, "f16": 2, "u8": 1, "i8": 1, "boolean": 1, "i64": 8}
LAYOUT = ("Reorder", "Transpose", "Pad", "Slice", "StridedSlice", "Concat", "Split", "Reshape", "Convert")
SIDE = 128  # of the image of 64 channels on which bandwidth is measured: 4 MB in f32


@dataclass(frozen=True)
class Machine:
    """What the CPU reaches on this engine, threads and instruction set.

    Attributes:
        bandwidth: GB/s of reads and writes together, of an addition of two tensors.
        peak: thousand million multiplications a second (GMAC/s) of a large 1x1 convolution, by precision.
    """

    bandwidth: float
    peak: dict[str, float]

    def seen(self, nodes: pd.DataFrame) -> "Machine":
        """Return this machine with the highest bandwidth that any node reached, if that is more.

        Small tensors come from the caches, large ones from further away.
        """
        reached = ((nodes["MB read"] + nodes["MB written"]) / nodes["ms"])[nodes["ms"] > 0.02].max()
        return replace(self, bandwidth=max(self.bandwidth, float(reached)))


def measure_machine(threads: int, runs: int = 7) -> Machine:
    """Measure bandwidth, and the peak in f32, int8, and bf16 where the CPU has it."""
    shape = [1, 64, SIDE, SIDE]
    images = [ops.parameter(shape, np.float32) for _ in range(2)]
    nodes = _counters(openvino.Model([ops.result(ops.add(*images))], images), Way(), threads, runs)
    bandwidth = 3 * 4 * int(np.prod(shape)) / float(nodes["ms"].max()) / 1e6
    hints = {"f32": "f32", "int8": "f32"} | ({"bf16": "bf16"} if has_bf16() else {})
    peak = {}
    for precision, hint in hints.items():
        layers = _counters(_large_convolution(precision == "int8"), Way(hint), threads, runs)
        peak[precision] = _GMAC / float(layers.loc[layers["type"] == "Convolution", "ms"].max()) * 1e3
    return Machine(bandwidth, peak)


_WIDE, _NARROW, _SIDE = 2048, 256, 64
_GMAC = _WIDE * _NARROW * _SIDE**2 / 1e9


def _large_convolution(int8: bool) -> openvino.Model:
    """Make a 1x1 convolution from 2,048 to 256 channels, which does many multiplications for each byte."""
    x = ops.parameter([1, _WIDE, _SIDE, _SIDE], np.float32)
    integers = np.random.default_rng(0).integers(-127, 128, (_NARROW, _WIDE, 1, 1)).astype(np.int8)
    image = x
    if int8:
        scales = ops.constant(np.full((_NARROW, 1, 1, 1), 0.01, np.float32))
        weight = ops.multiply(ops.convert(ops.constant(integers), np.float32), scales)
        ends = [ops.constant(np.float32(value)) for value in (0.0, 2.55, 0.0, 2.55)]
        image = ops.fake_quantize(x, *ends, 256)
    else:
        weight = ops.constant(integers.astype(np.float32))
    y = ops.convolution(image, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    return openvino.Model([ops.result(ops.relu(y))], [x])


def profile_part(
    folder: str | Path, part: str = "encoder", way: Way | None = None, threads: int = 2, runs: int = 7
) -> pd.DataFrame:
    """Run a part of an export, and describe every node that took time.

    Returns:
        One row a node, in the order of execution: name, kind, precision (of the kernel), ms (median), MB read
        (inputs with weights), MB written, GMAC.

    Raises:
        ValueError: the export has no such part.
        ExportError: the folder is no export.
    """
    facts = read_export(folder)
    if part not in parts_in(facts):
        raise ValueError(f"part = {part!r}; {folder} has {', '.join(parts_in(facts))}")
    nodes = _counters(Path(folder) / f"{part}.xml", way or Way(), threads, runs)
    return nodes[["name", "kind", "precision", "ms", "MB read", "MB written", "GMAC"]]


def against_limits(nodes: pd.DataFrame, machine: Machine) -> pd.DataFrame:
    """Add each node's limit: columns limit ms (the larger of bytes and multiplications), ms above, bound.

    `bandwidth share` and `peak share` are what the node reaches of the machine's.
    """
    moved = (nodes["MB read"] + nodes["MB written"]) / machine.bandwidth
    peak = nodes["precision"].map(machine.peak).fillna(machine.peak["f32"])
    multiplied = nodes["GMAC"] / peak * 1e3
    limit = pd.concat([moved, multiplied], axis=1).max(axis=1)
    return nodes.assign(
        **{
            "limit ms": limit,
            "ms above": (nodes["ms"] - limit).clip(lower=0),
            "bound": np.where(multiplied > moved, "multiplications", "bytes"),
            "bandwidth share": moved / nodes["ms"],
            "peak share": multiplied / nodes["ms"],
        }
    )


def by_kind(nodes: pd.DataFrame, machine: Machine) -> pd.DataFrame:
    """Sum nodes by kind and precision, slowest first, with a last row for the whole part.

    Returns columns kind, precision, nodes, ms, MB, GMAC, limit ms, bandwidth share, peak share.
    """
    rows = against_limits(nodes, machine).assign(MB=nodes["MB read"] + nodes["MB written"], nodes=1)
    summed = ["nodes", "ms", "MB", "GMAC", "limit ms"]
    table = (
        rows.groupby(["kind", "precision"], as_index=False)[summed].sum().sort_values("ms", ascending=False)
    )
    peak = table["precision"].map(machine.peak).fillna(machine.peak["f32"])
    table["bandwidth share"] = table["MB"] / machine.bandwidth / table["ms"]
    table["peak share"] = table["GMAC"] / peak * 1e3 / table["ms"]
    whole = {"kind": "all", "precision": "", **table[summed].sum()}
    whole["bandwidth share"] = whole["MB"] / machine.bandwidth / whole["ms"]
    return pd.concat([table, pd.DataFrame([whole])], ignore_index=True)


def _counters(model: openvino.Model | Path, way: Way, threads: int, runs: int) -> pd.DataFrame:
    """Run a model on random inputs; a row for every node that took time, with `profile_part`'s columns."""
    core, settings = openvino.Core(), settings_of(threads, profiling=True)
    if isinstance(model, openvino.Model):
        hint = openvino.Type.bf16 if way.hint == "bf16" else openvino.Type.f32
        compiled = core.compile_model(
            model, "CPU", {**settings, openvino.properties.hint.inference_precision: hint}
        )
    else:
        compiled = way.compile(core, model, settings)
    request, generator = compiled.create_infer_request(), np.random.default_rng(0)
    shapes = (
        [axis.get_length() if axis.is_static else 1 for axis in port.partial_shape]
        for port in compiled.inputs
    )
    inputs = [generator.random(shape, dtype=np.float32) for shape in shapes]
    times: dict[str, list[float]] = {}
    kernels = {}
    for number in range(runs + 1):
        request.infer(inputs)
        for info in request.get_profiling_info():
            if number:  # the first run also allocates
                times.setdefault(info.node_name, []).append(info.real_time.total_seconds() * 1e3)
            kernels[info.node_name] = info.exec_type
    rows = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        name = node.get_friendly_name()
        if name in times and (ms := float(np.median(times[name]))) > 0:
            rows.append({"name": name, "ms": ms, **_described(node, kernels[name])})
    return pd.DataFrame(rows)


def _fact(node: openvino.Node, key: str) -> str:
    found = node.get_rt_info()
    return found[key].astype(str) if key in found else ""


def _precisions(node: openvino.Node) -> list[str]:
    """Precisions of a node's outputs in a runtime model."""
    return _fact(node, "outputPrecisions").split(",")


def _megabytes(shape: openvino.Shape, precision: str) -> float:
    return int(np.prod(list(shape))) * BYTES.get(precision.strip().lower(), 4) / 1e6


def _described(node: openvino.Node, kernel: str) -> dict:
    """Describe a node of a runtime model: type, kind, precision, megabytes, and GMAC."""
    kind = _fact(node, "layerType")
    read = 0.0
    for port in node.inputs():
        source = port.get_source_output()
        outputs = _precisions(source.get_node())
        read += _megabytes(port.get_shape(), outputs[min(source.get_index(), len(outputs) - 1)])
    outputs = _precisions(node)
    written = sum(
        _megabytes(port.get_shape(), outputs[min(i, len(outputs) - 1)])
        for i, port in enumerate(node.outputs())
    )
    end = kernel.rsplit("_", 1)[-1].lower()
    return {
        "type": kind,
        "kind": _kind(node, kind),
        "precision": {"i8": "int8", "u8": "int8"}.get(end, end),
        "MB read": read,
        "MB written": written,
        "GMAC": _multiplications(node, kind) / 1e9,
    }


def _kind(node: openvino.Node, layer: str) -> str:
    """Name what a node does, for a reader."""
    layers = _fact(node, "originalLayersNames")
    if layer in ("Convolution", "GroupConvolution"):
        shape = list(node.input(1).get_shape())
        name = (
            "depthwise convolution" if layer == "GroupConvolution" else f"{shape[-1]}x{shape[-1]} convolution"
        )
        return name + (" and GELU" if re.search(r"Mul_\d+|Gelu|Erf", layers) else "")
    if layer.startswith(("FullyConnected", "MatMul")):
        return "product"
    if layer == "Subgraph":
        return "attention" if "MatMul" in layers or "Softmax" in layers else "element-wise"
    if layer in ("MVN", "Softmax"):
        return {"MVN": "norm", "Softmax": "softmax"}[layer]
    return "layout" if layer in LAYOUT else "other"


def _multiplications(node: openvino.Node, layer: str) -> float:
    """Count multiplications of convolutions, products and fused attention."""
    out = int(np.prod(list(node.output(0).get_shape())))
    if layer in ("Convolution", "GroupConvolution"):
        weight = list(node.input(1).get_shape())
        return out * int(np.prod(weight[2:] if layer == "GroupConvolution" else weight[1:]))
    if layer.startswith(("FullyConnected", "MatMul")):
        return out * int(list(node.input(0).get_shape())[-1])
    if _kind(node, layer) == "attention":  # queries by keys, then weights by values: out * keys each
        keys = next((list(port.get_shape())[-1] for port in node.inputs() if len(port.get_shape()) == 4), 0)
        tokens = max((list(port.get_shape())[-1] for port in node.inputs()[1:2]), default=keys)
        return 2 * out * tokens
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, see above. Return 0, or 2 with one line on stderr for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.timing.layer_profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="export, written by qmsam_core.deploy.export")
    parser.add_argument(
        "--part", default="encoder", help="encoder, prepare or decoder (default: %(default)s)"
    )
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"), help="OpenVINO's hint")
    parser.add_argument("--products-in-float", action="store_true", help="as predict may choose")
    parser.add_argument("--isa", choices=list(INSTRUCTION_SETS), help="hold OpenVINO to an instruction set")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument(
        "--worst", type=int, default=15, help="nodes to list, those furthest above their limit"
    )
    parser.add_argument("-o", "--output", type=Path, help="CSV of all nodes")
    options = parser.parse_args(arguments)
    restart_under(options.isa, "qmsam_core.timing.layer_profile", arguments)
    way = Way(options.precision, options.products_in_float)
    try:
        if way.hint == "bf16" and not has_bf16():
            raise ValueError("--precision bf16: this CPU has no bf16 arithmetic; expected f32")
        nodes = profile_part(options.folder, options.part, way, options.threads, options.runs)
        machine = measure_machine(options.threads, options.runs).seen(nodes)
        nodes = against_limits(nodes, machine)
        if options.output:
            write_atomic(options.output, lambda file: nodes.to_csv(file, index=False))
    except (ValueError, OSError) as error:
        print(f"layer_profile: {error}", file=sys.stderr)
        return 2
    peaks = ", ".join(f"{name} {value:.0f}" for name, value in machine.peak.items())
    print(f"this machine: {machine.bandwidth:.0f} GB/s; GMAC/s {peaks}; {options.threads} threads\n")
    print(by_kind(nodes, machine).round(2).to_string(index=False))
    worst = nodes.sort_values("ms above", ascending=False).head(options.worst)
    print(f"\nfurthest above their limit:\n{worst.round(2).to_string(index=False)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
