r"""Export a model to files that an engine runs, with a description beside them.

    python -m qmsam_core.deploy.export --model litemedsam --recipe paper -o exported/

Encoder, decoder and, in the fast style, the part `prepare` between them are written as ONNX (QCDQ where
quantised) and as OpenVINO IR. A float model is quantised with your own images, some thirty of them, npz cases
with boxes or labels; others of them tell how far its masks agree with the float model's:

    python -m qmsam_core.deploy.export --model litemedsam --checkpoint FILE \
        --recipe deploy --calibrate cases/ -o exported/

`--checkpoint int8` is the project's own int8 model, ready made (`deploy.ship`):

    python -m qmsam_core.deploy.export --model litemedsam --checkpoint int8 -o exported/
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from ..data.preprocessing import PREPROCESSING
from ..models import (
    CONFIGS,
    PUBLIC,
    SHIPPED,
    CheckpointError,
    Sam,
    build_model,
    checkpoint_path,
    weights_hash,
)
from ..provenance.files import sha256
from ..provenance.imported_modules import modules_digest
from ..quant import RECIPES, Recipe, calibrate, describe_model, find_recipe, load_model, quantize, save_model
from ..quant.scales import inactive_quantisers
from .exported import FLOAT, FORMAT, FROM_NOISE, REWRITTEN, WRITERS, ExportError, put_in_place, read_export
from .graph_files import OPSET, write_ir, write_onnx, write_qonnx
from .graphs import STYLES, parts_of

RANDOM = "random"
LIBRARY = Path(__file__).parents[1]
SHAPING = (
    "deploy/export.py",
    "deploy/graph_files.py",
    "deploy/graphs.py",
    "deploy/rewrites/",
    "models/",
    "quant/",
)
"""Modules of the library that shape an export. Importing this module reaches others too, such as those of
data and engines. They do not change the files of an export."""


def export_model(
    model: Sam, folder: str | Path, origin: str = "", style: str | None = None, qonnx: bool = False
) -> dict:
    """Write a model's parts, its weights and a description to a folder.

    Each part is written as `<part>.onnx`, `<part>.xml` and `<part>.bin`, the weights as `model.safetensors`
    and the description as `export.json`. The description is written last.

    Args:
        model: float, or quantised and calibrated, in evaluation mode.
        folder: made if absent. Existing files of these names are replaced, each in one step.
        origin: where the weights come from, kept in `export.json`.
        style: one of `graphs.STYLES`. None takes `fast`, or `released` for the recipe of that name.
        qonnx: also write `<part>.qonnx` in Brevitas' dialect for FINN, from the graphs as they are traced.

    Returns:
        The content of `export.json`: sizes, recipe with its settings, style, SHA-256 and bytes of every file,
        hash of the weights, versions of what made it (`exporter`), and what the clean-up removed.

    Raises:
        ExportError: the recipe has more than 8 bits and the style is one of `REWRITTEN`; a quantiser is
            switched off or has no scale yet.
        ValueError: the style is unknown.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    recipe, style = recipe_of(model), style or style_of(model)
    if style in REWRITTEN and max(recipe.weight_bits or 0, recipe.activation_bits or 0) > 8:
        raise ExportError(f"recipe {recipe.name!r} has more than 8 bits; export it with style 'clean'")
    if idle := inactive_quantisers(model):
        raise ExportError(
            f"{len(idle)} quantisers of recipe {recipe.name!r} are off or have no scale yet, "
            f"{idle[0]} first; calibrate the model before it is exported"
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        work = Path(scratch)
        removed = {}
        for part in parts_of(model, style):
            removed[part.name] = write_onnx(part, work, style)
            write_ir(part, work, one_at_a_time=style in REWRITTEN)
        if qonnx:
            write_qonnx(model, work)
        save_model(model, work / "model.safetensors", origin=origin)
        facts = {
            "format": FORMAT,
            **made_from(model, origin, style),
            "mask_size": model.mask_size,
            "opset": OPSET,
            "removed": removed,
        }
        return put_in_place(work, folder, facts)


def export_if_stale(model: Sam, folder: str | Path, origin: str = "", style: str | None = None) -> dict:
    """Export as `export_model` does, unless the folder already holds the same export, undamaged.

    It is the same if weights and their origin, recipe, size, style and exporter are the same.
    """
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


def export_checkpoint(
    path: str | Path, folder: str | Path, origin: str = "", style: str | None = None
) -> dict:
    """Export a model that `save_model` wrote, as `export_if_stale` does."""
    return export_if_stale(load_model(path), folder, origin, style)


def recipe_of(model: Sam) -> Recipe:
    """Return the recipe by which a model was quantised, or the recipe `float` if it was not."""
    return getattr(model, "recipe", None) or find_recipe("float")


def style_of(model: Sam) -> str:
    """Return the style in which a model is exported by default."""
    return "fast" if recipe_of(model).clean_export else "released"


def made_from(model: Sam, origin: str, style: str) -> dict:
    """Return what an export is made from, as kept in `export.json`. Equal values give the same export."""
    recipe = recipe_of(model)
    return {
        "model": model.config.name,
        "image_size": model.image_size,
        "frame": model.frame,
        "preprocessing": model.preprocessing,
        "recipe": recipe.name,
        "settings": json.loads(json.dumps(asdict(recipe))),
        "style": style,
        "parts": list(getattr(model, "quantised_parts", ())),
        "origin": origin,
        "weights": weights_hash(model),
        "exporter": exporter(),
    }


@cache
def exporter() -> dict[str, str]:
    """Return what an export depends on besides the model.

    This is the version of each of `WRITERS`, and `modules`, the digest of the library's own code.
    """
    modules = modules_digest(f"import {LIBRARY.name}.deploy.export", LIBRARY, SHAPING)
    return {"modules": modules, **{name: version(name) for name in WRITERS}}


def model_to_export(
    name: str,
    checkpoint: str | None,
    recipe_name: str,
    seed: int = 0,
    depth: int | None = None,
    image_size: int | None = None,
    calibration: Callable[[Sam], str] | None = None,
    frame: int | None = None,
    preprocessing: str | None = None,
) -> tuple[Sam, str]:
    """Return the model that the command line asks for, and a text on where its weights come from.

    A quantised checkpoint of this study keeps its own recipe. A float one is quantised after training.
    Without `calibration` its activation scales come from one image of seeded noise. That is enough to measure
    speed and size, and the text says so.

    Args:
        name: a key of `CONFIGS`.
        checkpoint: `public`, `int8`, a file, or None for random weights.
        recipe_name: a key of `RECIPES`, for float checkpoints and random weights.
        seed: seed of the random weights and of the noise.
        depth: see `build_model`.
        image_size: see `build_model`.
        calibration: sets the activation scales of a freshly quantised model, and returns a text on how.
        frame: see `build_model`.
        preprocessing: see `build_model`.

    Raises:
        ExportError: the checkpoint is quantised, and another frame or preprocessing is asked for.
        ValueError: the network cannot have this size.
    """
    recipe = find_recipe(recipe_name)
    path = checkpoint_path(checkpoint, name) if checkpoint else None
    if path is not None and is_quantised(path):
        if frame or preprocessing:
            raise ExportError(
                f"{path.name}: is quantised for its own input; --frame and --preprocessing are for "
                "float checkpoints, which are quantised with them (--calibrate)"
            )
        own = describe_model(path)["image_size"]
        other = f"; at {image_size} px, with the scales of {own} px" if image_size not in (None, own) else ""
        return load_model(path, image_size), f"checkpoint {path.name}, sha256 {sha256(path)}{other}"
    model = build_model(name, image_size, path, seed, depth, frame, preprocessing)
    origin = (
        f"random weights, seed {seed}" if path is None else f"checkpoint {path.name}, sha256 {sha256(path)}"
    )
    if depth is not None:
        origin += f"; {depth} of {CONFIGS[name].encoder.depth} blocks"
    if recipe.quantised and calibration is not None:
        model = quantize(model, recipe)
        origin += f"; {calibration(model)}"
    elif recipe.quantised:
        model = quantize(model, recipe)
        calibrate_on_noise(model, seed)
        origin += f"; {FROM_NOISE}"
    return model.eval(), origin


def calibrate_on_noise(model: Sam, seed: int) -> None:
    """Set the activation scales of a freshly quantised model from one image of noise, for its speed alone."""
    generator = torch.Generator().manual_seed(seed)
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * model.frame
    image = torch.rand(1, 3, model.image_size, model.image_size, generator=generator)
    calibrate(model, lambda m, x: m(x, box), [image])


def is_quantised(path: Path) -> bool:
    """Test whether a file is a quantised model of this study."""
    try:
        return bool(describe_model(path)["parts"])
    except CheckpointError:
        return False


def arguments_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line, with its help."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.deploy.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, choices=list(CONFIGS))
    parser.add_argument(
        "--checkpoint",
        help=f"{PUBLIC} (the default for litemedsam), {RANDOM} (the default for medsam), "
        f"{SHIPPED} (the project's quantised litemedsam), or a float .pth or .safetensors; "
        "a quantised checkpoint of this study keeps its own recipe",
    )
    parser.add_argument("--recipe", default="paper", choices=list(RECIPES))
    size = "side of the input in px (default: the network's own)"
    parser.add_argument("--size", type=int, metavar="PX", help=size)
    parser.add_argument("--frame", type=int, metavar="PX", help="side of the square in which boxes are given")
    parser.add_argument(
        "--preprocessing",
        choices=list(PREPROCESSING),
        help="how images become inputs (default: the network's own); as the weights were trained",
    )
    parser.add_argument(
        "--style", choices=list(STYLES), help="; ".join(f"{name}: {text}" for name, text in STYLES.items())
    )
    parser.add_argument(
        "--qonnx", action="store_true", help="also write <part>.qonnx, Brevitas' dialect for FINN"
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FOLDER",
        help="npz cases, in subfolders by modality or not: half set the scales, the others are judged",
    )
    parser.add_argument(
        "--with-float",
        action="store_true",
        help=f"also export the float model, to {FLOAT}/ in the output: predict takes it where it is quicker",
    )
    parser.add_argument("-o", "--output", required=True, type=Path)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns the exit code, 2 on bad input."""
    options = arguments_parser().parse_args(arguments)
    try:
        checkpoint = options.checkpoint or (PUBLIC if options.model == "litemedsam" else RANDOM)
        checkpoint = None if checkpoint == RANDOM else checkpoint
        path = checkpoint and checkpoint_path(checkpoint, options.model)
        if options.with_float and path and is_quantised(path):
            raise ExportError(f"--with-float: {path.name} is quantised; expected a float checkpoint")
        own = None
        if options.calibrate is not None:
            if not find_recipe(options.recipe).quantised:
                raise ExportError("--calibrate: the recipe `float` has no scales; give another --recipe")
            from .own_images import OwnImages  # it draws, and loading that takes longer than most exports

            own = OwnImages(options.calibrate)
        shape = {"image_size": options.size, "frame": options.frame, "preprocessing": options.preprocessing}
        model, origin = model_to_export(
            options.model, checkpoint, options.recipe, calibration=own and own.calibrate, **shape
        )
        facts = export_model(model, options.output, origin, options.style, options.qonnx)
        print(f"style: {facts['style']}, {STYLES[facts['style']]}")
        for name, file in facts["files"].items():
            print(f"{options.output / name}  {file['bytes'] / 1e6:.2f} MB")
        print(f"weights: {origin}")
        if options.with_float:
            plain, source = model_to_export(options.model, checkpoint, "float", **shape)
            export_model(plain, options.output / FLOAT, source)
            print(f"{options.output / FLOAT}: the float model, which predict takes where it is quicker")
        if own is not None:
            own.report(build_model(options.model, checkpoint=checkpoint, **shape), model, options.output)
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
