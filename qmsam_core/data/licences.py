"""Which cases may be trained on for a checkpoint that is given away, and shown in pictures that are: those whose source states an open licence.

A data folder may hold `SOURCES.md` with Markdown tables whose first column names files (patterns below the modality's folder, in back quotes)
and of which one column is headed "licence as stated". Nothing is known here about any particular data set: only what is stated counts.

A pattern names the files that begin with it, with `*`, `?` and `[...]` as in a shell, but it stops at no half word or number: `case_1` names
`case_1.npz` and `case_1_2.npz`, not `case_10.npz`; `case_`, `case_1*` and `Set/` name whatever follows.
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
    """The row of `read_sources` that describes a case, by its path below the root; None when no pattern names it.

    Where several do, the case is open only if all of them are: of those that are not, else of all, the row with the longest literal text is credited.
    A case directly in its modality's folder, as after a copy without the data sets' folders, also goes by what a pattern says behind its last `/`.
    """
    modality, _, below = name.partition("/")
    rows = sources[sources["modality"] == modality]
    rows = rows.loc[
        [
            _covers(pattern, below) or ("/" not in below and _covers(_file_pattern(pattern, modality), below))
            for pattern in rows["pattern"]
        ]
    ]
    if rows.empty:
        return None
    if not rows["open"].all():
        rows = rows[~rows["open"].astype(bool)]
    return max((row for _, row in rows.iterrows()), key=lambda row: len(_literal(row["pattern"])))


def _covers(pattern: str, name: str) -> bool:
    """Whether a name begins with a pattern that is not cut off within a word or number; an empty pattern covers nothing."""
    if pattern.endswith(("*", "_", "-", "/")):
        return fnmatchcase(name, f"{pattern}*")
    return any(
        fnmatchcase(name[:end], pattern)
        for end in range(1, len(name) + 1)
        if not name[end : end + 1].isalnum()
    )


def _file_pattern(pattern: str, modality: str) -> str:
    """What a pattern says of file names; "" where that tells no data set: `Set/`, `Set/*.npz`, `Set/2DBox_US_*`."""
    tail = pattern.rpartition("/")[2]
    words = re.sub(r"^[23]DBox_", "", _literal(tail)).removeprefix(modality).removesuffix(".npz")
    return tail if any(character.isalnum() for character in words) else ""


def _literal(pattern: str) -> str:
    return re.sub(r"\[[^]]*\]|[*?]", "", pattern)


def to_show(paths: Iterable[str | Path], root: str | Path) -> pd.Series:
    """Which cases of a data folder a picture should be made of, bool a path: the openly licensed; all where there is none (phantoms, a folder of one's own).

    A picture of others can be looked at where the data are, and is left out when the run is published (`qmsam_core.study.publish`).
    """
    sources = read_sources(root)
    rows = [source_of(Path(os.path.relpath(path, root)).as_posix(), sources) for path in paths]
    shown = pd.Series([row is not None and bool(row["open"]) for row in rows], dtype=bool)
    return shown if shown.any() else ~shown
