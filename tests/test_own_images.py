"""Quantising with one's own images: which slices are taken, how they are divided, judged and reported."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_data import rectangle_case, write_data

from qmsam_core.data import Case
from qmsam_core.data.archive import CaseError
from qmsam_core.data.boxed_slices import divide, slices_of
from qmsam_core.deploy import open_engine
from qmsam_core.deploy.diagnose import main as diagnose
from qmsam_core.deploy.export import export_model, main
from qmsam_core.deploy.own_images import dsc_of, judge, label_map, weakest_blocks
from qmsam_core.deploy.predict import main as predict
from qmsam_core.models import build_model
from qmsam_core.quant import RECIPES, quantize
from qmsam_core.quant.calibration import calibrate_on


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("own"), cases=3)


def test_groups_take_turns_and_a_volume_gives_the_slice_most_boxes_cross(folder):
    slices, left_out = slices_of(folder, count=4)
    assert [one.group for one in slices] == ["CT", "US", "CT", "US"] and not left_out
    volume = slices[0]
    assert volume.name.startswith("CT/3DBox_CT_") and volume.name.endswith(", slice 2")
    assert volume.pixels.shape == (40, 56, 3) and volume.boxes.shape == (2, 4)
    areas = np.prod(volume.boxes[:, 2:] - volume.boxes[:, :2] + 1, axis=1)
    assert areas[0] > areas[1]


def test_labels_are_numbered_as_the_boxes(folder, tmp_path):
    for one in slices_of(folder)[0]:
        assert set(np.unique(one.labels)) == {0, 1, 2}
        for number, box in enumerate(one.boxes, 1):
            y, x = np.nonzero(one.labels == number)
            assert [x.min(), y.min(), x.max(), y.max()] == box.tolist()
    boxed = rectangle_case("2DBox_US_1", 0, False)
    replace(boxed, labels=None).save(tmp_path / "2DBox_US_1.npz")
    assert slices_of(tmp_path)[0][0].labels is None


def test_the_dsc_is_nan_where_there_is_no_label():
    masks, labels = np.array([[[1, 1, 0]], [[0, 0, 1]]], bool), np.array([[1, 0, 0]])
    assert dsc_of(masks, labels) == pytest.approx([2 / 3, float("nan")], nan_ok=True)
    assert np.isnan(dsc_of(masks, None)).all()


def test_the_choice_does_not_depend_on_where_the_folder_lies(folder, tmp_path):
    write_data(tmp_path / "elsewhere", cases=3)
    names = [[one.name for one in slices_of(root)[0]] for root in (folder, tmp_path / "elsewhere")]
    assert names[0] == names[1] and len(names[0]) == 6


def test_what_cannot_be_used_is_named(tmp_path):
    rectangle_case("good", 0, False).save(tmp_path / "good.npz")
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    blank = np.zeros((8, 8), np.uint8)
    Case("blank", np.zeros((8, 8, 3), np.uint8), None, blank, np.ones(3)).save(tmp_path / "blank.npz")
    slices, left_out = slices_of(tmp_path)
    assert [one.name for one in slices] == ["good.npz"] and slices[0].group == tmp_path.name
    assert len(left_out) == 2 and any("broken.npz" in line for line in left_out)
    assert any("blank.npz" in line and "no box" in line for line in left_out)
    with pytest.raises(ValueError, match="found 1 usable case; expected at least 2"):
        divide(slices)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(CaseError, match="no .npz files"):
        slices_of(tmp_path)


def test_no_slice_both_calibrates_and_judges(folder):
    slices, _ = slices_of(folder)
    calibration, judging = divide(slices)
    assert not {one.name for one in calibration} & {one.name for one in judging}
    assert {one.group for one in calibration} == {one.group for one in judging} == {"CT", "US"}
    single_of_each = [slices[0], slices[1]]
    assert [len(part) for part in divide(single_of_each)] == [1, 1]


def test_every_slice_counts_in_calibration(folder, monkeypatch):
    slices, _ = slices_of(folder)
    model = quantize(
        build_model("narrow"), replace(RECIPES["deploy"], name="few", in_float=(), statistics_batches=4)
    )
    seen = []
    monkeypatch.setattr("qmsam_core.quant.calibration.fit", lambda m, run, batches: seen.extend(batches))
    calibrate_on(model, slices)
    assert len(seen) <= 4 and sum(len(batch["image"]) for batch in seen) == len(slices) == 6


def test_the_float_export_agrees_fully_with_its_model(folder, tmp_path):
    model = build_model("narrow").eval()
    export_model(model, tmp_path)
    slices, _ = slices_of(folder)
    found = judge(model, open_engine("openvino", tmp_path), slices)
    assert (found.table["dsc float"] - found.table["dsc int8"]).abs().max() < 0.01
    assert found.agreement > 0.99 and list(found.by_group["group"]) == ["CT", "US"]
    assert list(found.by_group["objects"]) == [6, 6] and len(found.figure.axes) == 3 * 6
    assert weakest_blocks(model, model, found.worst, 2)[0] == "patch_embed"


def test_later_masks_lie_on_top():
    masks = np.array([[[1, 1, 0]], [[0, 1, 1]]], bool)
    assert label_map(masks).tolist() == [[1, 2, 2]]


def test_the_command_calibrates_judges_and_reports(folder, tmp_path, capsys):
    arguments = ["--model", "narrow", "--recipe", "deploy", "--calibrate", str(folder), "-o", str(tmp_path)]
    assert main([*arguments, "--checkpoint", "random"]) == 0
    text = capsys.readouterr().out
    assert "calibrated on 4 slices" in text and "on 2 other slices" in text
    table = pd.read_csv(tmp_path / "agreement.csv")
    assert len(table) == 4 and table["agreement"].between(0, 1).all()
    assert (tmp_path / "agreement.png").stat().st_size > 1000
    assert predict(["-i", str(folder / "US"), "-o", str(tmp_path / "segs"), "--model", str(tmp_path)]) == 0


def test_scales_from_noise_are_refused_by_predict(folder, tmp_path, capsys):
    assert main(["--model", "narrow", "--checkpoint", "random", "-o", str(tmp_path)]) == 0
    assert "its masks are of no use" in capsys.readouterr().out
    assert predict(["-i", str(folder / "US"), "-o", str(tmp_path / "segs"), "--model", str(tmp_path)]) == 2
    assert "export again with --calibrate" in capsys.readouterr().err
    assert not (tmp_path / "segs").exists()


def test_calibrating_a_float_export_is_refused(folder, tmp_path, capsys):
    arguments = ["--model", "narrow", "--recipe", "float", "--calibrate", str(folder), "-o", str(tmp_path)]
    assert main(arguments) == 2 and "has no scales" in capsys.readouterr().err


def test_diagnose_of_a_network_without_weights_names_its_blocks_and_what_more_int8_costs(folder, capsys):
    linear = [str(folder), "--model", "narrow_efficientvit"]
    assert diagnose(linear) == 0
    blocks = {line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert {"backbone.stages.4.op_list.1", "neck"} <= blocks
    assert diagnose([*linear, "--whole"]) == diagnose([*linear, "--whole", "--also-int8", "q_product"]) == 0
    with_float, without = capsys.readouterr().out.splitlines()
    assert with_float != without and with_float.startswith("agreement ")


def test_diagnose_lists_every_block(folder, tmp_path, capsys):
    assert diagnose([str(folder), "--model", "narrow", "--recipe", "paper"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["part", "block"]
    assert {"patch_embed", "neck", "mask_product"} <= {line.split()[1] for line in lines}
    assert "the weights make" in lines[-1] and lines[-1].startswith("agreement ")
    assert diagnose([str(tmp_path / "nothing")]) == 2
    assert "no .npz files" in capsys.readouterr().err
