"""Which cases may be trained on for a checkpoint that is given away, and shown in pictures that are: those whose source states an open licence.

A data folder may hold `SOURCES.md` with Markdown tables whose first column names files (patterns below the modality's folder, in back quotes)
and of which one column is headed "licence as stated". Nothing is known here about any particular data set: only what is stated counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

SOURCES = "SOURCES.md"
OPEN = re.compile(r"\b(CC0|CC BY \d|MIT\b|BSD|Apache)")
RESTRICTED = re.compile(
    r"\bN[CD]\b|non-commercial|research and educational|\(code\)|names the \w+ code author|usage policy|(?<!separate data )licence stated|^none stated",
    re.IGNORECASE,
)
"""Terms that take back what a repository's own licence seems to give; "no separate data licence stated" leaves it standing."""


def is_open(statement: str) -> bool:
    """Whether a licence statement names CC0, CC BY, MIT, BSD or Apache for the data, and nothing that restricts them."""
    return bool(OPEN.search(statement)) and not RESTRICTED.search(statement)


def read_sources(root: str | Path) -> pd.DataFrame:
    """The sources of a data folder, one row a pattern: modality, pattern, source, licence, open (bool); empty without a `SOURCES.md`."""
    path = Path(root) / SOURCES
    rows, modality, header = [], "", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if line.startswith("## "):
            modality, header = line[3:].split(":")[0].strip(), []
        elif cells and not header:
            header = [cell.lower() for cell in cells]
        elif cells and "licence as stated" in header and not set(cells[0]) <= set("-: "):
            row = dict(zip(header, cells))
            licence = row["licence as stated"]
            rows += [
                (modality, pattern, row.get("original data set", ""), licence, is_open(licence))
                for pattern in re.findall(r"`([^`]+)`", cells[0])
            ]
    return pd.DataFrame(rows, columns=["modality", "pattern", "source", "licence", "open"])


def source_of(name: str, sources: pd.DataFrame) -> pd.Series | None:
    """The row of `read_sources` that describes a case, by its path below the root; None when no pattern names it."""
    modality, _, below = name.partition("/")
    for _, row in sources[sources["modality"] == modality].iterrows():
        tail = row["pattern"].rpartition("/")[2]
        if any(fnmatchcase(text, f"{pattern.rstrip('*')}*") for text, pattern in ((below, row["pattern"]), (Path(below).name, tail))):
            return row
    return None


def to_show(paths: Iterable[str | Path], root: str | Path) -> pd.Series:
    """Which cases of a data folder a picture should be made of, bool a path: the openly licensed; all where there is none (phantoms, a folder of one's own).

    A picture of others can be looked at where the data are, and is left out when the run is published (`qmsam_core.publish`).
    """
    sources = read_sources(root)
    rows = [source_of(Path(os.path.relpath(path, root)).as_posix(), sources) for path in paths]
    shown = pd.Series([row is not None and bool(row["open"]) for row in rows], dtype=bool)
    return shown if shown.any() else ~shown
