"""Sentences: how much faster is int8 than float, and on which CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..provenance.environment import CPU_FEATURES
from .answer_accuracy import TRAINED

OURS, STYLE_OF_AUTHORS = ("Table 5", "OpenVINO"), ("Table 5", "OpenVINO, released style")
LARGE = ("Table 6", "OpenVINO")
"""Rows of `int8_gain.csv`: our export, the same weights exported as the authors do, and MedSAM's ViT-B."""

EVEN = 0.05
"""Speeds that differ by less are called equal: two runs of one graph differ by as much."""

BEST, PAPER, PLAIN = "speed-up over best float", "speed-up paper", "speed-up over plain float"
WHOLE = "an image and a box"


def features_of(cpu: Mapping[str, Any]) -> str:
    """Name the instructions for int8 and bf16 arithmetic of a CPU as `run.json` describes it."""
    return ", ".join(name for name in CPU_FEATURES if cpu.get(name)) or "no vector features"


def machine_of(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Name the CPU, its instructions and the threads of notebook 06, or of any if that has not run."""
    record = records.get("06_engine_speed") or next(iter(records.values()), {})
    around = record.get("environment", {})
    cpu, threads = around.get("cpu", {}), around.get("threads")
    if "model" not in cpu:
        return "an unnamed CPU"
    used = f", {threads} thread{'s' * (threads != 1)}" if threads else ""
    return f"{cpu['model']} ({features_of(cpu)}){used}"


def speed_verdict(gain: pd.DataFrame | None, isa: pd.DataFrame | None = None) -> str:
    """Compare int8 with the fastest float arm of this CPU.

    Args:
        gain: `int8_gain.csv` of notebook 06: table, engine and speed-ups. Above 1, int8 is faster.
        isa: `isa_gain.csv` of notebook 06, which is used if `gain` is not there yet.
    """
    if gain is None:
        ratio = None if isa is None else next(iter(isa[isa["part"] == WHOLE][BEST]), None)
    else:
        ratio = _row(gain, OURS).get(BEST)
    if ratio is None or pd.isna(ratio):
        return "Cannot be told."
    if abs(ratio - 1) < EVEN:
        return f"As fast as the fastest float here ({ratio:.2f} times)."
    return f"{ratio:.2f} times as fast as the fastest float here{': it is slower' * (ratio < 1)}."


def speed_sentences(
    gain: pd.DataFrame | None, isa: pd.DataFrame | None, summary: pd.DataFrame | None, machine: str
) -> list[str]:
    """Say milliseconds, other instruction sets, the authors' way to export, and what the paper measured.

    Args:
        gain: `int8_gain.csv` of notebook 06.
        isa: `isa_gain.csv` of notebook 06: instruction set, part and speed-ups.
        summary: `summary.csv` of notebook 09, with ms of the trained int8 model.
        machine: the CPU in words.
    """
    said = []
    if gain is not None:
        said.append(_milliseconds(_row(gain, OURS), summary, machine))
    if isa is not None:
        said.append(_instruction_sets(isa))
    if gain is not None:
        said += [_as_the_authors(gain), _beside_the_paper(gain)]
    return [sentence for sentence in said if sentence]


def _row(table: pd.DataFrame, key: tuple[str, str]) -> dict[str, Any]:
    found = table[(table["table"] == key[0]) & (table["engine"] == key[1])]
    return {} if found.empty else found.iloc[0].dropna().to_dict()


def _milliseconds(row: Mapping[str, Any], summary: pd.DataFrame | None, machine: str) -> str:
    """Name the CPU, and the time there of one image and one box in both arms if the summary tells it."""
    ms = [] if summary is None or "ms" not in summary else summary[summary["model"] == TRAINED]["ms"].dropna()
    if not len(ms) or BEST not in row:
        return f"Measured on {machine}."
    int8 = float(next(iter(ms)))
    which = f" ({row['best float']})" if "best float" in row else ""
    return (
        f"On {machine}, one image and one box take {int8:,.0f} ms in int8 and {int8 * row[BEST]:,.0f} ms in "
        f"the fastest float{which}."
    )


def _instruction_sets(isa: pd.DataFrame) -> str:
    """Give the speed-up under every instruction set but the first, which is all that the CPU has."""
    rows = isa[isa["part"] == WHOLE].dropna(subset=BEST).iloc[1:]
    held = [f"{row[BEST]:.2f} times under {row['instruction set']}" for row in rows.to_dict("records")]
    return f"Held to fewer of its instructions: {'; '.join(held)}." if held else ""


def _as_the_authors(gain: pd.DataFrame) -> str:
    """Compare the same weights, exported in the style of the authors' code, with the fastest float arm."""
    ratio = _row(gain, STYLE_OF_AUTHORS).get(BEST)
    if ratio is None:
        return ""
    kind = "as fast as float" if abs(ratio - 1) < EVEN else "slower than float" if ratio < 1 else "faster"
    return f"Exported in the authors' style the same weights are {kind} ({ratio:.2f} times)."


def _beside_the_paper(gain: pd.DataFrame) -> str:
    """Compare with the paper's speed-up over plainly exported float, for both networks."""
    said = []
    for name, key in (("LiteMedSAM", OURS), ("MedSAM's ViT-B", LARGE)):
        row = _row(gain, key)
        if PAPER in row and PLAIN in row:
            said.append(f"{row[PLAIN]:.2f} times for {name} ({row[PAPER]:.2f} in the paper)")
    return f"Over float exported plainly: {', '.join(said)}." if said else ""
