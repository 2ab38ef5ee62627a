"""The model card of the project's int8 model: what it is, made of what, and how well it does.

Its text is `model_card.md.j2`. All figures are measured or read from the file that it describes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from ..data.licences import SOURCES, read_sources, source_of
from ..evaluate.intervals import LEVEL, average_interval
from ..evaluate.tables import DASH, markdown
from ..models import SHIPPED, Sam
from ..provenance.files import sha256
from ..provenance.weights import ORIGIN
from ..quant import facts_of
from .own_images import BOXES

NOT_STATED = "not stated"
TEMPLATE = Path(__file__).with_name("model_card.md.j2")
SCORES = ("agreement", "dsc float", "dsc int8", "difference")
"""Columns of the card's table, fractions."""


def described(text: str) -> dict:
    """Describe data for the card: a text as it is, a folder by its name and the sources of its cases.

    Returns:
        `name`; `cases`, their number; `open`, how many of them have an open licence; and `sources`, one for
        each data set: modality, data set, licence as stated, cases. Without a `SOURCES.md` it is empty.
    """
    folder = Path(text)
    if not folder.is_dir():
        return {"name": text, "cases": 0, "open": 0, "sources": []}
    stated, counts, open_cases = read_sources(folder), Counter(), 0
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.npz"))
    for name in names if len(stated) else ():
        row = source_of(name, stated)
        told = (NOT_STATED, NOT_STATED) if row is None else (row["source"], row["licence"])
        counts[name.partition("/")[0] if "/" in name else folder.resolve().name, *told] += 1
        open_cases += row is not None and bool(row["open"])
    sources = [[*key, count] for key, count in counts.items()]
    return {"name": folder.resolve().name, "cases": len(names), "open": open_cases, "sources": sources}


def by_modality(objects: pd.DataFrame) -> pd.DataFrame:
    """Means over the cases of each modality, with bootstrap intervals, and over modalities.

    Args:
        objects: one row per object; see `Judgement`.

    Returns:
        Columns modality, cases, labelled (cases with a label), and each of `SCORES` with its `... low` and
        `... high`. `difference` is int8 minus float DSC. A case's value is the mean of its objects. The last
        row is the unweighted Average of the modalities. NaN where there is no label, or a single case for an
        interval.
    """
    objects = objects.assign(difference=objects["dsc int8"] - objects["dsc float"])
    cases = objects.groupby(["group", "case"])[list(SCORES)].mean().reset_index()
    modalities = [rows for _, rows in cases.groupby("group")]
    rows = [summary(own["group"].iloc[0], [own]) for own in modalities]
    return pd.DataFrame([*rows, summary("Average", modalities)])


def summary(name: str, modalities: list[pd.DataFrame]) -> dict[str, object]:
    """Return one row of `by_modality` for frames with a row a case."""
    row: dict[str, object] = {
        "modality": name,
        "cases": sum(map(len, modalities)),
        "labelled": sum(int(own["dsc int8"].notna().sum()) for own in modalities),
    }
    for score in SCORES:
        values = [own[score].dropna().to_numpy() for own in modalities]
        values = [own for own in values if len(own)]
        row[score] = float(np.mean([own.mean() for own in values])) if values else float("nan")
        row[f"{score} low"], row[f"{score} high"] = (
            average_interval(values) if values else (float("nan"),) * 2
        )
    return row


def card(model: Sam, path: Path, table: pd.DataFrame, judging: Path) -> str:
    """Write the model card as Markdown.

    Args:
        model: the packed model.
        path: its file.
        table: result of `by_modality`.
        judging: folder of the cases that judged.
    """
    facts = facts_of(path)
    data = facts.pop("data", [])
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        file=path.name,
        megabytes=path.stat().st_size / 1e6,
        digest=sha256(path),
        model=model,
        base=ORIGIN,
        settings=markdown(("setting", "value"), settings(model)),
        facts=facts and markdown(("fact", "value"), facts.items()),
        data=[told(one) for one in data],
        judging=judging.resolve().name,
        boxes=BOXES,
        level=LEVEL,
        results=results(table),
        judged_sources=told(described(str(judging))) if (judging / SOURCES).is_file() else "",
        modalities=list(table["modality"].iloc[:-1]),
        shipped=SHIPPED,
    )


def settings(model: Sam) -> list[tuple[str, str]]:
    """List the settings of a model's recipe as name and text, without its name and origin."""
    fields = asdict(model.recipe).items()
    return [(key.replace("_", " "), shown(value)) for key, value in fields if key not in ("name", "origin")]


def shown(value: object) -> str:
    """Write a setting's value: yes or no, a list by commas, a dash for nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if text and value is not None else DASH


def told(data: dict) -> str:
    """Return the Markdown on data that `described` has described."""
    if not data["sources"]:
        return f"{data['name']}, {data['cases']} cases." if data["cases"] else f"{data['name']}."
    table = markdown(("modality", "data set", "licence as stated", "cases"), data["sources"])
    return (
        f"`{data['name']}`, {data['cases']} cases; the sources of {data['open']} state an open licence. "
        f"As its `{SOURCES}` tells:\n\n{table}"
    )


def results(table: pd.DataFrame) -> str:
    """Return the card's table of results; see `by_modality`."""
    scores = ("agreement %", "DSC float %", "DSC int8 %", "int8 - float, points")
    rows = [
        (row["modality"], row["cases"], row["labelled"], *(with_interval(row, score) for score in SCORES))
        for row in table.to_dict("records")
    ]
    return markdown(("modality", "cases", "with labels", *scores), rows)


def with_interval(row: dict, score: str) -> str:
    """Return a score in percent with its interval, if it has one; a difference with its sign."""
    values = [100 * row[name] for name in (score, f"{score} low", f"{score} high")]
    middle, low, high = (f"{value:+.2f}" if score == "difference" else f"{value:.1f}" for value in values)
    if np.isnan(values[0]):
        return DASH
    return middle if np.isnan(values[1]) else f"{middle} ({low} to {high})"
