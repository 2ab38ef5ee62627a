"""Ways of quantising a model, judged on the same slices: how far their masks agree with the float model's, and their DSC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from ..deploy.engines import Engine
from ..evaluate.agreement import mask_dice
from ..evaluate.intervals import paired_differences
from ..evaluate.tables import per_modality

REFERENCE = "float"


def slice_scores(engines: Mapping[str, Engine], batches: Iterable[dict]) -> pd.DataFrame:
    """Low-res masks of every engine on the same slices, one box each.

    Args:
        engines: by name; the one called `float` is what the others should agree with.
        batches: of `train.evaluation_batches`: image (B, 3, S, S), box (B, 4), mask (B, 1, M, M), modality and name of each.

    Returns:
        A row a slice and engine: arm, case (slice and object), group (the case it is from), modality, dsc with the truth, and
        agreement, the Dice with the float mask; both 0..1.
    """
    rows = []
    for batch in batches:
        for k, name in enumerate(batch["name"]):
            image, box = batch["image"][k : k + 1].numpy(), batch["box"][k : k + 1].numpy()
            truth = batch["mask"][k, 0].numpy() > 0.5
            masks = {arm: one_mask(engine, image, box) for arm, engine in engines.items()}
            for arm, mask in masks.items():
                scores = {"dsc": mask_dice(truth, mask), "agreement": mask_dice(masks[REFERENCE], mask)}
                group = name.split(":")[0]
                rows.append(
                    {"arm": arm, "case": name, "group": group, "modality": batch["modality"][k], **scores}
                )
    return pd.DataFrame(rows)


def one_mask(engine: Engine, image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The low-res mask (M, M) bool of one box (1, 4) on one image (1, 3, S, S)."""
    return engine.decode(engine.encode(image), box)[0] > 0


def judged(scores: pd.DataFrame) -> pd.DataFrame:
    """One row an arm of `slice_scores`, means over modalities: arm, agreement, `agreement low`, the modality where it is lowest
    (`weakest`), dsc, and its difference to float with a 95 % interval (`difference`, `difference low`, `difference high`)."""
    by_arm = {arm: rows.drop(columns="arm") for arm, rows in scores.groupby("arm", sort=False)}
    rows = []
    for arm, own in by_arm.items():
        means = per_modality(own)
        lowest = means.iloc[means["agreement"].iloc[:-1].idxmin()]
        paired = paired_differences(own, by_arm[REFERENCE]).iloc[-1]
        rows.append(
            {
                "name": arm,
                "agreement": means["agreement"].iloc[-1],
                "agreement low": lowest["agreement"],
                "weakest": lowest["modality"],
                "dsc": means["dsc"].iloc[-1],
                "difference": paired["difference"],
                "difference low": paired["difference_low"],
                "difference high": paired["difference_high"],
            }
        )
    return pd.DataFrame(rows)
