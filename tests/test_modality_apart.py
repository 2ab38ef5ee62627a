"""Calibrating a modality apart: which slices calibrate, the comparison, and the command."""

import numpy as np
import pandas as pd
import pytest
from small_data import rectangle_case, write_data

from qmsam_core.data import SliceIndex
from qmsam_core.data.boxed_slices import BoxedSlice
from qmsam_core.evaluate.apart_figure import apart_figure
from qmsam_core.models import build_model
from qmsam_core.study import modality_apart
from qmsam_core.study.modality_apart import differences, summary, table_of
from qmsam_core.study.modality_slices import (
    ALL,
    APART,
    TOGETHER,
    Modality,
    arms_of,
    mixed,
    modalities_of,
    modalities_of_run,
)


def boxed(group, number):
    return BoxedSlice(f"{group}/{number}.npz", group, np.zeros((8, 8, 3), np.uint8), np.array([[1, 1, 5, 5]]))


def modalities(**counts):
    return {
        name: Modality([boxed(name, k) for k in range(count)], [boxed(name, 100)])
        for name, count in counts.items()
    }


def names(slices):
    return [one.name.removesuffix(".npz") for one in slices]


# Which slices calibrate -------------------------------------------------------------------------------------


def test_half_of_a_modality_calibrates_and_the_other_judges():
    found, left_out = modalities_of(
        [*(boxed("A", k) for k in range(5)), boxed("B", 0), *modalities(C=2)["C"].calibration]
    )
    assert names(found["A"].calibration) == ["A/0", "A/2", "A/4"] and names(found["A"].judging) == [
        "A/1",
        "A/3",
    ]
    assert list(found) == ["A", "C"] and left_out[0].startswith("B: found 1 usable case; expected at least 2")
    with pytest.raises(
        ValueError, match="found 1 modalities of two cases or more .A.; expected at least two"
    ):
        modalities_of([boxed("A", 0), boxed("A", 1)])


@pytest.mark.parametrize(
    "count, expected",
    [
        (1, ["A/0"]),
        (2, ["A/0", "C/0"]),
        (4, ["A/0", "B/0", "C/0", "D/0"]),
        (6, ["A/0", "B/0", "C/0", "D/0", "A/1", "C/1"]),
        (99, ["A/0", "B/0", "C/0", "D/0", "A/1", "C/1", "A/2"]),
    ],
)
def test_together_is_spread_over_all(count, expected):
    assert names(mixed(modalities(A=3, B=1, C=2, D=1), count)) == expected


@pytest.mark.parametrize(
    "own, sizes",
    [(2, {TOGETHER: 2, APART: 2}), (3, {TOGETHER: 3, APART: 3}), (5, {TOGETHER: 3, APART: 3, ALL: 5})],
)
def test_together_and_apart_see_the_same_number(own, sizes):
    arms = arms_of(modalities(A=own, B=4), "A", 3)
    assert {arm: len(slices) for arm, slices in arms.items()} == sizes
    assert all(one.group == "A" for arm in sizes if arm != TOGETHER for one in arms[arm])
    assert {one.group for one in arms[TOGETHER]} == {"A", "B"}


def test_a_run_gives_the_two_modalities_of_most_slices(tmp_path):
    write_data(tmp_path, 4)
    for k in range(6):
        rectangle_case(f"2DBox_OCT_{k}", k, False).save(tmp_path / "OCT" / f"2DBox_OCT_{k}.npz")
    train, evaluation = SliceIndex.build(tmp_path).split(0.4, 0)
    found = modalities_of_run(train, evaluation, 3, 2)
    assert list(found) == ["CT", "OCT"]
    assert all(len(one.calibration) == 3 for one in found.values())
    sides = [
        {one.name.split(",")[0] for one in side} for side in (found["CT"].calibration, found["CT"].judging)
    ]
    assert not sides[0] & sides[1] and len(set(names(found["CT"].calibration))) == 3
    for one in (*found["CT"].judging, *found["OCT"].judging):  # boxes, largest first, with their labels
        areas = [int(np.count_nonzero(one.labels == k)) for k in (1, 2)]
        boxes = one.boxes[:, 2:] - one.boxes[:, :2] + 1
        assert areas == boxes.prod(1).tolist() and areas[0] > areas[1] and one.pixels.shape == (40, 56, 3)


def test_a_run_that_calibrates_nothing_apart_has_tables_without_rows(tmp_path):
    rows = modality_apart.scores_of_run(build_model("narrow"), tmp_path, 4, 0)
    assert rows.empty and summary(rows).empty and differences(rows).empty
    assert "no modality" in apart_figure(differences(rows)).axes[0].texts[0].get_text()


# The comparison ---------------------------------------------------------------------------------------------


def known_scores(calibration=3):
    """Scores of two modalities: apart gains 0.1 on each slice of A, and loses 0.02 on each of B."""
    rows = []
    for modality, base, gain in (("A", 0.8, 0.1), ("B", 0.9, -0.02)):
        arms = {TOGETHER: 0.0, APART: gain, **({ALL: 2 * gain} if modality == "A" else {})}
        for arm, more in arms.items():
            for k in range(4):
                agreement = base + 0.01 * k + more
                row = {
                    "modality": modality,
                    "arm": arm,
                    "calibration": calibration,
                    "case": f"{k}",
                    "group": f"{k}",
                }
                rows.append(
                    {
                        **row,
                        "agreement": agreement,
                        "dsc float": 0.9,
                        "dsc int8": 0.5 + more,
                        "embedding db": 20.0,
                    }
                )
    return pd.DataFrame(rows)


