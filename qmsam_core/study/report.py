"""Make the HTML of the study: a report for each executed notebook, and an index of a whole run.

The pages load nothing from the network, neither fonts nor scripts. Therefore TeX between dollar signs is not
typeset. Tables are made to fit the page, so that a picture or a print of it shows all their columns.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from qmsam_core.evaluate.tables import rendered
from qmsam_core.params import Params
from qmsam_core.provenance.environment import CPU_FEATURES
from qmsam_core.provenance.files import write_atomic
from qmsam_core.study.readable_tables import readable_tables

CLAIMS = "/claims.csv"
"""Ending of the table that opens the index: the paper's claims and the run's findings."""

WIDGET = "application/vnd.jupyter.widget-view+json"

LOADER = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))


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


def write_report(executed: Path, title: str) -> Path:
    """Render an executed notebook to `report.html` beside it, with embedded figures. Return the path."""
    body = report_html(nbformat.read(executed, as_version=4), title)
    report = executed.with_name("report.html")
    return write_atomic(report, lambda partial: partial.write_text(body, encoding="utf-8"))


def report_html(book: nbformat.NotebookNode, title: str) -> str:
    """Render an executed notebook as a page with visible code and folded parameters.

    A PNG output whose metadata have `filename` is linked, with `caption` as its text. Others are embedded.
    """
    exporter = HTMLExporter(extra_loaders=[LOADER], template_name="lab", template_file="report.html.j2")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    with warnings.catch_warnings():  # figures need no alternative text here
        warnings.filterwarnings("ignore", message="Alternative text is missing")
        body, _ = exporter.from_notebook_node(_to_read(book), resources={"metadata": {"name": title}})
    return readable_tables(body)


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
    templates = jinja2.Environment(loader=LOADER, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    comparisons = list(_listed(run_dir, entries, "comparisons"))
    return templates.get_template("index.html.j2").render(
        label=params.label,
        scale=scale_of(params),
        facts=_facts(params, entries),
        entries=[_row(run_dir, entry) for entry in entries],
        claims=next((_claims(run_dir, item) for item in comparisons if item["path"].endswith(CLAIMS)), None),
        comparisons=[item for item in comparisons if not item["path"].endswith(CLAIMS)],
        figures=sorted(_listed(run_dir, entries, "figures"), key=lambda item: bool(item.get("withheld"))),
        table_html=lambda path: table_html(run_dir / path),
        published=published,
    )


def scale_of(params: Params) -> str:
    """Say in one sentence how far the numbers of this run can be compared with the paper's."""
    data = params.data_description if params.data_root is None else f"data from {params.data_description}"
    what = f"{params.profile} profile: {params.model} at {params.image_size} px, {data}"
    if params.data_root is None:
        return f"{what}; the numbers show that the machinery works, not the paper's result."
    return f"{what}; data and hardware are not the paper's, so compare the directions before the numbers."


def table_html(path: Path) -> str:
    """Render a CSV table as HTML like the notebooks: shares in percent, a dash for missing values."""
    with pd.option_context("display.max_colwidth", None):
        return readable_tables(rendered(pd.read_csv(path)).to_html(index=False, border=0, escape=True))


def _to_read(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what is useless on a static page: live progress bars and repeated parameters."""
    book.metadata.pop("widgets", None)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _was_live(output)]
    for cell in _tagged(book, "parameters"):
        profile = re.search(r"""^profile = ["'](.+?)["']""", cell.source, flags=re.M)
        cell.metadata["folded"] = "Parameters" + (f": the {profile[1]} profile's values" if profile else "")
    return _without_repeats(book)


def _was_live(output: nbformat.NotebookNode) -> bool:
    """Return whether an output is a widget, or the empty line that a finished progress bar leaves."""
    shown = output.get("data", {})
    html = "".join(shown.get("text/html", "nothing"))
    return WIDGET in shown or not re.sub(r"<[^>]*>", "", html).strip() and "<img" not in html


def _without_repeats(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Keep of the parameters that papermill injects only those that differ from the cell above."""
    cells = _tagged(book, "parameters")
    declared = {line.split("  #")[0].strip() for cell in cells for line in cell.source.splitlines()}
    for cell in _tagged(book, "injected-parameters"):
        differ = [line for line in cell.source.splitlines()[1:] if line.strip() not in declared]
        cell.source = "\n".join(["# this run, where it differs", *differ]) if differ else ""
    book.cells = [cell for cell in book.cells if cell.source]
    return book


def _tagged(book: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in book.cells if tag in cell.metadata.get("tags", [])]


def _row(run_dir: Path, entry: Entry) -> dict[str, Any]:
    def there(name: str) -> str:
        return f"{entry.name}/{name}" if (run_dir / entry.name / name).is_file() else ""

    outputs = [name for name in entry.record.get("outputs", {}) if there(name)]
    shown = [name for name in outputs if name.endswith((".csv", ".png"))]
    return {
        "name": entry.name,
        "title": entry.title,
        "report": there("report.html"),
        "failed": there("failed.ipynb"),
        "state": entry.stale or "up to date",
        "stale": bool(entry.stale),
        "seconds": entry.record.get("seconds"),
        "outputs": [{"name": name, "path": there(name)} for name in shown],
    }


def _listed(run_dir: Path, entries: Iterable[Entry], kind: str) -> Iterable[dict[str, Any]]:
    """Yield the listed tables or figures that exist as files or are withheld."""
    for entry in entries:
        for item in entry.record.get(kind, ()):
            path = f"{entry.name}/{item['file']}"
            if (run_dir / path).is_file() or item.get("withheld"):
                caption = item["caption"] or Path(path).stem
                yield {**item, "path": path, "caption": caption, "notebook": entry.name}


def _claims(run_dir: Path, item: dict[str, Any]) -> dict[str, Any]:
    """Return the claims, those on which paper and run disagree, those the run cannot judge, and a summary.

    Only a claim that holds in the paper can hold here too. A claim also counts as a disagreement if the
    paper's own numbers deny it and this run confirms it.
    """
    rows = pd.read_csv(run_dir / item["path"], keep_default_na=False).to_dict("records")
    verdicts = [(row, row["holds in the paper"], row["holds here"]) for row in rows]
    told = [here for _, paper, here in verdicts if paper == "yes" and here in ("yes", "no")]
    parting = [row for row, paper, here in verdicts if {paper, here} == {"yes", "no"}]
    untold = [row for row, paper, here in verdicts if paper == "yes" and here not in ("yes", "no")]
    hold = told.count("yes")
    summary = f"Of {len(told)} claim{'s' * (len(told) != 1)} of the paper that this run can judge, "
    summary += (
        f"{hold} hold{'s' * (hold == 1)} here too; "
        f"in {len(parting) or 'no'} statement{'s' * (len(parting) != 1)}"
    )
    return {
        **item,
        "rows": rows,
        "parting": parting,
        "untold": untold,
        "summary": f"{summary} paper and run part.",
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
    features = [name for name in CPU_FEATURES if cpu.get(name)]
    facts["commit"] = ", ".join(sorted({_commit(record.get("environment", {})) for record in records}))
    counted = f"{cpu.get('model', 'unknown')}, {cpu.get('cores', '?')} cores"
    facts["CPU"] = f"{counted} ({', '.join(features) or 'no vector features'})"
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
