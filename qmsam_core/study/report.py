"""Make the HTML report of an executed notebook.

The pages load nothing from the network, neither fonts nor scripts. Therefore TeX between dollar signs is not
typeset. Tables are made to fit the page, so that a picture or a print of it shows all their columns.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import jinja2
import nbformat
from nbconvert import HTMLExporter

from qmsam_core.provenance.files import write_atomic
from qmsam_core.study.readable_tables import readable_tables

REPORT = "report.html"
SHARED = (".csv", ".png")
"""Endings of the files that reports link: tables and pictures."""

FIGURE = re.compile(r"run\.figure\(\s*[\"'](\w+)[\"']")
"""A figure that a cell makes, by its name."""

TABLE = re.compile(r"run\.(?:table|comparison)\(\s*[\"'](\w+)[\"']")
"""A table that a cell makes, by its name."""

WIDGET = "application/vnd.jupyter.widget-view+json"

LOADER = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))


def write_report(executed: Path, title: str) -> Path:
    """Render an executed notebook to `report.html` beside it, with embedded figures. Return the path."""
    folder = executed.parent
    files = sorted(path.name for path in folder.iterdir() if path.suffix in SHARED)
    body = report_html(nbformat.read(executed, as_version=4), title, files)
    report = executed.with_name(REPORT)
    return write_atomic(report, lambda partial: partial.write_text(body, encoding="utf-8"))


def report_html(book: nbformat.NotebookNode, title: str, files: Iterable[str] = ()) -> str:
    """Render an executed notebook as a page with visible code and folded parameters.

    A PNG output whose metadata have `filename` is linked, with `caption` as its text. Others are embedded.

    Args:
        book: the notebook.
        title: title of the page.
        files: names of the tables and pictures beside the page. Below a cell that makes one stands its link,
            which is also the anchor `#<file name>`. All are listed at the end.
    """
    files = list(files)
    exporter = HTMLExporter(extra_loaders=[LOADER], template_name="lab", template_file="report.html.j2")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    resources = {"metadata": {"name": title}, "study_files": files}
    with warnings.catch_warnings():  # figures need no alternative text here
        warnings.filterwarnings("ignore", message="Alternative text is missing")
        body, _ = exporter.from_notebook_node(_to_read(book, files), resources=resources)
    return readable_tables(body)


def _to_read(book: nbformat.NotebookNode, files: list[str]) -> nbformat.NotebookNode:
    """Remove what is useless on a static page: live progress bars and repeated parameters. Name the files."""
    book.metadata.pop("widgets", None)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _was_live(output)]
            _name_files(cell, files)
    for cell in _tagged(book, "parameters"):
        profile = re.search(r"""^profile = ["'](.+?)["']""", cell.source, flags=re.M)
        cell.metadata["folded"] = "Parameters" + (f": the {profile[1]} profile's values" if profile else "")
    return _without_repeats(book)


def _name_files(cell: nbformat.NotebookNode, files: list[str]) -> None:
    """Note in a cell's metadata which files it made, and in each of its pictures which file that is."""
    pictures = [f"{name}.png" for name in FIGURE.findall(cell.source)]
    made = [*(f"{name}.csv" for name in TABLE.findall(cell.source)), *pictures]
    cell.metadata["files"] = [name for name in dict.fromkeys(made) if name in files]
    shown = [output for output in cell.outputs if "image/png" in output.get("data", {})]
    if len(shown) == len(pictures):  # else a withheld one is missing, and the order tells nothing
        for output, name in zip(shown, pictures):
            if name in files:
                output.metadata["link"] = name


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
