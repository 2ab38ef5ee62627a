"""Sentences on seconds and samples: faster and slower, with and without numbers of the paper."""

import numpy as np
import pandas as pd
import pytest

from qmsam_core.evaluate.readings.cost import (
    read_ablation,
    read_budget,
    read_case_times,
    read_curves,
    read_in_baselines,
    read_whole_cases,
)


def test_speed_ups_of_whole_cases_and_the_cases_where_ours_is_slower():
    table = pd.DataFrame(
        {
            "case": ["a", "b", "c"],
            "speed-up paper": [4.0, np.nan, 6],
            "speed-up over baseline here": [2.0, 3, np.nan],
            "speed-up over daft here": [0.5, 1.5, np.nan],
            "peak MB ours here": [np.nan, 700, np.nan],
        }
    )
    assert read_whole_cases(table) == [
        "Our export is 2.50 times as fast as the challenge's baseline (median of 2 cases); 1.00 times "
        "as fast as DAFT's (median of 2 cases), but slower in a.",
        "In the paper the authors' is 5.00 times as fast as the baseline.",
        "On the case with the most boxes ours takes 700 MB at most, within the 8,000 that are allowed.",
    ]
    assert read_whole_cases(table.drop(columns="peak MB ours here"))[-1] == ""


def test_shares_of_the_baseline_s_time():
    table = pd.DataFrame({"case": ["a", "b"], "QMedSAM, published": [0.1, 0.1], "ours, here": [0.2, 0.4]})
    table["daft, here"] = [0.1, 0.7]
    assert read_in_baselines(table) == [
        "Median share of the baseline's time on this machine: ours 0.30; daft 0.40.",
        "Most often the fastest: daft, in 1 of 2 cases.",
    ]
    assert read_in_baselines(table[["case"]]) == []


def times(*rows):
    names = [f"{arm} seconds {source}" for arm in ("Baseline", "Proposed") for source in ("here", "paper")]
    return pd.DataFrame(rows, columns=["modality", *names])


def test_times_of_the_testing_set():
    table = times(
        ("CT", 4.0, 9, 1, 9), ("US", 1.0, 9, 2, 9), ("MR", np.nan, 9, 9, 9), ("Average", 9, 8, 9, 2)
    )
    said = read_case_times(table)
    assert said[0] == (
        "Int8 as deployed is 1.67 times as fast as float run as the challenge runs it, from 0.50 times "
        "in US to 4.00 in CT; the paper has 4.00 times on average."
    )
    assert said[1] == "It is slower in US."
    assert read_case_times(table.drop(index=1))[1] == ""


def budget(first, second):
    return pd.DataFrame({"stage": ["1", "all", "all"], "samples": [1, first, second], "hours": [1, 1.0, 1.5]})


def test_the_budget():
    assert read_budget(budget(30, 45)) == [
        "The ablation sees 1.50 times as many samples as the balanced strategy (45 against 30) and takes "
        "1.50 times as long."
    ]
    assert read_budget(budget(30, 30))[0].endswith("so the ablation compares nothing here.")


def test_curves():
    history = pd.DataFrame({"stage": [1, 1, 2], "eval_dsc": [0.9, 0.92, 0.91]})
    assert read_curves(history) == ["Best DSC on the evaluation slices (%): stage 1 92.0; stage 2 91.0."]
    assert read_curves(history.assign(eval_dsc=np.nan)) == []


def scores(values):
    table = pd.DataFrame({"case": list("abcd"), "modality": ["CT"] * 2 + ["US"] * 2, "arm": "Stage 3"})
    return table.assign(dsc=values, nsd=np.array(values) / 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ([0.05, 0.06, 0.05, 0.06], "more samples help."),
        ([-0.05, -0.06, -0.05, -0.06], "more samples do harm."),
        ([0.05, -0.06, 0.05, -0.06], "these cases cannot tell whether more samples help."),
    ],
)
def test_the_ablation_has_a_direction(change, words):
    base = np.array([0.7, 0.8, 0.7, 0.8])
    assert read_ablation(scores(base), scores(base + change))[0].endswith(words)
    said = read_ablation(scores(base), scores(base + change), "nsd")[0]
    assert "the ablation's NSD is" in said and f"{50 * np.mean(change):+.2f} points" in said
