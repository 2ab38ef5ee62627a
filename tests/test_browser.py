"""The pages a run leaves, looked at in a real browser, wide and narrow: nothing to scroll sideways, nothing broken, no link to nothing."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import find_browser, open_browser
from published_run import make_run

from qmsam_core.publish import publish

BROWSER = find_browser()
WIDTHS = (1280, 400)
REFERENCE = Path(__file__).parents[1] / "outputs" / "reference"
PUBLISHED = sorted(path.parent for path in REFERENCE.glob("*/index.html"))

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome found; install one or name it in QMSAM_BROWSER")


@pytest.fixture(scope="module")
def page():
    with open_browser(BROWSER) as page:
        yield page


def looks_right(page, path, width, headings=()):
    seen = page.look(path, width)
    where = f"{path} at {width} px"
    assert page.problems == [], where
    assert seen["width"] == width and seen["scroll_width"] <= width, f"{where}: {seen['scroll_width']} px wide"
    assert seen["broken"] == [], where
    assert seen["smallest_type"] >= 12, where
    for heading in headings:
        assert any(heading in text for text in seen["headings"]), f"{where}: no heading {heading}, found {seen['headings']}"
    files = [Path(unquote(urlsplit(link).path)) for link in seen["links"] if link.startswith("file:")]
    assert [str(file) for file in files if not file.exists()] == [], where
    return seen


INDEX = ("Quantisation-aware", "where they part", "Figures", "Paper vs this run", "Notebooks", "The run")


@pytest.mark.parametrize("width", WIDTHS)
def test_index_and_reports(project, page, width):
    make_run(project)
    target = project / "reference"
    publish(project / "outputs" / "smoke", target)
    seen = looks_right(page, target / "index.html", width, INDEX)
    assert seen["images"] == 2 and len(seen["links"]) > 8
    assert looks_right(page, target / "07_validation" / "report.html", width, ["07_validation & more"])["images"] == 2
    looks_right(page, target / "10_beyond" / "report.html", width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("run", PUBLISHED or [pytest.param(None, marks=pytest.mark.skip(reason="no reference run is committed"))], ids=lambda run: run and run.name)
def test_reference_runs(page, run, width):
    looks_right(page, run / "index.html", width, INDEX)
    for report in sorted(run.glob("*/report.html")):
        looks_right(page, report, width)


def test_what_is_wrong_is_seen(tmp_path, page):
    wrong = tmp_path / "wrong.html"
    wrong.write_text('<h1>x</h1><div style="width:900px">wide</div><img src="gone.png"><a href="gone.html">y</a><script>console.error("z"); nobody()</script>')
    seen = page.look(wrong, 400)
    assert seen["scroll_width"] >= 900 and len(seen["broken"]) == 1 and seen["links"][0].endswith("gone.html")
    assert any("not loaded" in problem for problem in page.problems) and any("nobody" in problem for problem in page.problems)
    (tmp_path / "right.html").write_text("<h1>x</h1>")
    assert page.look(tmp_path / "right.html", 400)["headings"] == ["x"] and page.problems == []
