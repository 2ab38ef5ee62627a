"""Show where a recipe loses, block by block, on one's own images.

    python -m qmsam_core.deploy.diagnose --recipe paper cases/

Half of at most 66 cases calibrate. On one slice of each group of the others, every block of the quantised
model is put alone into the float model, and the whole quantised model is followed from block to block.
Decibels are signal-to-quantisation-noise ratios, agreement is the Dice with the float model's masks. The last
line tells how much of the noise is the weights'.
"""

import argparse
import sys
from pathlib import Path

import torch

from ..data.boxed_slices import divide, slices_of
from ..models import CONFIGS, PUBLIC, build_model
from ..quant import RECIPES, quantize
from ..quant.calibration import calibrate_on
from ..quant.sensitivity import embedding_noise, sensitivity


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
    options = parser.parse_args(arguments)
    checkpoint = options.checkpoint or (PUBLIC if options.model == "litemedsam" else None)
    try:
        slices, left_out = slices_of(options.folder)
        for line in left_out:
            print(f"left out: {line}", file=sys.stderr)
        calibration, judging = divide(slices)
        float_model = build_model(options.model, checkpoint=checkpoint).eval()
        model = quantize(float_model, options.recipe)
        print(f"calibrating on {len(calibration)} slices", file=sys.stderr, flush=True)
        calibrate_on(model, calibration)
    except (ValueError, OSError) as error:
        print(f"diagnose: {error}", file=sys.stderr)
        return 2
    one_of_each = list({one.group: one for one in judging}.values())
    batches = []
    for one in one_of_each:
        image, boxes, _ = one.inputs(model.image_size)
        batches.append({"image": torch.from_numpy(image)[None], "box": torch.from_numpy(boxes[:1])})
    print(f"measuring {len(batches)} slices, about a minute each", file=sys.stderr, flush=True)
    table = sensitivity(float_model, model.eval(), batches)
    table["alone agreement"] *= 100
    print(table.round(1).to_string(index=False))
    whole, weights = embedding_noise(float_model, model, batches)
    share = 100 * 10 ** ((whole - weights) / 10)
    print(
        f"embedding: {whole:.1f} dB, with activations in float {weights:.1f} dB; "
        f"the weights make {share:.0f} % of the noise"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
