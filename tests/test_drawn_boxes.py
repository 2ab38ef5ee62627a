"""Boxes drawn on a slice, and the masks and times that each model has of them."""

from dataclasses import replace

import numpy as np
import pytest
from box_engine import BoxEngine
from small_data import rectangle_case

from qmsam_core.deploy import Predictor
from qmsam_core.deploy.pytorch_engine import PyTorchEngine
from qmsam_core.models import build_model
from qmsam_core.study.drawn_boxes import DrawnBoxes, warm_up

FIRST, SECOND = (4, 5, 19, 14), (30, 20, 50, 35)


@pytest.fixture
def engines():
    return {"float": BoxEngine(), "int8": BoxEngine()}


@pytest.fixture
def drawn(engines):
    return DrawnBoxes(rectangle_case("a", 0, volume=False).images, engines)


def test_the_mask_is_the_predictor_s():
    case, engine = rectangle_case("a", 0, volume=False), PyTorchEngine(build_model("narrow", 64))
    drawn = DrawnBoxes(case.images, {"float": engine})
    drawn.add(case.boxes[0])
    segs = Predictor(engine).segment(replace(case, boxes=case.boxes[:1]))
    assert np.array_equal(drawn.masks("float")[0], segs == 1)


def test_each_model_encodes_once_when_asked_and_decodes_each_box_once(drawn, engines):
    drawn.add(FIRST)
    assert engines["int8"].encoded == 0 and drawn.image_seconds == {}
    drawn.masks("int8")
    drawn.add(SECOND)
    assert len(drawn.masks("int8")) == len(drawn.masks("int8")) == 2
    assert (engines["int8"].encoded, engines["int8"].decoded) == (1, [1, 1])
    assert engines["float"].encoded == 0 and drawn.box_seconds["float"] == []
    assert drawn.image_seconds["int8"] > 0 and len(drawn.box_seconds["int8"]) == 2


def test_undo_takes_box_mask_and_time_and_a_later_box_is_segmented(drawn, engines):
    for box in (FIRST, SECOND):
        drawn.add(box)
    before = {model: drawn.masks(model)[0] for model in drawn.models}
    drawn.undo()
    assert len(drawn.boxes) == 1 and len(drawn.box_seconds["int8"]) == 1
    drawn.add((0, 0, 55, 39))
    for model in drawn.models:
        kept, new = drawn.masks(model)
        assert kept is before[model] and new.sum() > kept.sum()
    drawn.clear()
    drawn.undo()
    assert drawn.boxes == [] and drawn.masks("int8") == [] and engines["int8"].encoded == 1


@pytest.mark.parametrize("box", [FIRST, FIRST[2:] + FIRST[:2], (4.4, 4.6, 18.7, 14.3)])
def test_corners_come_in_any_order_and_are_rounded(drawn, box):
    drawn.add(box)
    assert drawn.boxes[0].tolist() == list(FIRST)


def test_a_box_is_cut_off_at_the_border_and_refused_outside(drawn):
    drawn.add((-10, -10, 500, 500))
    assert drawn.boxes[0].tolist() == [0, 0, 55, 39]
    with pytest.raises(ValueError, match="outside the slice of 56 x 40"):
        drawn.add((60, 5, 90, 20))
    assert len(drawn.boxes) == 1


def test_the_ellipse_fills_the_box(drawn):
    drawn.add(FIRST)
    (ellipse,) = drawn.masks("ellipse")
    assert 0.75 < ellipse.sum() / (16 * 10) < 0.82
    assert ellipse[5:15, 4:20].sum() == ellipse.sum() and ellipse[5, 4] == 0


def test_agreement_is_with_float(drawn):
    assert np.isnan(drawn.agreement("int8"))
    drawn.add(FIRST)
    assert drawn.agreement("float") == drawn.agreement("int8") == 1 > drawn.agreement("ellipse") > 0.7
    alone = DrawnBoxes(drawn.image, {"int8": BoxEngine()})
    alone.add(FIRST)
    assert np.isnan(alone.agreement("int8"))


def test_a_warm_engine_has_run_once(engines):
    warm_up(engines)
    assert all(engine.encoded == 1 and engine.decoded == [1] for engine in engines.values())
