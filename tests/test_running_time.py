"""Which of our cases stand beside the rows of Table 8."""

import pandas as pd
import pytest

from qmsam_core.evaluate.running_time import matched_cases, running_time_table


@pytest.fixture
def measured():
    cases = pd.DataFrame(
        {
            "case": ["few", "many", "middle", "scan"],
            "modality": ["Microscopy", "Microscopy", "Microscopy", "CT"],
            "size": "64 x 64 x 3",
            "objects": [2, 40, 7, 3],
            "seconds_baseline": [2.0, 40.0, 7.0, 3.0],
            "seconds_proposed": [1.0, 4.0, 3.5, 1.5],
        }
    )
    return matched_cases(cases)


def test_cases_pair_up_by_modality_and_number_of_objects(measured):
    pairs = dict(zip(measured["paper_case"], measured["case"]))
    assert pairs == {"2DBox_Microscope_0016": "many", "2DBox_Microscope_0008": "middle", "3DBox_CT_0566": "scan"}


def test_every_row_of_the_paper_stays_and_the_speed_up_is_the_ratio(measured):
    table = running_time_table(measured).set_index("case paper")
    assert len(table) == 14
    assert table.loc["2DBox_Microscope_0016", "speed-up here"] == 10
    assert table.loc["3DBox_CT_0566", "speed-up paper"] == pytest.approx(591.1 / 142.1)
    assert pd.isna(table.loc["2DBox_US_0525", "seconds_baseline here"])
