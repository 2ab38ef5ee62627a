"""Losses, schedule and loop: what learns, what stays, what is kept, what is resumed."""

import hashlib
import math

import pandas as pd
import pytest
import torch
from small_data import write_data, write_indices

from qmsam_core.evaluate import PAPER
from qmsam_core.models import build_model
from qmsam_core.params import Params
from qmsam_core.quant import describe_model, load_model, save_model
from qmsam_core.train import (
    STAGES,
    Schedule,
    Teacher,
    TrainingError,
    distillation_loss,
    embedding_iou,
    evaluate,
    launch_stage,
    loop,
    make_data,
    make_float_baseline,
    make_teacher,
    mask_iou,
    protocol,
    run_stage,
    segmentation_loss,
    stage_summary,
    step,
)
from qmsam_core.train.step import freeze_all_but


def params(**changes):
    fast = dict(image_size=32, warmup_epochs=1, annealing_epochs=2, samples_per_modality=2, threads=1)
    return Params.check(fast | changes, "test")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return write_indices(write_data(root / "cases"), root / "prepared")


@pytest.fixture(scope="module")
def float_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "float.safetensors"
    save_model(build_model("nano", 32), path)
    return path


def digest(module):
    state = module.state_dict()
    return hashlib.sha256(b"".join(state[k].numpy().tobytes() for k in sorted(state))).hexdigest()


# Learning rate ------------------------------------------------------------------------------------------------------------------------------


def test_the_paper_s_schedule_epoch_by_epoch():
    schedule = Schedule(0.01, 5, 10)
    rates = [schedule.rate(e) for e in range(schedule.epochs)]
    assert schedule.epochs == 14  # Table 3
    warmup = [0.01 * (0.01 + 0.99 * e / 4) for e in range(5)]
    cosine = [0.01 * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * k / 9))) for k in range(10)]
    assert rates == pytest.approx(warmup + cosine[1:])
    assert (rates[0], rates[4], rates[-1]) == pytest.approx((1e-4, 1e-2, 1e-5))  # from 1 %, to 0.1 %


def test_the_released_schedule_runs_16_epochs_and_peaks_at_the_sixth():
    schedule = Schedule(0.01, 5, 10, released=True)
    rates = [schedule.rate(e) for e in range(schedule.epochs)]
    assert len(rates) == 16 and max(range(16), key=rates.__getitem__) == 5
    assert rates[-1] == pytest.approx(1e-5)


@pytest.mark.parametrize("warmup, annealing", [(1, 2), (1, 3), (3, 2)])
def test_short_schedules_reach_the_peak_and_the_end(warmup, annealing):
    schedule = Schedule(1.0, warmup, annealing)
    rates = [schedule.rate(e) for e in range(schedule.epochs)]
    assert max(rates) == pytest.approx(1.0) and rates[-1] == pytest.approx(0.001)


# Losses -------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("released", [False, True])
def test_a_perfect_mask_costs_nothing_and_a_wrong_one_much(released):
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    loss = segmentation_loss(released)
    assert loss(40 * (mask - 0.5), mask) < 0.01 < 0.9 < loss(-40 * (mask - 0.5), mask)


def test_embedding_overlap_counts_active_cells():
    a = torch.tensor([1.0, 1, -1, -1]).view(1, 1, 2, 2)
    b = torch.tensor([1.0, -1, 1, -1]).view(1, 1, 2, 2)
    assert embedding_iou(a, b).item() == pytest.approx(1 / 3)
    assert embedding_iou(a, a).item() == 1.0
    assert embedding_iou(-a.abs(), -a.abs()).item() == 1.0  # nothing active in either


def test_mask_overlap_is_the_mean_over_the_batch():
    truth = torch.ones(2, 1, 2, 2)
    logits = torch.tensor([[[[1.0, 1], [1, 1]]], [[[1.0, -1], [-1, -1]]]])
    assert mask_iou(logits, truth).item() == pytest.approx((1 + 1 / 4) / 2)


def test_distillation_is_mse_times_overlap_and_sends_gradients_to_the_student_only():
    student, teacher = torch.full((1, 2, 1, 1), 3.0, requires_grad=True), torch.full((1, 2, 1, 1), 1.0)
    loss = distillation_loss(student, teacher, embedding_iou(student, teacher))
    assert loss.item() == pytest.approx(4.0)
    loss.backward()
    assert student.grad.flatten().tolist() == pytest.approx([2.0, 2.0])


