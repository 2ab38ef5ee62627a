"""The first screen of a run's index in a browser, light and dark, and the page that compares two runs."""

import json
import shutil

import pytest
from browser import find_browser, open_browser
from published_run import make_run
from test_browser import PUBLISHED, WHY, WIDTHS, looks_right

from qmsam_core.params import Params
from qmsam_core.study.compare import compare
from qmsam_core.study.index_page import Entry, write_index
from qmsam_core.study.publish import publish

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason=WHY)

LOWEST = """(() => {
  const below = e => e.getBoundingClientRect().bottom;
  return Math.max(...[...document.querySelectorAll('.front .answer, .front img')].map(below));
})()"""
"""JavaScript: the lower edge of the answers and pictures on the first screen."""

PALEST = """(() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => [0, 1, 2].map(k => top[k] * (top[3] ?? 1) + under[k] * (1 - (top[3] ?? 1)));
  const ground = e => {
    if (!e) return [255, 255, 255];
    return over(parse(getComputedStyle(e).backgroundColor), ground(e.parentElement));
  };
  const linear = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const contrast = e => {
    const lights = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    return (Math.max(...lights) + .05) / (Math.min(...lights) + .05);
  };
  const written = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  return written.map(e => [contrast(e), e.textContent.trim().slice(0, 40)]).sort((a, b) => a[0] - b[0])[0];
})()"""
"""JavaScript: the text with the least contrast to its ground on the page, and that contrast."""


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_both_schemes(project, page, scheme):
    make_run(project, wide=True)
    target = project / "reference"
    publish(project / "outputs" / "smoke", target)
    shutil.copytree(target, project / "other")
    pages = [target / "index.html", target / "07_validation" / "report.html"]
    pages.append(compare((target, project / "other"), project / "compare.html"))
    page.prefer(scheme)
    try:
        for path in pages:
            page.look(path, 1280)
            contrast, text = page.ask(PALEST)
            assert contrast >= 4.5, f"{path}: {text}"
            dark = page.ask("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
            assert dark == (scheme == "dark")
    finally:
        page.prefer("light")


def test_pale_text_is_seen(tmp_path, page):
    pale = tmp_path / "pale.html"
    pale.write_text(
        '<body style="background:#fff"><p>dark</p><div style="background:#777"><i style="color:#888">pale'
    )
    page.look(pale, 960)
    contrast, text = page.ask(PALEST)
    assert contrast < 1.5 and text == "pale"


@pytest.mark.parametrize("width", WIDTHS)
def test_two_runs_on_one_page(project, page, width):
    make_run(project, wide=True)
    first, second = project / "reference", project / "other"
    publish(project / "outputs" / "smoke", first)
    shutil.copytree(first, second)
    looks_right(page, compare((first, second), project / "compare.html"), width, ["Two runs of the study"])
