"""A run's pages in a browser at several widths: tables show all columns, nothing is broken, no dead links."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import WHY_NOT, find_browser, open_browser
from published_run import make_run

from qmsam_core.study.publish import publish
from qmsam_core.study.report import write_report

BROWSER = find_browser()
WIDTHS = (1280, 960, 400)
SCHEMES = ("light", "dark")
CLIPPED = "tables that do not show all their columns"
PHONE = 400  # at this width a table may scroll within a container, if the container shows it
REFERENCE = Path(__file__).parents[1] / "outputs" / "reference"
PUBLISHED = sorted(path.parent for path in REFERENCE.glob("*/index.html"))

pytestmark = pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)


@pytest.fixture(scope="module")
def page():
    with open_browser(BROWSER) as page:
        yield page


def looks_right(page, path, width, headings=(), scheme="light"):
    seen = page.look(path, width, scheme)
    where = f"{path} at {width} px, {scheme}"
    assert page.problems == [], where
    assert seen["width"] == width, where
    assert seen["scroll_width"] <= width, f"{where}: {seen['scroll_width']} px wide"
    clipped = [table for table in seen["tables"] if table["clipped"]]
    unseen = [table["header"] for table in clipped if width > PHONE or not table["hinted"]]
    assert not unseen, f"{where}: {CLIPPED}: {'; '.join(unseen)}"
    assert [image["source"] for image in seen["images"] if not image["whole"]] == [], where
    assert seen["smallest_type"] >= 12, where
    assert seen["faint"] == [], where
    for heading in headings:
        found = seen["headings"]
        assert any(heading in text for text in found), f"{where}: no heading {heading}, found {found}"
    files = [Path(unquote(urlsplit(link).path)) for link in seen["links"] if link.startswith("file:")]
    assert [str(file) for file in files if not file.exists()] == [], where
    return seen


INDEX = ("Quantisation-aware", "where they part", "Figures", "Paper vs this run", "Notebooks", "The run")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_index_and_reports(project, page, width, scheme):
    make_run(project, wide=True)
    target = project / "reference"
    publish(project / "outputs" / "smoke", target)
    index = looks_right(page, target / "index.html", width, INDEX, scheme)
    assert len({image["source"] for image in index["images"]}) == 2
    assert index["images"][0]["whole"] and len(index["links"]) > 8
    report = looks_right(
        page, target / "07_validation" / "report.html", width, ["07_validation & more"], scheme
    )
    assert len(report["images"]) == 2
    for seen in (index, report):
        assert sorted(table["columns"] for table in seen["tables"])[-1] >= 17
        assert any(table["clipped"] for table in seen["tables"]) == (width == PHONE)
    looks_right(page, target / "10_beyond" / "report.html", width, scheme=scheme)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (960, "dark"), (400, "light")])
@pytest.mark.parametrize(
    "run",
    PUBLISHED or [pytest.param(None, marks=pytest.mark.skip(reason="no reference run is committed"))],
    ids=lambda run: run and run.name,
)
def test_reference_runs(page, run, width, scheme):
    assert looks_right(page, run / "index.html", width, INDEX, scheme)["images"][0]["whole"]
    for report in sorted(run.glob("*/report.html")):
        looks_right(page, report, width, scheme=scheme)


def test_what_is_wrong_is_seen(tmp_path, page):
    wrong = tmp_path / "wrong.html"
    wide = '<div style="width:900px">wide</div><img src="gone.png"><a href="gone.html">y</a>'
    wrong.write_text(f"<h1>x</h1>{wide}<script>console.error('z'); nobody()</script>")
    seen = page.look(wrong, 400)
    assert seen["scroll_width"] >= 900 and seen["links"][0].endswith("gone.html")
    assert [image["whole"] for image in seen["images"]] == [False]
    for problem in ("not loaded", "nobody"):
        assert any(problem in told for told in page.problems)
    (tmp_path / "right.html").write_text("<h1>x</h1>")
    assert page.look(tmp_path / "right.html", 400)["headings"] == ["x"] and page.problems == []


@pytest.mark.parametrize("faint", ["#8a8a8a", "rgb(0 0 0 / 45%)"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_faint_text_is_seen(tmp_path, page, faint, scheme):
    """A page without colours of its own has those of the reader's scheme."""
    path = tmp_path / "faint.html"
    style = "<style>:root { color-scheme: light dark }</style>"
    path.write_text(
        f"{style}<p>clear</p><div style='background: white'><p style='color: {faint}'>faint</p></div>"
    )
    assert [text["text"] for text in page.look(path, 960, scheme)["faint"]] == ["faint"]


CELLS = "<tr>" + "<th style='white-space: nowrap'>a heading of some length</th>" * 12 + "</tr>"


@pytest.mark.parametrize(
    "around",
    [
        "<div style='overflow-x: auto'>{}</div>",
        "<div style='overflow: hidden'>{}</div>",
        "<section>{}</section>",
    ],
)
@pytest.mark.parametrize("width", [1280, 960])
def test_a_clipped_table_is_seen(tmp_path, page, width, around):
    path = tmp_path / "clipped.html"
    path.write_text("<h1>x</h1>" + around.format(f"<table>{CELLS}</table>"))
    with pytest.raises(AssertionError, match=f"{CLIPPED}|px wide") as failure:
        looks_right(page, path, width)
    assert "section" in around or "a heading of some length, a heading" in str(failure.value)
    assert [table["clipped"] for table in page.look(path, width)["tables"]] == [True]


def test_a_cell_that_hides_its_end_is_seen(tmp_path, page):
    path = tmp_path / "cell.html"
    style = "max-width: 5em; overflow: hidden; white-space: nowrap"
    path.write_text(f"<h1>x</h1><table><tr><td style='{style}'>a long text that is cut off</td></tr></table>")
    with pytest.raises(AssertionError, match=CLIPPED):
        looks_right(page, path, 1280)


@pytest.mark.parametrize(("background", "hinted"), [("none", False), ("linear-gradient(red, blue)", True)])
def test_a_table_that_scrolls_on_a_phone_has_to_show_it(tmp_path, page, background, hinted):
    path = tmp_path / "scrolls.html"
    style = f"overflow-x: auto; background: {background}"
    path.write_text(f"<h1>x</h1><div style='{style}'><table>{CELLS}</table></div>")
    if hinted:
        looks_right(page, path, PHONE)
    else:
        with pytest.raises(AssertionError, match=CLIPPED):
            looks_right(page, path, PHONE)


def test_parameters_open_without_a_script(project, page):
    path = make_run(project) / "07_validation" / "report.html"
    write_report(path.with_name("executed.ipynb"), "t")
    page.look(path, 960)
    height = "document.querySelector('details').getBoundingClientRect().height"
    folded = page.ask(height)
    page.ask("document.querySelector('summary').click()")
    assert folded < 60 and page.ask(height) > 500
