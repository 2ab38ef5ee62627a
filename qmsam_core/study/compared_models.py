"""The models whose accuracy Tables 7 and 10 compare, and one table that sums up their results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..deploy.engines import open_engine
from ..deploy.predictor import Predictor
from ..evaluate.intervals import paired_differences
from ..evaluate.tables import per_modality
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


def predictors_of(folder: str | Path, threads: int, block: int, interpolation: str) -> dict[str, Predictor]:
    """Open a predictor on OpenVINO for every arm of `COMPARED`, by the arm's name.

    Args:
        folder: folder that holds the exports.
        threads: CPU threads of each engine.
        block: most boxes decoded at once.
        interpolation: how images are resized, see `Predictor`.
    """
    names = dict.fromkeys(model.export for model in COMPARED.values())
    engines = {name: open_engine("openvino", Path(folder) / name, threads) for name in names}
    return {
        arm: Predictor(engines[model.export], block, interpolation, model.order)
        for arm, model in COMPARED.items()
    }


SUMMARISED = {
    "float": (BASELINE, FLOAT_FAST),
    "float, normalised before padding": (OWN_ORDER, FLOAT_FAST),
    "int8, calibrated": (CALIBRATED, Arm("int8", "openvino")),
    "int8, after stage 3": (STAGE3, Arm("int8", "openvino")),
    "int8 by NNCF": (NNCF, Arm("int8", "openvino", variant="nncf")),
    "ellipse in the box": (ELLIPSE, None),
}
"""Rows of the table of results: the arm in the scores, and the arm in the timings (None: not timed)."""


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
