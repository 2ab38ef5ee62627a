"""Arms against the ellipse in the box: a gain that fills boxes is told from one that segments."""

import pandas as pd
import pytest

from qmsam_core.evaluate.box_filling import (
    AWAY,
    LEVEL,
    LOSS,
    TOWARDS,
    UNTOLD,
    against_ellipse,
    ellipse_plane,
    gains,
)


def arm(dsc, ellipse):
    """Rows of three cases of a modality around the means of DSC and of agreement with the ellipse."""
    rows = [
        {"modality": m, "case": f"{m}{k}", "dsc": dsc[m] + d, "ellipse agreement": ellipse[m] + d}
        for m in dsc
        for k, d in enumerate((-0.02, 0, 0.02))
    ]
    return pd.DataFrame(rows)


def test_every_arm_but_the_ellipse_gets_a_gap_and_an_agreement_with_intervals():
    scores = pd.concat(
        [
            arm({"CT": 0.8, "US": 0.6}, {"CT": 0.7, "US": 0.9}).assign(arm="Baseline"),
            arm({"CT": 0.7, "US": 0.7}, {"CT": 1.0, "US": 1.0}).assign(arm="Ellipse"),
        ]
    )
    table = against_ellipse(scores)
    assert list(table["arm"].unique()) == ["Baseline"]
    assert list(table["modality"]) == ["CT", "US", "Average"]
    assert table["difference"].tolist() == pytest.approx([0.1, -0.1, 0.0])
    assert table["ellipse agreement"].tolist() == pytest.approx([0.7, 0.9, 0.8])
    assert (table["ellipse agreement low"] < table["ellipse agreement"]).all()
    assert (table["ellipse agreement high"] > table["ellipse agreement"]).all()


@pytest.mark.parametrize(
    ("gain", "nearer", "verdict"),
    [(0.1, 0.2, TOWARDS), (0.1, -0.2, AWAY), (0.1, 0.0, UNTOLD), (-0.1, 0.2, LOSS), (0.0, 0.2, LEVEL)],
)
def test_the_verdict_is_read_from_both_intervals(gain, nearer, verdict):
    table = gains(arm({"CT": 0.7 + gain}, {"CT": 0.6 + nearer}), arm({"CT": 0.7}, {"CT": 0.6}))
    row = table.set_index("modality").loc["CT"]
    assert (row["difference"], row["ellipse difference"]) == pytest.approx((gain, nearer))
    assert row["verdict"] == verdict


def test_the_plane_places_arms_beside_float():
    float_ = arm({"CT": 0.7, "US": 0.6}, {"CT": 0.5, "US": 0.9}).assign(arm="Baseline", agreement=1.0)
    int8 = arm({"CT": 0.8, "US": 0.6}, {"CT": 0.7, "US": 0.8}).assign(arm="Stage 3", agreement=0.95)
    table = ellipse_plane(pd.concat([float_, int8]), ["Stage 3"])
    assert table["modality"].tolist() == ["CT", "US", "Average"]
    assert table["agreement"].tolist() == pytest.approx([0.95] * 3)
    assert table["difference"].tolist() == pytest.approx([0.1, 0, 0.05])
    assert table["ellipse difference"].tolist() == pytest.approx([0.2, -0.1, 0.05])
    assert table["float ellipse agreement"].tolist() == pytest.approx([0.5, 0.9, 0.7])
    assert (table["difference low"] <= table["difference"]).all()


def test_one_case_tells_nothing():
    first, second = (arm({"CT": dsc}, {"CT": 0.6}).head(1) for dsc in (0.9, 0.5))
    assert set(gains(first, second)["verdict"]) == {LEVEL}
