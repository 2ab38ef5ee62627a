"""What notebook 11 shows when nobody draws: the cases' own boxes by float, int8 and the ellipse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..data import Case
from ..data.cases import boxes_on_slice
from ..deploy import Predictor
from ..deploy.engines import Engine
from ..evaluate.case_figures import QualitativeRow, boxes_on, fullest_slice
from ..evaluate.metrics import inscribed_ellipse
from ..evaluate.wording import percent
from .drawn_boxes import ELLIPSE, FLOAT, INT8, DrawnBoxes, warm_up


def given_boxes_table(
    engines: Mapping[str, Engine], cases: Sequence[Case], modalities: Sequence[str], interpolation: str
) -> pd.DataFrame:
    """Segment the boxes that cross one slice of each case, one box at a time as somebody draws them.

    Args:
        engines: `FLOAT` and `INT8` -> engine. Each runs once before it is timed.
        cases: cases with boxes. Of a volume its slice with most labelled voxels is taken.
        modalities: modality of each case.
        interpolation: how slices are resized.

    Returns:
        One row per case: modality, case, boxes (number); for each engine `image <name> ms`, and the boxes'
        median `box <name> ms`; `agreement int8` and `agreement ellipse`, mean Dice with float's masks, 0..1.
        Without boxes on the slice, times and agreement are NaN.
    """
    warm_up(engines)
    rows = []
    for case, modality in zip(cases, modalities):
        z = fullest_slice(case)
        drawn = DrawnBoxes(case.slice_image(z or 0), engines, interpolation)
        for box in boxes_on(case, z):
            drawn.add(box)
        row = {"modality": modality, "case": case.name, "boxes": len(drawn.boxes)}
        for name in engines:
            drawn.masks(name)
            row[f"image {name} ms"] = 1e3 * drawn.image_seconds.get(name, np.nan)
            row[f"box {name} ms"] = 1e3 * pd.Series(drawn.box_seconds[name], dtype=float).median()
        rows.append(row | {f"agreement {name}": drawn.agreement(name) for name in (INT8, ELLIPSE)})
    return pd.DataFrame(rows)


def compared_row(
    case: Case, predictors: Mapping[str, Predictor], dsc: Mapping[str, float], title: str
) -> QualitativeRow:
    """Segment one slice of a case by each predictor and by the ellipse, for a picture side by side.

    Args:
        case: case with boxes and labels. Of a volume its slice with most labelled voxels is taken, where the
            ellipse is the section of an ellipsoid.
        predictors: name -> predictor, in the order shown.
        dsc: name -> DSC of the case, 0..1.
        title: text of the column.
    """
    ellipse, z = inscribed_ellipse(case), fullest_slice(case)
    if z is not None:
        ids, boxes = boxes_on_slice(case.boxes, z)
        number = np.zeros(len(case.boxes) + 1, np.int32)  # of the objects on the slice, 0 for the others
        number[ids + 1] = np.arange(1, len(ids) + 1)
        ellipse, labels = number[ellipse[z]], number[case.labels[z]]
        case = replace(case, images=case.slice_image(z), boxes=boxes, labels=labels)
    masks = {name: predictor.segment(case) for name, predictor in predictors.items()}
    return QualitativeRow.of(case, masks | {ELLIPSE: ellipse}, dsc, title)


def times_reading(table: pd.DataFrame) -> str:
    """Say how long an image and a box took by float and int8. Takes rows of `given_boxes_table`."""
    known = table.dropna()
    if known.empty:
        return ""
    took = {
        name: f"{known[f'image {name} ms'].median():.0f} ms for the image and "
        f"{known[f'box {name} ms'].median():.0f} ms for a box"
        for name in (FLOAT, INT8)
    }
    ratio = known[f"image {FLOAT} ms"] / known[f"image {INT8} ms"]
    quicker = int((ratio > 1).sum())
    spread = f"{ratio.min():.1f} to {ratio.max():.1f}" if len(known) > 1 else f"{ratio.iloc[0]:.1f}"
    where = {len(known): "every case", 0: "no case"}.get(quicker, f"{quicker} of {len(known)} cases")
    return (
        f"In the median case float took {took[FLOAT]}, int8 {took[INT8]}. Int8 was quicker with the image of "
        f"{where} ({spread} times as fast)."
    )


def agreement_reading(table: pd.DataFrame) -> str:
    """Say how far int8's masks agree with float's, and for which cases an ellipse would do as well.

    Takes rows of `given_boxes_table`.
    """
    known = table.dropna()
    if known.empty:
        return "No case has a box on its slice, so nothing can be said of the masks."
    int8, ellipse = known[f"agreement {INT8}"], known[f"agreement {ELLIPSE}"]
    level = known.loc[int8 <= ellipse, "modality"]
    verdict = (
        f"it is as near to float as int8 or nearer in {', '.join(level)}"
        if len(level)
        else "int8 is nearer to float in every case"
    )
    lowest = f", least in {known.loc[int8.idxmin(), 'modality']} ({percent(int8.min())})"
    return (
        f"In the median case int8's masks overlap with float's to {percent(int8.median())} Dice"
        f"{lowest if len(known) > 1 else ''}. An ellipse in the box that ignores the image reaches "
        f"{percent(ellipse.median())}; {verdict}."
    )


def dsc_reading(dsc: pd.DataFrame) -> str:
    """Say what the ground truth makes of the pictures shown.

    Args:
        dsc: DSC 0..1, one row per case, columns `FLOAT`, `INT8` and `ELLIPSE`.
    """
    if dsc.empty:
        return ""
    means = {name: percent(dsc[name].mean()) for name in (FLOAT, INT8, ELLIPSE)}
    beaten = int((dsc[INT8] > dsc[ELLIPSE]).sum())
    return (
        f"Against the ground truth the {len(dsc)} cases shown score a DSC of {means[FLOAT]} in float, "
        f"{means[INT8]} in int8 and {means[ELLIPSE]} with the ellipse, on average; "
        f"int8 beats the ellipse in {beaten} of {len(dsc)}."
    )
