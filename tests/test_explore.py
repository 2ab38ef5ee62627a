"""The tool that segments boxes drawn on a slice, driven by code instead of a mouse."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot
from small_data import rectangle_case

from qmsam_core.deploy import Predictor
from qmsam_core.deploy.pytorch_engine import PyTorchEngine
from qmsam_core.models import build_model
from qmsam_core.study.explore import HEADLESS, BoxExplorer, somebody_is_there


class CountingEngine(PyTorchEngine):
    """A PyTorch engine that counts how often a slice is encoded."""

    encoded = 0

    def encode(self, images):
        self.encoded += 1
        return super().encode(images)


@pytest.fixture
def explorer():
    cases = [rectangle_case("2DBox_US_0", 0, volume=False), rectangle_case("3DBox_CT_0", 1, volume=True)]
    return BoxExplorer(CountingEngine(build_model("narrow", 64)), cases)


def test_the_mask_is_the_predictor_s(explorer):
    box = explorer.given_boxes()[0]
    segs = Predictor(explorer.engine).segment(replace(explorer.case, boxes=explorer.case.boxes[:1]))
    assert np.array_equal(explorer.segment(box), segs == 1)


def test_a_slice_is_encoded_once_and_corners_come_in_any_order(explorer):
    first = explorer.segment((4, 5, 19, 14))
    assert explorer.seconds["encode"] > 0
    again = explorer.segment((19, 14, 4, 5))
    assert np.array_equal(first, again) and explorer.engine.encoded == 1 and explorer.seconds["encode"] == 0
    explorer.show_case(0)
    explorer.segment((4, 5, 19, 14))
    assert explorer.engine.encoded == 2


def test_a_box_is_cut_off_at_the_border_and_refused_outside(explorer):
    explorer.segment((-10, -10, 500, 500))
    with pytest.raises(ValueError, match="outside the slice of 56 x 40"):
        explorer.segment((60, 5, 90, 20))


def test_a_volume_opens_on_its_fullest_slice_with_its_boxes(explorer):
    explorer.show_case(1)
    assert explorer.z == 1 and len(explorer.given_boxes()) == 2
    explorer.show_slice(0)
    assert len(explorer.given_boxes()) == 0
    with pytest.raises(ValueError, match="slice 9: 3DBox_CT_0 has 4"):
        explorer.show_slice(9)


def test_the_picture_tells_what_the_box_took(explorer):
    figure = explorer.show()
    assert figure.axes[0].get_title() == "drag a box"
    explorer.segment((4, 5, 19, 14))
    assert "ms" in figure.axes[0].get_title() and len(figure.axes[0].patches) >= 1
    pyplot.close(figure)


def test_the_controls_turn_to_case_and_slice(explorer):
    names, slices = explorer.controls().children
    names.value = 1
    assert explorer.case.name == "3DBox_CT_0" and slices.max == 3 and slices.value == 1
    slices.value = 2
    assert explorer.z == 2
    names.value = 0
    assert explorer.z == 0 and slices.max == 0


def test_a_run_of_the_study_has_nobody_there(monkeypatch):
    monkeypatch.delenv(HEADLESS, raising=False)
    assert somebody_is_there()
    monkeypatch.setenv(HEADLESS, "1")
    assert not somebody_is_there()
