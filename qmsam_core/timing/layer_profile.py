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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import openvino.opset13 as ops
import pandas as pd

from ..deploy.engines import has_bf16, settings_of
from ..deploy.exported import parts_in, read_export
from ..deploy.ways import Way, random_inputs
from ..provenance.files import write_atomic
from .engine_speed import INSTRUCTION_SETS, restart_under

BYTES = {"f32": 4, "i32": 4, "bf16": 2, "f16": 2, "u8": 1, "i8": 1, "boolean": 1, "i64": 8}
LAYOUT = "Reorder Transpose Pad Slice StridedSlice Concat Concatenation Split Reshape Convert".split()
CUTS = ("Slice", "StridedSlice", "Crop", "Gather")  # read only what they write
SIDES = (32, 64, 128, 256, 512)  # of f32 images of 64 channels, 0.3 to 67 MB each, that measure bandwidth
CONVOLUTIONS = ((256, 256, 64), (320, 320, 64), (1024, 256, 32), (512, 512, 32), (2048, 256, 64))
"""Channels in and out, and side in px, of the 1x1 convolutions that measure the peak."""


@dataclass(frozen=True)
class Machine:
    """What the CPU reaches on this engine, threads and instruction set.

    Attributes:
        bandwidth: GB/s of reads and writes together, by the MB that are read and written, ascending. It is
            the highest of additions of two tensors of that size or larger; small ones stay in the caches.
        peak: thousand million multiplications a second (GMAC/s) of the quickest of `CONVOLUTIONS`, by
            precision.
    """

    bandwidth: dict[float, float]
    peak: dict[str, float]

    def moving(self, megabytes: pd.Series) -> pd.Series:
        """Return the ms in which this machine moves so many MB at once, at the bandwidth of that size."""
        sizes = np.log(np.maximum(megabytes, min(self.bandwidth)))
        return megabytes / np.interp(sizes, np.log(list(self.bandwidth)), list(self.bandwidth.values()))

    def multiplying(self, gmac: pd.Series, precision: pd.Series) -> pd.Series:
        """Return the ms of so many GMAC. A precision that has no peak, as `any`, takes that of f32."""
        return gmac / precision.map(self.peak).fillna(self.peak["f32"]) * 1e3

    def __str__(self) -> str:
        speeds = ", ".join(f"{speed:.0f} on {size:.1f} MB" for size, speed in self.bandwidth.items())
        peaks = ", ".join(f"{name} {value:.0f}" for name, value in self.peak.items())
        return f"GB/s {speeds}; GMAC/s {peaks}"


def measure_machine(threads: int, runs: int = 7) -> Machine:
    """Measure bandwidth by size, and the peak in f32, int8, and bf16 where the CPU has it.

    The best of all runs counts, as a limit is what the machine can do.
    """
    sizes, speeds = zip(*(_bandwidth(side, threads, runs) for side in SIDES))
    speeds = np.maximum.accumulate(speeds[::-1])[::-1]  # starting a small node costs time that is no moving
    hints = {"f32": "f32", "int8": "f32"} | ({"bf16": "bf16"} if has_bf16() else {})
    peak = {name: _peak(name == "int8", Way(hint), threads, runs) for name, hint in hints.items()}
    return Machine(dict(zip(sizes, speeds.tolist())), peak)


def _bandwidth(side: int, threads: int, runs: int) -> tuple[float, float]:
    """Measure an addition of two f32 images of 64 channels: MB read and written, and GB/s."""
    images = [ops.parameter([1, 64, side, side], np.float32) for _ in range(2)]
    nodes = _counters(openvino.Model([ops.result(ops.add(*images))], images), Way(), threads, runs)
    megabytes = 3 * 4 * 64 * side**2 / 1e6
    return megabytes, megabytes / float(nodes["best ms"].max())


def _peak(int8: bool, way: Way, threads: int, runs: int) -> float:
    """Measure GMAC/s of the quickest of `CONVOLUTIONS`."""
    found = []
    for wide, narrow, side in CONVOLUTIONS:
        nodes = _counters(_convolution(wide, narrow, side, int8), way, threads, runs)
        found.append((nodes["GMAC"] / nodes["best ms"]).max() * 1e3)
    return max(found)


