"""The first screen of a run's index in a browser, light and dark, and the page that compares two runs."""

import json
import shutil

import pytest
from browser import WHY_NOT, find_browser, open_browser
from published_run import make_run
from test_browser import PUBLISHED, SCHEMES, WIDTHS, looks_right

from qmsam_core.params import Params
from qmsam_core.study.compare import compare
from qmsam_core.study.index_page import Entry, write_index
from qmsam_core.study.publish import publish

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)

LOWEST = """(() => {
  const below = e => e.getBoundingClientRect().bottom;
  return Math.max(...[...document.querySelectorAll('.front .answer, .front img')].map(below));
})()"""
"""JavaScript: the lower edge of the answers and pictures on the first screen."""

GROUND = "getComputedStyle(document.body).backgroundColor"
"""JavaScript: the colour of the page."""


@pytest.fixture(scope="module")
def page():
    with open_browser(BROWSER) as page:
        yield page


def index_of(project, published):
    """Write the index of a published run's tables and pictures anew, and return its path."""
    params = Params(profile="laptop", image_size=256, outputs_root="outputs")
    folder = project / params.run_dir
    shutil.copytree(published, folder)
    entries = [
        Entry(path.parent.name, "A title", "", json.loads(path.read_text()))
        for path in sorted(folder.glob("*/run.json"))
    ]
    return write_index(project, params, entries)


@pytest.mark.skipif(not PUBLISHED, reason="no reference run is committed")
def test_question_answers_and_pictures_fit_one_screen(project, page):
    for published in PUBLISHED:
        index = index_of(project, published)
        looks_right(page, index, 1280)
        assert page.ask(LOWEST) <= 800, published.name
        assert page.ask("document.querySelectorAll('.front .answer').length") == 3
        assert page.ask("document.querySelectorAll('.front img').length") == 3
        shutil.rmtree(index.parent)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_two_runs_on_one_page(project, page, width, scheme):
    make_run(project, wide=True)
    first, second = project / "reference", project / "other"
    publish(project / "outputs" / "smoke", first)
    shutil.copytree(first, second)
    looks_right(
        page, compare((first, second), project / "compare.html"), width, ["Two runs of the study"], scheme
    )
    assert (page.ask(GROUND) == "rgb(255, 255, 255)") == (scheme == "light")
