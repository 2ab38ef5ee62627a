"""From a model to files an engine runs: ONNX (QCDQ where quantised) and OpenVINO IR for encoder and decoder, and a description beside them.

python -m qmsam_core.deploy.export --model litemedsam --recipe paper -o exported/
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import onnx
import openvino
import pandas as pd
import torch
from brevitas.export import export_onnx_qcdq
from torch import nn

from ..models import CheckpointError, Sam, build_model
from ..provenance import sha256
from ..quant import RECIPES, Recipe, calibrate, describe_model, find_recipe, load_model, quantize, save_model
from .graphs import DecoderGraph, EncoderGraph, clean

OPSET = 17
FORMAT = 1


class ExportError(ValueError):
    """An export that cannot be made or cannot be used; the message says which file and why."""


def export_model(model: Sam, folder: str | Path, origin: str = "") -> dict:
    """Write `encoder.onnx/.xml/.bin`, `decoder.onnx/.xml/.bin`, `model.safetensors` and `export.json`; the last is written last.

    Args:
        model: float or quantised and calibrated, in evaluation mode.
        folder: made if absent; what it held under these names is replaced, each file at once.
        origin: where the weights come from, kept in `export.json`.

    Returns:
        The content of `export.json`: sizes, recipe, SHA-256 and bytes of every file, and what the clean-up removed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = getattr(model, "recipe", None) or find_recipe("float")
    model = model.eval()
    image = torch.rand(1, 3, model.image_size, model.image_size)
    boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.1, 0.2, 0.5, 0.9]]) * model.image_size
    with torch.no_grad():
        embedding = model.image_encoder(image)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        work = Path(scratch)
        removed = {
            "encoder": write_onnx(EncoderGraph(model), {"images": image}, "embeddings", work, recipe),
            "decoder": write_onnx(DecoderGraph(model), {"embedding": embedding, "boxes": boxes}, "masks", work, recipe),
        }
        for part in ("encoder", "decoder"):
            openvino.save_model(
                openvino.convert_model(work / f"{part}.onnx"), work / f"{part}.xml", compress_to_fp16=False
            )
        save_model(model, work / "model.safetensors", origin=origin)
        facts = {
            "format": FORMAT, "model": model.config.name, "image_size": model.image_size, "mask_size": model.mask_size,
            "recipe": recipe.name, "parts": list(getattr(model, "quantised_parts", ())), "origin": origin, "opset": OPSET, "removed": removed,
            "files": {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in sorted(work.iterdir())},
        }  # fmt: skip
        (work / "export.json").write_text(json.dumps(facts, indent=2))
        for name in [*facts["files"], "export.json"]:
            os.replace(work / name, folder / name)
    return facts


def write_onnx(
    graph: nn.Module, inputs: dict[str, torch.Tensor], output: str, folder: Path, recipe: Recipe
) -> dict[str, int]:
    """Export one graph as `<part>.onnx`, its last input and its output free in their first axis; return what the clean-up changed."""
    path = folder / f"{'decoder' if isinstance(graph, DecoderGraph) else 'encoder'}.onnx"
    free = {name: {0: "count"} for name in (list(inputs)[-1], output)}
    options = dict(
        input_names=list(inputs), output_names=[output], dynamic_axes=free, opset_version=OPSET, dynamo=False
    )
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter(
            "ignore"
        )  # the tracer warns of shape arithmetic that is meant to be dynamic or constant here
        export_onnx_qcdq(graph.eval(), args=tuple(inputs.values()), export_path=str(path), **options)
    model = onnx.load(path)
    removed = clean(model) if recipe.clean_export else {}
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return removed


def file_sizes(exports: dict[str, dict]) -> pd.DataFrame:
    """Size of what exports consist of: arm (`int8, ONNX`), part, mb. `exports` are contents of `export.json` by name."""
    kinds = {"ONNX": ".onnx", "OpenVINO weights": ".bin"}
    rows = [
        {"arm": f"{name}, {kind}", "part": part, "mb": facts["files"][part + ending]["bytes"] / 1e6}
        for name, facts in exports.items()
        for kind, ending in kinds.items()
        for part in ("encoder", "decoder")
    ]
    return pd.DataFrame(rows)


def read_export(folder: str | Path) -> dict:
    """The description of an export, checked against the files beside it.

    Raises:
        ExportError: no `export.json`, another format, or a file missing or changed since.
    """
    folder = Path(folder)
    path = folder / "export.json"
    if not path.is_file():
        raise ExportError(f"{path}: no such file; expected a folder written by `python -m qmsam_core.deploy.export`")
    try:
        facts = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ExportError(f"{path}: not JSON ({error}); export again") from error
    if facts.get("format") != FORMAT:
        raise ExportError(f"{path}: format {facts.get('format')!r}, expected {FORMAT}; export again")
    for name, file in facts["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != file["sha256"]:
            raise ExportError(f"{folder / name}: missing or changed since the export; export again")
    return facts


def model_to_export(name: str, checkpoint: str | None, recipe_name: str, seed: int = 0) -> tuple[Sam, str]:
    """The model of the command line, and a sentence on where its weights come from.

    A checkpoint of this study that is quantised already keeps its own recipe; a float one is quantised by post-training statistics on seeded
    noise, which is enough to measure speed and sizes and says so.
    """
    recipe = find_recipe(recipe_name)
    try:
        quantised = bool(checkpoint) and bool(describe_model(checkpoint)["parts"])
    except CheckpointError:
        quantised = False
    if quantised:
        return load_model(checkpoint), f"checkpoint {Path(checkpoint).name}, sha256 {sha256(checkpoint)}"
    model = build_model(name, checkpoint=checkpoint, seed=seed)
    origin = (
        f"checkpoint {Path(checkpoint).name}, sha256 {sha256(checkpoint)}"
        if checkpoint
        else f"random weights, seed {seed}"
    )
    if recipe.quantised:
        generator = torch.Generator().manual_seed(seed)
        box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * model.image_size
        model = quantize(model, recipe)
        calibrate(
            model, lambda m, x: m(x, box), [torch.rand(1, 3, model.image_size, model.image_size, generator=generator)]
        )
        origin += "; activation scales from one image of noise: for speed and size only"
    return model.eval(), origin


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring. Exit code 2 with one line on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.deploy.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, choices=["litemedsam", "medsam", "nano"])
    parser.add_argument(
        "--checkpoint", help="float .pth or .safetensors; a quantised checkpoint of this study keeps its own recipe"
    )
    parser.add_argument("--recipe", default="paper", choices=list(RECIPES))
    parser.add_argument("-o", "--output", required=True, type=Path)
    options = parser.parse_args(arguments)
    try:
        model, origin = model_to_export(options.model, options.checkpoint, options.recipe)
        facts = export_model(model, options.output, origin)
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    for name, file in facts["files"].items():
        print(f"{options.output / name}  {file['bytes'] / 1e6:.2f} MB")
    print(f"weights: {origin}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
