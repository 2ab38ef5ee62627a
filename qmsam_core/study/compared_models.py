"""The models whose accuracy Tables 7 and 10 compare, and one table that sums up their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..deploy.engines import open_engine
from ..deploy.predictor import Predictor
from ..evaluate.intervals import paired_differences
from ..evaluate.tables import per_modality
from ..params import Params
from ..provenance import weights
from ..timing.engine_arms import FLOAT_FAST, Arm


@dataclass(frozen=True)
class ComparedModel:
    """One model of the accuracy tables.

    Attributes:
        export: folder name of an export of notebook 05.
        order: whether images are padded or normalised first, `pad_then_normalise` or `normalise_then_pad`.
    """

    export: str
    order: str = "pad_then_normalise"


BASELINE, OWN_ORDER, CALIBRATED, STAGE3, NNCF = (
    "Baseline",
    "Baseline, own order",
    "Calibrated",
    "Stage 3",
    "NNCF",
)
ELLIPSE = "Ellipse"
SHIPPED_ARM, SHIPPED_SIZE = "Shipped", 256
COMPARED = {
    BASELINE: ComparedModel("float_fast"),
    OWN_ORDER: ComparedModel("float_fast", "normalise_then_pad"),
    "Stage 1": ComparedModel("stage1"),
    "Stage 2": ComparedModel("stage2"),
    STAGE3: ComparedModel("int8"),
    CALIBRATED: ComparedModel("calibrated"),
    NNCF: ComparedModel("int8_nncf"),
}
"""Arms of the accuracy tables. The paper pads an image first, the challenge's baseline normalises it first.

All arms follow the paper except the second. It shows the effect of the order alone on the float model.
"""


def shipped_model(params: Params) -> Path | None:
    """Return the file of the project's int8 model if this run can compare it.

    It is another arm where the file is there, and the run is of LiteMedSAM at 256 px, for which it is made.
    Otherwise one printed line says why the arm is left out.
    """
    reason = ""
    if params.model != "litemedsam" or params.image_size != SHIPPED_SIZE:
        reason = f"it is litemedsam at {SHIPPED_SIZE} px, this run {params.model} at {params.image_size} px"
    elif not weights.SHIPPED_FILE.is_file():
        reason = f"{weights.SHIPPED_FILE.name} is not there"
    if reason:
        print(f"arm {SHIPPED_ARM!r}, the project's int8 model, is left out: {reason}")
        return None
    return weights.SHIPPED_FILE


def compared(params: Params) -> dict[str, ComparedModel]:
    """Return `COMPARED`, and the project's int8 model where `shipped_model` has it."""
    return COMPARED | ({SHIPPED_ARM: ComparedModel("shipped")} if shipped_model(params) else {})


def predictors_of(
    folder: str | Path,
    threads: int,
    block: int,
    interpolation: str,
    models: Mapping[str, ComparedModel] = COMPARED,
) -> dict[str, Predictor]:
    """Open a predictor on OpenVINO for every arm of `models`, by the arm's name.

    Args:
        folder: folder that holds the exports.
        threads: CPU threads of each engine.
        block: most boxes decoded at once.
        interpolation: how images are resized, see `Predictor`.
        models: the arms, see `compared`.
    """
    names = dict.fromkeys(model.export for model in models.values())
    engines = {name: open_engine("openvino", Path(folder) / name, threads) for name in names}
    return {
        arm: Predictor(engines[model.export], block, interpolation, model.order)
        for arm, model in models.items()
    }


SUMMARISED = {
    "float": (BASELINE, FLOAT_FAST),
    "float, normalised before padding": (OWN_ORDER, FLOAT_FAST),
    "int8, calibrated": (CALIBRATED, Arm("int8", "openvino")),
    "int8, after stage 3": (STAGE3, Arm("int8", "openvino")),
    "int8, shipped": (SHIPPED_ARM, None),
    "int8 by NNCF": (NNCF, Arm("int8", "openvino", variant="nncf")),
    "ellipse in the box": (ELLIPSE, None),
}
"""Rows of the table of results: the arm in the scores, and the arm in the timings (None: not timed).

The row of the project's int8 model is left out where the scores lack it.
"""


def summary_table(scores: pd.DataFrame, timings: pd.DataFrame) -> pd.DataFrame:
    """Summarise the study's results, one row for each model of `SUMMARISED`.

    Args:
        scores: one row per case and arm, with dsc, nsd and agreement (Dice with the float model's masks).
        timings: times for one image and one box, columns arm (a label) and median_ms.

    Returns:
        Columns model, dsc, `difference to float`, `difference low`, `difference high`, nsd,
        `agreement with float` and ms. All but ms are means over modalities. Low and high bound the 95 %
        bootstrap interval of the difference.
    """
    ms = timings.set_index("arm")["median_ms"]
    by_arm = {arm: rows for arm, rows in scores.groupby("arm")}
    rows = []
    for name, (arm, timed) in SUMMARISED.items():
        if arm == SHIPPED_ARM and arm not in by_arm:
            continue
        average = per_modality(by_arm[arm].drop(columns="arm")).iloc[-1]
        paired = paired_differences(by_arm[arm], by_arm[BASELINE]).iloc[-1] if arm != BASELINE else {}
        rows.append(
            {
                "model": name,
                "dsc": average["dsc"],
                "difference to float": paired.get("difference", float("nan")),
                "difference low": paired.get("difference_low", float("nan")),
                "difference high": paired.get("difference_high", float("nan")),
                "nsd": average["nsd"],
                "agreement with float": average["agreement"],
                "ms": ms[timed.label] if timed else float("nan"),
            }
        )
    return pd.DataFrame(rows)
