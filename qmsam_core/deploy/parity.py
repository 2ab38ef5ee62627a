"""Compare engines numerically: both run the same slices and boxes, and their results are compared."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..data.cases import Case, boxes_on_slice
from ..data.transforms import Geometry
from .engines import Engine

if TYPE_CHECKING:
    import pandas as pd

Key = TypeVar("Key", bound=Hashable)


def low_res_masks(engine: Engine, case: Case, slices: int, boxes: int) -> tuple[np.ndarray, np.ndarray]:
    """Segment at most `slices` evenly spaced slices of a case, among those that a box crosses.

    On each slice the first `boxes` boxes are segmented.

    Returns embeddings (n, C, g, g) and low-res logits (boxes, M, M).
    """
    crossed = {
        z: boxes_on_slice(case.boxes, z)[1] if case.is_volume else case.boxes for z in range(case.n_slices)
    }
    crossed = {z: found for z, found in crossed.items() if len(found)}
    chosen = np.unique(np.linspace(0, len(crossed) - 1, slices).round().astype(int))
    embeddings, masks = [], []
    for z in (list(crossed)[k] for k in chosen):
        geometry = Geometry.within(engine, *case.plane_shape)
        embeddings.append(engine.encode(geometry.image(case.slice_image(z))[None]))
        masks.append(engine.decode(embeddings[-1], geometry.boxes(crossed[z][:boxes])))
    return np.concatenate(embeddings), np.concatenate(masks)


def parity(
    reference: Engine, engines: Mapping[Key, Engine], cases: Sequence[Case], slices: int, boxes: int
) -> dict[Key, pd.DataFrame]:
    """Compare engines with a reference, case by case, on at most `slices` slices and `boxes` boxes of each.

    Returns:
        For each engine a table: case, masks (number compared), pixels_equal (share of low-res mask pixels
        that agree after binarising), embedding_error and logit_error. An error is the root mean square of the
        difference over that of the reference.
    """
    import pandas as pd  # takes long to load, and the package imports this module to segment, too

    rows: dict[Key, list[dict]] = {key: [] for key in engines}
    for case in cases:
        e0, m0 = low_res_masks(reference, case, slices, boxes)
        for key, engine in engines.items():
            e1, m1 = low_res_masks(engine, case, slices, boxes)
            rows[key].append(
                {
                    "case": case.name,
                    "masks": len(m0),
                    "pixels_equal": float(np.mean((m0 > 0) == (m1 > 0))),
                    "embedding_error": relative_error(e0, e1),
                    "logit_error": relative_error(m0, m1),
                }
            )
    return {key: pd.DataFrame(found) for key, found in rows.items()}


def parity_summary(pairs: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Summarise the tables of `parity` in one row per (model, engine).

    A row has the number of masks, the share of equal pixels over all of them and in the worst case, and the
    largest errors of a case.
    """
    import pandas as pd  # as in `parity`

    rows = []
    for (model, engine), table in pairs.items():
        row = {"model": model, "engine": engine, "masks": table["masks"].sum()}
        row["equal pixels"] = np.average(table["pixels_equal"], weights=table["masks"])
        row["equal pixels, worst case"] = table["pixels_equal"].min()
        row["embedding error"], row["logit error"] = (
            table["embedding_error"].max(),
            table["logit_error"].max(),
        )
        rows.append(row)
    return pd.DataFrame(rows)


def relative_error(reference: np.ndarray, other: np.ndarray) -> float:
    """Return the root mean square of the difference over that of the reference; 0 if the reference is 0."""
    scale = float(np.sqrt(np.mean(reference**2)))
    return float(np.sqrt(np.mean((reference - other) ** 2))) / scale if scale else 0.0
