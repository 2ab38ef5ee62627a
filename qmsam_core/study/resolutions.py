"""LiteMedSAM on smaller inputs: accuracy and time at several sizes, in float and in int8, on the same slices.

    python -m qmsam_core.study.resolutions cases/ --sizes 128 192 256 --slices 66 -o resolutions/

The int8 model is the project's own. Its weights and scales are those of 256 px at every size.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from ..data.boxed_slices import BoxedSlice, slices_of
from ..data.index import SliceIndex
from ..data.index.groups import case_groups
from ..deploy.choice import choose
from ..deploy.engines import Engine, OpenVinoEngine
from ..deploy.export import export_model
from ..deploy.own_images import BOXES, dsc_of
from ..evaluate.agreement import mask_dice
from ..evaluate.intervals import paired_differences
from ..evaluate.resolutions_figure import resolutions_figure
from ..evaluate.tables import per_modality
from ..models import CONFIGS, PUBLIC, SHIPPED, build_model, checkpoint_path
from ..models.vit import ViTConfig
from ..provenance.files import write_atomic
from ..quant import load_model
from ..timing.engine_arms import one_box, timing_input
from ..timing.interleaved import measure_interleaved
from .modality_slices import modalities_of_run

FLOAT, INT8 = "float", "int8"
SIZES = (128, 192, 256)
STEP = 16
"""Sizes that a network can have are multiples of this, in px."""


def sizes_of(name: str, image_size: int) -> list[int]:
    """Return the sizes at which a run compares a network: half, three quarters and the whole of its side.

    Each is rounded up to what the network can have, at least 32 px. A plain ViT has its own size alone.
    """
    quarters = (4,) if isinstance(CONFIGS[name].encoder, ViTConfig) else (2, 3, 4)
    sides = (-(-image_size * share // (4 * STEP)) * STEP for share in quarters)
    return sorted({max(side, 2 * STEP) for side in sides})


def engines_at(
    sizes: Iterable[int], models: Mapping[str, Path], folder: Path, threads: int
) -> dict[tuple[str, int], Engine]:
    """Export models at every size, and open each in its quickest way on this CPU.

    Args:
        sizes: input sizes in px, multiples of 16.
        models: files saved by this study, by precision (`float`, `int8`); a float one may be a checkpoint.
        folder: for the exports.
        threads: threads for inference.

    Returns:
        Engines by precision and size.
    """
    engines = {}
    for size in sizes:
        for precision, path in models.items():
            place = folder / f"{precision}_{size}"
            saved = path.suffix == ".safetensors"
            model = load_model(path, size) if saved else build_model("litemedsam", size, path)
            export_model(model.eval(), place, origin=path.name)
            found = choose(place, threads, folder)
            engines[precision, size] = OpenVinoEngine(found.folder, threads, ways=found.ways)
    return engines


def scores_of(engines: Mapping[tuple[str, int], Engine], slices: Sequence[BoxedSlice]) -> pd.DataFrame:
    """Segment the same slices with every engine, and score the masks at the size of the slice.

    Returns:
        One row a slice and engine: precision, px, modality, case (names the slice), group (equal for slices
        of one patient or volume), dsc with the labels (mean over its objects, NaN without any) and agreement
        with float at the same size, both 0..1.
    """
    rows = []
    for one, group in zip(slices, _groups(slices)):
        masks = {}
        for key, engine in engines.items():
            image, boxes, geometry = one.inputs(engine)
            masks[key] = geometry.mask_to_image(engine.decode(engine.encode(image[None]), boxes[:BOXES]))
        for (precision, size), found in masks.items():
            scores = [score for score in dsc_of(found, one.labels) if score == score]
            agreement = [mask_dice(a, b) for a, b in zip(masks[FLOAT, size], found)]
            rows.append(
                {
                    "precision": precision,
                    "px": size,
                    "modality": one.group,
                    "case": one.name,
                    "group": group,
                    "dsc": np.mean(scores) if scores else np.nan,
                    "agreement": np.mean(agreement),
                }
            )
    return pd.DataFrame(rows)


def _groups(slices: Sequence[BoxedSlice]) -> list[str]:
    """Name the patient or volume of each slice, modality by modality, as the rules of names ask."""
    found = {}
    for modality in {one.group for one in slices}:
        own = [one.name for one in slices if one.group == modality]
        found |= dict(zip(own, case_groups([name.partition(", slice ")[0] for name in own])))
    return [found[one.name] for one in slices]


def timings_of(engines: Mapping[tuple[str, int], Engine], runs: int, seed: int = 0) -> pd.DataFrame:
    """Time the encoder alone, and an image and a box, of all engines in one interleaved run.

    Returns:
        precision, px, `ms` (an image and a box), `ms encoder`, and `encoder runs in`, the engine's way.
    """
    calls = {}
    for (precision, size), engine in engines.items():
        image, box = timing_input(engine.image_size, seed, engine.frame)
        calls[f"{precision} {size}"] = partial(one_box, engine, image, box)
        calls[f"{precision} {size}, encoder"] = partial(engine.embed, image)
    ms = measure_interleaved(calls, runs).set_index("arm")["median_ms"]
    return pd.DataFrame(
        {
            "precision": precision,
            "px": size,
            "ms": ms[f"{precision} {size}"],
            "ms encoder": ms[f"{precision} {size}, encoder"],
            "encoder runs in": str(engine.ways["encoder"]),
        }
        for (precision, size), engine in engines.items()
    )


def table_of(scores: pd.DataFrame, timings: pd.DataFrame) -> pd.DataFrame:
    """Summarise: one row a size and precision, the largest size first.

    Returns:
        The columns of `timings_of`; dsc and agreement (means of modalities, 0..1); and the difference of the
        dsc to float at the largest size with its 95 % interval, `difference low` to `difference high`.

    Raises:
        ValueError: no slice has labels.
    """
    if scores["dsc"].isna().all():
        raise ValueError(
            f"none of {scores['case'].nunique()} slices has labels; the DSC needs cases with some"
        )
    of_arm = {key: own for key, own in scores.groupby(["px", "precision"])}
    reference = of_arm[scores["px"].max(), FLOAT]
    rows = []
    for (size, precision), own in sorted(of_arm.items(), key=lambda item: (-item[0][0], item[0][1])):
        means = per_modality(own.drop(columns=["precision", "px"])).iloc[-1]
        paired = paired_differences(own, reference).iloc[-1]
        rows.append(
            {
                "px": size,
                "precision": precision,
                "dsc": means["dsc"],
                "agreement": means["agreement"],
                "difference": paired["difference"],
                "difference low": paired["difference_low"],
                "difference high": paired["difference_high"],
            }
        )
    table = timings.merge(pd.DataFrame(rows)).sort_values(["px", "precision"], ascending=[False, True])
    return table.reset_index(drop=True)


def by_modality(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean DSC in % of each modality and their average: a row a modality, a column a precision and size."""
    arms = scores.assign(arm=scores["precision"] + " " + scores["px"].astype(str))
    means = per_modality(arms.drop(columns=["precision", "px"]))
    wide = means.pivot_table(index="modality", columns="arm", values="dsc", sort=False)
    return (100 * wide[list(dict.fromkeys(arms["arm"]))]).reset_index()


