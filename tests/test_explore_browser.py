"""Notebook 11's panel in JupyterLab in a real browser: drag boxes, see masks, undo, switch the model."""

import nbformat
import pytest
from browser import WHY_NOT, find_browser, open_browser
from jupyter_lab import jupyter_lab

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)

PANEL = """
%matplotlib widget
from box_engine import BoxEngine
from small_data import rectangle_case
from qmsam_core.study.explore import BoxExplorer
from qmsam_core.study.explore_panel import ExplorerPanel
cases = [rectangle_case("2DBox_US_0", 0, volume=False), rectangle_case("3DBox_CT_0", 1, volume=True)]
ExplorerPanel(BoxExplorer({"float": BoxEngine(), "int8": BoxEngine()}, cases)).widget
"""
OUTPUT = "document.querySelector('.jp-OutputArea-output')"
CANVAS = "document.querySelector('.jp-OutputArea-output canvas')"
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


class Panel:
    """The panel on a page. Places are fractions of the picture's width and height."""

    def __init__(self, page):
        self.page = page

    def told(self, text):
        """Wait until the panel tells a text."""
        return self.page.wait_for(f"{OUTPUT}.innerText.includes({text!r})")

    def press(self, name):
        buttons = f"[...{OUTPUT}.querySelectorAll('button, .jupyter-widget-Collapse-header')]"
        self.page.click(f"{buttons}.find(e => e.textContent.trim() === {name!r})")

    def drag(self, x_min, y_min, x_max, y_max):
        self.page.ask(f"{CANVAS}.scrollIntoView()")
        x, y, width, height = self.page.ask(f"Object.values({CANVAS}.getBoundingClientRect().toJSON())")[:4]
        middle = ((x_min + x_max) / 2, (y_min + y_max) / 2)
        points = ((x_min, y_min), middle, (x_max, y_max))
        self.page.drag(*((x + a * width, y + b * height) for a, b in points))

    def colour(self, x, y):
        """Red, green and blue of the picture at a place, 0..255."""
        where = f"{x} * {CANVAS}.width, {y} * {CANVAS}.height, 1, 1"
        return self.page.ask(f"[...{CANVAS}.getContext('2d').getImageData({where}).data].slice(0, 3)")

    def is_tinted(self, x, y):
        """Whether a mask lies on a place of the grey picture."""
        red, _, blue = self.colour(x, y)
        return abs(red - blue) > 10

    def shows(self, *masks):
        """Wait until the places, and only those of `PLACES`, lie under a mask."""
        for _ in range(300):  # half a minute, where other tests run beside
            seen = {name for name, place in PLACES.items() if self.is_tinted(*place)}
            if seen == set(masks):
                return
            self.page.ask("new Promise(done => setTimeout(done, 100))")
        raise AssertionError(f"masks on {sorted(seen)}, expected on {sorted(masks)}")


# the slice of 56 x 40 pixels fills the picture's width, and its height from 1/7 to 6/7
PLACES = {"first": (0.28, 0.38), "first corner": (0.134, 0.241), "second": (0.7, 0.7), "none": (0.2, 0.75)}


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PANEL)])
    book.metadata.update(kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"})
    nbformat.write(book, folder / "try.ipynb")
    with jupyter_lab(folder) as address, open_browser(BROWSER) as page:
        page.open(f"{address}/lab/tree/try.ipynb", 1280)
        page.wait_for(READY)
        for command in ("application:toggle-left-area", "notebook:run-all-cells"):
            page.ask(f"void jupyterapp.commands.execute('{command}')")
        page.wait_for(f"{CANVAS} && {CANVAS}.width > 300")
        yield Panel(page)


def test_boxes_are_dragged_switched_and_taken_back(panel):
    panel.told("Drag a box")
    panel.shows()
    panel.drag(0.1, 0.2, 0.45, 0.55)
    panel.told(" ms")
    panel.shows("first", "first corner")
    panel.drag(0.6, 0.6, 0.8, 0.8)
    panel.shows("first", "first corner", "second")
    panel.press("ellipse")
    panel.shows("first", "second")
    panel.press("all three")
    panel.told("100.0 %")
    panel.shows()
    panel.press("int8")
    panel.press("undo")
    panel.shows("first", "first corner")
    panel.press("clear")
    panel.told("Drag a box")
    panel.shows()
    assert panel.page.problems == []


def test_what_cannot_be_opened_is_said(panel):
    panel.press("your own image")
    panel.press("open")
    panel.told("no path was given")
    assert panel.page.problems == []
