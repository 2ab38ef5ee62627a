r"""Compare methods of the literature and our recipe at several bit widths, on one's own images.

    python -m qmsam_core.study.literature cases/ --widths W8A8 W4A8 -o literature.csv
    python -m qmsam_core.study.literature cases/ --cures --widths W8A8 -o cures.csv

The second compares our recipe without each of its cures, and with each alone. `--exports FOLDER` exports each
at 8 bits and times the encoders on OpenVINO, interleaved.

Half of the cases calibrate, one slice of each, and the other half judge. The models are simulated in PyTorch,
with fake quantisation, so that all widths are comparable. The reference is the float model. Labels are needed
for the DSC alone. Every row is written as soon as it is known. Rows that the table already has are kept.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.boxed_slices import CALIBRATION, BoxedSlice, divide, slices_of
from ..data.transforms import Geometry
from ..deploy.engines import open_engine
from ..deploy.export import export_model
from ..deploy.own_images import BOXES, dsc_of, segmented
from ..models import CONFIGS, PUBLIC, Sam, build_model
from ..provenance.files import write_atomic
from ..quant import RECIPES, Recipe, quantize
from ..quant.calibration import calibrate_on
from ..quant.scales import inactive_quantisers
from ..quant.sensitivity import mask_agreement, signal_to_noise
from ..quant.variants import METHODS, START, VARIANTS, at_width
from ..timing.interleaved import measure_interleaved

COMPARED = {"start": START, **METHODS, "deploy": RECIPES["deploy"]}
"""Recipes by the name of their method: what all methods start from, the methods, and ours."""
CURES = {
    "paper": RECIPES["paper"],
    "deploy": RECIPES["deploy"],
    **{variant.name: variant.recipe for variant in VARIANTS if variant.family == "cures"},
}
"""The same for `--cures`."""
WIDTHS = ("W8A8", "W6A6", "W4A8", "W4A4")
GOOD = 0.8  # DSC from which the float model is good; elsewhere masks of another shape can score as well
KEY = ["method", "width"]


@dataclass(frozen=True)
class Expected:
    """What the float model makes of one slice.

    Attributes:
        source: the slice.
        image: (1, 3, S, S) float32.
        boxes: (n, 4) in model px.
        geometry: leads back to the slice.
        embedding: (1, C, g, g).
        masks: bool (n, H, W), on the slice.
        dsc: DSC with the label, one value a box; NaN where there is none.
    """

    source: BoxedSlice
    image: Tensor
    boxes: Tensor
    geometry: Geometry
    embedding: Tensor
    masks: np.ndarray
    dsc: list[float]


def expected(model: Sam, slices: Sequence[BoxedSlice]) -> list[Expected]:
    """Run the float model on slices and their largest boxes."""
    found = []
    for one in slices:
        image, boxes, geometry = one.inputs(model)
        image, boxes = torch.from_numpy(image)[None], torch.from_numpy(boxes[:BOXES])
        embedding, masks = segmented(model, image, boxes, geometry)
        dsc = dsc_of(masks, one.labels)
        found.append(Expected(one, image, boxes, geometry, embedding, masks, dsc))
    return found


def judged(model: Sam, references: Sequence[Expected]) -> dict:
    """Compare a quantised model with the float model.

    Returns:
        agreement: mean over groups of the Dice with the float masks, 0..1.
        lowest: the lowest group's, and `weakest`, its name.
        dsc lost: float's DSC minus the quantised model's, 0..1, mean over groups where float has `GOOD` or
            more, and `most lost`, the largest of these. NaN without labels.
        db: mean over slices of the embedding's signal-to-quantisation-noise ratio.
    """
    objects, noise = [], []
    for one in references:
        embedding, masks = segmented(model, one.image, one.boxes, one.geometry)
        agreement = mask_agreement(*map(torch.from_numpy, (one.masks, masks))).tolist()
        for scores in zip(agreement, one.dsc, dsc_of(masks, one.source.labels)):
            objects.append((one.source.group, *scores))
        noise.append(signal_to_noise(one.embedding, embedding))
    table = pd.DataFrame(objects, columns=["group", "agreement", "float", "quantised"])
    means = table.groupby("group").mean()
    good = means[means["float"] >= GOOD]
    lost = good["float"] - good["quantised"]
    return {
        "agreement": means["agreement"].mean(),
        "lowest": means["agreement"].min(),
        "weakest": means["agreement"].idxmin(),
        "dsc lost": lost.mean(),
        "most lost": lost.max(),
        "db": float(np.mean(noise)),
    }


def export_of(recipe: Recipe) -> str:
    """Say how an engine gets a recipe's model: in int8, and with what beside it."""
    beside = {
        "a zero point a layer": recipe.zero_point,
        "a Mul a layer": recipe.channel_factors,
        "an Add a layer": recipe.noise,
    }
    if max(recipe.weight_bits, recipe.activation_bits) > 8:
        return "no, more than 8 bits"
    return ", ".join(["int8", *(name for name, there in beside.items() if there)])


