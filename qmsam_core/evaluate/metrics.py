"""DSC and NSD as the challenge computes them, for one case and for many, and the ellipse as a control.

The challenge (CVPR 2024, Segment Anything in Medical Images on Laptop) averages both metrics over the labels
of a case, then over cases, then over modalities without weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects

from ..data.cases import renumbered, tight_boxes
from ..workers import call_each
from .surface import Box, Spacing, joint_box, surface_dice

# The official script sets the NSD of a case to 0 unless its DSC is above this.
NSD_NEEDS_DSC = 0.2


@dataclass(frozen=True)
class CaseScore:
    """Scores of one case, fractions 0..1.

    Attributes:
        dsc: mean over `labels`.
        nsd: mean over `labels`, but 0 if `dsc` <= 0.2.
        labels: label ids in the ground truth.
        dsc_per_label: DSC in the order of `labels`.
        nsd_per_label: NSD in the order of `labels`, without the rule for `dsc` <= 0.2.
        skipped_labels: ids below the highest that the ground truth lacks.
    """

    dsc: float
    nsd: float
    labels: tuple[int, ...]
    dsc_per_label: tuple[float, ...]
    nsd_per_label: tuple[float, ...]
    skipped_labels: tuple[int, ...]

    @property
    def missed(self) -> int:
        """Number of objects that the prediction does not touch (DSC 0)."""
        return sum(value == 0 for value in self.dsc_per_label)


def score_case(
    gt: np.ndarray, seg: np.ndarray, spacing: Sequence[float] | None = None, tolerance: float = 2.0
) -> CaseScore:
    """Score a prediction against the ground truth as the challenge's script does.

    A 2-D case is scored as a volume of one slice, (H, W, 1). An empty prediction scores 0 and 0. Labels
    absent from the ground truth are left out and listed in `skipped_labels`. (The official mean becomes NaN
    there, or includes a 0 if the prediction has the label.) Without objects in the ground truth, both values
    are NaN (officially NaN and 0).

    Args:
        gt: ground truth, integer labels (H, W) or (D, H, W). Object i has label i.
        seg: prediction, integer labels of the same shape.
        spacing: 3 lengths in mm along the axes as stored, as the official script applies them. (The files
            mean x first.) None means 1.
        tolerance: of the NSD, mm, 0 or more.

    Raises:
        ValueError: a shape, type, spacing or tolerance is not as above.
    """
    gt, seg = _labels(gt, "gt"), _labels(seg, "seg")
    if gt.shape != seg.shape:
        raise ValueError(
            f"seg: found shape {seg.shape}, expected that of gt, {gt.shape}; "
            "map the masks back to the image first"
        )
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance: found {tolerance}, expected millimetres, 0 or more")
    steps = _steps(spacing)
    if gt.ndim == 2:
        gt, seg = gt[..., None], seg[..., None]
    gt_boxes = find_objects(gt)
    seg_boxes = find_objects(seg, max_label=len(gt_boxes)) if gt_boxes else []
    labels = tuple(label for label, box in enumerate(gt_boxes, start=1) if box is not None)
    boxes = {label: joint_box(gt_boxes[label - 1], seg_boxes[label - 1]) for label in labels}
    scores = [_score_label(gt, seg, label, boxes[label], steps, tolerance) for label in labels]
    dsc = float(np.mean([d for d, _ in scores])) if scores else float("nan")
    nsd = float(np.mean([n for _, n in scores])) if scores else float("nan")
    return CaseScore(
        dsc=dsc,
        nsd=0.0 if dsc <= NSD_NEEDS_DSC else nsd,
        labels=labels,
        dsc_per_label=tuple(d for d, _ in scores),
        nsd_per_label=tuple(n for _, n in scores),
        skipped_labels=tuple(sorted(set(range(1, len(gt_boxes) + 1)) - set(labels))),
    )


def inscribed_ellipse(case: Any) -> np.ndarray:
    """Fill each box with its inscribed ellipse (3-D: ellipsoid). This control does not use the image.

    Args:
        case: has `images`, (H, W, 3) or (D, H, W), and `boxes`, (N, 4) or (N, 6) with inclusive maxima.

    Returns:
        Labels 1..N, (H, W) or (D, H, W), uint8 (uint16 above 255 boxes). Later boxes overwrite earlier ones,
        as in the challenge's predictions.

    Raises:
        ValueError: the case has no boxes.
    """
    if case.boxes is None:
        raise ValueError(
            f"{getattr(case, 'name', 'case')}: found no boxes; derive them from the labels first (with_boxes)"
        )
    boxes = np.asarray(case.boxes)
    axes = boxes.shape[1] // 2
    shape = case.images.shape[: 3 if axes == 3 else 2]
    segs = np.zeros(shape, dtype=np.uint8 if len(boxes) < 256 else np.uint16)
    for label, box in enumerate(boxes, start=1):
        low, high = box[:axes][::-1], box[axes:][::-1]  # x, y, z to the arrays' z, y, x
        window = tuple(slice(max(int(a), 0), int(b) + 1) for a, b in zip(low, high))
        grid = np.ogrid[tuple(slice(w.start, min(w.stop, size)) for w, size in zip(window, shape))]
        radius2 = sum(((g - (a + b) / 2) / ((b - a + 1) / 2)) ** 2 for g, a, b in zip(grid, low, high))
        segs[window][radius2 <= 1] = label
    return segs


def score_cases(pairs: Iterable[tuple], processes: int = 1) -> pd.DataFrame:
    """Score many cases, one row for each.

    Each pair is (case, segmentation), optionally followed by the modality, and then by the group:

    - case: a `Case`, or the path of an npz with `gts`. The labels of a case without boxes are first numbered
      1..N, in the order in which `Case.with_boxes` derives its boxes.
    - segmentation: an integer array, or the path of an npz with `segs`. Label i+1 belongs to box i.
    - modality: by default the one in the name, `2DBox_<Modality>_...`.
    - group: equal for cases of one patient or volume. Bootstrap intervals draw such cases together. By
      default each case is its own group.

    Args:
        pairs: the cases.
        processes: number of worker processes. With more than 1, each reads its own files, so pass paths.

    Returns:
        Columns case, modality, group, dsc, nsd, objects, missed (objects of DSC 0), skipped (absent labels)
        and worst_dsc (lowest DSC of an object).
    """
    pairs = list(pairs)
    jobs = [(*pair[:2], *(*pair[2:], None, None)[:2]) for pair in pairs]
    rows = call_each(_score_job, jobs, processes)
    return pd.DataFrame(
        rows, columns=["case", "modality", "group", "dsc", "nsd", "objects", "missed", "skipped", "worst_dsc"]
    )


def modality_of(name: str) -> str:
    """Modality in a case's name: `3DBox_CT_0566` -> `CT`. `unknown` if the name has none."""
    parts = name.split("_")
    return parts[1] if len(parts) > 2 and parts[0] in ("2DBox", "3DBox") else "unknown"


