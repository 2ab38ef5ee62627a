"""The models that the accuracy tables compare, and the table that summarises them."""

import shutil

import pandas as pd
import pytest
from small_data import rectangle_case

from qmsam_core.deploy.export import export_model
from qmsam_core.deploy.exported import ExportError
from qmsam_core.models import build_model
from qmsam_core.params import Params
from qmsam_core.provenance import weights
from qmsam_core.study.compared_models import COMPARED, SUMMARISED, compared, predictors_of, summary_table
from qmsam_core.timing.engine_arms import ARMS


def test_a_predictor_for_every_model_compared(tmp_path):
    export_model(build_model("narrow", 32), tmp_path / "one")
    for name in {model.export for model in COMPARED.values()}:
        shutil.copytree(tmp_path / "one", tmp_path / name)
    predictors = predictors_of(tmp_path, threads=1, block=3, interpolation="area")
    assert list(predictors) == list(COMPARED)
    assert {arm: p.order for arm, p in predictors.items() if p.order != "pad_then_normalise"} == {
        "Baseline, own order": "normalise_then_pad"
    }
    case = rectangle_case("2DBox_CT_1", 0, volume=False)
    assert all(p.segment(case).shape == (40, 56) for p in predictors.values())
    (tmp_path / COMPARED["NNCF"].export / "export.json").unlink()
    with pytest.raises(ExportError, match="int8_nncf/export.json"):
        predictors_of(tmp_path, threads=1, block=3, interpolation="area")


@pytest.mark.parametrize(
    "there, values, words",
    [
        (True, {}, ""),
        (False, {}, "litemedsam_int8.safetensors is not there"),
        (True, {"image_size": 64}, "this run litemedsam at 64 px"),
        (True, {"model": "medsam", "image_size": 1024}, "this run medsam at 1024 px"),
    ],
    ids=["there", "not made", "small", "another network"],
)
def test_the_shipped_model_is_an_arm_where_it_fits(tmp_path, monkeypatch, capsys, there, values, words):
    file = tmp_path / "litemedsam_int8.safetensors"
    monkeypatch.setattr(weights, "SHIPPED_FILE", file)
    if there:
        file.touch()
    models = compared(Params(**{"image_size": 256, **values}))
    line = capsys.readouterr().out
    if words:
        assert models == COMPARED and line.count("\n") == 1
        assert "arm 'Shipped', the project's int8 model, is left out: " in line and words in line
    else:
        assert list(models) == [*COMPARED, "Shipped"] and models["Shipped"].export == "shipped" and not line


@pytest.mark.parametrize("shipped", [False, True])
def test_results_at_a_glance(shipped):
    labels = [arm.label for _, arm in SUMMARISED.values() if arm]
    assert set(labels) <= {arm.label for arm in ARMS}
    timings = pd.DataFrame({"arm": list(dict.fromkeys(labels))}).assign(
        median_ms=lambda t: 10.0 * (1 + t.index)
    )
    rows = [
        {"arm": arm, "case": f"{m}{k}", "modality": m, "dsc": dsc - 0.1 * k, "nsd": 0.5, "agreement": agreed}
        for arm, dsc, agreed in (
            ("Baseline", 0.9, 1.0),
            ("Baseline, own order", 0.9, 0.99),
            ("Calibrated", 0.8, 0.7),
            ("Stage 3", 0.85, 0.8),
            *([("Shipped", 0.8, 0.9)] if shipped else []),
            ("NNCF", 0.7, 0.6),
            ("Ellipse", 0.6, 0.5),
        )
        for m in ("CT", "US")
        for k in (0, 1)
    ]
    table = summary_table(pd.DataFrame(rows), timings).set_index("model")
    if shipped:
        row = table.loc["int8, shipped"]
        assert row["dsc"] == pytest.approx(0.75) and row["agreement with float"] == pytest.approx(0.9)
        assert pd.isna(row["ms"]) and list(table.index)[-3:] == [
            "int8, shipped",
            "int8 by NNCF",
            "ellipse in the box",
        ]
    table = table.drop("int8, shipped", errors="ignore")
    assert table["dsc"].tolist() == pytest.approx([0.85, 0.85, 0.75, 0.8, 0.65, 0.55])
    assert table["difference to float"].tolist() == pytest.approx(
        [float("nan"), 0, -0.1, -0.05, -0.2, -0.3], nan_ok=True
    )
    assert table.loc["int8, calibrated", ["difference low", "difference high"]].tolist() == pytest.approx(
        [-0.1, -0.1]
    )
    assert table["agreement with float"].tolist() == pytest.approx([1, 0.99, 0.7, 0.8, 0.6, 0.5])
    assert table["ms"].tolist() == pytest.approx([10, 10, 20, 20, 30, float("nan")], nan_ok=True)