def rows(
    float_model: Sam,
    calibration: Sequence[BoxedSlice],
    judging: Sequence[BoxedSlice],
    wanted: Sequence[tuple[str, str]],
    exports: Path | None = None,
) -> Iterator[dict]:
    """Yield a row of the table for each wanted method and width. Export those of 8 bits below `exports`.

    Returns:
        method, width, what `judged` returns, seconds to calibrate, export (see `export_of`), slices that
        judge, and how it was judged: `simulated`.

    Raises:
        ValueError: a width has another form, see `at_width`.
    """
    references = expected(float_model, judging)
    for method, width in wanted:
        recipe = at_width((COMPARED | CURES)[method], width)
        model = quantize(float_model, recipe)
        start = time.perf_counter()
        calibrate_on(model, calibration)
        seconds = time.perf_counter() - start
        if idle := inactive_quantisers(model):
            raise ValueError(f"{method} at {width}: quantiser {idle[0]} is off or has no scale")
        if exports is not None and width == "W8A8":
            export_model(
                model.eval(), folder_of(exports, method), "calibrated by qmsam_core.study.literature"
            )
        yield {
            "method": method,
            "width": width,
            **judged(model.eval(), references),
            "seconds": seconds,
            "export": export_of(recipe),
            "slices": len(judging),
            "judged": "simulated",
        }


def folder_of(exports: Path, method: str) -> Path:
    """Folder of a method's export."""
    return exports / re.sub(r"\W+", "_", method)


def not_exported(exports: Path | None, method: str, width: str) -> bool:
    """Whether an export is asked for and missing."""
    return (
        exports is not None and width == "W8A8" and not (folder_of(exports, method) / "export.json").exists()
    )


def timed(folders: Mapping[str, Path], runs: int = 15) -> pd.Series:
    """Time the encoders of exports in turn, on all threads. Returns the medians in ms, by the keys."""
    calls = {}
    for name, folder in folders.items():
        engine = open_engine("openvino", folder, os.cpu_count())
        image = np.random.default_rng(0).random((1, 3, engine.image_size, engine.image_size), np.float32)
        calls[name] = partial(engine.embed, image)
    return measure_interleaved(calls, runs).set_index("arm")["median_ms"]


def known(path: Path, slices: int) -> pd.DataFrame:
    """Read the rows that a table already has; an empty table if there is none.

    Raises:
        ValueError: it is another table, or was judged on another number of slices.
    """
    if not path.exists():
        return pd.DataFrame(columns=[*KEY, "slices"])
    table = pd.read_csv(path)
    if not {*KEY, "slices"} <= set(table):
        raise ValueError(f"{path}: has no columns {', '.join(KEY)}, slices; expected a table of this command")
    if len(table) and set(table["slices"]) != {slices}:
        raise ValueError(
            f"{path}: judged on {table['slices'].iloc[0]} slices, now {slices}; give another output file"
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.study.literature",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="npz cases, in subfolders by modality or not")
    parser.add_argument("--model", default="litemedsam", choices=list(CONFIGS))
    parser.add_argument("--checkpoint", help=f"{PUBLIC} (the default for litemedsam), or a float checkpoint")
    parser.add_argument("--widths", nargs="+", default=list(WIDTHS), help="bits of weights and activations")
    parser.add_argument("--methods", nargs="+", choices=list(COMPARED), help="all by default")
    parser.add_argument("--cures", action="store_true", help="our recipe's cures instead of the methods")
    parser.add_argument(
        "--slices",
        type=int,
        default=CALIBRATION,
        help=f"slices that judge, and slices that calibrate, at most {CALIBRATION}, the default",
    )
    parser.add_argument("--exports", type=Path, help="export each at 8 bits to here, and time the encoders")
    parser.add_argument("-o", "--output", required=True, type=Path, help="table, .csv")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns the exit code, 2 on bad input."""
    options = _parser().parse_args(arguments)
    checkpoint = options.checkpoint or (PUBLIC if options.model == "litemedsam" else None)
    try:
        for width in options.widths:
            at_width(START, width)
        slices, left_out = slices_of(options.folder)
        for line in left_out:
            print(f"left out: {line}", file=sys.stderr)
        calibration, judging = (part[: max(1, options.slices)] for part in divide(slices))
        table = known(options.output, len(judging))
        done = set(table[KEY].itertuples(index=False, name=None))
        methods = list(CURES) if options.cures else options.methods or list(COMPARED)
        pairs = [(method, width) for width in options.widths for method in methods]
        wanted = [pair for pair in pairs if pair not in done or not_exported(options.exports, *pair)]
        print(
            f"{len(calibration)} slices calibrate, {len(judging)} judge; {len(wanted)} of {len(pairs)} rows "
            "are missing",
            file=sys.stderr,
            flush=True,
        )
        float_model = build_model(options.model, checkpoint=checkpoint).eval()
        for number, row in enumerate(rows(float_model, calibration, judging, wanted, options.exports), 1):
            others = table[~(table[KEY] == [row[key] for key in KEY]).all(axis=1)]
            table = pd.concat([*([others] if len(others) else []), pd.DataFrame([row])], ignore_index=True)
            write_atomic(options.output, lambda path, table=table: table.to_csv(path, index=False))
            print(
                f"{number}/{len(wanted)} {row['method']} {row['width']}: agreement "
                f"{100 * row['agreement']:.1f} %, {row['db']:.1f} dB, {row['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        if options.exports:
            ms = timed({method: folder_of(options.exports, method) for method in methods})
            table["encoder ms"] = table["method"].map(ms).where(table["width"] == "W8A8")
            write_atomic(options.output, lambda path: table.to_csv(path, index=False))
    except (ValueError, OSError) as error:
        print(f"literature: {error}", file=sys.stderr)
        return 2
    shown = table.copy()
    shown[["agreement", "lowest", "dsc lost", "most lost"]] *= 100
    print(shown.round(1).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
