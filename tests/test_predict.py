"""The predictor on cases and folders of cases: calls of the engine, places of masks, and bad input."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from box_engine import BoxEngine
from small_data import rectangle_case

from qmsam_core.data import Case, CaseError, Geometry, read_segmentation, write_segmentation
from qmsam_core.data.cases import boxes_on_slice
from qmsam_core.data.preprocessing import PREPROCESSING
from qmsam_core.deploy import ENGINES, Predictor, batch, engines
from qmsam_core.deploy.batch import OutputError, predict_folder
from qmsam_core.deploy.export import export_model
from qmsam_core.deploy.export import main as export_command
from qmsam_core.deploy.files import mask_files
from qmsam_core.deploy.masks import MaskPainter, ranks, tight
from qmsam_core.deploy.memory import block_within, equal_blocks, memory_size
from qmsam_core.deploy.predict import main as predict_command
from qmsam_core.deploy.volume_traversal import follow, plan
from qmsam_core.evaluate import score_cases
from qmsam_core.models import build_model
from qmsam_core.timing.pipelines import PIPELINES, Published, run_pipeline, steps


def plain_case(boxes, shape=(64, 64), depth=0):
    images = np.zeros((depth, *shape) if depth else (*shape, 3), np.uint8)
    return Case("3DBox_CT_x" if depth else "2DBox_US_x", images, np.array(boxes), None, np.ones(3))


# Masks ------------------------------------------------------------------------------------------------------


def random_logits(rng, geometry, side):
    """Return logits of a low-res mask: negative, with noise in a random rectangle of one pixel up to all."""
    low = rng.integers(0, side, 2)
    high = [rng.integers(a, side) + 1 for a in low]
    logits = np.full((side, side), -0.7, np.float32)
    window = logits[low[0] : high[0], low[1] : high[1]]
    window[:] = rng.standard_normal(window.shape)
    return logits


@pytest.mark.parametrize("seed", range(40))
def test_painting_in_the_region_equals_resizing_the_whole_bit_for_bit(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(1, 700, 2))
    side = int(rng.choice([64, 256]))
    geometry = Geometry.of(height, width, 256)
    painter = MaskPainter(geometry)
    for label in range(1, 6):
        logits = random_logits(rng, geometry, side)
        segs = np.zeros((height, width), np.uint8)
        painted = painter.paint(logits, label, segs)
        whole = geometry.mask_to_image(logits[None])[0]
        np.testing.assert_array_equal(segs, whole * np.uint8(label))
        box = None if painted is None else tight(*painted)
        assert (box is None) == (not whole.any())
        if box is not None:
            y, x = np.nonzero(whole)
            assert box.tolist() == [x.min(), y.min(), x.max(), y.max()]


@pytest.mark.parametrize(
    "shape", [(16, 4000), (4000, 16), (1, 300), (300, 1), (1, 1), (2, 2), (1920, 2560), (1536, 2040)]
)
def test_painting_equals_resizing_the_whole_in_extreme_shapes(shape):
    rng = np.random.default_rng(0)
    geometry = Geometry.of(*shape, 256)
    for logits in [random_logits(rng, geometry, 256) for _ in range(6)]:
        segs = np.zeros(shape, np.uint8)
        MaskPainter(geometry).paint(logits, 255, segs)
        np.testing.assert_array_equal(segs == 255, geometry.mask_to_image(logits[None])[0])


@pytest.mark.parametrize("name", ["efficientvit_sam", "medficientsam"])
@pytest.mark.parametrize("shape", [(150, 221), (1301, 700), (700, 1301)])
def test_painting_equals_resizing_the_whole_where_masks_go_through_a_larger_square(name, shape):
    """Slices are smaller and larger than the square, so that the last resize goes either way."""
    rng = np.random.default_rng(0)
    geometry = Geometry.of(*shape, 512, 1024, PREPROCESSING[name])
    for logits in [random_logits(rng, geometry, 256) for _ in range(3)]:
        segs = np.zeros(shape, np.uint8)
        MaskPainter(geometry).paint(logits, 255, segs)
        np.testing.assert_array_equal(segs == 255, geometry.mask_to_image(logits[None])[0])


def test_the_larger_label_stays_in_whatever_order_masks_are_painted():
    geometry, segs = Geometry.of(64, 64, 64), np.zeros((64, 64), np.uint8)
    for label in (2, 3, 1):
        MaskPainter(geometry).paint(BoxEngine().masks([[8 * label, 8, 40, 40]])[0], label, segs)
    assert (segs[20, 10], segs[20, 20], segs[20, 30]) == (1, 2, 3)


@pytest.mark.parametrize("rank", [7, 300, 65535])
def test_masks_of_more_objects_than_a_byte_holds(rank):
    geometry, segs = Geometry.of(64, 64, 64), np.zeros((64, 64), np.uint16)
    segs[10, 10] = 65535
    logits = BoxEngine().masks([[8, 8, 30, 30]])[0]
    painted = MaskPainter(geometry).paint(logits, rank, segs)
    assert tight(*painted).tolist() == [8, 8, 30, 30]
    assert (segs[10, 10], segs[20, 20], segs[5, 5]) == (65535, rank, 0)


@pytest.mark.parametrize(
    "boxes, expected",
    [
        ([[0, 0, 9, 9], [2, 2, 4, 4]], [1, 2]),
        ([[2, 2, 4, 4], [0, 0, 9, 9]], [2, 1]),
        ([[0, 0, 4, 4], [1, 1, 5, 5], [2, 2, 6, 6]], [1, 2, 3]),
        ([[0, 0, 0, 9, 9, 0], [0, 0, 0, 4, 4, 9]], [2, 1]),
        (np.zeros((0, 4), int), []),
    ],
    ids=["inner last", "inner first", "one size", "by volume", "none"],
)
def test_the_smaller_box_has_the_higher_rank_and_of_one_size_the_later(boxes, expected):
    assert ranks(np.array(boxes)).tolist() == expected


# One case ---------------------------------------------------------------------------------------------------


def test_a_box_becomes_its_label_and_the_smaller_box_wins():
    segs = Predictor(BoxEngine()).segment(plain_case([[8, 8, 30, 30], [20, 20, 40, 40]]))
    assert segs.dtype == np.uint8 and segs.shape == (64, 64)
    assert (segs[10, 10], segs[25, 25], segs[35, 35], segs[5, 5], segs[50, 50]) == (1, 2, 2, 0, 0)


@pytest.mark.parametrize("first", ["tumour", "organ"])
@pytest.mark.parametrize("depth, propagate", [(0, False), (8, False), (8, True)])
def test_of_boxes_in_each_other_both_survive(first, depth, propagate):
    organ, tumour = ([4, 4, 50, 50], [20, 20, 26, 26])
    if depth:
        organ, tumour = ([4, 4, 1, 50, 50, 6], [20, 20, 3, 26, 26, 4])
    boxes = [tumour, organ] if first == "tumour" else [organ, tumour]
    segs = Predictor(BoxEngine(), propagate=propagate).segment(plain_case(boxes, depth=depth))
    plane = segs[3] if depth else segs
    assert plane[23, 23] == boxes.index(tumour) + 1 and plane[40, 40] == boxes.index(organ) + 1


@pytest.mark.parametrize("depth, propagate", [(0, False), (8, False), (8, True)])
def test_masks_apart_are_those_of_each_box_alone(depth, propagate):
    boxes = [[8, 8, 30, 30], [20, 20, 40, 40], [22, 22, 25, 25]]
    if depth:
        boxes = [[*box[:2], k, *box[2:], k + 3] for k, box in enumerate(boxes)]
    masks = Predictor(BoxEngine(), propagate=propagate).segment_apart(plain_case(boxes, depth=depth))
    for i, box in enumerate(boxes):
        alone = Predictor(BoxEngine(), propagate=propagate).segment(plain_case([box], depth=depth))
        np.testing.assert_array_equal(masks[i], alone)
        assert masks[i].dtype == np.uint8


def test_more_than_255_objects_are_labelled_in_16_bits():
    boxes = [[k % 60, k // 60 * 3, k % 60, k // 60 * 3 + 1] for k in range(300)]
    segs = Predictor(BoxEngine()).segment(plain_case(boxes))
    assert segs.dtype == np.uint16 and np.array_equal(np.unique(segs), np.arange(301))
    assert segs[boxes[299][1], boxes[299][0]] == 300


def test_z_limits_belong_to_the_box():
    boxes = np.array([[1, 1, 2, 5, 5, 4], [1, 1, 4, 5, 5, 6]])
    assert [boxes_on_slice(boxes, z)[0].tolist() for z in range(1, 8)] == [[], [0], [0], [0, 1], [1], [1], []]


def test_a_slice_is_encoded_once_for_all_its_boxes_and_empty_slices_never():
    engine = BoxEngine()
    segs = Predictor(engine).segment(
        plain_case([[8, 8, 2, 30, 30, 3], [20, 20, 3, 40, 40, 4], [1, 1, 3, 9, 9, 3]], depth=8)
    )
    assert engine.encoded == 3 and engine.decoded == [1, 3, 1]
    assert [sorted(set(plane.flat) - {0}) for plane in segs] == [[], [], [1], [1, 2, 3], [2], [], [], []]


@pytest.mark.parametrize("block, calls", [(1, [1] * 7), (2, [1, 2, 2, 2]), (3, [2, 2, 3]), (100, [7])])
def test_blocks_of_boxes_change_nothing_but_the_calls(block, calls):
    boxes = [[k, k, k + 12, k + 9] for k in range(0, 35, 5)]
    engine = BoxEngine()
    segs = Predictor(engine, decode_block=block).segment(plain_case(boxes))
    assert np.array_equal(segs, Predictor(BoxEngine()).segment(plain_case(boxes)))
    assert engine.decoded == calls


def test_masks_come_back_to_the_image_s_own_size():
    segs = Predictor(BoxEngine()).segment(plain_case([[40, 10, 159, 49]], shape=(100, 200)))
    y, x = np.nonzero(segs)
    assert (
        abs(x.min() - 40) <= 3
        and abs(x.max() - 159) <= 3
        and abs(y.min() - 10) <= 3
        and abs(y.max() - 49) <= 3
    )


@pytest.mark.parametrize(
    "boxes, words", [(None, "no 'boxes'"), (np.zeros((65536, 4), int), "65536 boxes; expected at most 65535")]
)
def test_cases_that_cannot_be_segmented_are_told(boxes, words):
    case = Case("2DBox_US_x", np.zeros((8, 8, 3), np.uint8), boxes, None, np.ones(3))
    with pytest.raises(CaseError, match=words):
        Predictor(BoxEngine()).segment(case)


def test_a_case_without_boxes_gives_an_empty_segmentation():
    assert not Predictor(BoxEngine()).segment(plain_case(np.zeros((0, 4), int))).any()


@pytest.mark.parametrize("propagate", [False, True])
@pytest.mark.parametrize(
    "boxes, shape, depth",
    [
        ([[k % 60, k // 5, k % 60 + 3, k // 5 + 4] for k in range(255)], (64, 64), 0),
        ([[10, 12, 10, 12]], (64, 64), 0),
        ([[1000, 2, 3000, 13]], (16, 4000), 0),
        ([[5, 5, 0, 20, 20, 0]], (32, 48), 1),
        ([[5, 5, 3, 20, 20, 3], [8, 8, 3, 30, 30, 3]], (32, 48), 7),
        ([[7, 7, 0, 7, 7, 4]], (64, 64), 5),
    ],
    ids=[
        "255 boxes",
        "box of a pixel",
        "16 x 4000",
        "volume of a slice",
        "boxes on one slice",
        "column of a pixel",
    ],
)
def test_unusual_cases_are_segmented(propagate, boxes, shape, depth):
    engine = BoxEngine()
    segs = Predictor(engine, propagate=propagate).segment(plain_case(boxes, shape, depth))
    assert segs.shape == ((depth, *shape) if depth else shape) and segs.max() == len(boxes)
    assert engine.encoded == (len(np.unique(np.nonzero(segs)[0])) if depth else 1)


def test_a_failing_engine_ends_the_case_and_leaves_no_thread_behind():
    import threading

    class Broken(BoxEngine):
        def decode(self, embedding, boxes):
            raise RuntimeError("engine says no")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="engine says no"):
        Predictor(Broken()).segment(plain_case([[8, 8, 2, 30, 30, 6]], depth=8))
    assert threading.active_count() == before


# Lanes ------------------------------------------------------------------------------------------------------


class LanesEngine(BoxEngine):
    """An engine of three lanes, each of which takes its time over a slice and refuses two at once."""

    def __init__(self, lanes=3):
        super().__init__()
        self._own = [LanesEngine(0) for _ in range(lanes)]
        self.busy = False

    def lanes(self):
        return self._own

    def encode(self, images):
        assert not self.busy
        self.busy = True
        time.sleep(0.002)
        self.busy = False
        return super().encode(images)


CROSSED = [[4, 4, 1, 50, 50, 40], [20, 20, 3, 26, 26, 34], [40, 8, 10, 60, 30, 12]]
DEPTH = 42  # of which 40 slices are crossed


@pytest.mark.parametrize("block", [1, 2, 8])
def test_lanes_change_no_mask_and_share_the_slices(block):
    case, engine = plain_case(CROSSED, depth=DEPTH), LanesEngine()
    predictor = Predictor(engine, decode_block=block)
    np.testing.assert_array_equal(predictor.segment(case), Predictor(BoxEngine()).segment(case))
    assert engine.encoded == 0 and min(lane.encoded for lane in engine.lanes()) > 0
    assert sum(lane.encoded for lane in engine.lanes()) == 40 == predictor.timing.slices
    assert predictor.timing.encode > 0 and predictor.timing.decode > 0
    apart, expected = predictor.segment_apart(case), Predictor(BoxEngine()).segment_apart(case)
    assert all(np.array_equal(apart[i], expected[i]) for i in range(len(CROSSED)))


@pytest.mark.parametrize(
    "settings, depth", [({"propagate": True}, DEPTH), ({"memory_limit": 2**40}, DEPTH), ({}, 3), ({}, 0)]
)
def test_slices_that_depend_on_each_other_few_ones_and_a_limit_go_in_turn(settings, depth):
    boxes = [[box[0], box[1], min(box[2], 1), *box[3:5], 2] for box in CROSSED] if depth == 3 else CROSSED
    boxes = [[*box[:2], *box[3:5]] for box in boxes] if not depth else boxes
    engine = LanesEngine()
    Predictor(engine, **settings).segment(plain_case(boxes, depth=depth))
    assert engine.encoded > 0 and not any(lane.encoded for lane in engine.lanes())


def test_a_lane_that_fails_ends_the_case():
    engine = LanesEngine()
    engine.lanes()[1].encode = lambda images: 1 / 0
    with pytest.raises(ZeroDivisionError):
        Predictor(engine).segment(plain_case(CROSSED, depth=DEPTH))


# Propagation ------------------------------------------------------------------------------------------------


class DriftEngine(BoxEngine):
    """An engine whose mask is the box without its margin, moved one pixel to the right.

    The mask is empty if the box begins at x >= `empty_from`.
    """

    def __init__(self, empty_from=1000):
        super().__init__()
        self.empty_from = empty_from

    def masks(self, boxes):
        margin = 0.75  # 3 px at an input of 256 px are 0.75 px at 64 px
        moved = super().masks([b + np.array([1 + margin, margin, 1 - margin, -margin]) for b in boxes])
        return np.where(
            np.array([b[0] < self.empty_from for b in boxes])[:, None, None], moved, np.float32(-1)
        )


def drift(segs, label, z):
    """Return the first column of object `label` on slice `z`."""
    return int(np.nonzero(segs[z] == label)[1].min())


def test_boxes_follow_the_mask_from_the_middle_slice_both_ways():
    engine = DriftEngine()
    segs = Predictor(engine, propagate=True).segment(plain_case([[10, 20, 1, 30, 40, 7]], depth=9))
    assert [drift(segs, 1, z) for z in range(1, 8)] == [15, 14, 13, 12, 13, 14, 15]
    assert engine.encoded == 7 and not segs[[0, 8]].any()
    kept = Predictor(DriftEngine()).segment(plain_case([[10, 20, 1, 30, 40, 7]], depth=9))
    assert [drift(kept, 1, z) for z in range(1, 8)] == [12] * 7


def test_an_object_whose_mask_is_lost_takes_its_own_box_again():
    engine = DriftEngine(empty_from=12)
    segs = Predictor(engine, propagate=True).segment(plain_case([[10, 20, 0, 30, 40, 6]], depth=7))
    firsts = [b[0] for b in engine.asked[:4]]  # the middle slice and the next three
    assert firsts == [10, 11.25, 12.25, 10] and not segs[5].any()


def test_objects_with_different_middles_go_together_and_the_smaller_box_wins():
    case = plain_case([[10, 20, 0, 30, 40, 8], [20, 20, 4, 40, 40, 9]], depth=10)
    engine = BoxEngine()
    segs = Predictor(engine, propagate=True).segment(case)
    assert [(v.z, v.ids.tolist(), v.again) for v in plan(case, True)] == [
        (4, [0], True), (5, [0], True), (6, [0, 1], False), (7, [0, 1], False), (8, [0, 1], False),
        (9, [1], False), (5, [1], False), (4, [1], False), (3, [0], False), (2, [0], False), (1, [0], False),
        (0, [0], False),
    ]  # fmt: skip
    assert engine.encoded == 10  # slices 4 and 5, visited twice, are encoded once
    assert all(segs[z, 30, 25] == 2 for z in range(4, 10)) and segs[0, 30, 25] == 1


def test_each_object_is_propagated_as_if_alone():
    boxes = [[10, 20, 0, 30, 40, 8], [35, 20, 4, 50, 40, 9], [4, 45, 2, 20, 60, 3]]
    together = Predictor(DriftEngine(), propagate=True).segment(plain_case(boxes, depth=10))
    for i, box in enumerate(boxes):
        alone = Predictor(DriftEngine(), propagate=True).segment(plain_case([box], depth=10))
        assert all((together[alone == 1] == other).sum() == 0 for other in range(1, i + 1))
        np.testing.assert_array_equal((together == i + 1) & (alone == 0), np.zeros_like(alone, bool))


def test_embeddings_that_do_not_fit_are_computed_again(monkeypatch):
    case = plain_case([[10, 20, 0, 30, 40, 8], [20, 20, 4, 40, 40, 9]], depth=10)
    monkeypatch.setattr("qmsam_core.deploy.predictor.KEPT_BYTES", 4 * 16 * 16 * 4)
    engine = DriftEngine()
    segs = Predictor(engine, propagate=True).segment(case)
    assert engine.encoded == 11  # there is room for one of the two embeddings
    monkeypatch.undo()
    np.testing.assert_array_equal(segs, Predictor(DriftEngine(), propagate=True).segment(case))


def test_the_propagated_box_has_the_baseline_s_margin_at_any_scale():
    assert follow(np.array([10, 20, 29, 39]), Geometry.of(256, 256, 256)).tolist() == [7, 17, 32, 42]
    assert follow(np.array([10, 20, 29, 39]), Geometry.of(512, 512, 256)).tolist() == [2, 7, 17, 22]
    assert follow(np.array([10, 20, 29, 39]), Geometry.of(128, 128, 256)).tolist() == [17, 37, 62, 82]
    assert follow(np.array([0, 0, 255, 255]), Geometry.of(256, 256, 256)).tolist() == [0, 0, 256, 256]


# The pipelines of Table 8 -----------------------------------------------------------------------------------


def test_the_baseline_s_way_gives_what_our_propagation_gives_and_encodes_for_every_box():
    case = plain_case([[10, 20, 0, 30, 40, 8], [30, 20, 4, 45, 40, 9], [4, 45, 2, 20, 60, 3]], depth=10)
    theirs, ours = DriftEngine(), DriftEngine()
    np.testing.assert_array_equal(
        Published.on("baseline", theirs).segment(case), Predictor(ours, propagate=True).segment(case)
    )
    assert (theirs.encoded, ours.encoded) == (9 + 6 + 2, 10) and theirs.decoded == [1] * 17


@pytest.mark.parametrize(
    "boxes, depth",
    [([[8, 8, 30, 30], [20, 20, 40, 40]], 0), ([[8, 8, 1, 30, 30, 4], [20, 20, 2, 40, 40, 5]], 6)],
)
def test_the_authors_way_gives_what_ours_gives_with_boxes_kept(boxes, depth):
    case, theirs, ours = plain_case(boxes, depth=depth), BoxEngine(), BoxEngine()
    np.testing.assert_array_equal(
        Published.on("authors", theirs).segment(case), Predictor(ours).segment(case)
    )
    assert theirs.encoded == ours.encoded


@pytest.mark.parametrize(
    "closed, slices",
    [(True, [(4, None), (5, 4), (6, 5), (3, 4), (2, 3)]), (False, [(4, None), (5, 4), (3, 4), (2, 3)])],
)
def test_a_box_is_followed_from_its_middle_slice_with_or_without_its_last(closed, slices):
    assert list(steps(np.array([0, 0, 2, 9, 9, 6]), closed)) == slices
    assert list(steps(np.array([0, 0, 3, 9, 9, 3]), closed)) == [(3, None)]


@pytest.mark.parametrize("name", ["medficientsam", "daft"])
def test_entries_with_a_cache_encode_a_slice_once_and_leave_out_the_last(name):
    case = plain_case([[10, 20, 0, 30, 40, 8], [30, 20, 4, 45, 40, 9], [4, 45, 2, 20, 60, 3]], depth=10)
    engine = DriftEngine()
    segs = Published.on(name, engine).segment(case)
    assert engine.encoded == 9 and not segs[9].any() and segs[:9].any(axis=(1, 2)).all()


def test_a_bounded_cache_encodes_again_what_it_let_go():
    case = plain_case([[10, 20, 0, 30, 40, 3], [30, 20, 0, 45, 40, 3]], depth=4)
    engine, pipeline = BoxEngine(), replace(PIPELINES["baseline"], kept=2)
    Published(pipeline, {"default": engine}, {}).segment(case)
    assert 4 < engine.encoded <= 8


def test_each_modality_has_its_own_engine_and_others_the_fallback():
    engines = {"CT+MR": BoxEngine(), "default": BoxEngine()}
    published = Published(PIPELINES["daft"], engines, {"CT": "CT+MR", "MR": "CT+MR"})
    for name in ("3DBox_CT_0566", "2DBox_US_0001", "mine"):
        case = replace(plain_case([[8, 8, 30, 30]], depth=0), name=name)
        published.segment(case)
    assert [engine.encoded for engine in engines.values()] == [1, 2]


def test_the_ways_run_from_file_to_file(folder, model):
    for pipeline in PIPELINES:
        target = folder / f"{pipeline}.npz"
        run_pipeline(pipeline, model, folder / "in" / "3DBox_X_1.npz", target, threads=1)
        assert read_segmentation(target).shape == (4, 40, 56)


# Memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, size", [("1.5G", 1.5 * 2**30), ("800M", 800 * 2**20), ("1500", 1500 * 2**20), ("2gb", 2**31)]
)
def test_memory_sizes(text, size):
    assert memory_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "1.5T"])
def test_no_memory_size(text):
    with pytest.raises(ValueError, match="expected a size"):
        memory_size(text)


def test_blocks_within_a_limit():
    embedding, pixels = 4 * 2**20, 10**6
    at_600, at_1200 = (block_within(limit * 2**20, 500 * 2**20, embedding, pixels) for limit in (600, 1200))
    assert 0 < at_600 < at_1200 and block_within(2**20, 500 * 2**20, embedding, pixels) == 0


@pytest.mark.parametrize(
    "count, most, sizes", [(0, 8, []), (6, 8, [6]), (9, 8, [4, 5]), (241, 96, [80, 80, 81])]
)
def test_blocks_are_few_and_equal(count, most, sizes):
    assert [s.stop - s.start for s in equal_blocks(count, most)] == sizes


def test_a_tight_limit_decodes_box_by_box_with_the_same_result():
    boxes = [[k, k, k + 12, k + 9] for k in range(0, 35, 5)]
    engine = BoxEngine()
    segs = Predictor(engine, memory_limit=2**20).segment(plain_case(boxes))
    assert engine.decoded == [1] * 7
    np.testing.assert_array_equal(segs, Predictor(BoxEngine(), memory_limit=2**40).segment(plain_case(boxes)))


# Folders ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    assert export_command(["--model", "narrow", "--recipe", "float", "-o", str(folder)]) == 0
    assert json.loads((folder / "export.json").read_text())["origin"] == "random weights, seed 0"
    return folder


@pytest.fixture
def folder(tmp_path):
    """A folder whose subfolder `in` holds an image, a volume and a file that is no case."""
    for k, volume in enumerate((False, True)):
        name = f"{'3D' if volume else '2D'}Box_X_{k}"
        rectangle_case(name, k, volume).save(tmp_path / "in" / f"{name}.npz")
    (tmp_path / "in" / "2DBox_X_9.npz").write_bytes(b"no zip")
    return tmp_path


def good(folder):
    return sorted((folder / "in").glob("*X_[01].npz"))


TABLES = ["objects.csv", "predictor.json", "timing.csv"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_one_bad_case_never_stops_the_batch_and_sets_the_exit_code(model, folder, capsys):
    code = predict_command(
        ["-i", str(folder / "in"), "-o", str(folder / "out"), "--model", str(model), "--threads", "1"]
    )
    assert code == 1
    assert names(folder / "out") == ["2DBox_X_0.npz", "3DBox_X_1.npz", *TABLES]
    assert read_segmentation(folder / "out" / "3DBox_X_1.npz").shape == (4, 40, 56)
    rows = pd.read_csv(folder / "out" / "timing.csv").set_index("case")
    assert rows.loc["3DBox_X_1.npz", "slices"] == 3 and rows.loc["2DBox_X_9.npz", "status"].startswith(
        "failed"
    )
    out, error = capsys.readouterr()
    assert "2 cases done, 1 failed" in out and "3 of 3 cases" in error and "\r" not in error
    assert sum("2DBox_X_9.npz" in line for line in error.splitlines()) == 1 and "Traceback" not in error


def test_finished_outputs_are_kept_with_their_times_and_half_written_ones_are_not(folder):
    first = predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    assert [row["status"] for row in first] == ["done", "done"]
    (folder / "out" / "2DBox_X_0.npz").write_bytes(b"half")
    second = predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    assert [row["status"] for row in second] == ["done", "kept"]
    assert second[1]["slices"] == 3 and second[1]["total"] == pytest.approx(first[1]["total"], rel=1e-4)


def statuses(rows):
    return [row["status"].split(":")[0] for row in rows]


class OtherEngine(BoxEngine):
    source = "other boxes"


@pytest.mark.parametrize(
    "again, expected",
    [
        (lambda: Predictor(BoxEngine()), "kept"),
        # These settings change how the work is divided, not its result.
        (lambda: Predictor(BoxEngine(), decode_block=1, memory_limit=2**40), "kept"),
        (lambda: Predictor(OtherEngine()), "done"),
        (lambda: Predictor(BoxEngine(), propagate=True), "done"),
        (lambda: Predictor(BoxEngine(), interpolation="nearest"), "done"),
    ],
)
def test_outputs_of_another_model_or_other_settings_are_made_again(folder, again, expected):
    predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    lines = []
    assert statuses(predict_folder(again(), good(folder), folder / "out", lines.append)) == [expected] * 2
    assert statuses(predict_folder(again(), good(folder), folder / "out", lines.append)) == ["kept"] * 2
    assert [line.split(": ")[1] for line in lines] == (
        ["2 segmentations there are of another model or other settings; they are made again"]
        if expected == "done"
        else []
    )


def test_the_command_says_how_many_it_kept_and_takes_another_engine_of_the_same_model_for_the_same(
    folder, model, capsys, tmp_path
):
    (folder / "in" / "2DBox_X_9.npz").unlink()
    other = tmp_path / "other"
    export_model(build_model("narrow", seed=1), other)

    def run(*options):
        capsys.readouterr()
        assert (
            predict_command(["-i", str(folder / "in"), "-o", str(folder / "out"), "--threads", "1", *options])
            == 0
        )
        return capsys.readouterr().out.split(";")[0]

    assert run("--model", str(model)) == "2 cases done, 0 failed"
    assert (
        run("--model", str(model), "--engine", "onnxruntime") == "2 cases done (2 kept from before), 0 failed"
    )
    assert run("--model", str(other)) == "2 cases done, 0 failed"
    assert run("--model", str(other), "--propagate") == "2 cases done, 0 failed"
    rectangle_case("2DBox_X_4", 4, False).save(folder / "in" / "2DBox_X_4.npz")
    assert run("--model", str(other), "--propagate") == "3 cases done (2 kept from before), 0 failed"


def test_a_case_whose_input_changed_is_made_again(folder):
    predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    path = folder / "in" / "2DBox_X_0.npz"
    before, case = read_segmentation(folder / "out" / path.name), Case.load(path)
    replace(case, boxes=case.boxes[::-1].copy()).save(path)
    assert statuses(predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")) == ["done", "kept"]
    after = read_segmentation(folder / "out" / path.name)
    assert (after[before == 1] == 2).all() and (after[before == 2] == 1).all()


@pytest.mark.parametrize("text", [None, "", '{"predictor": 1, "cases": {}}'])
def test_outputs_of_unknown_origin_are_kept_and_named(folder, text):
    predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    write_segmentation(folder / "out" / "3DBox_X_1.npz", np.ones((2, 3, 4), np.uint8))
    before = (folder / "out" / "3DBox_X_1.npz").read_bytes()
    (folder / "out" / "predictor.json").unlink()
    if text is not None:
        (folder / "out" / "predictor.json").write_bytes(text.encode("latin-1"))
    lines = []
    rows = predict_folder(Predictor(BoxEngine()), good(folder), folder / "out", lines.append)
    assert [status.split(":")[0] for status in statuses(rows)] == ["failed", "failed"]
    assert len(lines) == 2 and all("was not written by this program" in line for line in lines)
    assert (folder / "out" / "3DBox_X_1.npz").read_bytes() == before


def test_what_was_interrupted_between_two_models_passes_for_neither(folder):
    """A second model replaces one output and is killed before it records that. Then the first model runs."""

    class Killed(OtherEngine):
        def encode(self, images):
            if self.encoded == 1:
                raise SystemExit
            return super().encode(images)

    predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(batch.Records, "save", lambda self, last=False: None)  # SIGKILL prevents the saving
        predict_folder(Predictor(Killed()), good(folder), folder / "out")
    assert statuses(predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")) == ["done", "done"]


def test_an_interrupted_resume_keeps_the_times_of_cases_it_did_not_reach(folder):
    def stop():
        raise KeyboardInterrupt

    first = predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    with pytest.raises(KeyboardInterrupt):
        # It stops at the first case that is kept.
        predict_folder(Predictor(BoxEngine()), good(folder), folder / "out", done=stop)
    rows = pd.read_csv(folder / "out" / "timing.csv").set_index("case")
    assert rows["status"].to_dict() == {"2DBox_X_0.npz": "kept", "3DBox_X_1.npz": "done"}
    assert rows["total"].tolist() == pytest.approx([row["total"] for row in first], rel=1e-4)
    assert statuses(predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")) == ["kept", "kept"]


def test_a_second_folder_into_the_same_output_adds_to_the_times(folder):
    predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    rectangle_case("2DBox_X_7", 7, False).save(folder / "more" / "2DBox_X_7.npz")
    rows = predict_folder(Predictor(BoxEngine()), [folder / "more" / "2DBox_X_7.npz"], folder / "out")
    assert [row["case"] for row in rows] == ["2DBox_X_7.npz"]
    table = pd.read_csv(folder / "out" / "timing.csv")
    assert (
        table["case"].tolist() == ["2DBox_X_0.npz", "3DBox_X_1.npz", "2DBox_X_7.npz"]
        and table["total"].notna().all()
    )
    assert statuses(predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")) == ["kept", "kept"]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    "content",
    [b"name,seconds\na,1\n", b"file,label,name,comment\n", b"\xff\xfe\x00", b'"', b"[]", b'{"cases": 3}'],
    ids=str,
)
def test_a_table_of_something_else_is_never_replaced(folder, name, content):
    (folder / "out").mkdir()
    (folder / "out" / name).write_bytes(content)
    with pytest.raises(OutputError, match=f"{name}: is no {name} of this program"):
        predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    assert (folder / "out" / name).read_bytes() == content and names(folder / "out") == [name]


def test_an_empty_table_is_no_reason_to_stop(folder):
    (folder / "out").mkdir()
    (folder / "out" / "timing.csv").write_bytes(b"")
    assert statuses(predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")) == ["done", "done"]
    assert pd.read_csv(folder / "out" / "timing.csv")["case"].tolist() == ["2DBox_X_0.npz", "3DBox_X_1.npz"]


def test_tables_that_cannot_be_written_at_the_end_are_an_error_and_the_next_run_makes_them(
    folder, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(batch.Records, "_write_timing", full)
        patch.setattr("qmsam_core.deploy.reservations.atomic_file", full)
        with pytest.raises(OutputError, match="could not be brought up to date .No space left"):
            predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    rows = predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    assert not any(status.startswith("failed") for status in statuses(rows))
    assert names(folder / "out") == ["2DBox_X_0.npz", "3DBox_X_1.npz", *TABLES]


@pytest.mark.parametrize("volume", [False, True])
def test_labels_with_gaps_are_scored_against_the_boxes_derived_from_them(folder, volume):
    labels = np.zeros((6, 64, 64), np.uint8)
    labels[1:3, 8:20, 8:30], labels[2:5, 30:50, 20:44] = 1, 3
    case = Case(
        "3DBox_CT_gap" if volume else "2DBox_US_gap",
        np.zeros((6, 64, 64) if volume else (64, 64, 3), np.uint8),
        None,
        labels if volume else labels[2],
        np.ones(3),
    )
    path = folder / "in" / f"{case.name}.npz"
    case.save(path)
    predict_folder(Predictor(BoxEngine()), [path], folder / "out")
    target = folder / "out" / path.name
    scores = score_cases([(path, target), (Case.load(path), target), (Case.load(path).with_boxes(), target)])
    assert (
        scores["dsc"].tolist() == [1, 1, 1]
        and scores["objects"].tolist() == [2, 2, 2]
        and not scores["missed"].any()
    )


def test_an_output_of_another_case_s_size_is_not_taken_for_finished(folder):
    predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    (folder / "out" / "3DBox_X_1.npz").replace(folder / "out" / "2DBox_X_0.npz")
    rows = predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    assert [row["status"] for row in rows] == ["done", "done"]


def write_bad(path, **arrays):
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)


IMAGE = np.zeros((32, 32, 3), np.uint8)
BAD = {
    "no imgs": (dict(gts=np.zeros((32, 32), np.uint8)), "imgs"),
    "nothing to ask for": (dict(imgs=IMAGE), "neither 'boxes' nor 'gts'"),
    "sizes for corners": (
        dict(
            imgs=IMAGE,
            boxes=np.array([[4, 4, 11, 12]]),
            gts=np.pad(np.ones((12, 11), np.uint8), ((4, 16), (4, 17))),
        ),
        "as corner and size",
    ),
}


@pytest.mark.parametrize("arrays, words", BAD.values(), ids=BAD)
def test_bad_cases_get_one_line_each_and_the_rest_is_done(folder, arrays, words):
    write_bad(folder / "in" / "2DBox_X_5.npz", **arrays)
    lines = []
    rows = predict_folder(
        Predictor(BoxEngine()), sorted((folder / "in").glob("*.npz")), folder / "out", lines.append
    )
    assert [row["status"].split(":")[0] for row in rows] == ["done", "failed", "failed", "done"]
    assert (
        len(lines) == 2
        and lines[0].startswith("2DBox_X_5.npz: ")
        and words in lines[0]
        and "\n" not in lines[0]
    )
    assert names(folder / "out") == ["2DBox_X_0.npz", "3DBox_X_1.npz", *TABLES]


def test_a_case_with_an_empty_list_of_boxes_is_done_with_an_empty_segmentation(folder):
    write_bad(folder / "in" / "2DBox_X_5.npz", imgs=IMAGE, boxes=np.zeros((0, 4)))
    (row,) = predict_folder(Predictor(BoxEngine()), [folder / "in" / "2DBox_X_5.npz"], folder / "out")
    assert (
        row["status"] == "done"
        and row["boxes"] == 0
        and not read_segmentation(folder / "out" / "2DBox_X_5.npz").any()
    )


@pytest.mark.parametrize("error", [RuntimeError("engine says no"), MemoryError()], ids=["engine", "memory"])
def test_a_case_on_which_the_engine_fails_is_reported(folder, error):
    class Broken(BoxEngine):
        def encode(self, images):
            self.encoded += 1
            if self.encoded == 1:
                raise error
            return super().encode(images)

    lines = []
    rows = predict_folder(Predictor(Broken()), good(folder), folder / "out", lines.append)
    assert [row["status"].split(":")[0] for row in rows] == ["failed", "done"] and len(lines) == 1
    assert lines[0].endswith(str(error) or "out of memory")


def full_disk(monkeypatch, fails):
    """Let writing fail with "no space left" half-way through every file for which `fails(name)` is true."""
    write = mask_files.write_segmentation

    def no_space(path, segs):
        if fails(path.name):
            with batch.atomic_file(path) as file:
                file.write(b"the first half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, segs)

    monkeypatch.setattr(mask_files, "write_segmentation", no_space)


def test_a_file_for_which_the_disk_is_full_is_reported_and_the_rest_is_done(folder, monkeypatch):
    full_disk(monkeypatch, lambda name: name.startswith("2D"))
    lines = []
    rows = predict_folder(Predictor(BoxEngine()), good(folder), folder / "out", lines.append)
    assert [row["status"].split(":")[0] for row in rows] == ["failed", "done"]
    assert (
        len(lines) == 1
        and "No space left" in lines[0]
        and names(folder / "out") == ["3DBox_X_1.npz", *TABLES]
    )


def test_a_disk_that_stays_full_ends_the_batch_with_one_line(folder, monkeypatch, model, capsys):
    (folder / "in" / "2DBox_X_9.npz").unlink()
    for k in range(2, 6):
        rectangle_case(f"2DBox_X_{k}", k, False).save(folder / "in" / f"2DBox_X_{k}.npz")
    full_disk(monkeypatch, lambda name: True)
    arguments = ["-i", str(folder / "in"), "-o", str(folder / "out"), "--model", str(model), "--threads", "1"]
    assert predict_command(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "3 files in a row could not be written" in error and "No space left" in error
    assert names(folder / "out") == ["predictor.json", "timing.csv"]
    monkeypatch.undo()
    assert predict_command(arguments) == 0


def test_a_disk_that_shows_to_be_full_at_the_last_moment_leaves_nothing(tmp_path):
    file = batch.atomic_file(tmp_path / "x.npz")
    stream = file.__enter__()

    class Full:
        def close(self):
            stream.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file._stream = Full()
    with pytest.raises(OSError, match="No space left"):
        file.__exit__(None)
    assert names(tmp_path) == []


def test_a_read_only_output_folder_is_told_before_anything_is_computed(folder, monkeypatch, model, capsys):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("qmsam_core.provenance.files.tempfile.mkstemp", refuse)
    engine = BoxEngine()
    with pytest.raises(OutputError, match="cannot be written to"):
        predict_folder(Predictor(engine), good(folder), folder / "out")
    assert engine.encoded == 0
    assert (
        predict_command(
            ["-i", str(folder / "in"), "-o", str(folder / "out"), "--model", str(model), "--threads", "1"]
        )
        == 2
    )
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith(f"predict: {folder / 'out'}: cannot be written to (Permission denied)")
    )


def test_an_output_that_is_a_file_is_refused(folder):
    (folder / "out").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be written to"):
        predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from box_engine import BoxEngine
from qmsam_core.data import archive
from qmsam_core.deploy import Predictor
from qmsam_core.deploy.batch import predict_folder

write = archive.npy.write_array
def slowly(member, array, **options):
    member.write(b"the first half")
    print("writing", flush=True)
    time.sleep(60)
if sys.argv[3] == "slow":
    archive.npy.write_array = slowly
predict_folder(Predictor(BoxEngine()), sorted(Path(sys.argv[1]).glob("*X_[01].npz")), Path(sys.argv[2]))
"""


