r"""Check that QONNX files compute what the fake-quantised model computes, by running them.

    python -m qmsam_core.deploy.qonnx_check litemedsam medsam --recipe paper deploy
    python -m qmsam_core.deploy.qonnx_check exported/

A name stands for a network with random weights, calibrated on noise. That is enough to compare two ways to
compute it. A folder is one that `python -m qmsam_core.deploy.export --qonnx` wrote. Without arguments, all
networks are checked. QONNX has an operator `Quant` that no engine knows. Here it is defined by operators of
standard ONNX, so ONNX Runtime runs the files as they are. See docs/finn.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import torch
from brevitas.proxy.parameter_quant import WeightQuantProxyFromInjectorBase
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from torch import Tensor, nn

from ..models import CONFIGS, Sam
from ..models.vit import ViTConfig
from ..quant import RECIPES, load_model
from ..quant.scales import ACTIVATIONS, arithmetic_of, switched_off
from .export import model_to_export, recipe_of
from .exported import read_export
from .graph_files import write_qonnx
from .graphs import Part, parts_of
from .parity import relative_error
from .qonnx_graph import (
    kinds,
    quant_nodes,
    read_qonnx,
    refused_by_finn,
    run_alone,
    run_qonnx,
    session_of,
    without_activations,
)

SIZES = {ViTConfig: 256}
"""Input size in px at which networks with an encoder of this kind are checked; `SIZE` for all others."""

SIZE = 64

TOLERANCE = 0.1
"""Largest relative error of a part's output. Each program rounds its sums in its own order. Here and there a
value then falls to the neighbouring step of a quantiser, and later layers see that step. A model's own output
changes as much if its input moves by a millionth. So two more checks have no such tolerance: each quantiser
alone (`wrong_quantisers`), and all that is around them (`FLOAT_TOLERANCE`)."""

FLOAT_TOLERANCE = 1e-5
"""Largest relative error of a part's output if activations are not quantised. Weights are."""

STEP_TOLERANCE = 0.01
"""Largest error of a single quantiser, in steps. It excludes every other code and allows float32 rounding."""


# Each quantiser alone ---------------------------------------------------------------------------------------


def wrong_quantisers(model: onnx.ModelProto, network: nn.Module, used: Sequence[str]) -> list[str]:
    """Name the quantisers that a file and a network do not share, or for which they differ.

    The quantisers of the file are run apart from each other. Those of weights get the file's weights. The
    others get values a quarter of a step above every code, and beyond both ends of the codes. So a different
    zero point, bit width, sign or scale is found, and no value lies where two roundings may differ.

    Args:
        model: as `read_qonnx` returns it.
        network: what the file was written from.
        used: names of the quantisers within `network` that its forward pass uses.
    """
    proxies = dict(network.named_modules())
    owners = [quantiser_of(node, used) for node in quant_nodes(model)]
    known = [
        (node, name, *probe(proxies[name])) for node, name in zip(quant_nodes(model), owners) if name in used
    ]
    outputs = run_alone(model, [node for node, *_ in known], [given for _, _, given, _ in known])
    wrong = [name for name in owners if name not in used]
    for (_, name, _, expected), found in zip(known, outputs):
        step = np.broadcast_to(proxies[name].scale().detach().numpy(), expected.shape)
        if found.shape != expected.shape or np.any(np.abs(found - expected) > STEP_TOLERANCE * step):
            wrong.append(name)
    return [*dict.fromkeys(wrong), *(f"{name} (not in the file)" for name in used if name not in owners)]


def quantiser_of(node: onnx.NodeProto, names: Sequence[str]) -> str:
    """Return which of a network's quantisers a node is, or the node's own name if it is none of them.

    The exporter names a node by the modules that were called around it: `/a/seq/seq.0/c/export_handler/Quant`
    for `a.seq.0.c`. Modules whose own forward pass was not called are missing from the front.
    """
    scopes = node.name.split("/")[1:-2]
    own = ".".join(
        one for one, inner in zip(scopes, [*scopes[1:], ""]) if not inner.startswith(f"{one}.")
    )  # a sequence stands before each of its members, which repeat its name
    found = [name for name in names if f".{name}".endswith(f".{own}")]
    return found[0] if len(found) == 1 else node.name