def resolutions_of_run(
    folder: Path, models: Mapping[str, Path], sizes: Sequence[int], scratch: Path, threads: int, runs: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `scores_of` and `timings_of` for a run: at most four slices of each modality of its evaluation.

    `folder` is that of notebook 00, which holds the indices.
    """
    indices = (SliceIndex.load(folder / f"index_{part}.npz") for part in ("train", "evaluation"))
    modalities = modalities_of_run(*indices, slices=4, count=99)
    engines = engines_at(sizes, models, scratch, threads)
    slices = [one for modality in modalities.values() for one in modality.judging]
    return scores_of(engines, slices), timings_of(engines, runs)


def run(options: argparse.Namespace) -> pd.DataFrame:
    """Compare the sizes on a folder of cases, and write tables and picture. Returns `table_of`'s rows."""
    slices, left_out = slices_of(options.folder, options.slices)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    models = {FLOAT: checkpoint_path(PUBLIC), INT8: checkpoint_path(SHIPPED)}
    with TemporaryDirectory() as scratch:
        engines = engines_at(options.sizes, models, Path(scratch), options.threads)
        print(f"segmenting {len(slices)} slices with {len(engines)} models", file=sys.stderr, flush=True)
        scores, timings = scores_of(engines, slices), timings_of(engines, options.runs)
    table = table_of(scores, timings)
    options.output.mkdir(parents=True, exist_ok=True)
    tables = {"resolutions": table, "resolutions_by_modality": by_modality(scores)}
    for name, found in tables.items():
        write_atomic(options.output / f"{name}.csv", partial(found.to_csv, index=False))
    figure = resolutions_figure(table, tables["resolutions_by_modality"])
    write_atomic(options.output / "resolutions.png", partial(figure.savefig, format="png"))
    print(table.round(3).to_string(index=False))
    print(tables["resolutions_by_modality"].round(1).to_string(index=False))
    return table


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns the exit code, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.study.resolutions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="npz cases with labels, in subfolders by modality")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, metavar="PX", help=f"multiples of {STEP}"
    )
    parser.add_argument("--slices", type=int, default=66, help="of as many cases (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=11, help="rounds that are timed")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for the tables and the picture"
    )
    try:
        run(parser.parse_args(arguments))
    except (ValueError, OSError) as error:
        print(f"resolutions: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