def test_killed_half_way_leaves_nothing_half_written_and_is_resumed(folder):
    command = [
        sys.executable,
        "-c",
        KILLED.format(tests=os.path.dirname(__file__)),
        str(folder / "in"),
        str(folder / "out"),
    ]
    with subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert not (folder / "out" / "2DBox_X_0.npz").exists()
    assert any(name.endswith(".part") for name in names(folder / "out"))
    rows = predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    assert [row["status"] for row in rows] == ["done", "done"]
    assert names(folder / "out") == ["2DBox_X_0.npz", "3DBox_X_1.npz", *TABLES]


def test_reading_computing_and_writing_overlap_and_memory_stays_bounded(folder, monkeypatch):
    for k in range(2, 8):
        rectangle_case(f"2DBox_X_{k}", k, False).save(folder / "in" / f"2DBox_X_{k}.npz")
    (folder / "in" / "2DBox_X_9.npz").unlink()
    alive, most, read = set(), [], Case.load

    def load(path):
        alive.add(path.name)
        most.append(len(alive))
        return read(path)

    def write(path, segs):
        time.sleep(0.05)
        assert segs.max() > 0
        alive.discard(path.name)

    monkeypatch.setattr(Case, "load", load)
    monkeypatch.setattr(mask_files, "write_segmentation", write)
    rows = predict_folder(Predictor(BoxEngine()), sorted((folder / "in").glob("*.npz")), folder / "out")
    assert [row["status"] for row in rows] == ["done"] * 8
    assert 2 <= max(most) <= 4


