"""Answer three questions about a run in sentences made from its tables, for the top of its pages.

Does int8 keep the float model's accuracy, where not, and why? How much faster is it, and on which CPU? What
did the authors claim that does not hold? A table that a run lacks is named in its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from .answer_accuracy import accuracy_verdict, where_it_loses, why_it_loses
from .answer_claims import claims_sentences, claims_verdict
from .answer_speed import machine_of, speed_sentences, speed_verdict

NOT_RUN = "Not run yet."

COLUMNS = {
    "09_testing/summary.csv": ("model", "dsc", "difference to float", "difference low", "difference high"),
    "09_testing/paired.csv": ("modality", "cases", "difference", "difference_low", "difference_high"),
    "09_testing/scores.csv": ("arm", "case", "modality", "dsc", "agreement"),
    "10_beyond/recipes.csv": ("name", "agreement"),
    "06_engine_speed/int8_gain.csv": ("table", "engine", "speed-up paper", "speed-up over best float"),
    "06_engine_speed/isa_gain.csv": ("instruction set", "part", "speed-up over best float"),
    "10_beyond/claims.csv": ("claim", "where", "paper", "here", "holds in the paper", "holds here"),
}
"""The tables that answers are made from, and the columns that they need."""


@dataclass(frozen=True)
class Answer:
    """What a run says to one question.

    Attributes:
        question: as it stands in the heading.
        verdict: the answer in a few words.
        sentences: plain text, the most important first.
        seen: paths of the tables and figures that show it, within the run's folder, by what the link says.
            Not every run has all of them.
    """

    question: str
    verdict: str
    sentences: list[str]
    seen: dict[str, str] = field(default_factory=dict)


def answers(folder: Path, records: Mapping[str, Mapping[str, Any]]) -> list[Answer]:
    """Answer the three questions from the tables in a run's folder.

    Args:
        folder: folder of the run.
        records: content of each notebook's `run.json`, by the notebook's name. It tells the machine.
    """
    tables = {path: _read(folder / path, columns) for path, columns in COLUMNS.items()}
    return [
        accuracy(tables, _missing(tables, "09_testing", "10_beyond/recipes")),
        speed(tables, machine_of(records), _missing(tables, "06_engine_speed")),
        claims(tables["10_beyond/claims.csv"], _missing(tables, "10_beyond/claims")),
    ]


def accuracy(tables: Mapping[str, pd.DataFrame | None], missing: str = "") -> Answer:
    """Answer whether int8 keeps the float model's accuracy, where it does not, and why."""
    summary, scores = tables["09_testing/summary.csv"], tables["09_testing/scores.csv"]
    verdict, sentences = (NOT_RUN, []) if summary is None else accuracy_verdict(summary, scores)
    if tables["09_testing/paired.csv"] is not None:
        sentences += where_it_loses(tables["09_testing/paired.csv"], scores)
    if tables["10_beyond/recipes.csv"] is not None:
        sentences += why_it_loses(tables["10_beyond/recipes.csv"])
    return Answer(
        "Does int8 keep the float model's accuracy? Where not, and why?",
        verdict,
        [*sentences, missing],
        {
            "all models": "09_testing/summary.csv",
            "by modality": "09_testing/differences.png",
            "which part loses": "10_beyond/recipes.png",
            "block by block": "05_export/blocks.png",
        },
    )


def speed(tables: Mapping[str, pd.DataFrame | None], machine: str, missing: str = "") -> Answer:
    """Answer how much faster int8 is than float, and on which CPU."""
    gain, isa = tables["06_engine_speed/int8_gain.csv"], tables["06_engine_speed/isa_gain.csv"]
    return Answer(
        "How much faster is int8, and on which CPU?",
        NOT_RUN if gain is None and isa is None else speed_verdict(gain, isa),
        [*speed_sentences(gain, isa, tables["09_testing/summary.csv"], machine), missing],
        {
            "all arms": "06_engine_speed/int8_gain.csv",
            "by instruction set": "06_engine_speed/isa_gain.csv",
            "milliseconds": "06_engine_speed/table5.png",
            "why int8 lost in the paper": "10_beyond/layers.png",
        },
    )


def claims(table: pd.DataFrame | None, missing: str = "") -> Answer:
    """Answer which of the paper's claims do not hold."""
    return Answer(
        "What did the authors claim that does not hold?",
        NOT_RUN if table is None else claims_verdict(table),
        [*([] if table is None else claims_sentences(table)), missing],
        {"all claims, number by number": "10_beyond/claims.csv"},
    )


def _read(path: Path, columns: Iterable[str]) -> pd.DataFrame | None:
    """Return a table, or None if it is not there, has no rows, or lacks a column (another version's run)."""
    if not path.is_file():
        return None
    texts = {"dtype": str, "keep_default_na": False} if path.name == "claims.csv" else {}
    table = pd.read_csv(path, **texts)
    return None if table.empty or not set(columns) <= set(table) else table


def _missing(tables: Mapping[str, pd.DataFrame | None], *beginnings: str) -> str:
    """Name the tables that an answer lacks. Empty if it has all."""
    absent = [path for path, table in tables.items() if table is None and path.startswith(beginnings)]
    return f"Not in this run, or of another version: {', '.join(absent)}." if absent else ""