# Stages -------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3])
def test_frozen_means_frozen(data, float_model, tmp_path, number):
    stage = STAGES[number]
    parent = float_model
    if number > 1:
        parent, _ = run_stage(params(), 1, data, tmp_path / "one", parent=float_model, float_model=float_model)
    path, _ = run_stage(params(), number, data, tmp_path / "stage", parent=parent, float_model=float_model)
    before, after = load_model(parent), load_model(path)
    for name in ("image_encoder", "prompt_encoder", "mask_decoder"):
        same = digest(getattr(before, name)) == digest(getattr(after, name))
        assert same == (name not in stage.trains)
    assert describe_model(path)["stage"] == number


def test_released_code_lets_frozen_statistics_drift():
    model = build_model("nano", 32)
    freeze_all_but(model, ("mask_decoder",))
    assert not any(m.training for m in model.image_encoder.modules()) and all(
        not p.requires_grad for p in model.image_encoder.parameters()
    )
    freeze_all_but(model, ("mask_decoder",), statistics_drift=True)
    assert model.image_encoder.training and all(not p.requires_grad for p in model.image_encoder.parameters())


def test_the_best_epoch_goes_on_or_the_last_as_released(data, float_model, tmp_path, monkeypatch):
    scores = iter([0.2, 0.8, 0.5] * 2)
    monkeypatch.setattr(loop, "evaluate", lambda *a: next(scores))
    longer = dict(annealing_epochs=3)
    best, history = run_stage(params(**longer), 3, data, tmp_path / "best", parent=float_model)
    last, _ = run_stage(params(released=["checkpoint"], **longer), 3, data, tmp_path / "last", parent=float_model)
    assert describe_model(best)["epoch"] == 1 and describe_model(last)["epoch"] == 2
    assert history["best"].tolist() == [True, True, False]
    assert pd.read_csv(tmp_path / "best" / "history.csv")["epoch"].tolist() == [0, 1, 2]


class Killed(BaseException):
    """Stands for a kill between two epochs."""


def test_an_interrupted_run_resumes_to_the_same_weights(data, float_model, tmp_path):
    setup = params(annealing_epochs=3, released=["checkpoint"])  # so that the last epoch is what is compared
    whole, _ = run_stage(setup, 1, data, tmp_path / "whole", parent=float_model, float_model=float_model)

    def killer(line):
        if "epoch 2/3" in line:
            raise Killed

    with pytest.raises(Killed):
        run_stage(setup, 1, data, tmp_path / "halves", parent=float_model, float_model=float_model, log=killer)
    lines = []
    resumed, history = run_stage(
        setup, 1, data, tmp_path / "halves", parent=float_model, float_model=float_model, log=lines.append
    )
    assert "resumed after epoch 2" in lines[0] and len(history) == 3
    assert digest(load_model(resumed)) == digest(load_model(whole))
    assert not (tmp_path / "halves" / "progress.pt").exists()


def test_progress_of_other_work_is_not_taken_up(data, float_model, tmp_path):
    with pytest.raises(Killed):
        run_stage(params(), 3, data, tmp_path, parent=float_model, log=lambda line: (_ for _ in ()).throw(Killed))
    lines = []
    run_stage(params(seed=1), 3, data, tmp_path, parent=float_model, log=lines.append)
    assert not any("resumed" in line for line in lines)


def test_a_loss_that_is_not_finite_names_the_samples(data, float_model, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "segmentation_loss", lambda released: lambda logits, masks: logits.sum() * float("nan"))
    with pytest.raises(TrainingError, match=r"stage 3, epoch 0, step 0: loss is nan on \dDBox_"):
        run_stage(params(), 3, data, tmp_path, parent=float_model)


def test_evaluation_is_the_mean_over_modalities_and_leaves_modes_alone():
    class Always(torch.nn.Module):
        """Says that everything is object."""

        def forward(self, images, boxes):
            return torch.ones(len(images), 1, 4, 4), None, None

    half = torch.zeros(1, 4, 4)
    half[:, :2] = 1
    model = Always().train()
    batch = {
        "image": torch.zeros(3, 3, 4, 4),
        "box": torch.zeros(3, 4),
        "mask": torch.stack([torch.ones(1, 4, 4), torch.ones(1, 4, 4), half]),
        "modality": ["CT", "CT", "US"],
    }
    assert evaluate(model, [batch]) == pytest.approx((1 + 2 / 3) / 2)
    assert model.training


