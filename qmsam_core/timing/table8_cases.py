"""Stand-ins for the cases of Table 8, which are not public: same size, and as many objects.

The time of a case depends on its size, its number of boxes and the slices they cross, not on what it shows.
Whole volumes, on exports of each pipeline's network (LiteMedSAM in float, in int8 of style `released`, ours):

    python -m qmsam_core.timing.table8_cases 3DBox_MR_0121 3DBox_PET_0001 --pipelines baseline=exports/float \
        authors=exports/int8_released ours=exports/int8 --precision bf16 -o seconds.csv
"""

import argparse
import os
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.cases import Case
from ..deploy.engines import has_bf16
from ..deploy.predictor import Predictor
from ..evaluate.paper_tables import PAPER, REP_MEDSAM
from ..provenance.files import write_atomic
from .interleaved import seconds_of
from .pipelines import PIPELINES, open_pipeline


def table8_cases(most_slices: int | None = None, most_pixels: float = np.inf) -> pd.DataFrame:
    """List the 14 cases, with columns case, shape, objects and slices (how many slices the boxes cross).

    The paper does not say how many slices its boxes cross. The number is estimated from the baseline's
    seconds, which are proportional to boxes times slices in a volume. The boxes of the case with the most
    seconds per box and slice are assumed to cross all slices. This case gives the rate for the others.

    Args:
        most_slices: upper limit of slices, to keep a run short. Times are proportional to it.
        most_pixels: leave out cases with more pixels times boxes times slices. That product is the work of
            resizing the masks to image size.
    """
    table = PAPER["table8"][["case", "objects", "seconds_baseline"]].copy()
    table["shape"] = [tuple(map(int, re.findall(r"\d+", size))) for size in PAPER["table8"]["size"]]
    volume = table["case"].str.startswith("3D")
    depth = table["shape"].str[0].where(volume, 1)
    seconds = table["seconds_baseline"] / table["objects"]
    rate = (seconds / depth)[volume].max()
    slices = (seconds / rate).round().clip(lower=1).where(volume, 1).astype(int)
    table["slices"] = slices.clip(upper=most_slices)
    sides = [
        shape[1] * shape[2] if is_volume else shape[0] * shape[1]
        for shape, is_volume in zip(table["shape"], volume)
    ]
    work = np.array(sides) * table["objects"] * table["slices"]
    return table.loc[work <= most_pixels, ["case", "shape", "objects", "slices"]].reset_index(drop=True)


def stand_in(case: str, shape: tuple[int, int, int], objects: int, slices: int) -> Case:
    """Make a case with bright ellipses on noise, one in each box. Boxes lie side by side.

    Args:
        case: name that begins with 2DBox or 3DBox.
        shape: (H, W, 3) or (D, H, W).
        objects: number of boxes.
        slices: number of slices in the middle that all boxes cross.
    """
    rng = np.random.default_rng(0)
    volume = case.startswith("3D")
    height, width = shape[1:] if volume else shape[:2]
    boxes = side_by_side(objects, height, width)
    plane = rng.integers(40, 80, (height, width), dtype=np.uint8)
    for x0, y0, x1, y1 in boxes:
        y, x = np.ogrid[y0 : y1 + 1, x0 : x1 + 1]
        inside = ((2 * x - x0 - x1) / (x1 - x0 + 1)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0 + 1)) ** 2 <= 1
        plane[y0 : y1 + 1, x0 : x1 + 1][inside] += 100
    if not volume:
        return Case(case, np.repeat(plane[..., None], 3, axis=2), boxes, None, np.ones(3))
    images = np.zeros(shape, np.uint8)
    first = (shape[0] - slices) // 2
    images[first : first + slices] = plane
    z = np.full(objects, first)
    return Case(
        case, images, np.column_stack([boxes[:, :2], z, boxes[:, 2:], z + slices - 1]), None, np.ones(3)
    )


