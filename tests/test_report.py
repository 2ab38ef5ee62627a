"""Reports of notebooks: they load nothing from the network and escape text."""

import re

import nbformat
import pytest
from pages import loads_from_network

from qmsam_core.study.parameters_cell import parameters_source
from qmsam_core.study.report import write_report


def executed_notebook(path, injected):
    code = nbformat.v4.new_code_cell
    cells = [
        nbformat.v4.new_markdown_cell("# A title\n\nWith $x^2$ and prose."),
        code(parameters_source(), metadata={"tags": ["parameters"]}),
        code("# Parameters\n" + injected, metadata={"tags": ["injected-parameters"]}),
        code("print('a result')", outputs=[nbformat.v4.new_output("stream", text="a result\n")]),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_report_is_self_contained_and_shows_code_and_results(tmp_path):
    path = executed_notebook(tmp_path / "executed.ipynb", 'seed = 7\nmodel = "medsam"')
    page = write_report(path, "A title").read_text()
    assert loads_from_network(page) == [] and "<script" not in page
    for part in ("<title>A title</title>", "a result", "print", "max-width: 100%"):
        assert part in page


def test_progress_bars_are_not_printed(tmp_path):
    path = executed_notebook(tmp_path / "executed.ipynb", "seed = 0")
    book = nbformat.read(path, 4)
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}}
    shown = (widget, {"text/html": "<pre></pre>\n"}, {"text/html": "<b>told</b>"})
    book.cells[-1].outputs += [nbformat.v4.new_output("display_data", data=data) for data in shown]
    book.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(book, path)
    page = write_report(path, "t").read_text()
    assert "<script" not in page and loads_from_network(page) == []
    assert page.count('class="jp-OutputArea-child') == 2 and "<b>told</b>" in page


def test_a_report_is_small(tmp_path):
    path = executed_notebook(tmp_path / "executed.ipynb", "seed = 0")
    assert write_report(path, "t").stat().st_size < 30_000


def test_parameters_are_folded_and_those_that_differ_are_not(tmp_path):
    page = write_report(executed_notebook(tmp_path / "executed.ipynb", "seed = 7"), "t").read_text()
    summary, folded = page.split("<details>")[1].split("</summary>")
    assert summary == "<summary>Parameters: the smoke profile's values" and page.count("<details>") == 1
    folded, rest = folded.split("</details>")
    assert "phantom_cases" in folded and "where it differs" not in folded
    assert "phantom_cases" not in rest and "where it differs" in rest


@pytest.mark.parametrize(
    ("injected", "times"),
    [('model = "litemedsam"\nbatch_size = [4, 4, 4]', 0), ('model = "litemedsam"\nseed = 7', 1)],
)
def test_report_shows_only_parameters_that_differ(tmp_path, injected, times):
    page = write_report(executed_notebook(tmp_path / "executed.ipynb", injected), "t").read_text()
    assert page.count("where it differs") == times and page.count('"litemedsam"') == 1


def test_files_are_linked_where_they_are_made_and_at_the_end(tmp_path):
    path = executed_notebook(tmp_path / "executed.ipynb", "seed = 0")
    book = nbformat.read(path, 4)
    picture = nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})
    source = 'run.table("a", x)\nrun.comparison(\n    "b", y)\nrun.figure("c", z)\nrun.table("gone", w)'
    book.cells.append(nbformat.v4.new_code_cell(source, outputs=[picture]))
    nbformat.write(book, path)
    for name in ("a.csv", "b.csv", "c.png", "other.csv", "model.safetensors"):
        (tmp_path / name).touch()
    page = write_report(path, "t").read_text()
    cells, end = page.split("Tables and pictures of this notebook")
    for name in ("a.csv", "b.csv", "c.png"):  # the anchor stands before the result, the link behind it
        assert cells.index(f'<div id="{name}">') < cells.index("base64") < cells.rindex(f'href="{name}"')
    assert re.search(r'<a href="c.png"><img [^>]*src="data:image/png;base64', cells)
    assert "other.csv" not in cells and "gone.csv" not in page and "safetensors" not in page
    assert re.findall(r'href="([^"]*)"', end) == ["a.csv", "b.csv", "c.png", "other.csv"]


def test_pictures_are_not_linked_if_one_of_the_cell_is_missing(tmp_path):
    path = executed_notebook(tmp_path / "executed.ipynb", "seed = 0")
    book = nbformat.read(path, 4)
    picture = nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})
    withheld = nbformat.v4.new_output("display_data", data={"text/html": "withheld"})
    book.cells.append(
        nbformat.v4.new_code_cell("run.figure('a', x)\nrun.figure('b', y)", outputs=[withheld, picture])
    )
    nbformat.write(book, path)
    (tmp_path / "a.png").touch()
    page = write_report(path, "t").read_text()
    assert "<img" in page and not re.search(r"<a [^>]*><img", page)
