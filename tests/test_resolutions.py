"""Sizes of the input: what is scored, timed and summarised, and what the command writes."""

import pandas as pd
import pytest
import torch
from box_engine import BoxEngine
from small_data import rectangle_case

from qmsam_core.data.boxed_slices import slices_of
from qmsam_core.evaluate.resolutions_figure import resolutions_figure
from qmsam_core.models import build_model
from qmsam_core.quant import calibrate, quantize, save_model
from qmsam_core.study import resolutions
from qmsam_core.study.resolutions import by_modality, engines_at, main, scores_of, table_of, timings_of


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
    assert len(times) == 4 and (times["ms"] > times["ms encoder"]).any()


def test_masks_are_scored_at_the_size_of_the_slice(cases):
    slices, _ = slices_of(cases)
    engines = {("float", 256): BoxEngine(), ("int8", 256): BoxEngine()}
    scores = scores_of(engines, slices)
    assert len(scores) == 2 * len(slices) and set(scores["modality"]) == {"US", "MR"}
    assert (scores["agreement"] == 1).all()  # both fill the box
    assert scores["dsc"].min() > 0.9  # and so do the rectangles


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
    figure = resolutions_figure(table.reset_index())
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["128 px"] * 2 + ["256 px"] * 2


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
