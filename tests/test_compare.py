"""Two runs on one page: rows matched by their texts, numbers side by side, pictures of both."""

import json
import re

import pandas as pd
import pytest

from qmsam_core.study.compare import Run, compare, main, merged

NAMES = ("a", "b")


def make_run(folder, dsc, extra=False):
    """Write a run with one table, one picture, and maybe a table that the other does not have."""
    notebook = folder / "07_validation"
    notebook.mkdir(parents=True)
    table = pd.DataFrame({"modality": ["CT", "MR"], "dsc paper": [0.9, 0.8], "dsc here": dsc})
    table.to_csv(notebook / "table7.csv", index=False)
    (notebook / "fig2.png").write_bytes(b"picture")
    comparisons = [{"file": "table7.csv", "caption": "Table 7"}]
    if extra:
        table.to_csv(notebook / "more.csv", index=False)
        comparisons.append({"file": "more.csv", "caption": "More"})
    record = {
        "comparisons": comparisons,
        "figures": [{"file": "fig2.png", "caption": "Figure 2"}, {"file": "gone.png", "caption": "Gone"}],
        "seconds": 12.0,
        "readings": {
            "table7": [f"CT has {100 * dsc[0]:g} %."],
            "fig2": [f"Seen in {folder.name}."],
            "t": ["T", ""],
        },
        "ended": "2026-01-01",
        "environment": {"commit": "0123456789abcdef", "cpu": {"model": "a CPU"}},
    }
    (notebook / "run.json").write_text(json.dumps(record))
    return folder


def test_rows_are_matched_by_their_texts_and_equal_numbers_appear_once():
    first = pd.DataFrame({"arm": ["x", "y"], "paper": [1.0, 2.0], "here": [3.0, 4.0]})
    second = pd.DataFrame({"arm": ["y", "x", "z"], "paper": [2.0, 1.0, 9.0], "here": [5.0, 6.0, 7.0]})
    table = merged(first, second.iloc[:2], NAMES)
    assert list(table) == ["arm", "paper", "here a", "here b"]
    assert table.to_dict("list") == {"arm": ["x", "y"], "paper": [1, 2], "here a": [3, 4], "here b": [6, 5]}
    more = merged(first, second, NAMES)
    assert list(more["arm"]) == ["x", "y", "z"] and pd.isna(more["here a"].iloc[2])
    assert more["here b"].tolist() == [6, 5, 7]


def test_texts_behind_those_that_name_a_row_are_values():
    rows = pd.DataFrame({"arm": ["x", "x"], "part": ["a", "b"]})
    table = merged(rows.assign(here=["1", "2"]), rows.assign(here=["3", "2"]), NAMES)
    assert list(table) == ["arm", "part", "here a", "here b"] and table["here b"].tolist() == ["3", "2"]


def test_a_column_of_one_run_alone_stays():
    table = merged(pd.DataFrame({"k": ["x"], "v": [1.0]}), pd.DataFrame({"k": ["x"], "w": [2.0]}), NAMES)
    assert table.to_dict("list") == {"k": ["x"], "v a": [1.0], "w b": [2.0]}


@pytest.mark.parametrize("rows", [{"v": [1.0, 2.0]}, {"k": ["x", "x"], "v": [1.0, 2.0]}])
def test_rows_that_texts_do_not_tell_apart_are_not_merged(rows):
    assert merged(pd.DataFrame(rows), pd.DataFrame(rows), NAMES) is None


def test_the_page_has_both_and_names_what_one_alone_has(tmp_path, capsys):
    first = make_run(tmp_path / "a", [0.5, 0.25], extra=True)
    second = make_run(tmp_path / "b", [0.75, 0.125])
    page = tmp_path / "pages" / "compare.html"
    page.parent.mkdir()
    assert main([str(first), str(second), "-o", str(page)]) == 0
    text = page.read_text()
    for number in ("50.0", "75.0", "25.0", "12.5"):  # shares in per cent
        assert number in text
    assert text.count("90.0") == 1  # the paper's, once
    assert 'src="../a/07_validation/fig2.png"' in text and 'src="../b/07_validation/fig2.png"' in text
    assert "gone.png" not in text and "In a alone: 07_validation/more.csv" in text
    assert "0123456789ab" in text and "a CPU" in text
    for reading in (
        "CT has 50\u00a0%.",
        "CT has 75\u00a0%.",
        "Seen in a.",
        "Seen in b.",
    ):  # beside each other
        assert text.count(reading) == 1
    assert len(re.findall(r"<p class=\"reads\">T </p>", text)) == 2  # a result without caption, in each run
    assert text.count('href="../a/07_validation/table7.csv"') == 1 and "../b/07_validation/table7.csv" in text


def test_answers_of_both_runs_link_what_shows_them(tmp_path):
    runs = make_run(tmp_path / "a", [0.5, 0.25]), make_run(tmp_path / "b", [0.75, 0.125])
    gain = {"table": ["Table 5"], "engine": ["OpenVINO"], "speed-up paper": [1.0]}
    for run, ratio in zip(runs, (1.9, 0.6)):
        (run / "06_engine_speed").mkdir()
        table = pd.DataFrame({**gain, "speed-up over best float": [ratio]})
        table.to_csv(run / "06_engine_speed" / "int8_gain.csv", index=False)
    (runs[0] / "index.html").touch()
    text = compare(runs, tmp_path / "page.html").read_text()
    assert "1.90 times as fast" in text and "0.60 times as fast" in text
    for run in "ab":
        assert f'href="{run}/06_engine_speed/int8_gain.csv">all arms' in text
    assert 'href="a/index.html"' in text and 'href="b/index.html"' not in text
    assert text.count("Does int8 keep the float model&#39;s accuracy?") == 1


def test_folders_that_are_no_runs_are_refused(tmp_path, capsys):
    run = make_run(tmp_path / "a", [0.5, 0.25])
    (tmp_path / "empty").mkdir()
    assert main([str(run), str(tmp_path / "empty")]) == 2
    assert "empty: holds no NN_name/run.json; expected the folder of a run" in capsys.readouterr().err
    assert main([str(run), str(run)]) == 2
    assert "given twice" in capsys.readouterr().err


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path):
    first, second = make_run(tmp_path / "x" / "run", [0.5, 0.2]), make_run(tmp_path / "y" / "run", [0.6, 0.2])
    text = compare((first, second), tmp_path / "page.html").read_text()
    assert str(first) in text and str(second) in text
    assert set(Run.read(first).listed("figures")) == {"07_validation/fig2.png"}