def test_the_table_has_a_row_an_arm_with_intervals():
    table = table_of(known_scores()).set_index(["modality", "arm"])
    assert list(table.index) == [("A", TOGETHER), ("A", APART), ("A", ALL), ("B", TOGETHER), ("B", APART)]
    assert table.loc[("A", APART), "difference"] == pytest.approx(0.1)
    assert table.loc[("A", APART), ["difference low", "difference high"]].tolist() == pytest.approx(
        [0.1, 0.1]
    )
    assert table.loc[("A", ALL), "difference"] == pytest.approx(0.2)
    assert table["difference"].isna().tolist() == [True, False, False, True, False]
    row = table.loc[("B", TOGETHER)]
    assert row["agreement"] == pytest.approx(0.915)
    assert row["agreement low"] < 0.915 < row["agreement high"]
    assert (table["calibration slices"] == 3).all() and (table["judged slices"] == 4).all()


def test_an_arm_without_its_counterpart_has_no_difference():
    scores = known_scores()
    table = table_of(scores[(scores["arm"] != TOGETHER) | (scores["modality"] == "B")])
    assert table[table["modality"] == "A"]["difference"].isna().all()


def test_the_summary_has_a_row_a_modality_and_their_average():
    found = summary(known_scores()).set_index("modality")
    assert list(found.index) == ["A", "B", "Average"]
    assert found["difference"].tolist() == pytest.approx([0.1, -0.02, 0.04])
    assert found["dsc difference"].tolist() == pytest.approx([0.1, -0.02, 0.04])
    assert found.loc["Average", "agreement together"] == pytest.approx((0.815 + 0.915) / 2)
    assert found["calibration slices"].tolist()[:2] == [3, 3] and found["judged slices"].tolist() == [4, 4, 8]


def test_the_summary_takes_both_names_of_microscopy_for_one_and_tables_without_labels():
    scores = known_scores().replace({"modality": {"A": "Microscope"}}).assign(**{"dsc int8": np.nan})
    found = summary(scores)
    assert list(found["modality"]) == ["Microscopy", "B", "Average"] and found["dsc difference"].isna().all()
    assert found["calibration slices"].notna().sum() == 2


def test_the_figure_shows_every_difference():
    found = differences(known_scores())
    axes = apart_figure(found).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["A", "B", "Average"]
    shown = np.concatenate(
        [marks.get_offsets()[:, 0] for marks in axes.collections if len(marks.get_offsets()) > 1]
    )
    assert sorted(shown) == pytest.approx(sorted(100 * found["difference"]))


# The command ------------------------------------------------------------------------------------------------


def test_the_command_writes_rows_and_takes_them_up_again(tmp_path, capsys):
    folder, table = write_data(tmp_path / "cases", cases=6), tmp_path / "table.csv"
    arguments = [str(folder), "--model", "narrow", "--slices", "2", "-o", str(table)]
    assert modality_apart.main([*arguments, "--modalities", "US"]) == 0
    assert "3/3 US, apart, all: agreement" in capsys.readouterr().err
    first = pd.read_csv(table)
    assert list(first["arm"]) == [TOGETHER, APART, ALL] and first["calibration slices"].tolist() == [2, 2, 3]
    assert (
        first[["agreement", "dsc float", "dsc int8"]].stack().between(0, 1).all()
        and first["embedding db"].notna().all()
    )
    assert modality_apart.main(arguments) == 0
    out, error = capsys.readouterr()
    assert "3 arms of 2 modalities are missing" in error and "Average" in out
    second = pd.read_csv(table)
    pd.testing.assert_frame_equal(second.head(3), first)
    assert list(second["modality"]) == ["US"] * 3 + ["CT"] * 3
    assert modality_apart.main(arguments) == 0
    assert "0 arms of 2 modalities are missing" in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "table_slices.csv")) == 2 * 3 * 3


def test_an_arm_is_the_model_calibrated_on_its_slices(tmp_path):
    found, _ = modalities_of(modality_apart.slices_of(write_data(tmp_path, cases=4))[0])
    model = build_model("narrow").eval()
    rows = pd.concat(modality_apart.scores(model, found, 2, judged=["US"]))
    for arm, slices in arms_of(found, "US", 2).items():
        own = modality_apart.calibrated(model, slices)
        expected = modality_apart.slice_scores(own, modality_apart.expected(model, found["US"].judging))
        pd.testing.assert_frame_equal(rows[rows["arm"] == arm][expected.columns], expected)
    assert rows.groupby("arm")["embedding db"].mean().nunique() == 2
    left = pd.concat(modality_apart.scores(model, found, 2, ["US"], {("US", TOGETHER)}))
    assert set(left["arm"]) == {APART}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--modalities", "MR"], "--modalities MR: expected some of CT, US"),
        (["--slices", "0"], "--slices 0: expected 1 or more"),
        (["--slices", "1"], "US, apart: was calibrated or judged on other slices than now; give another"),
    ],
)
def test_what_the_command_cannot_do_is_told(tmp_path, capsys, arguments, words):
    folder, table = write_data(tmp_path / "cases", cases=4), tmp_path / "table.csv"
    rows = modality_apart.scores(
        build_model("narrow").eval(), modalities_of(modality_apart.slices_of(folder)[0])[0], 2, ["US"]
    )
    pd.concat(rows).to_csv(tmp_path / "table_slices.csv", index=False)
    assert modality_apart.main([str(folder), "--model", "narrow", "-o", str(table), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_table_of_something_else_is_not_replaced(tmp_path, capsys):
    folder = write_data(tmp_path / "cases", cases=4)
    (tmp_path / "table_slices.csv").write_text("a,b\n1,2\n")
    assert modality_apart.main([str(folder), "--model", "narrow", "-o", str(tmp_path / "table.csv")]) == 2
    assert "table_slices.csv: has columns a, b; expected a table of this command" in capsys.readouterr().err