def test_predictions_are_plain_npz_files_written_fast(folder):
    predict_folder(Predictor(BoxEngine()), good(folder), folder / "out")
    path = folder / "out" / "3DBox_X_1.npz"
    with np.load(path) as stored:
        assert stored["segs"].dtype == np.uint8
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("segs.npy").compress_type == zipfile.ZIP_DEFLATED


@pytest.mark.parametrize("engine", ENGINES)
def test_the_commands_work_together(folder, engine, model):
    (folder / "in" / "2DBox_X_9.npz").unlink()
    arguments = [
        "-i",
        str(folder / "in"),
        "-o",
        str(folder / engine),
        "--model",
        str(model),
        "--engine",
        engine,
    ]
    assert predict_command([*arguments, "--threads", "1", "--memory-limit", "1.5G", "--propagate"]) == 0
    assert read_segmentation(folder / engine / "2DBox_X_0.npz").shape == (40, 56)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-i", "nowhere", "-o", "out", "--model", "m"], "nowhere: there is no such file or folder"),
        (["-i", "in", "-o", "out", "--model", "nowhere"], "nowhere/export.json: no such file"),
        (["-i", "in", "-o", "in", "--model", "m"], "is the input folder"),
        (["-i", "in", "-o", "out", "--model", "m", "--threads", "0"], "--threads 0: expected 1 or more"),
    ],
)
def test_the_command_ends_with_one_line_on_bad_input(folder, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(folder)
    assert predict_command(arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and words in error[0] and not (folder / "out").exists()


def test_a_real_network_gives_the_same_masks_as_one_step_after_the_other(model):
    case = rectangle_case("3DBox_CT_a", 1, True)
    engine = engines.open_engine("openvino", model, 1)
    expected = np.zeros(case.images.shape, np.uint8)
    for z in range(1, 4):
        geometry = Geometry.of(*case.plane_shape, engine.image_size)
        logits = engine.decode(
            engine.encode(geometry.image(case.slice_image(z))[None]),
            geometry.boxes(case.boxes[:, [0, 1, 3, 4]]),
        )
        masks = geometry.mask_to_image(logits)
        for i in sorted(
            range(len(masks)), key=lambda i: -np.prod(np.diff(case.boxes[i].reshape(2, 3), axis=0) + 1)
        ):
            expected[z][masks[i]] = i + 1  # the smaller box lies on top
    np.testing.assert_array_equal(Predictor(engine).segment(case), expected)
