"""Table 8: the paper's cases are not public, so cases of the same size with as many objects stand in for them.

The time of a case depends on its size, on the number of its boxes and on the slices they cross, not on what it shows.
"""

import re

import numpy as np
import pandas as pd

from ..data.cases import Case
from ..evaluate.paper_tables import PAPER

WAYS = ("baseline", "authors", "ours")
"""PyTorch in float as the challenge's baseline does it; int8 on OpenVINO as the authors' script does it; int8 on OpenVINO with our predictor."""


def table8_cases(most_slices: int | None = None, most_pixels: float = np.inf) -> pd.DataFrame:
    """The 14 cases: case, shape, objects, and `slices` that the boxes cross.

    The paper does not say how many slices its boxes cross. The baseline's time in a volume is proportional to boxes times slices, so its seconds tell:
    the case with the most seconds for a box and a slice is taken to be crossed from end to end, and gives the rate for the others.

    Args:
        most_slices: cross at most so many slices, to keep a run short; times are proportional to it.
        most_pixels: leave out cases with more pixels times boxes times slices, which is the work of the way back to image size.
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


def stand_in(case: str, shape: tuple[int, int, int], objects: int, slices: int, seed: int = 0) -> Case:
    """A case of this size with bright ellipses on noise, one in each box; boxes lie side by side and cross the same `slices` in the middle.

    Args:
        case: name, beginning with 2DBox or 3DBox. shape: (H, W, 3) or (D, H, W).
    """
    rng = np.random.default_rng(seed)
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
    """Boxes (objects, 4) in the cells of a grid, each the middle two thirds of its cell; maxima inclusive."""
    columns = max(1, round((objects * width / height) ** 0.5))
    rows = -(-objects // columns)
    cells = np.array([(k // columns, k % columns) for k in range(objects)])
    low = (cells + 1 / 6) * (height / rows, width / columns)
    high = (cells + 5 / 6) * (height / rows, width / columns) - 1
    return np.column_stack([low[:, 1], low[:, 0], high[:, 1], high[:, 0]]).astype(np.int64)


def running_time_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Table 8, the paper's rows and ours side by side.

    Args:
        measured: one row a case and way: case, slices, way (of `WAYS`), seconds, and optionally peak_mb.

    Returns:
        A row for each of the paper's, empty where it was not measured: seconds of each way, and how many times faster ours is than each.
    """
    wide = measured.pivot(index="case", columns="way", values="seconds").reindex(columns=WAYS)
    here = pd.DataFrame({f"seconds {way} here": wide[way] for way in WAYS})
    for way in WAYS[:2]:
        here[f"speed-up over {way} here"] = wide[way] / wide["ours"]
    if "peak_mb" in measured and measured["peak_mb"].notna().any():
        memory = measured.pivot(index="case", columns="way", values="peak_mb").reindex(columns=WAYS)
        here = here.assign(**{f"peak MB {way} here": memory[way] for way in WAYS})
    here.insert(0, "slices here", measured.groupby("case")["slices"].first())
    paper = (
        PAPER["table8"]
        .drop(columns="modality")
        .rename(
            columns={
                "seconds_baseline": "seconds baseline paper",
                "seconds_proposed": "seconds proposed paper",
            }
        )
    )
    paper["speed-up paper"] = paper["seconds baseline paper"] / paper["seconds proposed paper"]
    return paper.merge(here.reset_index(), on="case", how="left").astype({"slices here": "Int64"})
