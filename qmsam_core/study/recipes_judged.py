"""Compare quantisation recipes on the same slices by DSC and by agreement with the float model's masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from ..deploy.engines import Engine
from ..deploy.export import export_model
from ..evaluate.agreement import mask_dice
from ..evaluate.intervals import paired_differences
from ..evaluate.tables import per_modality
from ..params import Params
from ..quant import load_model
from ..quant.variants import Variant, packed_megabytes
from ..timing.engine_arms import one_box
from ..train import quantise_and_calibrate

REFERENCE = "float"


def export_variant(
    variant: Variant, float_model: Path, params: Params, data_folder: Path, folder: Path
) -> float:
    """Quantise the float model as a variant says, calibrate it and export it in the fast style.

    Args:
        variant: recipe and parts.
        float_model: file of the float model.
        params: parameters of the run.
        data_folder: output folder of notebook 00, with the slices for calibration.
        folder: folder of the export.

    Returns:
        Size in 10^6 bytes, see `packed_megabytes`.
    """
    model = load_model(float_model)
    model = quantise_and_calibrate(model, params, variant.parts, data_folder, variant.recipe).eval()
    export_model(model, folder, style="fast")
    return packed_megabytes(model)


def slice_scores(engines: Mapping[str, Engine], batches: Iterable[dict]) -> pd.DataFrame:
    """Score the low-res masks of every engine on the same slices, one box per slice.

    Args:
        engines: engines by name. The one named `float` is the reference for the agreement.
        batches: batches of `train.evaluation_batches`, with image (B, 3, S, S), box (B, 4), mask
            (B, 1, M, M), modality and name.

    Returns:
        One row per slice and engine: arm, case (names slice and object), group (the case of the slice),
        modality, dsc with the label, and agreement (Dice with the float mask). Both scores are 0..1.
    """
    rows = []
    for batch in batches:
        for k, name in enumerate(batch["name"]):
            image, box = batch["image"][k : k + 1].numpy(), batch["box"][k : k + 1].numpy()
            truth = batch["mask"][k, 0].numpy() > 0.5
            masks = {arm: one_box(engine, image, box)[0] > 0 for arm, engine in engines.items()}
            for arm, mask in masks.items():
                scores = {"dsc": mask_dice(truth, mask), "agreement": mask_dice(masks[REFERENCE], mask)}
                group = name.split(":")[0]
                rows.append(
                    {"arm": arm, "case": name, "group": group, "modality": batch["modality"][k], **scores}
                )
    return pd.DataFrame(rows)


def judged(scores: pd.DataFrame) -> pd.DataFrame:
    """Summarise `slice_scores`, one row per arm.

    Returns:
        Columns name, agreement, `agreement low`, weakest, dsc, difference, `difference low` and
        `difference high`. Means are over modalities. weakest is the modality with the lowest agreement, which
        is `agreement low`. difference is DSC minus the float model's, with a 95 % bootstrap interval.
    """
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