def side_by_side(objects: int, height: int, width: int) -> np.ndarray:
    """Make boxes (objects, 4), each the middle two thirds of a grid cell, with inclusive maxima."""
    columns = max(1, round((objects * width / height) ** 0.5))
    rows = -(-objects // columns)
    cells = np.array([(k // columns, k % columns) for k in range(objects)])
    low = (cells + 1 / 6) * (height / rows, width / columns)
    high = (cells + 5 / 6) * (height / rows, width / columns) - 1
    return np.column_stack([low[:, 1], low[:, 0], high[:, 1], high[:, 0]]).astype(np.int64)


def running_time_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Make Table 8 with the paper's columns and ours side by side.

    Args:
        measured: one row per case and pipeline, with case, slices, pipeline (one of `PIPELINES`), seconds
            and maybe peak_mb.

    Returns:
        One row for each row of the paper, empty where nothing was measured. It has the seconds of each
        pipeline, and the speed-up of ours over the others.
    """
    wide = measured.pivot(index="case", columns="pipeline", values="seconds").reindex(columns=PIPELINES)
    here = pd.DataFrame({f"seconds {pipeline} here": wide[pipeline] for pipeline in PIPELINES})
    for pipeline in [name for name in PIPELINES if name != "ours"]:
        here[f"speed-up over {pipeline} here"] = wide[pipeline] / wide["ours"]
    if "peak_mb" in measured and measured["peak_mb"].notna().any():
        memory = measured.pivot(index="case", columns="pipeline", values="peak_mb").dropna(axis=1, how="all")
        here = here.assign(
            **{f"peak MB {pipeline} here": memory[pipeline] for pipeline in PIPELINES if pipeline in memory}
        )
    here.insert(0, "slices here", measured.groupby("case")["slices"].first())
    paper = PAPER["table8"].rename(
        columns={"seconds_baseline": "seconds baseline paper", "seconds_proposed": "seconds proposed paper"}
    )
    paper["speed-up paper"] = paper["seconds baseline paper"] / paper["seconds proposed paper"]
    return paper.merge(here.reset_index(), on="case", how="left").astype({"slices here": "Int64"})


def in_baselines(measured: pd.DataFrame) -> pd.DataFrame:
    """Put published times and ours on one scale: seconds over those of the baseline on the same machine.

    Args:
        measured: as for `running_time_table`. Cases without a time of the baseline are left out.

    Returns:
        One row a case, published or measured: case, then one column a system. Names of published systems end
        in `published`, those measured here in `here`. Below 1 is faster than the baseline.
    """
    published = PAPER["table8"][["case", "seconds_baseline", "seconds_proposed"]]
    columns = {"QMedSAM, published": published.set_index("case").eval("seconds_proposed / seconds_baseline")}
    others = REP_MEDSAM.set_index("case")
    for name in [column for column in others if column != "baseline"]:
        columns[f"{name}, published"] = others[name] / others["baseline"]
    wide = measured.pivot(index="case", columns="pipeline", values="seconds").reindex(columns=PIPELINES)
    for name in [name for name in PIPELINES if name != "baseline"]:
        columns[f"{name}, here"] = wide[name] / wide["baseline"]
    table = pd.DataFrame(columns).dropna(how="all")
    return table.reindex([case for case in published["case"] if case in table.index]).reset_index(
        names="case"
    )


def _pipeline(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if name not in PIPELINES or not folder:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=FOLDER, NAME of {', '.join(PIPELINES)}")
    return name, Path(folder)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, see above. Return 0, or 2 with one line on stderr for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.timing.table8_cases",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rows = table8_cases().set_index("case")
    parser.add_argument("cases", nargs="+", choices=list(rows.index), metavar="CASE")
    parser.add_argument("--pipelines", nargs="+", type=_pipeline, required=True, metavar="NAME=FOLDER")
    parser.add_argument(
        "--precision", default="f32", choices=("f32", "bf16"), help="OpenVINO's hint for ours"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "-o", "--output", type=Path, help="CSV: case, slices, boxes, seconds of each pipeline"
    )
    options = parser.parse_args(arguments)
    try:
        if options.precision == "bf16" and not has_bf16():
            raise ValueError("--precision bf16: this CPU has no bf16 arithmetic; expected f32")
        pipelines = {
            name: open_pipeline(name, folder, options.threads, options.precision)
            for name, folder in options.pipelines
        }
        for segmenter in pipelines.values():  # the first call also allocates
            segmenter.segment(stand_in("2DBox", (256, 256, 3), 1, 1))
            if isinstance(segmenter, Predictor):  # opened before the clock starts, as all engines are
                segmenter.engine.lanes()
        found = []
        for name in options.cases:
            case = stand_in(name, *rows.loc[name])
            seconds = {key: seconds_of(partial(one.segment, case)) for key, one in pipelines.items()}
            found.append({"case": name, "slices": rows["slices"][name], "boxes": len(case.boxes), **seconds})
            print(pd.DataFrame(found[-1:]).round(2).to_string(index=False), flush=True)
        if options.output:
            write_atomic(options.output, lambda path: pd.DataFrame(found).to_csv(path, index=False))
    except (ValueError, OSError) as error:
        print(f"table8_cases: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
