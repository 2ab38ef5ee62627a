"""Make the page of a whole run: three questions answered, three pictures, then every claim, figure and table.

It loads nothing from the network, neither fonts nor scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from qmsam_core.params import Params
from qmsam_core.provenance.files import write_atomic
from qmsam_core.study.answer_speed import features_of
from qmsam_core.study.answers import answers
from qmsam_core.study.readable_tables import BEFORE_UNIT, table_as_html
from qmsam_core.study.report import LOADER, REPORT
from qmsam_core.study.shown import Shown, other_readings, shown

CLAIMS = "/claims.csv"
"""Ending of the table of the paper's claims and the run's findings."""

PICTURES = {
    "Accuracy against time": (
        "10_beyond/recipes.png",
        "10_beyond/resolutions.png",
        "06_engine_speed/table5.png",
    ),
    "Int8 minus float, by modality": (
        "09_testing/differences.png",
        "07_validation/scatter.png",
        "09_testing/ellipse.png",
    ),
    "Typical cases": ("11_try_it/typical.png", "07_validation/fig2.png"),
}
"""The pictures below the answers: what each shows, and the figures that may, the best first."""


@dataclass(frozen=True)
class Entry:
    """A notebook in the index.

    Attributes:
        name: file name of the notebook without its ending.
        title: its first heading.
        stale: why it is not up to date. Empty if it is.
        record: content of its `run.json`. Empty if there is none.
    """

    name: str
    title: str
    stale: str
    record: dict[str, Any]


def templates() -> jinja2.Environment:
    """Return the environment of the study's pages. Its filter `units` keeps numbers with their units."""
    made = jinja2.Environment(loader=LOADER, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters["units"] = lambda text: BEFORE_UNIT.sub("\u00a0", text)
    return made


def write_index(root: Path, params: Params, entries: Iterable[Entry]) -> Path:
    """Write all results of a run on one page, `<run folder>/index.html`. Return the path."""
    run_dir = root / params.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    text = index_html(run_dir, params, entries)
    return write_atomic(run_dir / "index.html", lambda partial: partial.write_text(text, encoding="utf-8"))


def index_html(run_dir: Path, params: Params, entries: Iterable[Entry], published: bool = False) -> str:
    """Render the index of the run in `run_dir`. Withheld pictures come after the others.

    With `published` the page does not say which notebooks are up to date. In a copy that does not matter.
    """
    entries = list(entries)
    records = {entry.name: entry.record for entry in entries if entry.record}
    tables = shown(run_dir, records, "comparisons")
    figures = sorted(shown(run_dir, records, "figures"), key=lambda item: bool(item.withheld))
    link = _links(run_dir, {item.path for item in (*tables, *figures) if not item.withheld})
    return (
        templates()
        .get_template("index.html.j2")
        .render(
            label=params.label,
            scale=scale_of(params),
            answers=answers(run_dir, records),
            pictures=front_pictures(figures),
            facts=_facts(params, entries),
            entries=[_row(run_dir, entry) for entry in entries],
            claims=next((_claims(run_dir, item) for item in tables if item.path.endswith(CLAIMS)), None),
            comparisons=[item for item in tables if not item.path.endswith(CLAIMS)],
            figures=figures,
            others=other_readings(run_dir, records),
            table_html=lambda path: table_as_html(pd.read_csv(run_dir / path)),
            link=link,
            link_to_report=lambda path: report_link(run_dir, path),
            named=lambda path: Path(path).stem.replace("_", " "),
            published=published,
        )
    )


def front_pictures(figures: Iterable[Shown]) -> dict[str, Shown]:
    """Choose a picture for each role of `PICTURES`. A role that no figure of the run can play is left out."""
    there = {item.path: item for item in figures if not item.withheld}
    chosen = {
        role: next((there[path] for path in paths if path in there), None) for role, paths in PICTURES.items()
    }
    return {role: item for role, item in chosen.items() if item}


def _links(run_dir: Path, on_page: Iterable[str]) -> Callable[[str], str]:
    """Return a function that gives the link to a table or figure of the run: here, in a report, or its file.

    The link is empty if the run does not have it.
    """
    there = set(on_page)
    return lambda path: f"#{path}" if path in there else report_link(run_dir, path)


def report_link(run_dir: Path, path: str) -> str:
    """Return the link to where a report shows a table or figure. Empty if the run does not have the file."""
    if not path or not (run_dir / path).is_file():
        return ""
    report = f"{Path(path).parent.as_posix()}/{REPORT}"
    return f"{report}#{Path(path).name}" if (run_dir / report).is_file() else path


def scale_of(params: Params) -> str:
    """Say in one sentence how far the numbers of this run can be compared with the paper's."""
    data = params.data_description if params.data_root is None else f"data from {params.data_description}"
    what = f"{params.profile} profile: {params.model} at {params.image_size} px, {data}"
    if params.data_root is None:
        return f"{what}; the numbers show that the machinery works, not the paper's result."
    return f"{what}; data and hardware are not the paper's, so compare the directions before the numbers."


def _row(run_dir: Path, entry: Entry) -> dict[str, Any]:
    def there(name: str) -> str:
        return f"{entry.name}/{name}" if (run_dir / entry.name / name).is_file() else ""

    outputs = [name for name in entry.record.get("outputs", {}) if there(name)]
    listed = [name for name in outputs if name.endswith((".csv", ".png"))]
    return {
        "name": entry.name,
        "title": entry.title,
        "report": there(REPORT),
        "failed": there("failed.ipynb"),
        "state": entry.stale or "up to date",
        "stale": bool(entry.stale),
        "seconds": entry.record.get("seconds"),
        "outputs": [{"name": name, "path": there(name)} for name in listed],
    }


def _claims(run_dir: Path, item: Shown) -> dict[str, Any]:
    """Return the claims, and those on which paper and run disagree.

    Only a claim that holds in the paper can hold here too. A claim also counts as a disagreement if the
    paper's own numbers deny it and this run confirms it.
    """
    rows = pd.read_csv(run_dir / item.path, keep_default_na=False, dtype=str).to_dict("records")
    return {
        "item": item,
        "rows": rows,
        "parting": [row for row in rows if {row["holds in the paper"], row["holds here"]} == {"yes", "no"}],
        "seen": any(row.get("seen in") for row in rows),
    }


def _facts(params: Params, entries: Iterable[Entry]) -> dict[str, str]:
    """Describe the run in a few lines: profile, data, commit, machine, time."""
    records = [entry.record for entry in entries if entry.record]
    phantoms = f"phantoms, {params.phantom_cases} cases"
    facts = {"profile": params.profile, "data": params.data_description if params.data_roots else phantoms}
    if not records:
        return facts
    latest = max(records, key=lambda record: record.get("ended", ""))
    around = latest.get("environment", {})
    cpu = around.get("cpu", {})
    facts["commit"] = ", ".join(sorted({_commit(record.get("environment", {})) for record in records}))
    counted = f"{cpu.get('model', 'unknown')}, {cpu.get('cores', '?')} cores"
    facts["CPU"] = f"{counted} ({features_of(cpu)})"
    facts["threads"] = str(params.threads)
    versions = around.get("versions", {})
    software = ("python", "torch", "brevitas", "openvino")
    facts["software"] = ", ".join(f"{name} {versions.get(name, '?')}" for name in software)
    facts["last run"] = str(latest.get("ended", ""))
    facts["time in all"] = f"{sum(record.get('seconds', 0) for record in records):,.0f} s"
    return facts


def _commit(around: dict[str, Any]) -> str:
    commit = (around.get("commit") or "none")[:12]
    return f"{commit} with uncommitted changes" if around.get("dirty") else commit
