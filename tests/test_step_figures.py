"""Losses and scales over the steps: what is drawn of few and of many, and what the sentences say."""

import numpy as np
import pandas as pd
import pytest

from qmsam_core.evaluate.step_figures import (
    SMOOTHED,
    moved_scales,
    read_scale_steps,
    read_steps,
    scale_steps_figure,
    steps_figure,
)

NAMES = [f"image_encoder.layers.2.blocks.{k}.mlp.fc1" for k in range(6)]


def steps_of(loss, parts=True):
    loss = np.asarray(loss, dtype=float)
    table = pd.DataFrame(
        {"stage": 1, "epoch": np.arange(len(loss)) // 5, "step": range(len(loss)), "loss": loss}
    )
    more = {"segmentation_loss": 0.9 * loss, "distillation_loss": 0.1 * loss}
    return table.assign(**more) if parts else table.assign(segmentation_loss=loss)


def scales_of(*ends):
    steps = np.arange(4)
    columns = {name: 2.0 * (1 + end * steps / 300) for name, end in zip(NAMES, ends)}
    return pd.DataFrame({"stage": 1, "step": steps, **columns})


@pytest.mark.parametrize("number", [1, 3, SMOOTHED, 400])
def test_any_number_of_steps_is_drawn(number, tmp_path):
    steps_figure(steps_of(np.linspace(1, 0.5, number))).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_many_steps_have_a_smoothed_line_and_few_are_points():
    few, many = (steps_figure(steps_of(np.linspace(1, 0.5, n), parts=False)) for n in (5, 60))
    assert len(few.axes) == len(many.axes) == 1  # the loss has one part, so it is drawn once
    assert [line.get_marker() for line in few.axes[0].lines] == ["o"]
    smooth = next(line for line in many.axes[0].lines if "mean of" in str(line.get_label()))
    assert np.isfinite(smooth.get_ydata()).all() and len(smooth.get_ydata()) == 60
    assert len(steps_figure(steps_of([1, 2])).axes) == 3


def test_the_scales_that_move_most_come_first_and_have_names():
    scales = scales_of(1, -9, 3, 0.5, 2, 0)
    assert list(moved_scales(scales).columns)[:3] == [NAMES[1], NAMES[2], NAMES[4]]
    assert moved_scales(scales).iloc[-1].iloc[0] == pytest.approx(-9)
    figure = scale_steps_figure(scales)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named[0] == "encoder, level 3, block 2: input of MLP layer 1" and len(named) == 4
    scale_steps_figure(scales_of(0, 0)).canvas.draw()  # none moves
    scale_steps_figure(scales.iloc[:1]).canvas.draw()  # no step was made


@pytest.mark.parametrize(
    "loss, words",
    [
        (
            np.r_[np.full(10, 1.0), np.full(10, 0.8), np.full(10, 0.5)] + np.tile([0.01, -0.01], 15),
            "(-50 %), which is a fall",
        ),
        (
            np.r_[np.full(10, 0.5), np.full(10, 0.8), np.full(10, 1.0)] + np.tile([0.01, -0.01], 15),
            "(+100 %), which is a rise",
        ),
        (np.tile([0.1, 2.0], 9), "may be chance"),
        ([0.3, 0.2], "has 2 steps, too few to tell"),
        ([0.3], "has 1 step, too few"),
    ],
)
def test_the_loss_in_words(loss, words):
    (sentence,) = read_steps(steps_of(loss))
    assert words in sentence


def test_the_scales_in_words():
    half, most = read_scale_steps(scales_of(1, -9, 3))
    assert half == "Half of the 3 scales moved by less than 3 %; 2 grew and 1 shrank."
    assert most == "Most moved that of encoder, level 3, block 2: input of MLP layer 1: -9 %."
    assert "Most of the 3 scales did not move; 1 grew and 0 shrank." in read_scale_steps(scales_of(1, 0, 0))
    assert read_scale_steps(scales_of(0, 0)) == ["None of the 2 scales moved."]
