"""Sentences on the shape of masks: seen, refuted and open, one modality, and missing numbers."""

import numpy as np
import pandas as pd
import pytest

from qmsam_core.evaluate.box_filling import AWAY, LEVEL, LOSS, TOWARDS, UNTOLD
from qmsam_core.evaluate.mask_pairs import MaskPair
from qmsam_core.evaluate.readings.shape import (
    read_chosen,
    read_ellipse,
    read_gains,
    read_objects,
    read_parting,
    read_plane,
    read_ranked,
)


def against(arm, *rows):
    columns = ["modality", "difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=columns).assign(arm=arm)


def test_arms_are_compared_with_the_ellipse_and_modalities_below_it_named():
    table = pd.concat(
        [
            against(
                "Baseline", ("CT", 0.2, 0.1, 0.3), ("OCT", -0.01, -0.1, 0.1), ("Average", 0.1, 0.05, 0.2)
            ),
            against(
                "Stage 3", ("CT", -0.2, -0.3, -0.1), ("OCT", 0.1, 0, 0.2), ("Average", -0.1, -0.2, -0.05)
            ),
        ]
    )
    first, second = read_ellipse(table, "Stage 3")
    assert first.startswith("Float is better than an ellipse that ignores the image: +10.00 points")
    assert first.endswith("It is not above it in OCT.")
    assert second.startswith("Int8 after training is worse than") and second.endswith("in CT.")


def test_an_unsure_gap_to_the_ellipse_is_not_told():
    rows = ("CT", 0.2, np.nan, np.nan), ("Average", 0.2, np.nan, np.nan)
    table = pd.concat([against("Baseline", *rows), against("Stage 3", *rows)])
    assert "cannot be told from an ellipse" in read_ellipse(table, "Stage 3")[0]
    assert "too few cases for an interval" in read_ellipse(table, "Stage 3")[0]


def verdicts(**modalities):
    rows = [*modalities.items(), ("Average", LEVEL)]
    return pd.DataFrame(rows, columns=["modality", "verdict"])


def test_gains_are_told_by_shape():
    said = read_gains(verdicts(CT=TOWARDS, MR=AWAY, US=LOSS, OCT=UNTOLD, PET=AWAY), "Proposed")
    assert said == [
        "Int8 after training gains DSC on float in 4 of 5 modalities.",
        "Its masks move towards the ellipse, so that the gain may be a filled box, in CT; its masks "
        "move away from the ellipse, so that no box is filled, in MR and PET; the shape cannot be told "
        "in OCT.",
    ]


def test_no_gain():
    said = read_gains(verdicts(CT=LOSS, MR=LEVEL), "Proposed")
    assert said == [
        "In none of 2 modalities can a gain of DSC on float be told for int8 after training; it loses in CT."
    ]
    assert read_gains(verdicts(CT=LEVEL), "Proposed")[0].endswith("for int8 after training.")


def plane(average, *modalities):
    """Rows (modality, DSC difference, ellipse difference), each with ends 0.01 to either side."""
    rows = []
    for modality, dsc, ellipse in (*modalities, ("Average", 0.0, average)):
        row = {"arm": "Stage 3", "modality": modality, "difference": dsc, "ellipse difference": ellipse}
        for name in ("difference", "ellipse difference"):
            row |= {f"{name} low": row[name] - 0.01, f"{name} high": row[name] + 0.01}
        rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            plane(0.0, ("CT", 0.05, 0.05), ("US", 0.05, -0.05), ("OCT", -0.05, 0.05)),
            "Int8 after training is seen to gain by falling back to the box in CT (1 of 2 modalities with a",
        ),
        (
            plane(-0.02, ("CT", 0.05, -0.05)),
            "That int8 after training wins by falling back to the box is refuted",
        ),
        (
            plane(0.02, ("CT", -0.05, 0.05)),
            "Int8 after training is nearer to the ellipse than float, +2.00 points",
        ),
        (
            plane(0.0, ("CT", 0.05, 0.0)),
            "That int8 after training wins by falling back to the box is not seen",
        ),
        (
            plane(np.nan, ("CT", np.nan, np.nan)),
            "Whether int8 after training wins by falling back to the box cannot be told",
        ),
    ],
)
def test_the_plane_gives_a_verdict(table, words):
    (said,) = read_plane(table, ["Stage 3"])
    assert words in said


def objects(count, loss):
    sizes = np.arange(1.0, count + 1)
    known = {"case": [f"c{k}" for k in range(count)], "group": [f"c{k}" for k in range(count)], "object": 1}
    known |= {"size_px": sizes, "contrast": 1 + sizes[::-1] / 10}
    small = sizes <= count // 3
    float_ = pd.DataFrame({**known, "arm": "Baseline", "dsc": 0.9, "agreement": 1.0})
    int8 = pd.DataFrame({**known, "arm": "Stage 3", "dsc": 0.9 - loss * small, "agreement": 1 - loss * small})
    return pd.concat([float_, int8], ignore_index=True)


def test_small_objects_and_those_of_little_contrast_are_compared_with_the_others():
    size, contrast = read_objects(objects(12, 0.1), "Stage 3")
    assert size == (
        "Int8 is further from float on the smallest objects: it agrees to 90.0 % on the smallest third (up "
        "to 4 px) and to 100.0 % on the largest third (from 9); its DSC minus float's is -10.00 points (too "
        "few cases for an interval) and +0.00 points (too few cases for an interval)."
    )
    assert contrast.startswith(
        "Int8 is further from float on the most contrasted objects: it agrees to 100.0 %"
    )
    same = read_objects(objects(12, 0.0), "Stage 3")[0]
    assert same.startswith(
        "Int8 is not seen to be further from float on the smallest or on the largest objects"
    )


def test_few_objects_are_not_compared():
    said = read_objects(objects(5, 0.1), "Stage 3")
    assert said == ["5 objects are too few to compare small objects with large ones."]
    unknown = objects(12, 0.1).assign(contrast=np.nan)
    assert read_objects(unknown, "Stage 3")[0].startswith("0 objects are too few")


def test_the_case_where_masks_part_most():
    rows = pd.DataFrame({"case": ["a", "b"], "modality": ["CT", "US"], "agreement": [0.97, 0.6]})
    rows = rows.assign(dsc=[0.9, 0.8], **{"dsc float": [0.9, 0.7]})
    assert read_chosen(rows, 5) == [
        "In 1 of 2 cases (3 others may not be shown) int8 agrees with float to 95 % or more.",
        "They part most in b (US), to 60.0 %, where the DSC is +10.00 points against float's.",
    ]


def pair(modality, first, second):
    masks = [np.arange(10)[None] < count for count in (first, second)]
    return MaskPair(modality, "", np.zeros((1, 10), np.uint8), np.zeros((0, 4)), *masks, 0.5, (0.5, 0.5))


def test_pixels_that_are_left_out_or_added():
    said = read_parting([pair("CT", 5, 3), pair("US", 2, 4), pair("MR", 2, 2)])
    assert said == [
        "Where it departs from float, int8 leaves out more than it adds in CT and adds more than it leaves "
        "out in US."
    ]
    assert read_parting([pair("MR", 2, 2)])[0].startswith("Int8 adds as many pixels as it leaves out")


def test_figures_2_and_3_name_their_cases():
    said = read_ranked(pd.Series({"a": 0.01, "b": -0.02}), ["b", "a"], {"a": "CT", "b": "US"})
    assert said == ["DSC of int8 minus float's: b (US) -2.00 points; a (CT) +1.00 points."]
