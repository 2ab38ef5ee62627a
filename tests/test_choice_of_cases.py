"""Cases of pictures are chosen by rule."""

import pandas as pd
import pytest

from qmsam_core.evaluate.choice_of_cases import beside_float, best_median_worst, least_faithful


def scores(**modalities):
    rows = [(m, f"{m}{k}", v) for m, values in modalities.items() for k, v in enumerate(values)]
    return pd.DataFrame(rows, columns=["modality", "case", "agreement"])


def test_best_median_and_worst_in_the_papers_order():
    chosen = best_median_worst(scores(US=[0.5, 0.9, 0.7, 0.6, 0.8], CT=[0.4, 0.3, 0.2, 0.1]))
    assert list(zip(chosen["modality"], chosen["place"], chosen["agreement"])) == [
        ("CT", "best", 0.4),
        ("CT", "median", 0.2),  # of two in the middle the worse
        ("CT", "worst", 0.1),
        ("US", "best", 0.9),
        ("US", "median", 0.7),
        ("US", "worst", 0.5),
    ]


def test_no_case_is_chosen_twice():
    chosen = best_median_worst(scores(CT=[0.5, 0.5], US=[0.9], MR=[float("nan")]))
    assert list(zip(chosen["case"], chosen["place"])) == [
        ("CT0", "best"),
        ("CT1", "worst"),
        ("US0", "only case"),
    ]


def test_the_least_faithful_are_of_different_modalities():
    found = least_faithful(scores(CT=[0.1, 0.2], US=[0.5], MR=[0.3, 0.9]), count=2)
    assert list(found["case"]) == ["CT0", "MR0"]


def test_beside_float():
    table = pd.concat(
        [scores(CT=[0.9, 0.8]).assign(arm=arm, dsc=dsc) for arm, dsc in (("Baseline", 0.7), ("int8", 0.6))]
    )
    found = beside_float(table, "int8")
    assert found[["dsc", "dsc float", "number"]].to_numpy().tolist() == [[0.6, 0.7, 0], [0.6, 0.7, 1]]
    with pytest.raises(ValueError, match="int8 has 1 cases and Baseline 2"):
        beside_float(table.iloc[:3], "int8")
