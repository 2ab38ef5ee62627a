"""Sizes of the input: what is scored, timed and summarised, and what the command writes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from box_engine import BoxEngine
from small_data import rectangle_case

from qmsam_core.data.boxed_slices import BoxedSlice, slices_of
from qmsam_core.evaluate.resolutions_figure import resolutions_figure
from qmsam_core.models import build_model
from qmsam_core.quant import calibrate, quantize, save_model
from qmsam_core.study import resolutions
from qmsam_core.study.resolutions import (
    by_modality,
    engines_at,
    main,
    scores_of,
    sizes_of,
    table_of,
    timings_of,
)

WAYS = {"f32", "bf16", "f32, products in float", "bf16, products in float"}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    root = tmp_path_factory.mktemp("cases")
    for modality in ("US", "MR"):
        (root / modality).mkdir()
        for k in range(2):
            rectangle_case(f"{modality}_{k}", k, False).save(root / modality / f"{modality}_{k}.npz")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Files of a narrow model of 64 px in float and in int8."""
    folder, model = tmp_path_factory.mktemp("models"), build_model("narrow", 64)
    made = quantize(model, "deploy")
    calibrate(made, lambda m, x: m(x, torch.tensor([[4.0, 4, 40, 40]])), [torch.rand(1, 3, 64, 64)])
    paths = {name: folder / f"{name}.safetensors" for name in ("float", "int8")}
    for path, one in zip(paths.values(), (model, made)):
        save_model(one, path)
    return paths


def test_the_same_weights_run_at_every_size(models, tmp_path):
    engines = engines_at((32, 64), models, tmp_path, threads=1)
    assert {key: engine.image_size for key, engine in engines.items()} == {
        ("float", 32): 32,
        ("int8", 32): 32,
        ("float", 64): 64,
        ("int8", 64): 64,
    }
    times = timings_of(engines, runs=1)
    assert times[["precision", "px"]].apply(tuple, axis=1).tolist() == list(engines)
    assert (times[["ms", "ms encoder"]] > 0).all(axis=None) and set(times["encoder runs in"]) <= WAYS


@pytest.mark.parametrize(
    "name, image_size, sizes",
    [
        ("litemedsam", 256, [128, 192, 256]),
        ("litemedsam", 64, [32, 48, 64]),
        ("litemedsam", 96, [48, 80, 96]),
        ("litemedsam", 32, [32]),
        ("medsam", 1024, [1024]),
    ],
)
def test_a_run_compares_only_sizes_that_the_network_can_have(name, image_size, sizes):
    assert sizes_of(name, image_size) == sizes


def test_masks_are_scored_at_the_size_of_the_slice(cases):
    slices, _ = slices_of(cases)
    engines = {("float", 256): BoxEngine(), ("int8", 256): BoxEngine()}
    scores = scores_of(engines, slices)
    assert len(scores) == 2 * len(slices) and set(scores["modality"]) == {"US", "MR"}
    assert (scores["agreement"] == 1).all()  # both fill the box
    assert scores["dsc"].min() > 0.9  # and so do the rectangles


def test_slices_of_a_patient_are_a_group_and_others_are_not(cases):
    slices, _ = slices_of(cases)
    names = (
        "MR/2DBox_MR_a_P7_x.npz",
        "MR/2DBox_MR_a_P7_y.npz",
        "MR/2DBox_MR_a_P8_x.npz",
        "US/3DBox_US_b.npz",
    )
    groups = ("MR", "MR", "MR", "US")
    slices = [replace(slices[0], name=name, group=one) for name, one in zip(names, groups)]
    found = scores_of({("float", 256): BoxEngine()}, slices)["group"].tolist()
    assert found[0] == found[1] and len(set(found)) == 3


def test_cases_without_labels_are_told(cases):
    slices: list[BoxedSlice] = [replace(one, labels=None) for one in slices_of(cases)[0]]
    scores = scores_of({("float", 256): BoxEngine()}, slices)
    assert scores["dsc"].isna().all() and (scores["agreement"] == 1).all()
    with pytest.raises(ValueError, match="none of 4 slices has labels"):
        table_of(scores, pd.DataFrame())


def scores_by_hand():
    rows = [
        (precision, size, modality, f"{modality}{k}", dsc, 1.0)
        for precision, size, dsc in (
            ("float", 256, 0.9),
            ("int8", 256, 0.88),
            ("float", 128, 0.8),
            ("int8", 128, 0.7),
        )
        for modality in ("US", "MR")
        for k in range(3)
    ]
    return pd.DataFrame(rows, columns=["precision", "px", "modality", "case", "dsc", "agreement"]).assign(
        group=lambda table: table["case"]
    )


def test_sizes_are_compared_with_float_at_the_largest():
    scores = scores_by_hand()
    times = (
        scores[["precision", "px"]].drop_duplicates().assign(ms=[4.0, 3.0, 2.0, 1.0], **{"ms encoder": 1.0})
    )
    table = table_of(scores, times).set_index(["px", "precision"])
    assert table["difference"].tolist() == pytest.approx([0, -0.02, -0.1, -0.2])
    assert table.index.tolist() == [(256, "float"), (256, "int8"), (128, "float"), (128, "int8")]
    wide = by_modality(scores).set_index("modality")
    assert wide.loc["Average"].tolist() == pytest.approx([90, 88, 80, 70]) and list(wide)[0] == "float 256"
    shown = resolutions_figure(table.reset_index(), wide.reset_index())
    left, right = shown.axes
    offsets = [tuple(marks.get_offsets()[0]) for marks in left.collections if len(marks.get_offsets())]
    marks = sorted(offset for offset in offsets if offset[0] > 0)  # lines have an offset of 0
    expected = sorted(zip(table["ms"], 100 * table["difference"]))
    assert np.array(marks) == pytest.approx(np.array(expected))
    assert [text.get_text() for text in right.get_yticklabels()] == ["MR", "US", "Average"]
    assert [text.get_text() for text in shown.legends[0].get_texts()] == ["float", "int8", "128 px", "256 px"]
    assert len(resolutions_figure(table.reset_index()).axes) == 1


def test_an_arm_without_an_interval_is_still_drawn():
    ends = dict.fromkeys(("difference low", "difference high"), np.nan)
    rows = [{"px": 64, "precision": name, "ms": 1.0, "difference": 0.0, **ends} for name in ("float", "int8")]
    resolutions_figure(pd.DataFrame(rows)).draw_without_rendering()


def test_the_command_writes_tables_and_a_picture(cases, models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        resolutions, "checkpoint_path", lambda name: models["int8" if name == "int8" else "float"]
    )
    asked = [str(cases), "--sizes", "32", "64", "--slices", "4", "--threads", "1", "--runs", "1"]
    assert main([*asked, "-o", str(tmp_path / "out")]) == 0
    assert len(pd.read_csv(tmp_path / "out" / "resolutions.csv")) == 4
    assert pd.read_csv(tmp_path / "out" / "resolutions_by_modality.csv")["modality"].tolist()[-1] == "Average"
    assert (tmp_path / "out" / "resolutions.png").stat().st_size > 5_000
    assert main([*asked[:1], "--sizes", "33", "-o", str(tmp_path / "other")]) == 2
    assert "image_size = 33" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