def probe(proxy: QuantProxyFromInjector) -> tuple[np.ndarray | None, np.ndarray]:
    """Return what to put into a quantiser (None: the weight in the file), and what the model makes of it."""
    with torch.no_grad():
        if isinstance(proxy, WeightQuantProxyFromInjectorBase):
            return None, dequantised(proxy(proxy.tracked_module_list[0].weight)).numpy()
        count = 2 ** int(proxy.bit_width())
        values = (torch.arange(-count - 8, count + 8) + 0.25) * proxy.scale()
        return values.numpy(), dequantised(proxy(values)).numpy()


def dequantised(result: Tensor) -> Tensor:
    """Return the float values of what a quantiser returns, a plain tensor or Brevitas' quantised one."""
    return getattr(result, "value", result)


# Parts and networks -----------------------------------------------------------------------------------------


def qonnx_parity(model: Sam, folder: str | Path | None = None, seed: int = 1) -> pd.DataFrame:
    """Compare the QONNX files of a model with the model itself, on other inputs than those of the export.

    Args:
        model: quantised and calibrated, in evaluation mode.
        folder: where `encoder.qonnx` and `decoder.qonnx` are. None writes them to a temporary folder.
        seed: seed of the image, which is noise.

    Returns:
        One row a part: part; nodes; quantisers; kinds (see `kinds`); wrong (names of quantisers that differ,
        see `wrong_quantisers`); error (root mean square of the output's difference over that of the output);
        float_error (the same with activations left unquantised on both sides); pixels_equal (share of mask
        pixels that agree after binarising, only for the decoder); refused (number of quantisers that FINN
        does not take, see `refused_by_finn`).

    Raises:
        ExportError: a file is missing or has nodes that cannot be run.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            write_qonnx(model, Path(scratch))
            return qonnx_parity(model, scratch, seed)
    rows = []
    for part, inputs in other_inputs(model, seed):
        path = Path(folder) / f"{part.name}.qonnx"
        graph, arrays = read_qonnx(path), {name: values.numpy() for name, values in inputs.items()}
        expected, used = run_and_watch(part, inputs)
        (found,) = run_qonnx(path, arrays)
        with switched_off([part.graph], ACTIVATIONS):
            smooth, _ = run_and_watch(part, inputs)
        (smooth_found,) = session_of(without_activations(graph)).run(None, arrays)
        rows.append(
            {
                "part": part.name,
                "nodes": len(graph.graph.node),
                "quantisers": len(quant_nodes(graph)),
                "kinds": kinds(graph),
                "wrong": wrong_quantisers(graph, part.graph, used),
                "error": relative_error(expected, found),
                "float_error": relative_error(smooth, smooth_found),
                "pixels_equal": np.mean((expected > 0) == (found > 0)) if part.name == "decoder" else np.nan,
                "refused": len(refused_by_finn(graph)),
            }
        )
    return pd.DataFrame(rows)


def other_inputs(model: Sam, seed: int) -> Iterator[tuple[Part, dict[str, Tensor]]]:
    """Yield each part of a model with inputs for it. The decoder gets the embedding of the encoder."""
    generator, outputs = torch.Generator().manual_seed(seed), {}
    for part in parts_of(model, "clean"):
        inputs = {
            "images": lambda part: torch.rand(part.inputs["images"].shape, generator=generator),
            "embedding": lambda part: outputs["embeddings"],
            "boxes": lambda part: 0.75 * part.inputs["boxes"].flip(0),
        }
        chosen = {name: inputs[name](part) for name in part.inputs}
        with torch.no_grad():
            outputs[part.outputs[0]] = part.graph.eval()(*chosen.values())
        yield part, chosen


def run_and_watch(part: Part, inputs: Mapping[str, Tensor]) -> tuple[np.ndarray, list[str]]:
    """Run a part of a model. Return its output and the names of the quantisers that took part."""
    used: dict[str, None] = {}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: used.setdefault(name))
        for name, module in part.graph.named_modules()
        if isinstance(module, QuantProxyFromInjector) and arithmetic_of(module) is not None
    ]
    try:
        with torch.no_grad():
            output = part.graph.eval()(*inputs.values())
    finally:
        for hook in hooks:
            hook.remove()
    return output.numpy(), list(used)


def checked_model(name: str, recipe: str, size: int | None = None) -> Sam:
    """Return a network with random weights, calibrated on noise. A plain ViT keeps one block."""
    encoder = CONFIGS[name].encoder
    depth = 1 if isinstance(encoder, ViTConfig) else None
    return model_to_export(
        name, None, recipe, depth=depth, image_size=size or SIZES.get(type(encoder), SIZE)
    )[0]


def check(what: str, recipes: Sequence[str], size: int | None = None) -> Iterator[pd.DataFrame]:
    """Yield the table of `qonnx_parity` for a folder, or for each recipe of a named network."""
    if what in CONFIGS:
        for recipe in recipes:
            yield qonnx_parity(checked_model(what, recipe, size)).assign(model=what, recipe=recipe)
        return
    facts = read_export(what)
    model = load_model(Path(what) / "model.safetensors").eval()
    yield qonnx_parity(model, what).assign(model=facts["model"], recipe=recipe_of(model).name)


def agrees(table: pd.DataFrame) -> pd.Series:
    """Tell for each row of a table of `qonnx_parity` whether file and model compute the same."""
    return (
        (table["error"] <= TOLERANCE)
        & (table["float_error"] <= FLOAT_TOLERANCE)
        & (table["wrong"].map(len) == 0)
    )


def report(table: pd.DataFrame) -> str:
    """Return a table of `check` as text, with the names of quantisers that differ in lines below it."""
    lines = [
        f"{row.model} {row.recipe} {row.part}: {name} computes something else"
        for row in table.itertuples()
        for name in row.wrong
    ]
    shown = table.assign(wrong=table["wrong"].map(len), pixels_equal=100 * table["pixels_equal"]).rename(
        columns={"float_error": "float error", "pixels_equal": "pixels equal %", "refused": "refused by FINN"}
    )
    shown = shown[["model", "recipe", *shown.columns.drop(["model", "recipe"])]]
    formats = {"error": "{:.1e}".format, "float error": "{:.1e}".format, "pixels equal %": "{:.2f}".format}
    return "\n".join([shown.to_string(index=False, formatters=formats, na_rep="-"), *lines])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns the exit code, 1 if a file computes something else, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.deploy.qonnx_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    recipes = [name for name, recipe in RECIPES.items() if recipe.quantised]
    parser.add_argument("what", nargs="*", metavar="FOLDER_OR_MODEL", default=list(CONFIGS))
    parser.add_argument("--recipe", nargs="+", default=recipes, choices=recipes, help="of named networks")
    parser.add_argument("--size", type=int, metavar="PX", help="input size of named networks")
    options = parser.parse_args(arguments)
    tables = []
    try:
        for what in options.what:
            for table in check(what, options.recipe, options.size):
                tables.append(table)
                print(f"{what}: {table['recipe'][0]} run", file=sys.stderr, flush=True)
    except (ValueError, OSError) as error:
        print(f"qonnx_check: {error}", file=sys.stderr)
        return 2
    table = pd.concat(tables, ignore_index=True)
    print(report(table))
    return int(not agrees(table).all())


if __name__ == "__main__":
    sys.exit(main())
