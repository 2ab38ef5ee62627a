"""From a model to files an engine runs: ONNX (QCDQ where quantised) and OpenVINO IR for encoder and decoder, and a description beside them.

python -m qmsam_core.deploy.export --model litemedsam --recipe paper -o exported/
"""

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

import onnx
import openvino
import torch
from brevitas.export import export_onnx_qcdq, export_qonnx
from torch import nn

from ..models import CONFIGS, PUBLIC, CheckpointError, Sam, build_model, checkpoint_path, weights_hash
from ..provenance.files import sha256
from ..provenance.imported_modules import modules_reached
from ..quant import RECIPES, Recipe, calibrate, describe_model, find_recipe, load_model, quantize, save_model
from .exported import FORMAT, ExportError, put_in_place, read_export
from .graphs import STYLES, Part, clean, parts_of

OPSET = 17
RANDOM = "random"
LIBRARY = Path(__file__).parents[1]
SHAPING = ("deploy/export.py", "deploy/graphs.py", "deploy/rewrites/", "models/", "quant/")
"""The modules of the library that shape an export; the others that importing it reaches, data and engines among them, leave its files as they are."""
WRITERS = ("torch", "onnx", "brevitas", "openvino")
"""The packages whose version an export depends on."""


def export_model(
    model: Sam, folder: str | Path, origin: str = "", style: str | None = None, qonnx: bool = False
) -> dict:
    """Write the parts as `<part>.onnx/.xml/.bin`, `model.safetensors` and `export.json`; the last is written last.

    Args:
        model: float or quantised and calibrated, in evaluation mode.
        folder: made if absent; what it held under these names is replaced, each file at once.
        origin: where the weights come from, kept in `export.json`.
        style: one of `graphs.STYLES`; None takes `fast`, or `released` for the recipe of that name.
        qonnx: also write `<part>.qonnx`, Brevitas' own dialect for FINN, of the graphs as they are traced.

    Returns:
        The content of `export.json`: sizes, recipe with its settings, style, SHA-256 and bytes of every file, hash of the weights, what made it (`exporter`),
        what the clean-up removed.

    Raises:
        ExportError: a recipe of more than 8 bits in the fast style. ValueError: an unknown style.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    recipe, style = recipe_of(model), style or style_of(model)
    if style == "fast" and max(recipe.weight_bits or 0, recipe.activation_bits or 0) > 8:
        raise ExportError(f"recipe {recipe.name!r} has more than 8 bits; export it with style 'clean'")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        work = Path(scratch)
        removed = {}
        for part in parts_of(model, style):
            removed[part.name] = write_onnx(part, work, style)
            write_ir(part, work, one_at_a_time=style == "fast")
        if qonnx:
            write_qonnx(model, work)
        save_model(model, work / "model.safetensors", origin=origin)
        facts = {
            "format": FORMAT, **made_from(model, origin, style), "mask_size": model.mask_size, "opset": OPSET, "removed": removed,
        }  # fmt: skip
        return put_in_place(work, folder, facts)


def export_if_stale(model: Sam, folder: str | Path, origin: str = "", style: str | None = None) -> dict:
    """`export_model`, unless the folder holds a sound export of these very weights, recipe, size and style, made by this very exporter, already."""
    style = style or style_of(model)
    try:
        facts = read_export(folder)
    except ExportError:
        return export_model(model, folder, origin, style)
    return (
        facts
        if made_from(model, origin, style).items() <= facts.items()
        else export_model(model, folder, origin, style)
    )


def recipe_of(model: Sam) -> Recipe:
    """The recipe by which a model was quantised, `float` where it was not."""
    return getattr(model, "recipe", None) or find_recipe("float")


def style_of(model: Sam) -> str:
    """The style in which a model is exported where none is asked for."""
    return "fast" if recipe_of(model).clean_export else "released"


def made_from(model: Sam, origin: str, style: str) -> dict:
    """What an export comes from, as `export.json` keeps it: where all of it is the same, exporting again gives the same."""
    recipe = recipe_of(model)
    return {
        "model": model.config.name, "image_size": model.image_size, "recipe": recipe.name, "settings": json.loads(json.dumps(asdict(recipe))), "style": style,
        "parts": list(getattr(model, "quantised_parts", ())), "origin": origin, "weights": weights_hash(model), "exporter": exporter(),
    }  # fmt: skip


@cache
def exporter() -> dict[str, str]:
    """What an export depends on besides the model: the version of each of `WRITERS`, and `modules`, the digest of our own code."""
    return {"modules": modules_digest(LIBRARY), **{name: version(name) for name in WRITERS}}


def modules_digest(library: Path) -> str:
    """SHA-256 over names and content of the modules that shape an export (`SHAPING`); `library` is the package's folder."""
    reached = {
        path.relative_to(library).as_posix(): path
        for path in modules_reached(f"import {library.name}.deploy.export", library)
    }
    listing = "".join(
        f"{name} {sha256(path)}\n" for name, path in reached.items() if name.startswith(SHAPING)
    )
    return hashlib.sha256(listing.encode()).hexdigest()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The tracer warns of shape arithmetic that is meant to be dynamic or constant here, and Brevitas prints."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def write_onnx(part: Part, folder: Path, style: str) -> dict[str, int]:
    """Export one part as `<name>.onnx`; return what the clean-up changed. Fast graphs have no quantisers of Brevitas left in them."""
    path = folder / f"{part.name}.onnx"
    options = dict(
        input_names=list(part.inputs), output_names=list(part.outputs), dynamic_axes={name: {0: "count"} for name in part.free},
        opset_version=OPSET, dynamo=False,
    )  # fmt: skip
    with quietly(), torch.no_grad():
        if style == "fast":
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
    """Convert a part to OpenVINO's IR. With `one_at_a_time` its free axes are 1: OpenVINO then drops transposes that only relabel a layout, which it
    cannot do for shapes it does not know, and a block of boxes gains nothing, because a single box already fills the linear layers."""
    model = openvino.convert_model(folder / f"{part.name}.onnx")
    if one_at_a_time:
        model.reshape(
            {
                port: [d.get_length() if d.is_static else 1 for d in port.partial_shape]
                for port in model.inputs
            }
        )
    openvino.save_model(model, folder / f"{part.name}.xml", compress_to_fp16=False)