def test_training_fits_a_few_rectangles(data, tmp_path):
    path, history = run_stage(params(float_phases=["32 px, 8 images, 60 steps"]), 0, data, tmp_path)
    assert history["loss"].iloc[-1] < 0.9 * history["loss"].iloc[0] and history["eval_dsc"].iloc[-1] > 0.3
    assert describe_model(path)["recipe"] == "float"


def test_two_processes_share_the_epoch(data, float_model, tmp_path, capfd):
    setup = params(processes=2, samples_per_modality=4)
    path, history = launch_stage(setup, 2, data, tmp_path, parent=float_model, float_model=float_model)
    assert history["samples"].tolist() == [8, 8]  # of two modalities, 4 each, whatever the number of processes
    assert describe_model(path)["parts"] == ["decoder"]


def test_the_epoch_draws_as_many_of_each_modality(data):
    made = make_data(params(), data, build_model("nano", 32))
    names = [made.train[i]["modality"] for i in made.sampler.epoch_slices().tolist()]
    assert sorted(names) == ["CT", "CT", "US", "US"]


def test_a_teacher_of_another_shape_is_refused(float_model):
    with pytest.raises(
        ValueError, match=r"MedSAM gives embeddings of 256 x 64 x 64, the student nano at 32 px 64 x 8 x 8"
    ):
        make_teacher(params(teacher="medsam_vit_b.pth"), float_model)


def test_the_float_parent_teaches_where_no_other_is_named(float_model):
    teacher, name = make_teacher(params(), float_model)
    images, boxes = torch.rand(2, 3, 32, 32), torch.tensor([[2.0, 2, 20, 20]] * 2)
    embeddings, none = teacher(images, None)
    assert name == "the float parent" and none is None
    torch.testing.assert_close(embeddings, load_model(float_model).image_encoder(images), rtol=1e-3, atol=1e-3)  # float16
    assert teacher(images, boxes)[1].shape == (2, 1, 32, 32)


def test_a_larger_teacher_sees_the_image_enlarged(float_model):
    larger = build_model("nano", 64)
    embeddings, logits = Teacher(larger, "cpu")(torch.rand(1, 3, 32, 32), torch.tensor([[2.0, 2, 20, 20]]))
    assert embeddings.shape[-1] == 16 and logits.shape[-1] == 64


def test_the_protocol_has_the_columns_of_table_3_and_the_paper_s_values_where_asked_for():
    setup = params(
        batch_size=[2, 4, 2],
        warmup_epochs=5,
        annealing_epochs=10,
        learning_rate=0.01,
        samples_per_modality=900,
        processes=4,
    )
    ours, paper = protocol(setup), PAPER["table3"]
    assert set(ours) == set(paper) - {"training_hours"}
    same = [c for c in ours if c != "pretrained_model"]
    assert ours[same].to_dict("records") == paper[same].to_dict("records")


def test_a_stage_s_summary_counts_all_epochs_and_shows_the_best():
    history = pd.DataFrame(
        {
            "stage": 2,
            "samples": [10, 10],
            "seconds": [1800.0, 1800.0],
            "loading_seconds": [180.0, 180.0],
            "eval_dsc": [0.5, 0.4],
            "best": [True, False],
        }
    )
    rows = stage_summary(history, 0.25).set_index("quantity")
    assert rows["here"].tolist() == ["2", "20", "1.000", "10.0%", "25.00 %", "50.00 %"]
    assert rows.loc["training time (hours)", "paper"] == "2.5"


def test_a_given_checkpoint_is_the_float_baseline_as_it_is(data, tmp_path):
    torch.save(build_model("nano", 32, seed=5).state_dict(), tmp_path / "given.pth")
    setup = params(float_checkpoint=str(tmp_path / "given.pth"))
    path, history = make_float_baseline(setup, data, tmp_path / "float")
    assert digest(load_model(path)) == digest(build_model("nano", 32, seed=5))
    assert len(history) == 1 and describe_model(path)["eval_dsc"] == history["eval_dsc"].iloc[0]
    assert pd.read_csv(tmp_path / "float" / "history.csv")["best"].tolist() == [True]
