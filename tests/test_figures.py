"""Figures: each is drawn from small tables, labels its axes and can be saved."""

from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from qmsam_core.data import Case
from qmsam_core.evaluate import beside
from qmsam_core.evaluate.blocks_figure import blocks_figure
from qmsam_core.evaluate.case_figures import (
    QualitativeRow,
    boxes_on,
    contact_sheet,
    fullest_slice,
    gallery_figure,
    qualitative_figure,
)
from qmsam_core.evaluate.figures import (
    SLOWEST,
    difference_figure,
    ellipse_figure,
    imbalance_figure,
    layer_types_figure,
    scatter_float_vs_int8,
    size_figure,
    speed_figure,
)
from qmsam_core.evaluate.sublayers_figure import quantised_sublayers_figure
from qmsam_core.evaluate.training_figures import learning_rate_figure, training_curves

matplotlib.use("Agg")
RNG = np.random.default_rng(0)
SCORES = pd.DataFrame(
    {"case": list("abcdef"), "modality": ["CT", "Microscope", "Sonogram"] * 2, "dsc": RNG.random(6)}
)
TIMINGS = pd.DataFrame(
    {"arm": ["float", "int8"], "median_ms": [480.0, 1216], "min_ms": [470.0, 1200], "p95_ms": [500.0, 1300]}
)
DIFFERENCES = pd.DataFrame(
    {
        "modality": ["CT", "Average"],
        "cases": [3, 3],
        "difference": 0.01,
        "difference_low": -0.01,
        "difference_high": 0.02,
    }
)
LAYERS = pd.DataFrame(
    {
        "operation": [f"Operation {k}" for k in range(12)] * 2,
        "precision": ["int8", "f32", "odd"] * 8,
        "ms": RNG.random(24),
        "arm": ["a"] * 12 + ["b"] * 12,
    }
)
AGAINST_ELLIPSE = pd.concat(
    [
        DIFFERENCES.assign(arm=arm).assign(
            **{f"ellipse agreement{end}": 0.8 + d for end, d in (("", 0), (" low", -0.1), (" high", 0.1))}
        )
        for arm in ("Baseline", "Stage 3")
    ]
)
BLOCKS = pd.DataFrame(
    {
        "part": ["encoder", "encoder", "decoder"],
        "block": ["patch_embed", "layers.0", "mask_product"],
        "calibrated db": [np.inf, 30.0, 20.0],
        "after stage 3 db": [53.0, 25.0, 22.0],
    }
)
SIZES = pd.DataFrame(
    {"arm": ["float", "float", "int8"], "part": ["encoder", "decoder", "encoder"], "mb": [23, 16, 7.0]}
)
HISTORY = pd.DataFrame(
    {
        "stage": [1, 1, 2, 2],
        "epoch": [1, 2, 1, 2],
        "loss": [0.9, 0.5, 0.4, 0.3],
        "distillation_loss": [0.1, 0.1, np.nan, np.nan],
        "eval_dsc": [0.6, 0.7, 0.71, 0.70],
        "best": [False, True, True, False],
    }
)


def long_history(epochs, best=0):
    """Return the training history of three stages with `epochs` epochs each. Epoch `best` is the best."""
    each = pd.DataFrame({"epoch": range(epochs), "loss": 0.2, "eval_dsc": 0.82})
    each["best"] = each["epoch"] == best
    return pd.concat([each.assign(stage=stage) for stage in (1, 2, 3)], ignore_index=True)


def volume_case():
    labels = np.zeros((5, 30, 40), np.uint8)
    labels[3, 10:20, 5:15] = 1
    labels[2, 10:12, 5:15] = 1
    boxes = np.array([[5, 10, 2, 14, 19, 3]])
    return Case("3DBox_CT_1", np.zeros((5, 30, 40), np.uint8), boxes, labels, np.ones(3))


def image_case(side=50):
    labels = np.zeros((side, side), np.uint8)
    labels[5:15, 5:15] = 3
    boxes = np.array([[5, 5, 14, 14]])
    return Case("2DBox_US_1", np.zeros((side, side, 3), np.uint8), boxes, labels, np.ones(3))


def rows(*cases):
    return [
        QualitativeRow.of(
            c, {"baseline": c.labels, "quantised": c.labels * 0}, {"baseline": 1.0, "quantised": 0.0}
        )
        for c in cases
    ]


