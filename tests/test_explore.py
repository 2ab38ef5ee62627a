"""The picture that segments boxes drawn on it, and its panel, driven by code instead of a mouse."""

from datetime import datetime
from types import SimpleNamespace

import cv2
import matplotlib
import numpy as np
import pytest
from box_engine import BoxEngine
from matplotlib import pyplot
from small_data import rectangle_case

from qmsam_core.study.explore import ALL, HEADLESS, BoxExplorer, somebody_is_there
from qmsam_core.study.explore_panel import HINT, ExplorerPanel

CASES = (("2DBox_US_0", 0, False), ("3DBox_CT_0", 1, True))


@pytest.fixture
def explorer():
    cases = [rectangle_case(name, seed, volume) for name, seed, volume in CASES]
    yield BoxExplorer({"float": BoxEngine(), "int8": BoxEngine()}, cases)
    pyplot.close("all")


@pytest.fixture
def panel(explorer):
    return ExplorerPanel(explorer)


def patches(explorer):
    """Boxes on the picture. The last patch of the axes is the one that is being dragged."""
    return [patch for patch in explorer.figure.axes[0].patches if patch.get_visible()]


def outlines(explorer):
    """Lines around masks on the picture. Tints have no edges."""
    return [lines for lines in explorer.figure.axes[0].collections if len(lines.get_edgecolor())]


def test_a_volume_opens_on_its_fullest_slice_with_its_boxes(explorer):
    explorer.show_case(1)
    assert explorer.z == 1 and len(explorer.given_boxes()) == 2
    explorer.show_slice(0)
    assert len(explorer.given_boxes()) == 0
    with pytest.raises(ValueError, match="slice 9: 3DBox_CT_0 has 4"):
        explorer.show_slice(9)


def test_the_picture_shows_given_boxes_until_one_is_drawn_and_again_without_any(explorer):
    explorer.show()
    assert len(patches(explorer)) == 2 and not outlines(explorer)
    explorer.add((4, 5, 19, 14))
    assert len(patches(explorer)) == len(outlines(explorer)) == 1
    explorer.add((30, 20, 50, 35))
    colours = {tuple(patch.get_edgecolor()) for patch in patches(explorer)}
    assert len(patches(explorer)) == len(colours) == len(outlines(explorer)) == 2
    explorer.undo()
    assert len(patches(explorer)) == len(outlines(explorer)) == 1
    explorer.clear()
    assert len(patches(explorer)) == 2 and not outlines(explorer)


def test_views_show_the_same_boxes_by_other_models(explorer):
    explorer.show()
    explorer.add((4, 5, 19, 14))
    assert not explorer.drawn.image_seconds.get("float"), "a model works only when it is shown"
    for view in ("float", "ellipse"):
        explorer.show_view(view)
        assert explorer.shown_models == (view,) and len(outlines(explorer)) == 1
    explorer.show_view(ALL)
    assert explorer.shown_models == ("float", "int8", "ellipse") and len(outlines(explorer)) == 3
    with pytest.raises(ValueError, match="view 'x': expected one of float, int8, ellipse, all three"):
        explorer.show_view("x")


def test_a_new_slice_begins_without_boxes(explorer):
    explorer.show()
    explorer.add((4, 5, 19, 14))
    explorer.show_case(1)
    explorer.show_slice(2)
    assert not explorer.drawn.boxes and not outlines(explorer)


def test_a_drag_is_a_box_and_a_click_is_none(explorer):
    explorer.show()
    at = [SimpleNamespace(xdata=x, ydata=y) for x, y in ((4.2, 5), (19, 14.4))]
    explorer._released(*at)
    explorer._released(at[0], at[0])
    assert [box.tolist() for box in explorer.drawn.boxes] == [[4, 5, 19, 14]]


def test_the_panel_tells_times_and_what_can_be_done(panel):
    assert panel.times.value == HINT and panel.undo.disabled and not panel.given.disabled
    panel.given.click()
    assert panel.times.value.count(" ms<") == 2 and "int8" in panel.times.value
    assert len(panel.explorer.drawn.boxes) == 2 and not panel.undo.disabled
    panel.view.value = ALL
    assert panel.times.value.count(" ms<") == 4 and "100.0 %" in panel.times.value
    panel.undo.click()
    assert len(panel.explorer.drawn.boxes) == 1
    panel.clear.click()
    assert panel.times.value == HINT and panel.undo.disabled


def test_the_panel_turns_to_case_and_slice(panel):
    panel.cases.value = 1
    assert panel.explorer.case.name == "3DBox_CT_0"
    assert (panel.slices.max, panel.slices.value, panel.slices.disabled) == (3, 1, False)
    panel.slices.value = 2
    assert panel.explorer.z == 2
    panel.cases.value = 0
    assert (panel.explorer.z, panel.slices.max, panel.slices.disabled) == (0, 0, True)


def test_what_goes_wrong_is_said_in_the_panel(panel, monkeypatch):
    panel.explorer._dragged((500, 500, 600, 600))
    assert "lies outside the slice of 56 x 40" in panel.message.value
    panel.undo.click()
    assert "outside" not in panel.message.value
    monkeypatch.setattr(panel.explorer, "clear", lambda: [][0])
    panel.clear.click()
    assert "IndexError" in panel.message.value and panel.times.value == HINT


def test_an_own_image_is_opened_by_its_path(panel, tmp_path):
    path = tmp_path / "<mine>.png"
    panel.path.value = str(path)
    panel.open.click()
    assert "&lt;mine&gt;.png: there is no such file" in panel.message.value
    cv2.imwrite(str(path), np.full((30, 20, 3), 99, np.uint8))
    panel.open.click()
    assert panel.explorer.case.name == "<mine>.png" and panel.cases.value == 2 and panel.given.disabled
    assert "no such file" not in panel.message.value
    panel.explorer._dragged((2, 3, 9, 12))
    assert panel.explorer.drawn.masks("int8")[0].shape == (30, 20)


def sent(name, content):
    """What the button for files holds once a browser has sent one."""
    facts = {"type": "", "size": len(content), "last_modified": datetime(2024, 1, 1)}
    return ({"name": name, "content": memoryview(content), **facts},)


def test_an_own_image_is_sent_by_the_browser(panel):
    panel.upload.value = sent("text.txt", b"none")
    assert "text.txt: is no case" in panel.message.value and panel.upload.value == ()
    panel.upload.value = sent("mine.png", cv2.imencode(".png", np.zeros((30, 20), np.uint8))[1].tobytes())
    assert panel.explorer.case.name == "mine.png" and panel.explorer.case.images.shape == (30, 20, 3)


@pytest.mark.filterwarnings("ignore:Passing unrecognized arguments:DeprecationWarning")  # ipympl's own
def test_the_picture_is_in_the_panel_where_a_notebook_can_show_it(explorer, panel):
    assert len(panel.widget.children) == 1
    backend = matplotlib.get_backend()
    try:
        matplotlib.use("module://ipympl.backend_nbagg")
        assert ExplorerPanel(explorer).widget.children[0] is explorer.figure.canvas
    finally:
        matplotlib.use(backend)


def test_a_run_of_the_study_has_nobody_there(monkeypatch):
    monkeypatch.delenv(HEADLESS, raising=False)
    assert somebody_is_there()
    monkeypatch.setenv(HEADLESS, "1")
    assert not somebody_is_there()
