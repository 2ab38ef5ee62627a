"""Sentences on accuracy: both directions, what cannot be told, one modality, and missing numbers."""

import numpy as np
import pandas as pd
import pytest

from qmsam_core.evaluate.intervals import paired_differences
from qmsam_core.evaluate.readings.accuracy import (
    extremes_by_modality,
    paper_difference,
    read_against_float,
    read_agreement,
    read_arms,
    read_balance,
    read_scatter,
    read_scores_summary,
    read_spread,
)
from qmsam_core.evaluate.tables import spread_per_modality


def arm(name, **modalities):
    """Cases of an arm: modality -> DSCs. The NSD is 0.1 lower, the agreement 0.05 lower."""
    rows = [(name, m, f"{m}{k}", v) for m, values in modalities.items() for k, v in enumerate(values)]
    table = pd.DataFrame(rows, columns=["arm", "modality", "case", "dsc"])
    return table.assign(nsd=table["dsc"] - 0.1, agreement=table["dsc"] - 0.05, missed=0)


def scores(change, modalities=("CT", "US"), noise=0.001):
    values = {m: [0.7 + 0.01 * k for k in range(6)] for m in modalities}
    moved = {m: [v + change + noise * (-1) ** k for k, v in enumerate(vs)] for m, vs in values.items()}
    return pd.concat([arm("Baseline", **values), arm("Stage 3", **moved)], ignore_index=True)


@pytest.mark.parametrize(
    ("change", "noise", "words"),
    [
        (0.02, 0.001, "+2.00 points (95 %: +1.95 to +2.05), more than float."),
        (-0.02, 0.001, "less than float."),
        (0.0, 0.02, "a difference that these cases cannot tell from none."),
    ],
)
def test_the_mean_difference_with_its_direction(change, noise, words):
    said = read_against_float(scores(change, noise=noise), "Stage 3")
    assert said[0].startswith("Mean DSC over modalities: int8 after training ") and said[0].endswith(words)


def test_the_paper_s_difference_is_named_if_it_has_one():
    said = read_against_float(scores(0.02), "Stage 3", "nsd", paper=-0.0036)[0]
    assert "Mean NSD" in said and said.endswith("; the paper has -0.36 points.")
    table = pd.DataFrame({"modality": ["CT", "Average"], "Stage 3 dsc paper": [0.9, 0.8]})
    assert np.isnan(paper_difference(table, "Stage 3"))
    table["Baseline dsc paper"] = [0.9, 0.85]
    assert paper_difference(table, "Stage 3") == pytest.approx(-0.05)


def test_modalities_that_lose_or_gain_are_named_and_those_of_one_case_counted():
    first = arm("Stage 3", CT=[0.9, 0.91], US=[0.5, 0.51], MR=[0.4])
    second = arm("Baseline", CT=[0.8, 0.81], US=[0.6, 0.62], MR=[0.5])
    said = extremes_by_modality(paired_differences(first, second))
    assert said == (
        "Beyond chance is a loss in US (-10.50 points) and a gain in CT (+10.00 points); "
        "1 modality with one case or patient cannot tell."
    )


def test_no_modality_can_be_told():
    first, second = arm("Stage 3", CT=[0.9, 0.7], US=[0.5]), arm("Baseline", CT=[0.8, 0.81], US=[0.6])
    said = extremes_by_modality(paired_differences(first, second))
    assert said.startswith("In no modality can a difference be told; the largest is -10.00 points in US")


def test_one_modality_has_no_extremes():
    assert read_against_float(scores(0.02, ["CT"]), "Stage 3")[1] == ""


def test_the_nearest_and_the_furthest_arm():
    table = pd.concat([arm("Calibrated", CT=[0.99], US=[0.9]), arm("NNCF", CT=[0.8], US=[0.9])])
    said = read_agreement(table, ["Calibrated", "NNCF"])
    assert said == [
        "The masks of int8 calibrated without training are nearest to float's (agreement 89.5 %), those of "
        "int8 by NNCF are furthest (80.0 %).",
        "The lowest agreement is 75.0 %: int8 by NNCF in CT.",
    ]
    assert "furthest" not in read_agreement(table, ["NNCF"])[0]