DRAWN = {
    "imbalance": lambda: imbalance_figure(
        beside("table2", pd.DataFrame({"modality": ["CT"], "samples": [3]}))
    ),
    "sublayers": quantised_sublayers_figure,
    "learning_rate": lambda: learning_rate_figure(
        pd.DataFrame({"epoch": [1, 2], "learning_rate": [1e-4, 1e-2]})
    ),
    "training": lambda: training_curves(HISTORY),
    "training_curves": lambda: training_curves(long_history(14)),
    "training_mixed": lambda: training_curves(pd.concat([long_history(5), HISTORY])),
    "training_one_stage": lambda: training_curves(HISTORY[:2]),
    "speed": lambda: speed_figure(TIMINGS),
    "size": lambda: size_figure(SIZES),
    "layers": lambda: layer_types_figure(LAYERS),
    "scatter": lambda: scatter_float_vs_int8(SCORES, SCORES.assign(dsc=SCORES["dsc"] * 0.9)),
    "differences": lambda: difference_figure(DIFFERENCES),
    "ellipse": lambda: ellipse_figure(AGAINST_ELLIPSE, ("Baseline", "Stage 3")),
    "blocks": lambda: blocks_figure(BLOCKS),
    "qualitative": lambda: qualitative_figure(rows(volume_case(), image_case())),
    "gallery": lambda: gallery_figure(rows(volume_case(), image_case(), image_case(900))),
    "contact_sheet": lambda: contact_sheet(
        [image_case(), volume_case(), image_case(900)], ["US", "CT", "US"]
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figure_draws_and_saves(name, tmp_path):
    figure = DRAWN[name]()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / f"{name}.png")
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize(
    "name", ["imbalance", "learning_rate", "speed", "size", "scatter", "differences", "ellipse", "blocks"]
)
def test_axes_say_what_they_mean(name):
    axes = DRAWN[name]().axes[0]
    assert axes.get_xlabel()
    assert axes.get_ylabel() or len(axes.get_yticklabels()) > 1


def test_figures_do_not_pile_up_in_pyplot():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    DRAWN["size"]()
    assert plt.get_fignums() == before


def test_a_notebook_shows_figures_without_pyplot():
    assert DRAWN["size"]()._repr_png_().startswith(b"\x89PNG")


def test_fullest_slice_and_its_boxes():
    case = volume_case()
    assert fullest_slice(case) == 3
    assert boxes_on(case, 3).tolist() == [[5, 10, 14, 19]]
    assert boxes_on(case, 0).tolist() == []
    assert fullest_slice(image_case()) is None


def test_contact_sheet_follows_the_papers_order():
    sheet = contact_sheet([image_case(), image_case(), volume_case()], ["OCT", "US", "CT"])
    assert [axes.get_title() for axes in sheet.axes] == ["CT, z = 3", "US", "OCT", ""]


def test_operations_beyond_the_slowest_are_summed():
    panel = layer_types_figure(LAYERS).axes[0]
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert len(names) == SLOWEST + 1 and names[-1] == "other"


def test_qualitative_rows_carry_their_dsc():
    figure = qualitative_figure(rows(image_case()))
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "DSC 100.0 %", "DSC 0.0 %"]
    assert [axes.get_title() for axes in figure.axes] == [
        "image and box",
        "ground truth",
        "baseline",
        "quantised",
    ]


def test_a_gallery_has_a_column_a_case_and_square_pictures():
    wide = replace(image_case(), images=np.zeros((50, 90, 3), np.uint8))
    figure = gallery_figure(rows(wide, image_case(900)))
    grid = np.array(figure.axes).reshape(4, 2)
    assert [axes.get_title() for axes in grid[0]] == ["US_1", "US_1"]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == [
        "image and box",
        "ground truth",
        "baseline",
        "quantised",
    ]
    assert [axes.get_xlabel() for axes in grid[3]] == ["DSC 0.0 %"] * 2
    for axes in figure.axes:
        assert np.ptp(axes.get_xlim()) == np.ptp(axes.get_ylim())


def texts_within_their_panels(figure):
    """Return the texts of each panel, after asserting that each text lies within its panel."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        panel = axes.get_window_extent()
        for text in axes.texts:
            place = text.get_window_extent()
            assert panel.x0 <= place.x0 and place.x1 <= panel.x1
            assert panel.y0 <= place.y0 and place.y1 <= panel.y1
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


@pytest.mark.parametrize("best", [0, 2])
def test_a_stage_s_best_score_is_written_within_its_own_panel(best):
    figure = training_curves(long_history(3, best))
    assert texts_within_their_panels(figure) == [[]] * 3 + [["0.820"]] * 3
    assert all(axes.lines for axes in figure.axes)


def test_two_epochs_are_marks_with_their_values_and_no_curve():
    """The axes begin at zero. Otherwise a small difference between two values would look large."""
    figure = training_curves(HISTORY)
    assert texts_within_their_panels(figure) == [
        ["0.900", "0.500", "0.100", "0.100"],
        ["0.400", "0.300"],
        ["0.600", "0.700"],
        ["0.710", "0.700"],
    ]
    for axes in figure.axes:
        assert not axes.lines and axes.get_xlim()[0] == 0
    assert figure.axes[2].get_xlim()[1] > 1 and [*figure.axes[2].get_yticks()] == [1, 2]


def test_values_that_are_close_are_not_written_over_each_other():
    history = HISTORY.assign(segmentation_loss=HISTORY["loss"] - 0.001)
    figure = training_curves(history)
    figure.draw_without_rendering()
    for axes in figure.axes:
        places = [text.get_window_extent() for text in axes.texts]
        assert not any(a.overlaps(b) for k, a in enumerate(places) for b in places[:k])


def test_a_short_stage_beside_long_ones_has_no_line():
    history = pd.concat([long_history(4), HISTORY.query("stage == 2").assign(stage=4)])
    lines = [axes.lines[0].get_linestyle() for axes in training_curves(history).axes]
    assert lines == ["-", "-", "-", "None"] * 2


@pytest.mark.parametrize(("epochs", "line"), [(2, "None"), (3, "-")])
def test_two_epochs_of_a_learning_rate_are_no_curve(epochs, line):
    schedule = pd.DataFrame({"epoch": range(epochs), "learning_rate": 1e-3})
    assert learning_rate_figure(schedule).axes[0].lines[0].get_linestyle() == line
