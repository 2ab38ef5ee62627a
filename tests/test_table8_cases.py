"""The stand-ins for the cases of Table 8, and the table of running times."""

import numpy as np
import pandas as pd
import pytest
from box_engine import BoxEngine

from qmsam_core.data import Case
from qmsam_core.deploy import Predictor
from qmsam_core.timing import table8_cases as table8
from qmsam_core.timing.table8_cases import (
    in_baselines,
    main,
    running_time_table,
    side_by_side,
    stand_in,
    table8_cases,
)


def test_the_cases_have_the_paper_s_sizes_and_objects():
    cases = table8_cases().set_index("case")
    assert len(cases) == 14
    assert tuple(cases.loc["2DBox_Microscope_0016", ["shape", "objects", "slices"]]) == (
        (1920, 2560, 3),
        241,
        1,
    )
    # This case takes the most seconds for each box and slice, so its boxes are taken to cross all slices.
    assert cases.loc["3DBox_MR_0121", "slices"] == 64
    volumes = cases[cases.index.str.startswith("3D")]
    assert (volumes["slices"] <= volumes["shape"].str[0]).all() and (volumes["slices"] > 20).all()


def test_runs_are_kept_short():
    assert table8_cases(most_slices=2)["slices"].max() == 2
    small = table8_cases(most_slices=1, most_pixels=1e6)["case"]
    assert "2DBox_US_0525" in set(small) and "2DBox_Microscope_0016" not in set(small)


@pytest.mark.parametrize(
    "row", list(table8_cases(3).query("case.str.contains('PET|US|X-Ray|MR_0121')").itertuples(index=False))
)
def test_stand_ins_are_valid_cases(row, tmp_path):
    stand_in(*row).save(tmp_path / f"{row.case}.npz")
    case = Case.load(tmp_path / f"{row.case}.npz")
    assert case.images.shape == row.shape and len(case.boxes) == row.objects
    if case.is_volume:
        assert (case.boxes[:, 5] - case.boxes[:, 2] + 1 == row.slices).all()


@pytest.mark.parametrize(
    "objects, shape", [(1, (10, 10)), (34, (320, 640)), (241, (1920, 2560)), (6, (400, 400))]
)
def test_boxes_lie_side_by_side(objects, shape):
    boxes, seen = side_by_side(objects, *shape), np.zeros(shape, int)
    for x0, y0, x1, y1 in boxes:
        assert x0 <= x1 and y0 <= y1
        seen[y0 : y1 + 1, x0 : x1 + 1] += 1
    assert len(boxes) == objects and seen.max() == 1 and boxes.min() >= 0


def test_every_row_of_the_paper_stays_and_the_speed_up_is_the_ratio():
    rows = [
        ("3DBox_CT_0566", pipeline, seconds)
        for pipeline, seconds in (("baseline", 40.0), ("authors", 4.0), ("ours", 2.0))
    ]
    measured = pd.DataFrame(rows, columns=["case", "pipeline", "seconds"]).assign(
        slices=12, peak_mb=[900.0, 700.0, 500.0]
    )
    table = running_time_table(measured).set_index("case")
    assert len(table) == 14
    row = table.loc["3DBox_CT_0566"]
    assert (row["slices here"], row["speed-up over baseline here"], row["speed-up over authors here"]) == (
        12,
        20,
        2,
    )
    assert row["speed-up paper"] == pytest.approx(591.1 / 142.1) and row["peak MB ours here"] == 500
    assert pd.isna(table.loc["2DBox_US_0525", "seconds baseline here"])


def test_published_times_and_ours_are_in_units_of_the_own_machine_s_baseline():
    rows = [
        ("3DBox_CT_0860", "baseline", 20.0),
        ("3DBox_CT_0860", "daft", 5.0),
        ("3DBox_CT_0860", "ours", 1.0),
    ]
    rows += [("2DBox_US_0525", "ours", 0.5)]  # its baseline was not timed
    table = in_baselines(pd.DataFrame(rows, columns=["case", "pipeline", "seconds"])).set_index("case")
    row = table.loc["3DBox_CT_0860"]
    assert (row["daft, here"], row["ours, here"]) == (0.25, 0.05)
    assert row["QMedSAM, published"] == pytest.approx(12.4 / 23.4)
    assert row["Rep-MedSAM, updated, published"] == pytest.approx(6.2 / 16.6)
    assert pd.isna(row["medficientsam, here"]) and pd.isna(table.loc["2DBox_US_0525", "ours, here"])
    assert "baseline, here" not in table


def test_the_command_times_whole_cases(tmp_path, monkeypatch, capsys):
    opened = []

    def open_pipeline(name, folder, threads, precision):
        opened.append((name, str(folder), precision))
        return Predictor(BoxEngine())

    monkeypatch.setattr(table8, "open_pipeline", open_pipeline)
    asked = ["2DBox_US_0525", "3DBox_PET_0001", "--pipelines", "authors=a", "ours=b"]
    assert main([*asked, "-o", str(tmp_path / "seconds.csv")]) == 0
    found = pd.read_csv(tmp_path / "seconds.csv")
    assert opened == [("authors", "a", "f32"), ("ours", "b", "f32")]
    assert found[["slices", "boxes"]].to_numpy().tolist() == [[1, 1], [34, 1]]
    assert (found[["authors", "ours"]] > 0).all(axis=None)
    with pytest.raises(SystemExit):
        main([*asked[:2], "--pipelines", "mine=a"])
    assert "expected NAME=FOLDER, NAME of baseline" in capsys.readouterr().err
