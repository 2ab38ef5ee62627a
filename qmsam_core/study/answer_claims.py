"""Sentences: which of the paper's claims do not hold in a run, which its own numbers deny, which are open."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

PAPER, HERE = "holds in the paper", "holds here"
OPEN = "cannot be told"

UNTOLD = ("yes", OPEN)

KINDS = {
    ("yes", "no"): "Fails here",
    ("no", "no"): "Denied by the paper's own numbers, and here",
    ("no", "yes"): "Denied by the paper's own numbers, but true here",
    ("no", OPEN): "Denied by the paper's own numbers, open here",
    (OPEN, "no"): "Not shown in the paper, and not so here",
    UNTOLD: "Cannot be told here",
}
"""What the sentences say about a claim, by its verdicts in the paper and here. Other claims hold."""


def claims_verdict(claims: pd.DataFrame) -> str:
    """Count the claims that fail: those that the paper's numbers support and this run denies, and the others.

    Args:
        claims: `claims.csv` of notebook 10, texts alone.
    """
    rows = _rows(claims)
    told = [row[HERE] for row in rows if row[PAPER] == "yes" and row[HERE] in ("yes", "no")]
    own = [row for row in rows if row[PAPER] == "no"]
    itself = f"{len(own)} by the paper's own numbers"
    if not told:
        return f"None judged here; {itself}." if own else "Cannot be told: this run can judge no claim."
    failed = f"{told.count('no') or 'None'} of {len(told)} judged here"
    return f"{failed}; {itself}." if own else f"{failed}."


def claims_sentences(claims: pd.DataFrame) -> list[str]:
    """Name the claims that fail here, those that the paper's own numbers deny, and those that stay open."""
    groups: dict[str, list[str]] = {}
    for row in _rows(claims):
        verdicts = tuple(row[name] if row[name] in ("yes", "no") else OPEN for name in (PAPER, HERE))
        said = f"{row['name']} ({row['where']})" if verdicts == UNTOLD else _numbers(row)
        groups.setdefault(KINDS.get(verdicts, ""), []).append(said)
    return [f"{kind}: {'; '.join(_first(groups[kind]))}." for kind in KINDS.values() if kind in groups]


def _first(names: list[str], most: int = 3) -> list[str]:
    rest = len(names) - most
    return [*names[:most], f"and {rest} more"] if rest > 0 else names


def _rows(claims: pd.DataFrame) -> list[dict[str, str]]:
    return claims.assign(name=claims["claim"].str.split(":").str[0]).to_dict("records")


def _numbers(row: Mapping[str, str]) -> str:
    """A claim's name with its numbers. The paper's is left out if it shows none."""
    here = row["here"].split(" (")[0]
    if row["paper"] == "not shown":
        return f"{row['name']} ({here})"
    return f"{row['name']} ({row['where']}: {row['paper']}, here {here})"