def write_qonnx(model: Sam, folder: Path) -> None:
    """`encoder.qonnx` and `decoder.qonnx`: quantisers as single nodes of Brevitas' dialect, which no engine here runs."""
    for part in parts_of(model, "clean"):
        with quietly(), torch.no_grad():
            export_qonnx(
                part.graph.eval(), args=tuple(part.inputs.values()), export_path=str(folder / f"{part.name}.qonnx"),
                input_names=list(part.inputs), output_names=list(part.outputs), opset_version=OPSET, dynamo=False,
            )  # fmt: skip


def model_to_export(
    name: str, checkpoint: str | None, recipe_name: str, seed: int = 0, depth: int | None = None
) -> tuple[Sam, str]:
    """The model of the command line, and a sentence on where its weights come from.

    A checkpoint of this study that is quantised already keeps its own recipe. A float one is quantised by post-training
    statistics on seeded noise, which is enough to measure speed and sizes and says so.

    Args:
        checkpoint: `public`, a file, or None for random weights.
        depth: see `build_model`.
    """
    recipe = find_recipe(recipe_name)
    path = checkpoint_path(checkpoint, name) if checkpoint else None
    if path is not None and is_quantised(path):
        return load_model(path), f"checkpoint {path.name}, sha256 {sha256(path)}"
    model = build_model(name, checkpoint=path, seed=seed, depth=depth)
    if path is None:
        open_residuals(model)
    origin = (
        f"random weights, seed {seed}" if path is None else f"checkpoint {path.name}, sha256 {sha256(path)}"
    )
    if depth is not None:
        origin += f"; {depth} of {CONFIGS[name].encoder.depth} blocks"
    if recipe.quantised:
        generator = torch.Generator().manual_seed(seed)
        box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * model.image_size
        model = quantize(model, recipe)
        calibrate(
            model,
            lambda m, x: m(x, box),
            [torch.rand(1, 3, model.image_size, model.image_size, generator=generator)],
        )
        origin += "; activation scales from one image of noise: for speed and size only"
    return model.eval(), origin


def is_quantised(path: Path) -> bool:
    """Whether a file is a quantised model of this study."""
    try:
        return bool(describe_model(path)["parts"])
    except CheckpointError:
        return False


def open_residuals(model: Sam) -> None:
    """Set batch norms that begin as nothing to one: an untrained network would be timed with layers that an engine can leave out or cannot quantise."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data[norm.weight == 0] = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring. Exit code 2 with one line on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.deploy.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, choices=list(CONFIGS))
    parser.add_argument(
        "--checkpoint",
        help=f"{PUBLIC} (the default for litemedsam), {RANDOM} (the default for medsam), or a float .pth or .safetensors; "
        "a quantised checkpoint of this study keeps its own recipe",
    )
    parser.add_argument("--recipe", default="paper", choices=list(RECIPES))
    parser.add_argument(
        "--style", choices=list(STYLES), help="; ".join(f"{name}: {text}" for name, text in STYLES.items())
    )
    parser.add_argument(
        "--qonnx", action="store_true", help="also write <part>.qonnx, Brevitas' dialect for FINN"
    )
    parser.add_argument("-o", "--output", required=True, type=Path)
    options = parser.parse_args(arguments)
    try:
        checkpoint = options.checkpoint or (PUBLIC if options.model == "litemedsam" else RANDOM)
        model, origin = model_to_export(
            options.model, None if checkpoint == RANDOM else checkpoint, options.recipe
        )
        facts = export_model(model, options.output, origin, options.style, options.qonnx)
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    print(f"style: {facts['style']}, {STYLES[facts['style']]}")
    for name, file in facts["files"].items():
        print(f"{options.output / name}  {file['bytes'] / 1e6:.2f} MB")
    print(f"weights: {origin}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
