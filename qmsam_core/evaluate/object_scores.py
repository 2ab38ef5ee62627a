"""Score every object of every case by itself, beside its size and its contrast.

Means over cases hide where a quantised model fails: on small objects, and on objects that hardly differ from
what is around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import pandas as pd
from scipy.ndimage import find_objects

from ..data.cases import Case
from .agreement import dice_by_label
from .intervals import average_interval

SIDE = 256
"""Sizes are in px of an input of this side, to which the longest side of a slice is scaled."""
RING = 8
"""Width of an object's surroundings, in px of an input of side `SIDE`."""
FLATTEST = 1.0
"""Least standard deviation, in grey levels. Otherwise the contrast of even areas would have no limit."""
MOST_BINS, LEAST_IN_BIN = 5, 8
"""`binned` makes at most so many bins, each of at least so many objects where there are enough for two."""


def score_objects(
    cases: Sequence[Case], masks: Mapping[str, Sequence[np.ndarray]], frame: pd.DataFrame, reference: str
) -> pd.DataFrame:
    """Score each object of each case in several arms. Objects absent from the ground truth are left out.

    Args:
        cases: cases with labels and boxes.
        masks: arm -> segmentations (labels) of these cases, in their order.
        frame: one row for each case, with its modality and group (cases of one patient or volume).
        reference: arm whose masks the others are compared with, usually float.

    Returns:
        One row per arm and object. Columns arm, case, modality, group, object (its label), size_px (side of
        the square of the same area, px of the 256 px input, on the slice where the object is largest),
        contrast (see `contrast`, on the same slice), dsc (with the ground truth) and agreement (Dice with the
        reference arm's mask), both 0..1 and of the whole object, in volumes of all slices.
    """
    rows = []
    for k, (case, about) in enumerate(zip(cases, frame.to_dict("records"))):
        windows = find_objects(case.labels)
        segs = {arm: planes[k] for arm, planes in masks.items()}
        dsc = {arm: dice_by_label(case.labels, mask, len(windows)) for arm, mask in segs.items()}
        agreed = {arm: dice_by_label(segs[reference], mask, len(windows)) for arm, mask in segs.items()}
        for i, window in enumerate(windows):
            if window is None:
                continue
            known = {"case": case.name, "modality": about["modality"], "group": about["group"]}
            known |= {"object": i + 1, **appearance(case, i + 1, window)}
            rows += [{"arm": a, **known, "dsc": dsc[a][i], "agreement": agreed[a][i]} for a in segs]
    columns = ["arm", "case", "modality", "group", "object", "size_px", "contrast", "dsc", "agreement"]
    return pd.DataFrame(rows, columns=columns)


def appearance(case: Case, label: int, window: tuple[slice, ...]) -> dict[str, float]:
    """Return the size and the contrast of an object on the slice where it is largest.

    Args:
        case: its images are (H, W, 3) or (D, H, W), uint8.
        label: the object's label in `case.labels`.
        window: where it lies, as `scipy.ndimage.find_objects` returns it.
    """
    image, labels = case.images, case.labels
    if case.is_volume:
        z = window[0].start + int(np.count_nonzero(labels[window] == label, axis=(1, 2)).argmax())
        image, labels, window = image[z], labels[z], window[1:]
    scale = SIDE / max(labels.shape)
    ring = max(1, round(RING / scale))
    near = tuple(slice(max(side.start - ring, 0), side.stop + ring) for side in window)
    grey = image[near] if image.ndim == 2 else image[near].mean(axis=2)
    mask = labels[near] == label
    size = scale * float(np.sqrt(np.count_nonzero(mask)))
    return {"size_px": size, "contrast": contrast(grey, mask, ring)}


def contrast(grey: np.ndarray, mask: np.ndarray, ring: int) -> float:
    """How far an object's grey values lie from those around it, in standard deviations.

    The absolute difference of the mean grey value in the object and in the ring around it, over the pooled
    standard deviation: the square root of the mean of both variances, weighted by pixels. It is 0 if both
    have one mean. With normal grey values of one variance and a contrast of 2, a threshold in the middle puts
    16 % of the pixels on the wrong side. Other objects within the ring are part of the surroundings.

    Args:
        grey: grey values 0..255, (H, W).
        mask: the object, bool (H, W).
        ring: width of the ring in px, at least 1.

    Returns:
        0 or more. NaN if the object is empty or fills the image.
    """
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * ring + 1, 2 * ring + 1))
    around = cv2.dilate(mask.astype(np.uint8), disc).astype(bool) & ~mask
    inside, outside = grey[mask].astype(float), grey[around].astype(float)
    if not inside.size or not outside.size:
        return float("nan")
    squares = inside.size * inside.var() + outside.size * outside.var()
    deviation = max(FLATTEST, float(np.sqrt(squares / (inside.size + outside.size))))
    return float(abs(inside.mean() - outside.mean()) / deviation)


def binned(objects: pd.DataFrame, by: str, score: str) -> pd.DataFrame:
    """Mean score of objects in bins of a quantity, with bootstrap intervals.

    The bins hold about as many objects each and are the same for all arms. Objects of one group are drawn
    together, since they share an image.

    Args:
        objects: rows of `score_objects`.
        by: size_px or contrast.
        score: dsc or agreement.

    Returns:
        Columns arm, bin (from 0, in ascending order), from, to and middle (median) of the quantity, objects,
        mean, low and high (95 % interval; NaN for one group).
    """
    objects = objects.dropna(subset=[by, score])
    values = objects.drop_duplicates(["case", "object"])[by]
    count = int(np.clip(len(values) // LEAST_IN_BIN, 1, MOST_BINS))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)))
    places = np.clip(np.searchsorted(edges, objects[by], side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for (arm, place), part in objects.groupby(["arm", places], sort=False):
        low, high = average_interval([part[score]], [part["group"]])
        span = {"from": part[by].min(), "to": part[by].max(), "middle": part[by].median()}
        known = {"arm": arm, "bin": int(place), **span, "objects": len(part)}
        rows.append({**known, "mean": part[score].mean(), "low": low, "high": high})
    table = pd.DataFrame(
        rows, columns=["arm", "bin", "from", "to", "middle", "objects", "mean", "low", "high"]
    )
    return table.sort_values(["arm", "bin"], kind="stable", ignore_index=True)
