"""Reports: self-contained, escaped, and honest about the scale of the run."""

import re

import nbformat
import pandas as pd
import pytest

from qmsam_core.params import Params, parameters_source
from qmsam_core.report import Entry, scale_of, table_html, write_index, write_report


def loads_from_network(page):
    """Addresses a browser would fetch; links a reader may follow do not count."""
    page = re.sub(r"/\*.*?\*/", "", page, flags=re.S)
    return re.findall(r"""(?:src=|<link[^>]*href=|@import|url\()\s*["']?\s*((?:https?:)?//[^"' )>]+)""", page)


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
    page = write_report(
        executed_notebook(tmp_path / "executed.ipynb", 'seed = 7\nmodel = "nano"'), "A title"
    ).read_text()
    assert loads_from_network(page) == [] and "<script" not in page
    assert "<title>A title</title>" in page and "a result" in page and "print" in page and "max-width: 100%" in page


def test_progress_bars_are_not_printed(tmp_path):
    path = executed_notebook(tmp_path / "executed.ipynb", "seed = 0")
    book = nbformat.read(path, 4)
    widget, blank, told = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}}, {"text/html": "<pre></pre>\n"}, {"text/html": "<b>told</b>"}
    book.cells[-1].outputs += [nbformat.v4.new_output("display_data", data=data) for data in (widget, blank, told)]
    book.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(book, path)
    page = write_report(path, "t").read_text()
    assert "<script" not in page and loads_from_network(page) == [] and page.count('class="jp-OutputArea-child') == 2 and "<b>told</b>" in page


def test_a_report_is_small(tmp_path):
    assert write_report(executed_notebook(tmp_path / "executed.ipynb", "seed = 0"), "t").stat().st_size < 30_000


@pytest.mark.parametrize(
    ("injected", "times"), [('model = "nano"\nbatch_size = [2, 4, 2]', 0), ('model = "nano"\nseed = 7', 1)]
)
def test_report_shows_only_parameters_that_differ(tmp_path, injected, times):
    page = write_report(executed_notebook(tmp_path / "executed.ipynb", injected), "t").read_text()
    assert page.count("where it differs") == times and page.count('"nano"') == 1


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, ["smoke profile: nano network at 64 px, phantoms", "machinery works, not the paper's result"]),
        ({"data_root": "x/pack"}, ["data from pack", "machinery works"]),
        ({"validation_root": "x/public"}, ["phantoms, validated on public", "machinery works"]),
        (
            {"data_root": "x/pack", "model": "litemedsam", "image_size": 256},
            ["litemedsam network at 256 px", "directions before the numbers"],
        ),
    ],
)
def test_scale_is_told(values, parts):
    for part in parts:
        assert part in scale_of(Params(**values))


def test_table_numbers(tmp_path):
    path = tmp_path / "t.csv"
    columns = {
        "name": ["<b>", "y"],
        "few": [0.123456, None],
        "many": [5726740.0, 6220.0],
        "count": [3, 2],
        "ok": [True, False],
    }
    pd.DataFrame(columns).to_csv(path, index=False)
    html = table_html(path)
    for cell in ("&lt;b&gt;", "0.1235", "–", "5,726,740", "6,220", "3", "True"):
        assert f"<td>{cell}</td>" in html


def test_index(project):
    folder = project / "outputs" / "smoke" / "00_make"
    folder.mkdir(parents=True)
    pd.DataFrame({"modality": ["CT"], "dsc paper": [0.8935], "dsc here": [0.8]}).to_csv(
        folder / "table7.csv", index=False
    )
    (folder / "fig1.png").write_bytes(b"png")
    (folder / "report.html").touch()
    record = {
        "seconds": 12.3,
        "ended": "2024-01-01T00:00:00+00:00",
        "outputs": {"table7.csv": "", "fig1.png": "", "gone.csv": ""},
        "comparisons": [{"file": "table7.csv", "caption": "Table 7 <here>"}, {"file": "gone.csv", "caption": "gone"}],
        "figures": [{"file": "fig1.png", "caption": ""}],
        "environment": {
            "commit": "0123456789abcdef",
            "dirty": True,
            "cpu": {"model": "A CPU", "cores": 2, "vnni": True},
        },
    }
    entries = [Entry("00_make", "Make", "", record), Entry("01_read", "Read", "not run", {})]
    page = write_index(project, Params(), entries).read_text()
    assert loads_from_network(page) == [] and "<script" not in page
    for part in (
        "Table 7 &lt;here&gt;",
        "89.35 %",
        'href="00_make/report.html"',
        'src="00_make/fig1.png"',
        "not run",
        "A CPU",
        "vnni",
    ):
        assert part in page
    assert "0123456789ab with uncommitted changes" in page and "gone" not in page and "machinery works" in page


def test_index_opens_with_where_paper_and_run_part(project):
    folder = project / "outputs" / "smoke" / "10_beyond"
    folder.mkdir(parents=True)
    columns = ["claim", "where", "paper", "here", "holds in the paper", "holds here"]
    rows = [["fast", "Table 5", "0.98x", "1.42x", "no", "yes"], ["even", "Table 7", "1", "2", "yes", "yes"], ["new", "not shown", "not shown", "3", "not shown", "no"]]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "claims.csv", index=False)
    record = {"comparisons": [{"file": "claims.csv", "caption": "Claims"}]}
    page = write_index(project, Params(), [Entry("10_beyond", "Beyond", "", record)]).read_text()
    assert "Of 2 statements that both have numbers for, 1 come out here as in the paper; in 1 they part:" in page
    assert "<li>fast: paper 0.98x, here 1.42x" in page and page.count("<li>") == 1 and page.count('class="parts"') == 1
    assert page.index("fast") < page.index("Notebooks</h2>") < page.index("The run</h2>")


def test_index_before_anything_ran(project):
    assert "not run" in write_index(project, Params(), [Entry("00_make", "Make", "not run", {})]).read_text()