def test_arms_are_sorted_by_what_their_intervals_say():
    ends = {"Ellipse": (-0.1, -0.12, -0.08), "NNCF": (0.01, 0.005, 0.02), "Stage 3": (0.0, -0.01, 0.01)}
    ends["Calibrated"] = (0.1, np.nan, np.nan)
    columns = ["difference", "difference_low", "difference_high"]
    table = pd.DataFrame.from_dict(ends, orient="index", columns=columns).rename_axis("arm").reset_index()
    assert read_arms(table) == [
        "Below float: the ellipse in the box (-10.00 points).",
        "Above float: int8 by NNCF (+1.00 points).",
        "Not different from float beyond chance: int8 after training (+0.00 points) and int8 calibrated "
        "without training (+10.00 points).",
    ]


def test_the_case_that_moves_most_is_named():
    said = read_scatter(arm("a", CT=[0.5, 0.6]), arm("b", CT=[0.51, 0.4]), "int8 after training")
    assert said[0] == "Int8 after training scores higher than float on 1 of 2 cases."
    assert said[1].endswith("CT1 (CT) moves most, by -20.00 points.")
    assert read_scatter(arm("a", CT=[np.nan]), arm("b", CT=[0.4]), "x") == []


def test_worst_cases_and_missed_objects():
    table = spread_per_modality(arm("a", CT=[0.5, 0.0]).assign(missed=[0, 3])).assign(arm="Stage 3")
    assert read_spread(table) == [
        "The lowest DSC of a case: int8 after training 0.0 % (CT1).",
        "Objects that are missed altogether (DSC 0): int8 after training 3.",
    ]


@pytest.mark.parametrize(
    ("int8", "words"), [((0.80, 0.80), "more even than float"), ((0.99, 0.51), "less even than float")]
)
def test_balance_says_which_is_more_even(int8, words):
    def around(value):
        return [value - 0.001, value, value + 0.001]

    table = pd.concat(
        [
            arm("Baseline", CT=around(0.9), US=around(0.7)),
            arm("Stage 3", CT=around(int8[0]), US=around(int8[1])),
        ]
    )
    said = read_balance(table, "Stage 3")
    assert words in said[0] and "float's US (70.0 %)" in said[1]


def test_balance_of_one_modality_or_of_too_few_cases_cannot_be_told():
    assert "of one modality" in read_balance(scores(0.02, ["CT"]), "Stage 3")[0]
    table = pd.concat([arm("Baseline", CT=[0.9], US=[0.7]), arm("Stage 3", CT=[0.8], US=[0.8])])
    assert "as even as float, as far as can be told" in read_balance(table, "Stage 3")[0]
    assert "too few cases for an interval" in read_balance(table, "Stage 3")[0]


def summary(ms=(600.0, 300.0)):
    return pd.DataFrame(
        {
            "model": ["float", "int8, calibrated", "int8 by NNCF"],
            "difference to float": [np.nan, -0.001, 0.002],
            "difference low": [np.nan, -0.002, np.nan],
            "difference high": [np.nan, 0.001, np.nan],
            "agreement with float": [1, 0.99, 0.98],
            "ms": [ms[0], ms[1], np.nan],
        }
    )


def test_the_summary_names_the_most_faithful_and_the_fastest():
    said = read_scores_summary(summary())
    assert said[0] == (
        "Int8, calibrated keeps float's masks best: agreement 99.0 %, "
        "DSC -0.10 points (95 %: -0.20 to +0.10)."
    )
    assert said[1].endswith("takes 300 ms for an image and a box, float 600: 2.00 times as fast on this CPU.")


@pytest.mark.parametrize("ms", [(np.nan, 300.0), (600.0, np.nan)])
def test_unknown_times_are_not_spoken_of(ms):
    assert len(read_scores_summary(summary(ms))) == 1
