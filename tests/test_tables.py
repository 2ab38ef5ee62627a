"""The paper's tables: whether their numbers agree, and how ours are placed beside them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from qmsam_core.evaluate import PAPER
from qmsam_core.evaluate.tables import (
    DASH,
    across,
    balance,
    beside,
    caption,
    per_modality,
    rendered,
    spread_per_modality,
    styled,
    typical_cases,
)

SUMMARIES = ["Average", "Proposed"]


def printed_averages():
    for key in ("table7", "table9", "table10"):
        for arm, rows in PAPER[key].groupby("arm", sort=False):
            for metric in rows.columns.intersection(["dsc", "nsd", "seconds"]):
                yield pytest.param(rows, metric, id=f"{key}-{arm}-{metric}")


@pytest.mark.parametrize(("rows", "metric"), list(printed_averages()))
def test_the_papers_averages_are_means_of_its_rows(rows, metric):
    """They agree to one unit of the last printed digit. Half a unit is too strict: the rows are rounded."""
    unit = 0.01 if metric == "seconds" else 1e-4
    average = rows.loc[rows["modality"] == "Average", metric].item()
    assert rows.loc[~rows["modality"].isin(SUMMARIES), metric].mean() == pytest.approx(average, abs=unit)


def test_the_only_averages_that_rounding_the_rows_moved():
    """Two printed averages are not the rounded mean of the printed rows: 85.77 for 85.76, 85.78 for 85.79."""
    moved = []
    for key in ("table7", "table9", "table10"):
        for arm, rows in PAPER[key].groupby("arm", sort=False):
            body = rows[~rows["modality"].isin(SUMMARIES)]
            for metric in ("dsc", "nsd"):
                average = rows.loc[rows["modality"] == "Average", metric].item()
                if abs(body[metric].mean() - average) > 0.51e-4:
                    moved.append((key, arm, metric))
    assert moved == [("table7", "Stage 1", "nsd"), ("table9", "Stage 2", "nsd")]


def test_table_9_repeats_the_averages_of_table_7():
    seven = (
        PAPER["table7"].query("modality == 'Average' and arm != 'Baseline'").set_index("arm")[["dsc", "nsd"]]
    )
    nine = PAPER["table9"].query("modality == 'Proposed'").set_index("arm")[["dsc", "nsd"]]
    pd.testing.assert_frame_equal(seven, nine)


def test_shapes_and_landmarks_of_the_papers_tables():
    assert set(PAPER) == {*(f"table{i}" for i in range(1, 11)), "disk"}
    assert {key: len(table) for key, table in PAPER.items()} == {
        "table1": 2, "table2": 11, "table3": 3, "table4": 9, "table5": 5,
        "table6": 5, "table7": 40, "table8": 14, "table9": 33, "table10": 20, "disk": 2,
    }  # fmt: skip
    assert PAPER["table2"]["samples"].sum() == 1632676
    assert PAPER["table5"].query("precision == 'int8' and engine == 'OpenVINO'")["seconds"].item() == 0.585
    assert PAPER["table6"].query("precision == 'float' and engine == 'PyTorch'")["seconds"].item() == 10.181
    assert PAPER["table7"].query("modality == 'Microscopy' and arm == 'Baseline'")["dsc"].item() == 0.6054
    assert PAPER["table10"].query("modality == 'CT' and arm == 'Proposed'")["seconds"].item() == 11.78
    assert PAPER["table8"]["seconds_baseline"].isna().tolist() == [False] * 13 + [True]


def test_protocol_agrees_with_the_text():
    """Section 3.3: warm-up and annealing share an epoch (5 + 10 = 14 + 1). Ns: 0.9 of the rarest modality."""
    row = PAPER["table3"].iloc[0]
    assert row["epochs"] == row["warmup_epochs"] + row["annealing_epochs"] - 1
    assert row["samples_per_modality"] == 0.9 * PAPER["table2"]["samples"].min()


def cases(arm="Stage 3"):
    return pd.DataFrame(
        {
            "arm": arm,
            "case": ["a", "b", "c", "d"],
            "modality": ["OCT", "CT", "CT", "Microscope"],
            "dsc": [0.5, 0.8, 0.6, np.nan],
            "nsd": [0.4, 1.0, 0.8, np.nan],
            "missed": [1, 0, 0, 0],
        }
    )


def test_per_modality_weighs_modalities_alike_and_skips_unscored():
    table = per_modality(cases().drop(columns="arm"))
    assert table["modality"].tolist() == ["CT", "OCT", "Average"]
    assert table["dsc"].tolist() == pytest.approx([0.7, 0.5, 0.6])
    assert table["cases"].tolist() == [2, 1, 3]


def test_per_modality_keeps_arms_apart():
    table = per_modality(pd.concat([cases("Baseline"), cases("Ellipse").assign(dsc=0.1)]))
    assert table.columns.tolist() == ["arm", "modality", "cases", "dsc", "nsd"]
    assert table.query("arm == 'Ellipse' and modality == 'Average'")["dsc"].item() == pytest.approx(0.1)


def test_spread_shows_what_the_mean_hides():
    table = spread_per_modality(cases().drop(columns="arm")).set_index("modality")
    assert table.loc["CT", ["mean", "median", "worst", "worst_case"]].tolist() == pytest.approx(
        [0.7, 0.7, 0.6, "c"]
    )
    assert table.loc["CT", "low"] <= 0.7 <= table.loc["CT", "high"]
    assert table["missed"].to_dict() == {"CT": 0, "OCT": 1, "Average": 1}
    assert table.loc["Average", "mean"] == pytest.approx(0.6)


def test_balance_finds_the_papers_claim():
    table = balance(PAPER["table10"]).set_index("arm")
    assert table.loc["Proposed", "dsc std"] < table.loc["Baseline", "dsc std"]
    assert table.loc["Baseline", "weakest"] == "CT" and table.loc["Baseline", "dsc minimum"] == 0.5575


def test_beside_joins_on_harmonised_modalities():
    ours = per_modality(cases().fillna(0.9))
    table = beside("table7", ours, on=["modality", "arm"])
    assert table.columns.tolist() == ["modality", "arm", "dsc paper", "dsc here", "nsd paper", "nsd here"]
    row = table.query("modality == 'Microscopy' and arm == 'Stage 3'").iloc[0]
    assert (row["dsc paper"], row["dsc here"]) == (0.7011, 0.9)
    assert table["modality"].tolist()[-4:] == ["Average"] * 4
    assert table.query("modality == 'OCT'")["dsc paper"].isna().all()
    assert len(table) == 41


def test_beside_keeps_an_arm_of_ours_by_its_modality():
    table = beside("table7", per_modality(cases("Ellipse")), on=["modality", "arm"])
    assert table["arm"].tolist()[:5] == ["Stage 3", "Stage 2", "Stage 1", "Baseline", "Ellipse"]


def test_across_has_a_pair_of_columns_an_arm():
    wide = across(
        beside("table7", per_modality(cases()), on=["modality", "arm"]), "dsc", ["Stage 3", "Baseline"]
    )
    assert wide.columns.tolist() == [
        "modality",
        "Stage 3 dsc paper",
        "Stage 3 dsc here",
        "Baseline dsc paper",
    ]
    assert wide["modality"].tolist()[-1] == "Average" and len(wide) == 11


def test_beside_with_counts_and_one_key():
    ours = pd.DataFrame({"modality": ["CT", "PET"], "samples": [12, 7]})
    table = beside("table2", ours)
    assert table.columns.tolist() == ["modality", "samples paper", "samples here"]
    assert rendered(table).iloc[0].tolist() == ["CT", "1,218,411", "12"]
    assert rendered(table).iloc[1].tolist() == ["MR", "236,804", DASH]


def test_beside_refuses_what_it_cannot_lay_out():
    with pytest.raises(KeyError, match="ours: found columns samples; expected also modality"):
        beside("table2", pd.DataFrame({"samples": [3]}))
    with pytest.raises(ValueError, match="more than once in modality"):
        beside("table7", per_modality(cases()))


def test_caption_says_where_numbers_come_from():
    params = SimpleNamespace(
        profile="smoke", data_description="phantoms", model="litemedsam", image_size=64, recipe="paper"
    )
    assert caption(params) == "Profile smoke, phantoms, litemedsam at 64 px, recipe paper"
    assert (
        caption(params, "Table 7", "2 runs")
        == "Table 7 (profile smoke, phantoms, litemedsam at 64 px, recipe paper; 2 runs)"
    )


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("dsc here", [0.8351, np.nan], ["83.51 %", DASH]),
        ("difference", [0.0123, -0.05], ["+1.23", "-5.00"]),
        ("seconds paper", [0.574, 0.585], ["0.574", "0.585"]),
        ("seconds", [2.5, 38.78], ["2.50", "38.78"]),
        ("median_ms", [1234.56], ["1,234.6"]),
        ("ratio_to_first", [0.456], ["0.46×"]),
        ("speed-up over baseline here", [16.24, 3.3081], ["16.24×", "3.31×"]),
        ("peak MB authors here", [6552.3, np.nan], ["6,552.3", DASH]),
        ("parameters", [5726740], ["5,726,740"]),
        ("samples", [12.0, np.nan], ["12", DASH]),
        ("learning_rate", [0.01], ["0.01"]),
        ("int8", [True, False], ["True", "False"]),
        ("engine", ["OpenVINO", None], ["OpenVINO", DASH]),
    ],
)
def test_cells_read_by_their_columns_name(column, values, expected):
    assert rendered(pd.DataFrame({column: values})).iloc[:, 0].tolist() == expected


def test_styled_is_html_with_caption_and_bold_average():
    html = styled(
        beside("table10", per_modality(cases("Proposed")), on=["modality", "arm"]), "Table 10 (profile smoke)"
    ).to_html()
    assert (
        "Table 10 (profile smoke)" in html
        and "DSC paper" in html
        and "69.74 %" in html
        and "font-weight: bold" in html
    )


def test_typical_cases_are_medians_and_of_two_the_worse():
    scores = pd.DataFrame(
        {
            "modality": ["OCT", "CT", "CT", "CT", "OCT", "PET"],
            "case": list("abcdef"),
            "dsc": [0.9, 0.2, 0.8, 0.7, 0.6, 0.1],
            "may": [True, True, False, True, False, False],
        }
    )
    assert typical_cases(scores)["case"].tolist() == ["d", "f", "e"]  # the paper's order: CT, PET, OCT
    assert typical_cases(scores, among="may")["case"].tolist() == ["b", "f", "a"]