def _convolution(wide: int, narrow: int, side: int, int8: bool) -> openvino.Model:
    """Make a 1x1 convolution. A small one behind it lets it write the precision that it reads."""
    image = ops.parameter([1, wide, side, side], np.float32)
    y: openvino.Node = image
    for channels, inputs in ((narrow, wide), (16, narrow)):
        integers = np.random.default_rng(0).integers(-127, 128, (channels, inputs, 1, 1)).astype(np.int8)
        weight = ops.multiply(
            ops.convert(ops.constant(integers), np.float32),
            ops.constant(np.full((channels, 1, 1, 1), 0.01, np.float32)),
        )
        if int8:
            y = ops.fake_quantize(y, *(ops.constant(np.float32(end)) for end in (0.0, 2.55, 0.0, 2.55)), 256)
        y = ops.relu(ops.convolution(y, weight, [1, 1], [0, 0], [0, 0], [1, 1]))
    return openvino.Model([ops.result(y)], [image])


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
    moving = machine.moving(nodes["MB read"] + nodes["MB written"])
    multiplying = machine.multiplying(nodes["GMAC"], nodes["precision"])
    limit = np.maximum(moving, multiplying)
    return nodes.assign(
        **{
            "limit ms": limit,
            "ms above": (nodes["ms"] - limit).clip(lower=0),
            "bound": np.where(multiplying > moving, "multiplications", "bytes"),
            "bandwidth share": moving / nodes["ms"],
            "peak share": multiplying / nodes["ms"],
        }
    )


def by_kind(nodes: pd.DataFrame, machine: Machine) -> pd.DataFrame:
    """Sum nodes by kind and precision, slowest first, with a last row for the whole part.

    Returns columns kind, precision, nodes, ms, MB read, MB written, GMAC, limit ms, times limit (ms over
    limit), bandwidth share, peak share. The last row's limit is the sum of all nodes' limits: that of this
    graph, in which every node reads and writes. A graph that fuses more has a lower one.
    """
    rows = against_limits(nodes, machine).assign(nodes=1)
    for share in ("bandwidth share", "peak share"):  # as ms, to be summed
        rows[share] *= rows["ms"]
    summed = ["nodes", "ms", "MB read", "MB written", "GMAC", "limit ms", "bandwidth share", "peak share"]
    table = rows.groupby(["kind", "precision"], as_index=False)[summed].sum()
    table = table.sort_values("ms", ascending=False, ignore_index=True)
    table.loc[len(table)] = {"kind": "all", "precision": "", **rows[summed].sum()}
    table["nodes"] = table["nodes"].astype(int)
    for share in ("bandwidth share", "peak share"):
        table[share] /= table["ms"]
    table.insert(table.columns.get_loc("limit ms") + 1, "times limit", table["ms"] / table["limit ms"])
    return table


def _counters(model: openvino.Model | Path, way: Way, threads: int, runs: int) -> pd.DataFrame:
    """Run a model on random inputs; a row for every node that took time, with `profile_part`'s columns."""
    compiled = way.compile(openvino.Core(), model, settings_of(threads, profiling=True))
    request, inputs = compiled.create_infer_request(), random_inputs(compiled.inputs)
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
            facts = {"name": name, "ms": ms, "best ms": min(times[name])}
            rows.append({**facts, **_described(node, kernels[name])})
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
        "MB read": min(read, written) if kind in CUTS else read,
        "MB written": written,
        "GMAC": _multiplications(node, kind) / 1e9,
    }


def _kind(node: openvino.Node, layer: str) -> str:
    """Name what a node does, for a reader."""
    layers = _fact(node, "originalLayersNames")
    if layer in ("Convolution", "GroupConvolution"):
        shape = list(node.input(1).get_shape())
        # the plugin calls both Convolution; weights of groups have an axis more
        name = "depthwise convolution" if len(shape) == 5 else f"{shape[-1]}x{shape[-1]} convolution"
        return name + (" and GELU" if re.search(r"Mul_\d+|Gelu|Erf", layers) else "")
    if layer.startswith(("FullyConnected", "MatMul")):
        return "product"
    if layer == "Subgraph":
        # where attention is not fused, the scaling of a product has its name: MatMul/DequantizationMultiply
        return "attention" if "MatMul" in layers and "Softmax" in layers else "element-wise"
    if layer in ("MVN", "Softmax"):
        return {"MVN": "norm", "Softmax": "softmax"}[layer]
    return "layout" if layer in LAYOUT else "other"


def _multiplications(node: openvino.Node, layer: str) -> float:
    """Count multiplications of convolutions, products and fused attention."""
    out = int(np.prod(list(node.output(0).get_shape())))
    if layer in ("Convolution", "GroupConvolution"):
        weight = list(node.input(1).get_shape())
        return out * int(np.prod(weight[2:] if len(weight) == 5 else weight[1:]))
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
        machine = measure_machine(options.threads, options.runs)
        nodes = against_limits(nodes, machine)
        if options.output:
            write_atomic(options.output, lambda file: nodes.to_csv(file, index=False))
    except (ValueError, OSError) as error:
        print(f"layer_profile: {error}", file=sys.stderr)
        return 2
    print(f"this machine, {options.threads} threads: {machine}\n")
    print(by_kind(nodes, machine).round(2).to_string(index=False))
    worst = nodes.sort_values("ms above", ascending=False).head(options.worst)
    print(f"\nfurthest above their limit:\n{worst.round(2).to_string(index=False)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