def _score_job(case: Any, segmentation: Any, modality: str | None, group: str | None) -> dict[str, Any]:
    name, gt, spacing = _ground_truth(case)
    score = score_case(gt, _segmentation(segmentation), spacing=spacing)
    return {
        "case": name,
        "modality": modality or modality_of(name),
        "group": group or name,
        "dsc": score.dsc,
        "nsd": score.nsd,
        "objects": len(score.labels),
        "missed": score.missed,
        "skipped": len(score.skipped_labels),
        "worst_dsc": min(score.dsc_per_label, default=float("nan")),
    }


def _ground_truth(case: Any) -> tuple[str, np.ndarray, Sequence[float] | None]:
    """Name, labels and spacing of a case or its file.

    The spacing is None for 2-D cases, which are scored at 1 mm. Labels are numbered as in predictions: label
    i+1 belongs to box i. Without boxes, gaps in the ids are closed.
    """
    if isinstance(case, (str, Path)):
        path = Path(case)
        with np.load(path, allow_pickle=False) as file:
            if "gts" not in file:
                raise ValueError(
                    f"{path}: found {', '.join(file.files)}, expected gts; "
                    "a case without labels cannot be scored"
                )
            gt, boxed = _labels(file["gts"], f"{path}: gts"), "boxes" in file
            return (
                path.stem,
                gt if boxed else _without_gaps(gt),
                file["spacing"] if gt.ndim == 3 and "spacing" in file else None,
            )
    if case.labels is None:
        raise ValueError(f"{case.name}: found no labels; a case without ground truth cannot be scored")
    gt, boxed = _labels(case.labels, f"{case.name}: labels"), getattr(case, "boxes", None) is not None
    return case.name, gt if boxed else _without_gaps(gt), case.spacing if gt.ndim == 3 else None


def _without_gaps(labels: np.ndarray) -> np.ndarray:
    return renumbered(labels, tight_boxes(labels)[0])


def _segmentation(source: Any) -> np.ndarray:
    if not isinstance(source, (str, Path)):
        return source
    with np.load(source, allow_pickle=False) as file:
        if "segs" not in file:
            raise ValueError(f"{source}: found {', '.join(file.files)}, expected segs; is it a prediction?")
        return file["segs"]


def _score_label(
    gt: np.ndarray, seg: np.ndarray, label: int, box: Box, steps: Spacing, tolerance: float
) -> tuple[float, float]:
    """DSC and NSD of one label, computed inside the box that holds both masks."""
    truth, guess = gt[box] == label, seg[box] == label
    overlap = np.count_nonzero(truth & guess)
    dsc = 2 * overlap / (np.count_nonzero(truth) + np.count_nonzero(guess))
    return dsc, surface_dice(truth, guess, steps, tolerance)


def _labels(array: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim not in (2, 3) or array.dtype.kind not in "biu":
        raise ValueError(
            f"{name}: found {array.dtype} of shape {array.shape}, "
            "expected integer labels, (H, W) or (D, H, W)"
        )
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise ValueError(f"{name}: found the label {array.min()}, expected 0 (background) and up")
    return array.astype(np.uint8) if array.dtype == bool else array


def _steps(spacing: Sequence[float] | None) -> Spacing:
    """Spacing in mm along the three axes scored: (D, H, W) of a volume, (H, W, 1) of an image."""
    steps = [1.0, 1.0, 1.0] if spacing is None else [float(step) for step in spacing]
    if len(steps) != 3 or not all(0 < step < np.inf for step in steps):
        raise ValueError(f"spacing: found {spacing}, expected 3 lengths in mm, each above 0")
    return tuple(steps)
