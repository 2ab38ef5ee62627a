"""Quantise a model with one's own images, and see on others how far its masks agree with the float model's.

No labels are needed for the judgement, only boxes: the float model is the reference.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ..data.archive import CaseError
from ..data.cases import Case
from ..data.transforms import Geometry
from ..evaluate.agreement import mask_dice
from ..evaluate.case_figures import QualitativeRow, gallery_figure
from ..models import Sam
from ..quant import calibrate
from ..quant.sensitivity import sensitivity
from .engines import Engine, open_engine
from .exported import ExportError
from .volume_traversal import boxes_on_slice

CALIBRATION = 33  # slices that set the scales, and as many at most that judge
BATCH = 4
BOXES = 4  # judged on each slice, the largest ones
GOOD = 0.95
"""Agreement below which a quantised model is doubted. Two runs of float in bf16 agree to 0.98."""


@dataclass(frozen=True)
class BoxedSlice:
    """A slice of a case with the boxes that cross it.

    Attributes:
        name: file of the case, relative to the folder, and the slice of a volume.
        group: the folder's subfolder that the case lies in, such as its modality.
        pixels: uint8 (H, W, 3).
        boxes: int64 (n, 4) in pixels of the slice, largest first.
    """

    name: str
    group: str
    pixels: np.ndarray
    boxes: np.ndarray

    def inputs(self, size: int) -> tuple[np.ndarray, np.ndarray, Geometry]:
        """Return the network's image (3, S, S), its boxes (n, 4) in model px, and the geometry."""
        geometry = Geometry.of(*self.pixels.shape[:2], size)
        return geometry.image(self.pixels), geometry.boxes(self.boxes), geometry


def slices_of(folder: str | Path, count: int = 2 * CALIBRATION) -> tuple[list[BoxedSlice], list[str]]:
    """Read one slice of each of at most `count` cases, the same number of every group if there are enough.

    Which cases are taken depends on their names alone. A volume gives the slice that most boxes cross.

    Returns:
        The slices, the groups in turn, and one line for every case that could not be used.

    Raises:
        ExportError: the folder has no `.npz` file.
    """
    folder = Path(folder)
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.npz"), key=lambda f: hashlib.sha256(f.name.encode()).hexdigest()):
        place = path.relative_to(folder).parts
        files.setdefault(place[0] if len(place) > 1 else folder.name, []).append(path)
    if not files:
        raise ExportError(f"{folder}: no .npz files; expected a folder of cases with boxes or labels")
    found, left_out = [], []
    while any(files.values()) and len(found) < count:
        for group in sorted(files):
            while files[group] and len(found) < count:
                path = files[group].pop(0)
                try:
                    taken = boxed_slice(path, str(path.relative_to(folder)), group)
                except CaseError as error:
                    left_out.append(str(error))
                    continue
                if taken is None:
                    left_out.append(f"{path}: has no box or object; expected at least one")
                    continue
                found.append(taken)
                break
    return found, left_out


def boxed_slice(path: Path, name: str, group: str) -> BoxedSlice | None:
    """Read the slice of a case that most boxes cross; None if the case has no box."""
    case = Case.load(path).with_boxes()
    if not len(case.boxes):
        return None
    z, boxes = 0, case.boxes
    if case.is_volume:
        crossings = np.zeros(case.n_slices, int)
        for low, high in case.boxes[:, [2, 5]]:
            crossings[low : high + 1] += 1
        fullest = np.flatnonzero(crossings == crossings.max())
        z = int(fullest[len(fullest) // 2])
        boxes, name = boxes_on_slice(case.boxes, z)[1], f"{name}, slice {z}"
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    return BoxedSlice(name, group, case.slice_image(z), boxes[np.argsort(-areas, kind="stable")])


def divide(slices: Sequence[BoxedSlice]) -> tuple[list[BoxedSlice], list[BoxedSlice]]:
    """Divide slices into those that calibrate and those that judge, every group evenly.

    Raises:
        ExportError: there are fewer than two slices.
    """
    if len(slices) < 2:
        raise ExportError(
            f"found {len(slices)} usable case; expected at least 2: one to calibrate on and another to judge"
        )
    seen: dict[str, int] = {}
    calibration, judging = [], []
    for one in slices:
        seen[one.group] = seen.get(one.group, 0) + 1
        (judging if seen[one.group] % 2 == 0 else calibration).append(one)
    if not judging:
        judging.append(calibration.pop())
    return calibration[:CALIBRATION], judging[:CALIBRATION]


def calibrate_on(model: Sam, slices: Sequence[BoxedSlice]) -> int:
    """Set the scales of a freshly quantised model from slices and the largest box of each."""
    inputs = [one.inputs(model.image_size) for one in slices]
    batches = [
        {
            "image": torch.from_numpy(np.stack([image for image, _, _ in inputs[i : i + BATCH]])),
            "box": torch.from_numpy(np.stack([boxes[0] for _, boxes, _ in inputs[i : i + BATCH]])),
        }
        for i in range(0, len(inputs), BATCH)
    ]
    return calibrate(model, lambda m, batch: m(batch["image"], batch["box"]), batches)


@dataclass(frozen=True)
class Judgement:
    """How far the masks of a quantised model agree with the float model's.

    Attributes:
        table: one row per object: group, case, object (number of its box) and agreement (Dice, 0..1).
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
        image, boxes, geometry = one.inputs(engine.image_size)
        boxes = boxes[:BOXES]
        with torch.no_grad():
            embedding = float_model.image_encoder(torch.from_numpy(image)[None])
            logits = float_model.decode(embedding.expand(len(boxes), -1, -1, -1), torch.from_numpy(boxes))[0][
                :, 0
            ]
        expected = geometry.mask_to_image(logits.numpy())
        found = geometry.mask_to_image(engine.decode(engine.encode(image[None]), boxes))
        scores = [mask_dice(a, b) for a, b in zip(expected, found)]
        rows += [
            {"group": one.group, "case": one.name, "object": number, "agreement": score}
            for number, score in enumerate(scores)
        ]
        masks = {"float": expected, "int8": found}
        drawn.append((float(np.mean(scores)), one, {name: label_map(m) for name, m in masks.items()}))
    drawn.sort(key=lambda row: row[0])
    pictures = [
        QualitativeRow(
            Path(one.name).stem, one.pixels, one.boxes[:BOXES], masks, {"int8": score}, "agreement"
        )
        for score, one, masks in drawn[:shown]
    ]
    return Judgement(pd.DataFrame(rows), gallery_figure(pictures), drawn[0][1])


def label_map(masks: np.ndarray) -> np.ndarray:
    """Binary masks (n, H, W) -> labels (H, W), 1..n; a later mask lies on top."""
    labels = np.zeros(masks.shape[1:], np.int32)
    for number, mask in enumerate(masks, 1):
        labels[mask] = number
    return labels


def weakest_blocks(float_model: Sam, model: Sam, one: BoxedSlice, count: int = 3) -> list[str]:
    """Name the blocks that lose most on one slice, within the encoder or the decoder, worst first."""
    image, boxes, _ = one.inputs(model.image_size)
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
        found.table.to_csv(folder / "agreement.csv", index=False)
        found.figure.savefig(folder / "agreement.png")
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
