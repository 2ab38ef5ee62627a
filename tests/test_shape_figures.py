"""Charts of objects and of the plane of float and ellipse: words, units, and names that lie apart."""

import itertools

import numpy as np
import pandas as pd
import pytest

from qmsam_core.evaluate.figure_style import new_figure
from qmsam_core.evaluate.mark_labels import label_marks
from qmsam_core.evaluate.paper_tables import MODALITIES
from qmsam_core.evaluate.shape_figures import ellipse_plane_figure, objects_figure

RNG = np.random.default_rng(0)


def objects():
    count = 60
    known = {"case": [f"c{k // 3}" for k in range(count)], "object": [k % 3 for k in range(count)]}
    quantities = {"size_px": RNG.uniform(5, 100, count), "contrast": RNG.uniform(0, 6, count)}
    arms = [
        pd.DataFrame({**known, **quantities, "group": known["case"], "arm": arm}).assign(
            dsc=RNG.uniform(0.6, 1, count), agreement=RNG.uniform(0.9, 1, count)
        )
        for arm in ("Baseline", "Stage 3")
    ]
    return pd.concat(arms, ignore_index=True)


def plane(arm="Stage 3"):
    count = len(MODALITIES) + 1
    table = pd.DataFrame({"arm": arm, "modality": [*MODALITIES, "Average"]})
    table["agreement"] = RNG.uniform(0.95, 0.999, count)
    for name in ("difference", "ellipse difference"):
        table[name] = RNG.normal(0, 0.01, count)
    for name, end in itertools.product(("agreement", "difference", "ellipse difference"), ("low", "high")):
        table[f"{name} {end}"] = table[name] + (0.005 if end == "high" else -0.005)
    table.loc[0, [c for c in table if c.endswith(("low", "high"))]] = np.nan
    return table


def test_objects_have_units_on_both_axes_and_words_in_the_legend(tmp_path):
    figure = objects_figure(objects(), {"Baseline": "float", "Stage 3": "int8 after training"})
    assert [axes.get_xlabel() for axes in figure.axes[2:]] == [
        "side of the object (px of a 256 px input)",
        "contrast (standard deviations)",
    ]
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["DSC (%)", "agreement with float (%)"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["float", "int8 after training", "one object, int8 after training"]
    figure.savefig(tmp_path / "objects.png")


def test_float_s_agreement_with_itself_is_not_drawn():
    figure = objects_figure(objects(), {"Baseline": "float", "Stage 3": "int8"})
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 1, 1]


def test_the_plane_names_every_modality_and_legends_are_words(tmp_path):
    figure = ellipse_plane_figure(
        pd.concat([plane(), plane("Calibrated")]), {"Calibrated": "a", "Stage 3": "b"}
    )
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    for axes in figure.axes:
        assert {*MODALITIES, "Average"} <= {text.get_text() for text in axes.texts}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "DSC above float's",
        "below",
        "no difference told",
    ]
    figure.savefig(tmp_path / "plane.png")


def test_an_arm_that_was_not_scored_has_no_panel():
    assert len(ellipse_plane_figure(plane(), {"Calibrated": "a", "Stage 3": "b"}).axes) == 1


@pytest.mark.parametrize("spread", [1.0, 0.02])
def test_names_lie_apart(spread):
    _, axes = new_figure()
    x, y = 0.5 + spread * (RNG.random((2, 12)) - 0.5)
    axes.scatter(x, y)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    label_marks(axes, x, y, [f"name {k}" for k in range(12)])
    extents = [text.get_window_extent() for text in axes.texts if text.get_text().strip()]
    assert len(extents) == 12
    covered = sum(one.overlaps(other) for one, other in itertools.combinations(extents, 2))
    assert covered == 0


def test_no_marks_need_no_names():
    _, axes = new_figure()
    label_marks(axes, [], [], [])
    assert not axes.texts
