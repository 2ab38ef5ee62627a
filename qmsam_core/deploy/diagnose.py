"""Show where a recipe loses, block by block, on one's own images.

    python -m qmsam_core.deploy.diagnose --recipe paper cases/
    python -m qmsam_core.deploy.diagnose --model efficientvit_sam_l0 --also-int8 q_product cases/

The second quantises modules too that the recipe leaves in float. Networks without a checkpoint have random
weights, and batch norms settled on the calibration slices.

Half of at most 66 cases calibrate. On one slice of each group of the others, every block of the quantised
model is put alone into the float model, and the whole quantised model is followed from block to block.
Decibels are signal-to-quantisation-noise ratios, agreement is the Dice with the float model's masks. The last
line is of the whole, and tells how much of the noise is the weights'.
"""

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..data.boxed_slices import divide, slices_of
from ..models import CONFIGS, PUBLIC, build_model
from ..models.borrowed import settle
from ..quant import RECIPES, Recipe, find_recipe, quantize
from ..quant.calibration import calibrate_on
from ..quant.sensitivity import embedding_noise, sensitivity, whole_agreement


def recipe_of(name: str, also_int8: re.Pattern | None) -> Recipe:
    """Return a recipe that leaves in float what the named one does, but for names that have the pattern."""
    recipe = find_recipe(name)
    if also_int8 is None:
        return recipe
    kept = tuple(module for module in recipe.in_float if not also_int8.search(module))
    return replace(recipe, name=f"{name}, also int8", in_float=kept)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns the exit code, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.deploy.diagnose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="npz cases, in subfolders by modality or not")
    parser.add_argument("--model", default="litemedsam", choices=list(CONFIGS))
    parser.add_argument("--checkpoint", help=f"{PUBLIC} (the default for litemedsam), or a float checkpoint")
    parser.add_argument("--recipe", default="deploy", choices=[n for n, r in RECIPES.items() if r.quantised])
    parser.add_argument(
        "--also-int8",
        type=re.compile,
        metavar="PATTERN",
        help="quantise modules whose name has this, if the recipe leaves them in float",
    )
    parser.add_argument("--size", type=int, help="side of the network's input in px (default: its own)")
    parser.add_argument("--whole", action="store_true", help="measure the whole alone, not block by block")
    options = parser.parse_args(arguments)
    checkpoint = options.checkpoint or (PUBLIC if options.model == "litemedsam" else None)
    try:
        slices, left_out = slices_of(options.folder)
        for line in left_out:
            print(f"left out: {line}", file=sys.stderr)
        calibration, judging = divide(slices)
        float_model = build_model(options.model, options.size, checkpoint).eval()
        if checkpoint is None:
            settle(float_model, torch.from_numpy(np.stack([s.inputs(float_model)[0] for s in calibration])))
        model = quantize(float_model, recipe_of(options.recipe, options.also_int8))
        print(f"calibrating on {len(calibration)} slices", file=sys.stderr, flush=True)
        calibrate_on(model, calibration)
    except (ValueError, OSError) as error:
        print(f"diagnose: {error}", file=sys.stderr)
        return 2
    one_of_each = list({one.group: one for one in judging}.values())
    batches = []
    for one in one_of_each:
        image, boxes, _ = one.inputs(model)
        batches.append({"image": torch.from_numpy(image)[None], "box": torch.from_numpy(boxes[:1])})
    model.eval()
    if not options.whole:
        print(f"measuring {len(batches)} slices, about a minute each", file=sys.stderr, flush=True)
        table = sensitivity(float_model, model, batches)
        table["alone agreement"] *= 100
        print(table.round(1).to_string(index=False))
    whole, weights = embedding_noise(float_model, model, batches)
    share = 100 * 10 ** ((whole - weights) / 10)
    print(
        f"agreement {100 * whole_agreement(float_model, model, batches):.1f} %; "
        f"embedding: {whole:.1f} dB, with activations in float {weights:.1f} dB; "
        f"the weights make {share:.0f} % of the noise"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
