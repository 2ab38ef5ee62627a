"""Quantise a model with one's own images, and see on others how far its masks agree with the float model's.

No labels are needed for the judgement, only boxes: the float model is the reference.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..data.boxed_slices import BoxedSlice, divide, slices_of
from ..data.transforms import Geometry
from ..evaluate.agreement import mask_dice
from ..evaluate.case_figures import QualitativeRow, gallery_figure
from ..models import Sam
from ..provenance.files import write_atomic
from ..quant.calibration import calibrate_on
from ..quant.sensitivity import mask_agreement, sensitivity
from .engines import Engine, open_engine

BOXES = 4  # judged on each slice, the largest ones
GOOD = 0.95
"""Agreement below which a quantised model is doubted. Two runs of float in bf16 agree to 0.98."""


@dataclass(frozen=True)
class Judgement:
    """How far the masks of a quantised model agree with the float model's.

    Attributes:
        table: one row per object: group, case, object (number of its box) and agreement (Dice, 0..1);
            `dsc float` and `dsc int8` of the object's label (0..1), NaN without one.
        figure: the slices that agree least.
        worst: the slice that agrees least.
    """

    table: pd.DataFrame
    figure: Figure
    worst: BoxedSlice

    @property
    def by_group(self) -> pd.DataFrame:
        """One row per group: slices, objects, mean agreement, lowest agreement and its case."""
        rows = []
        for group, own in self.table.groupby("group"):
            lowest = own.loc[own["agreement"].idxmin()]
            rows.append(
                {
                    "group": group,
                    "slices": own["case"].nunique(),
                    "objects": len(own),
                    "agreement": own["agreement"].mean(),
                    "lowest": lowest["agreement"],
                    "lowest in": lowest["case"],
                }
            )
        return pd.DataFrame(rows)

    @property
    def agreement(self) -> float:
        """Mean over the groups."""
        return float(self.by_group["agreement"].mean())


def judge(float_model: Sam, engine: Engine, slices: Sequence[BoxedSlice], shown: int = 6) -> Judgement:
    """Compare an engine's masks with those of the float model on slices that it was not calibrated on.

    Args:
        float_model: in evaluation mode.
        engine: of the quantised export.
        slices: see `divide`.
        shown: number of slices in the figure.
    """
    rows, drawn = [], []
    for one in slices:
        image, boxes, geometry = one.inputs(engine)
        boxes = boxes[:BOXES]
        _, expected = segmented(float_model, torch.from_numpy(image)[None], torch.from_numpy(boxes), geometry)
        found = geometry.mask_to_image(engine.decode(engine.encode(image[None]), boxes))
        scores = mask_agreement(*map(torch.from_numpy, (expected, found))).tolist()
        masks = {"float": expected, "int8": found}
        dsc = {f"dsc {name}": dsc_of(m, one.labels) for name, m in masks.items()}
        rows += [
            {
                "group": one.group,
                "case": one.name,
                "object": number,
                "agreement": score,
                **{name: values[number] for name, values in dsc.items()},
            }
            for number, score in enumerate(scores)
        ]
        drawn.append((float(np.mean(scores)), one, {name: label_map(m) for name, m in masks.items()}))
        drawn = sorted(drawn, key=lambda row: row[0])[: max(shown, 1)]  # others would only take memory
    pictures = [
        QualitativeRow(one.group, one.pixels, one.boxes[:BOXES], masks, {"int8": score}, "agrees to")
        for score, one, masks in drawn[:shown]
    ]
    return Judgement(pd.DataFrame(rows), gallery_figure(pictures), drawn[0][1])


@torch.no_grad()
def segmented(model: Sam, image: Tensor, boxes: Tensor, geometry: Geometry) -> tuple[Tensor, np.ndarray]:
    """Return the embedding of an image (1, 3, S, S), and the masks (n, H, W) of boxes (n, 4) on the slice."""
    embedding = model.image_encoder(image)
    logits = model.decode(embedding.expand(len(boxes), -1, -1, -1), boxes)[0][:, 0]
    return embedding, geometry.mask_to_image(logits.numpy())


def dsc_of(masks: np.ndarray, labels: np.ndarray | None) -> list[float]:
    """DSC of masks (n, H, W) with the objects 1..n of labels (H, W); NaN for an object without a label."""
    truths = [None if labels is None else labels == number for number in range(1, len(masks) + 1)]
    return [
        mask_dice(mask, truth) if truth is not None and truth.any() else float("nan")
        for mask, truth in zip(masks, truths)
    ]


def label_map(masks: np.ndarray) -> np.ndarray:
    """Binary masks (n, H, W) -> labels (H, W), 1..n; a later mask lies on top."""
    labels = np.zeros(masks.shape[1:], np.int32)
    for number, mask in enumerate(masks, 1):
        labels[mask] = number
    return labels


def weakest_blocks(float_model: Sam, model: Sam, one: BoxedSlice, count: int = 3) -> list[str]:
    """Name the blocks that lose most on one slice, within the encoder or the decoder, worst first."""
    image, boxes, _ = one.inputs(model)
    batch = {"image": torch.from_numpy(image)[None], "box": torch.from_numpy(boxes[:1])}
    table = sensitivity(float_model, model, [batch])
    return table.sort_values(["alone agreement", "alone db"])["block"].head(count).tolist()


class OwnImages:
    """A folder of cases as the export's command line uses it: one half calibrates, the other judges.

    Cases that cannot be used are named on stderr.
    """

    def __init__(self, folder: Path) -> None:
        slices, left_out = slices_of(folder)
        for line in left_out:
            print(f"left out: {line}", file=sys.stderr)
        self.calibration, self.judging = divide(slices)

    def calibrate(self, model: Sam) -> str:
        """Set the scales of a quantised model. Returns a text for the export's description."""
        print(f"calibrating on {len(self.calibration)} slices", file=sys.stderr, flush=True)
        calibrate_on(model, self.calibration)
        return f"calibrated on {len(self.calibration)} slices"

    def report(self, float_model: Sam, model: Sam, folder: Path) -> None:
        """Print how far an export's masks agree with float's; write agreement.csv and .png beside it."""
        found = judge(float_model, open_engine("openvino", folder), self.judging)
        write_atomic(folder / "agreement.csv", lambda path: found.table.to_csv(path, index=False))
        write_atomic(folder / "agreement.png", lambda path: found.figure.savefig(path, format="png"))
        table = found.by_group
        table[["agreement", "lowest"]] = (100 * table[["agreement", "lowest"]]).round(1)
        print(f"agreement with the float model's masks, % Dice, on {len(self.judging)} other slices:")
        print(table.to_string(index=False))
        print(f"mean {100 * found.agreement:.1f} %; slices that agree least: {folder / 'agreement.png'}")
        if found.agreement < GOOD:
            blocks = ", ".join(weakest_blocks(float_model, model, found.worst))
            print(
                f"warning: below {100 * GOOD:.0f} %; on {found.worst.name} these blocks lose most: {blocks}; "
                "a recipe's `in_float` keeps modules in float"
            )
