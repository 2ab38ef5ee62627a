"""Find the cases whose source states an open licence.

Only these may train a published checkpoint or appear in a published picture.

A data folder may hold `SOURCES.md` with Markdown tables. The first column names files by patterns in back
quotes, relative to the modality's folder. One column is headed "licence as stated". This module knows nothing
about any particular data set. Only the stated licence counts.

A pattern names the files that begin with it, with `*`, `?` and `[...]` as in a shell. The match must not end
within a word or number: `case_1` names `case_1.npz` and `case_1_2.npz`, not `case_10.npz`. After a final
`*`, `_`, `-` or `/` anything may follow, as in `case_`, `case_1*` and `Set/`.
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
    r"\bN[CD]\b|non-commercial|research and educational|\(code\)|names the \w+ code author|usage policy|"
    r"(?<!separate data )licence stated|^none stated",
    re.IGNORECASE,
)
"""Terms that revoke a repository's open licence. "No separate data licence stated" does not revoke it."""


def is_open(statement: str) -> bool:
    """Whether a statement names CC0, CC BY, MIT, BSD or Apache for the data, without restricting them."""
    return bool(OPEN.search(statement)) and not RESTRICTED.search(statement)


def read_sources(root: str | Path) -> pd.DataFrame:
    """Read the sources of a data folder, one row per pattern. Without a `SOURCES.md` the table is empty.

    Columns: modality, pattern, source, licence, open (bool).
    """
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
    """Find the row of `read_sources` for a case, given by its path below the root; None if there is none.

    If several patterns match, the case is open only if all of them are open. The row returned is the one with
    the longest literal text, among the rows that are not open if there are any, else among all.

    A case directly in its modality's folder may be a copy without the data set's folder. It also matches by
    the part of a pattern after the last `/`.
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
    """Whether a name begins with a pattern that ends at a word's end. An empty pattern covers nothing."""
    if pattern.endswith(("*", "_", "-", "/")):
        return fnmatchcase(name, f"{pattern}*")
    return any(
        fnmatchcase(name[:end], pattern)
        for end in range(1, len(name) + 1)
        if not name[end : end + 1].isalnum()
    )


def _file_pattern(pattern: str, modality: str) -> str:
    """A pattern after its last `/`; "" if that names no data set (`Set/`, `Set/*.npz`, `Set/2DBox_US_*`)."""
    tail = pattern.rpartition("/")[2]
    words = re.sub(r"^[23]DBox_", "", _literal(tail)).removeprefix(modality).removesuffix(".npz")
    return tail if any(character.isalnum() for character in words) else ""


def _literal(pattern: str) -> str:
    return re.sub(r"\[[^]]*\]|[*?]", "", pattern)


def to_show(paths: Iterable[str | Path], root: str | Path) -> pd.Series:
    """Choose the cases to make pictures of: those with an open licence, or all cases if none has one.

    Phantoms and private folders state no licence. Except for phantoms, pictures of cases without an open
    licence can be viewed where the data are, but are not published with a run (`qmsam_core.study.publish`).
    The result holds one bool per path.
    """
    sources = read_sources(root)
    rows = [source_of(Path(os.path.relpath(path, root)).as_posix(), sources) for path in paths]
    shown = pd.Series([row is not None and bool(row["open"]) for row in rows], dtype=bool)
    return shown if shown.any() else ~shown
