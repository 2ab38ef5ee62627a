"""The record of optimiser steps: it goes on where it was, is thinned, and says what each step lost."""

import pytest
import torch

from qmsam_core.models import build_model
from qmsam_core.quant import quantize, scale_parameters
from qmsam_core.train import steps
from qmsam_core.train.steps import StepRecord


@pytest.fixture(scope="module")
def model():
    quantised = quantize(build_model("narrow", 32), "paper", ("encoder",))
    with torch.no_grad():
        for scale in scale_parameters(quantised).values():
            scale.fill_(1.0)
    return quantised


def recorded(model, begin, end, state=None):
    """Make the steps from `begin` to `end` of epochs of four. In each, all scales grow by one."""
    record = StepRecord(state)
    for step in range(begin, end):
        with torch.no_grad():
            for scale in scale_parameters(model).values():
                scale.fill_(step + 1.0)
        record.keep_scales(model)
        record.add(step // 4, {"loss": float(step), "mask_loss": step / 2})
    return record


def test_the_tables_have_a_row_for_each_step(model):
    record = recorded(model, 0, 6)
    (one, losses), (two, scales) = record.tables(stage=3)
    assert (one, two) == ("steps.csv", "step_scales.csv")
    assert losses["step"].tolist() == list(range(6)) and losses["epoch"].tolist() == [0] * 4 + [1] * 2
    assert losses["loss"].tolist() == [0, 1, 2, 3, 4, 5] and set(losses["stage"]) == {3}
    assert scales["step"].tolist() == list(range(6))
    names = [name for name in scales if name not in ("stage", "step")]
    assert len(names) == len(scale_parameters(model)) and all(
        scales[n].tolist() == [1, 2, 3, 4, 5, 6] for n in names
    )
    assert "image_encoder.layers.1.blocks.0.attn.av_product.a_quant" in names
    assert record.of_epoch(1) == {"loss": [4.0, 5.0], "mask_loss": [2.0, 2.5]}


def test_rows_of_scales_are_thinned_evenly_and_those_of_losses_are_not(model, monkeypatch):
    monkeypatch.setattr(steps, "ROWS", 10)
    record = recorded(model, 0, 95)
    kept = list(record.scales)
    assert len(kept) <= 10 and kept == list(range(0, 95, record.every)) and record.every == 16
    assert [row[0] for row in record.scales.values()] == [step + 1.0 for step in kept]
    assert record.steps == 95


def test_a_record_that_is_taken_up_again_is_that_of_one_run(model, monkeypatch, tmp_path):
    monkeypatch.setattr(steps, "ROWS", 10)
    torch.save(recorded(model, 0, 37).state, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert recorded(model, 37, 95, state).state == recorded(model, 0, 95).state


def test_the_mean_over_processes_takes_an_epoch_s_place(model):
    record = recorded(model, 0, 8)
    record.replace_epoch(1, {"loss": [9.0] * 4, "mask_loss": [8.0] * 4})
    assert record.losses["loss"] == [0.0, 1.0, 2.0, 3.0] + [9.0] * 4 and record.steps == 8


def test_only_scales_that_learn_are_kept(model):
    frozen = quantize(build_model("narrow", 32), "paper").requires_grad_(False)
    assert recorded(frozen, 0, 2).names == []
    (_, losses), (_, scales) = recorded(frozen, 0, 2).tables(1)
    assert len(losses) == 2 and scales.empty
