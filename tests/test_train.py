"""Training: losses, schedule, frozen modules, kept checkpoints, resuming, processes and devices."""

import hashlib
import math
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from small_data import write_data, write_indices

from qmsam_core.evaluate import PAPER
from qmsam_core.models import CheckpointError, build_model, same_weights
from qmsam_core.params import Params
from qmsam_core.provenance.files import sha256
from qmsam_core.quant import describe_model, load_model, quantize, save_model, scale_parameters
from qmsam_core.train import (
    STAGES,
    EmbeddingCache,
    Schedule,
    TrainingError,
    calibration,
    distillation_loss,
    embedding_iou,
    evaluate,
    evaluation_batches,
    judge,
    launch_stage,
    loop,
    make_data,
    make_float_baseline,
    make_teacher,
    mask_iou,
    pipeline,
    processes,
    progress,
    protocol,
    quantise_and_calibrate,
    run_stage,
    schedule_of,
    segmentation_loss,
    stage_budgets,
    stage_summary,
    trainer,
)
from qmsam_core.train.__main__ import main as train_command
from qmsam_core.train.fingerprint import fingerprint
from qmsam_core.train.loading import quiet_worker
from qmsam_core.train.losses import mask_divergence, relative_error
from qmsam_core.train.steps import StepRecord
from qmsam_core.train.trainer import Job, Trainer, freeze_all_but

TESTS = str(Path(__file__).parent)


def params(**changes):
    """Parameters of a short training of the narrow network, which `Params` does not accept by name."""
    fast = dict(
        batch_size=[2, 4, 2],
        image_size=32,
        warmup_epochs=1,
        annealing_epochs=2,
        samples_per_modality=2,
        threads=1,
    )
    checked = Params.check(fast | changes, "test")
    return checked if "model" in changes else checked.model_copy(update={"model": "narrow"})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return write_indices(write_data(root / "cases"), root / "prepared")


@pytest.fixture(scope="module")
def float_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "float.safetensors"
    save_model(build_model("narrow", 32), path)
    return path


def digest(module):
    state = module.state_dict()
    return hashlib.sha256(b"".join(state[k].numpy().tobytes() for k in sorted(state))).hexdigest()


# Learning rate ----------------------------------------------------------------------------------------------


def test_the_paper_s_schedule_epoch_by_epoch():
    schedule = Schedule(0.01, 5, 10)
    rates = [schedule.rate(e) for e in range(schedule.epochs)]
    assert schedule.epochs == 14  # Table 3
    warmup = [0.01 * (0.01 + 0.99 * e / 4) for e in range(5)]
    cosine = [0.01 * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * k / 9))) for k in range(10)]
    assert rates == pytest.approx(warmup + cosine[1:])
    assert (rates[0], rates[4], rates[-1]) == pytest.approx((1e-4, 1e-2, 1e-5))  # from 1 % to 0.1 %


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


@pytest.mark.parametrize(("released", "epochs"), [(False, 1), (True, 3)])
def test_one_epoch_of_annealing_is_the_peak(released, epochs):
    schedule = Schedule(1.0, 1, 1, released=released)
    assert schedule.epochs == epochs and max(map(schedule.rate, range(epochs))) == pytest.approx(1.0)


# Losses -----------------------------------------------------------------------------------------------------


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
    assert embedding_iou(-a.abs(), -a.abs()).item() == 1.0  # no active element in either


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


# Stages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3])
def test_frozen_means_frozen(data, float_model, tmp_path, number):
    stage = STAGES[number]
    parent = float_model
    if number > 1:
        parent, _ = run_stage(
            params(), 1, data, tmp_path / "one", parent=float_model, float_model=float_model
        )
    path, _ = run_stage(params(), number, data, tmp_path / "stage", parent=parent, float_model=float_model)
    before, after = load_model(parent), load_model(path)
    for name in ("image_encoder", "prompt_encoder", "mask_decoder"):
        same = digest(getattr(before, name)) == digest(getattr(after, name))
        assert same == (name not in stage.trains)
    assert describe_model(path)["stage"] == number


def test_released_code_lets_frozen_statistics_drift():
    model = build_model("narrow", 32)
    freeze_all_but(model, ("mask_decoder",))
    assert not any(m.training for m in model.image_encoder.modules()) and all(
        not p.requires_grad for p in model.image_encoder.parameters()
    )
    freeze_all_but(model, ("mask_decoder",), statistics_drift=True)
    assert model.image_encoder.training and all(not p.requires_grad for p in model.image_encoder.parameters())


def test_the_best_epoch_goes_on_or_the_last_as_released(data, float_model, tmp_path, monkeypatch):
    scores = iter([0.2, 0.8, 0.5] * 2)
    monkeypatch.setattr(judge, "mean_dice", lambda *a: {"mask": next(scores)})
    longer = dict(annealing_epochs=3)
    best, history = run_stage(params(**longer), 3, data, tmp_path / "best", parent=float_model)
    last, _ = run_stage(
        params(released=["checkpoint"], **longer), 3, data, tmp_path / "last", parent=float_model
    )
    assert describe_model(best)["epoch"] == 1 and describe_model(last)["epoch"] == 2
    assert history["best"].tolist() == [True, True, False]
    assert history["learning_rate"].tolist() == [
        schedule_of(params(**longer)).rate(epoch) for epoch in range(3)
    ]
    assert pd.read_csv(tmp_path / "best" / "history.csv")["epoch"].tolist() == [0, 1, 2]


class Killed(BaseException):
    """Simulates a kill between two epochs."""


def test_an_interrupted_run_resumes_to_the_same_weights(data, float_model, tmp_path):
    setup = params(annealing_epochs=3, released=["checkpoint"])  # compare the last epoch, not the best
    whole, _ = run_stage(setup, 1, data, tmp_path / "whole", parent=float_model, float_model=float_model)

    def killer(line):
        if "epoch 2/3" in line:
            raise Killed

    with pytest.raises(Killed):
        run_stage(
            setup, 1, data, tmp_path / "halves", parent=float_model, float_model=float_model, log=killer
        )
    lines = []
    resumed, history = run_stage(
        setup, 1, data, tmp_path / "halves", parent=float_model, float_model=float_model, log=lines.append
    )
    assert "resumed after epoch 2" in lines[0] and len(history) == 3  # and was not calibrated once more
    assert digest(load_model(resumed)) == digest(load_model(whole))
    assert not (tmp_path / "halves" / "progress.pt").exists()


# Learning from the float model ------------------------------------------------------------------------------


def test_the_untrained_model_stays_if_no_epoch_agrees_better(data, float_model, tmp_path, monkeypatch):
    scores = iter([0.9, 0.8, 0.7])  # before training, and after each of two epochs
    monkeypatch.setattr(judge, "mean_dice", lambda *_: {"mask": 0.5, "float_mask": next(scores)})
    setup = params(learns_from="float", optimizer="adam", learning_rate=1e-2, annealing_epochs=2)
    lines = []
    path, history = run_stage(
        setup, 1, data, tmp_path, parent=float_model, float_model=float_model, log=lines.append
    )
    assert not history["best"].any() and history["start_agreement"].tolist() == [0.9, 0.9]
    assert any("before training: eval DSC 50.00 %, agreement 90.00 %" in line for line in lines)
    assert describe_model(path)["epoch"] is None
    summary = stage_summary(history, 0.5, "the float parent", PAPER["table3"])
    assert "not trained, as no epoch agreed better" in summary["quantity"].iloc[-1]


def test_the_masks_divergence_by_hand():
    teacher, student = torch.full((1, 1, 4, 4), -30.0), torch.full((1, 1, 4, 4), -30.0)
    teacher[..., :2], student[..., :2] = 30.0, 30.0
    assert mask_divergence(student, teacher).item() == pytest.approx(0, abs=1e-6)
    student[..., 0, 0] = -30.0  # one pixel of eight of the other sign costs 30 nats
    assert mask_divergence(student, teacher).item() == pytest.approx(30 / 8)


def test_an_error_of_a_tenth_is_20_db():
    teacher = torch.ones(2, 3, 4, 4)
    assert relative_error(1.1 * teacher, teacher).item() == pytest.approx(0.01)
    assert relative_error(teacher, teacher).item() == 0


def test_a_student_of_the_float_model_needs_no_labels(data, float_model, tmp_path, monkeypatch):
    setup = params(
        learns_from="float", optimizer="adam", learning_rate=1e-4, annealing_epochs=3, image_size=64
    )
    wide = tmp_path / "float.safetensors"
    save_model(build_model("narrow", 64), wide)
    path, history = run_stage(setup, 1, data, tmp_path / "1", parent=wide, float_model=wide)
    assert history["eval_agreement"].between(0, 1).all() and "segmentation_loss" not in history
    assert history["start_agreement"].between(0, 1).all() and history["start_agreement"].nunique() == 1
    best = history["eval_agreement"] > history["start_agreement"]
    assert history["best"].any() == best.any() and describe_model(path)["teacher"] == "the float parent"
    step = Trainer.step
    monkeypatch.setattr(
        Trainer, "step", lambda self, batch: step(self, batch | {"mask": torch.zeros_like(batch["mask"])})
    )
    other, _ = run_stage(setup, 1, data, tmp_path / "2", parent=wide, float_model=wide)
    assert same_weights(load_model(path), load_model(other))
    second, history = run_stage(setup, 2, data, tmp_path / "3", parent=path, float_model=wide)
    assert "mask_loss" in history and "distillation_loss" not in history  # the encoder is frozen
    if history["best"].any():  # the epochs up to the kept one, on top of the first stage's
        kept = history["samples"][: history["epoch"][history["best"]].iloc[-1] + 1].sum()
        told = [describe_model(one).get("samples", 0) for one in (path, second)]
        assert told[1] == told[0] + kept
    assert same_weights(load_model(path).image_encoder, load_model(second).image_encoder)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_activation_scales_have_a_rate_of_their_own(optimizer):
    model = quantize(build_model("narrow", 32), "paper")
    scales = list(scale_parameters(model).values())
    with torch.no_grad():
        for size, scale in enumerate(scales, 1):
            scale.fill_(size)
    job = Job(STAGES[3], Schedule(0.1, 1, 1), 2, "", optimizer=optimizer, scale_rate=20.0)
    trainer = Trainer(model, job)
    trainer.set_rate(0)
    weights, *groups = trainer.optimizer.param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    expected = [2.0 * (size if optimizer == "adam" else 1) for size in range(1, len(scales) + 1)]
    assert weights["lr"] == pytest.approx(0.1)
    assert [rates[id(scale)] for scale in scales] == pytest.approx(expected)
    assert len(weights["params"]) + len(scales) == len(list(model.parameters()))


def test_the_grid_of_fitted_weights_stays(data, float_model, tmp_path):
    setup = params(recipe="deploy")
    path, _ = run_stage(setup, 1, data, tmp_path, parent=float_model, float_model=float_model)
    start = quantise_and_calibrate(load_model(float_model), setup, ("encoder",), data).state_dict()
    after = load_model(path).state_dict()
    grids = [name for name in after if name.endswith("weight_quant.tensor_quant.scaling_impl.value")]
    assert grids and all(torch.equal(start[name], after[name]) for name in grids)
    moved = [name for name in after if name.endswith("bias") and not torch.equal(start[name], after[name])]
    assert any(name.startswith("image_encoder") for name in moved)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[2])
import narrow
from qmsam_core.params import Params
from qmsam_core.train import loop, run_stage
from qmsam_core.train.trainer import Trainer

settings, data, folder, parent, moment = eval(sys.argv[1])
calls, whole_step, whole_save = 0, Trainer.step, torch.save

def killed_step(self, batch):
    global calls
    calls += 1
    if calls - 1 == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole_step(self, batch)

def killed_save(state, path):
    if moment and calls == -moment:
        Path(path).write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    whole_save(state, path)

Trainer.step, torch.save = killed_step, killed_save
loop.SAVE_SECONDS = 0.0
torch.set_num_threads(1)
run_stage(
    Params.check(settings, "test"), 1, Path(data), Path(folder), parent=Path(parent), float_model=Path(parent)
)
"""


def test_a_run_killed_inside_epochs_resumes_bit_by_bit(data, float_model, tmp_path):
    # "checkpoint" keeps the last epoch, which is compared; the network is the parent's, not `model`
    setup = params(samples_per_modality=4, released=["checkpoint"], learning_rate=0.01, model="litemedsam")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole, whole_history = run_stage(
        setup, 1, data, tmp_path / "whole", parent=float_model, float_model=float_model
    )
    torch.set_num_threads(threads)

    def train(moment=None):
        argument = repr(
            (setup.model_dump(mode="json"), str(data), str(tmp_path / "killed"), str(float_model), moment)
        )
        return subprocess.run(
            [sys.executable, "-u", "-c", KILLED, argument, TESTS], capture_output=True, text=True
        )

    assert train(2).returncode == -signal.SIGKILL  # in the third step of the first epoch
    saving = train(-4)  # while it saves its progress after its fourth step, the second of the second epoch
    assert saving.returncode == -signal.SIGKILL and "resumed after epoch 0 and 2 steps" in saving.stdout
    last = train()
    assert last.returncode == 0 and "resumed after epoch 1 and 1 steps" in last.stdout
    assert same_weights(load_model(tmp_path / "killed" / "model.safetensors"), load_model(whole))
    history = pd.read_csv(tmp_path / "killed" / "history.csv")
    same = [c for c in history if "seconds" not in c]
    pd.testing.assert_frame_equal(history[same], whole_history[same], rtol=1e-12)
    for name in ("steps.csv", "step_scales.csv"):  # no step is lost, and none is there twice
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()


@pytest.mark.parametrize("file", ["progress.pt", "history.csv", "steps.csv", "model.safetensors"])
def test_a_full_disk_is_told_and_leaves_the_last_good_checkpoint(data, float_model, tmp_path, file):
    setup, lines = params(annealing_epochs=3, released=["checkpoint"]), []
    partial = tmp_path / f".{Path(file).stem}.{os.getpid()}{Path(file).suffix}"

    def fill_the_disk(line):
        if "epoch" not in line:
            return
        lines.append(line)
        if "epoch 1/3" not in line:
            return
        if file == "model.safetensors":  # safetensors does not write through a link
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
        else:
            partial.symlink_to("/dev/full")  # can be opened, but has no space

    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    words = rf"{file}: cannot be written \(.*make space and start again"
    with pytest.raises(TrainingError, match=words):
        run_stage(setup, 1, data, tmp_path, parent=float_model, float_model=float_model, log=fill_the_disk)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert describe_model(tmp_path / "model.safetensors")["epoch"] == (
        0 if file == "model.safetensors" else 1
    )
    load_model(tmp_path / "model.safetensors")
    assert len(lines) == 1 and not partial.is_symlink()
    _, history = run_stage(
        setup, 1, data, tmp_path, parent=float_model, float_model=float_model, log=lines.append
    )
    assert any("resumed after epoch 1" in line for line in lines) and history["epoch"].tolist() == [0, 1, 2]


def test_a_folder_that_cannot_be_written_is_told_before_training(data, float_model, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"file/stage/trial-0: cannot be written \(.*Not a directory"):
        run_stage(params(), 3, data, tmp_path / "file" / "stage", parent=float_model)
    (tmp_path / "p.yaml").write_text("threads: 1")
    code = train_command(
        [
            str(tmp_path / "p.yaml"),
            "--stage",
            "1",
            "--data",
            str(data),
            "--parent",
            str(float_model),
            "-o",
            str(tmp_path / "file" / "stage"),
        ]
    )
    assert code == 1 and capsys.readouterr().err.startswith("train: ")


def test_progress_of_other_work_is_not_taken_up(data, float_model, tmp_path):
    with pytest.raises(Killed):
        run_stage(
            params(), 3, data, tmp_path, parent=float_model, log=lambda line: (_ for _ in ()).throw(Killed)
        )
    lines = []
    run_stage(params(seed=1), 3, data, tmp_path, parent=float_model, log=lines.append)
    assert not any("resumed" in line for line in lines)
    # the message comes before the progress is overwritten
    assert [line for line in lines if "progress of other work" in line] == lines[:1]


# Finished work ----------------------------------------------------------------------------------------------


@pytest.fixture
def trainings(monkeypatch):
    """List of the numbers of the stages that were really trained."""
    numbers, fit = [], pipeline.fit
    monkeypatch.setattr(
        pipeline,
        "fit",
        lambda model, data, job, *rest: (numbers.append(job.stage.number), fit(model, data, job, *rest))[1],
    )
    return numbers


@pytest.mark.parametrize("number", [1, 3])
def test_a_finished_stage_is_taken_as_it_is(data, float_model, tmp_path, trainings, number):
    default = params()

    def run(setup=default, lines=None):
        log = (lines if lines is not None else []).append
        return run_stage(setup, number, data, tmp_path, parent=float_model, float_model=float_model, log=log)

    path, history = run()
    before, weights = path.read_bytes(), digest(load_model(path))
    for file in (path, tmp_path / "history.csv"):
        os.utime(file, (0, 0))
    lines, started = [], time.time() - 0.1
    again, told = run(lines=lines)
    assert trainings == [number] and again == path and path.read_bytes() == before
    pd.testing.assert_frame_equal(told, history)
    assert len(lines) == 1 and "finished before" in lines[0]
    # the study requires that a notebook's outputs are not older than its run
    assert min(file.stat().st_mtime for file in (path, tmp_path / "history.csv")) >= started
    run(params(seed=1))
    assert trainings == [number] * 2  # another seed is another job
    run()
    assert trainings == [number] * 3 and digest(load_model(path)) == weights


def test_what_was_changed_or_trained_by_other_code_is_not_taken_for_finished(
    data, float_model, tmp_path, trainings, monkeypatch
):
    def run():
        return run_stage(params(), 3, data, tmp_path, parent=float_model)

    path, _ = run()
    (tmp_path / "history.csv").write_text((tmp_path / "history.csv").read_text().splitlines()[0] + "\n")
    run()
    path.write_bytes(path.read_bytes() + b"x")
    run()
    monkeypatch.setattr(progress, "code_hash", lambda: "another")
    run()
    path.unlink()
    run()
    assert len(trainings) == 5
    progress.forget(tmp_path)  # as the study's --force does
    run()
    assert len(trainings) == 6
    run()
    assert len(trainings) == 6


def test_a_stage_that_begins_anew_is_not_finished_before_its_end(data, float_model, tmp_path, trainings):
    run_stage(params(), 3, data, tmp_path, parent=float_model)
    with pytest.raises(Killed):
        run_stage(
            params(seed=1),
            3,
            data,
            tmp_path,
            parent=float_model,
            log=lambda line: (_ for _ in ()).throw(Killed),
        )
    assert not (tmp_path / progress.MARK).exists() and (tmp_path / "progress.pt").exists()
    progress.forget(tmp_path)
    assert (tmp_path / "progress.pt").exists()  # of the interrupted run


def test_the_command_line_trains_anew_when_it_is_told_to(data, float_model, tmp_path, trainings):
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(params(model="litemedsam").model_dump(mode="json")))
    command = [
        str(tmp_path / "p.yaml"),
        "--stage",
        "3",
        "--data",
        str(data),
        "--parent",
        str(float_model),
        "-o",
        str(tmp_path / "out"),
    ]
    assert [train_command(command) for _ in range(2)] == [0, 0] and trainings == [3]
    assert train_command([*command, "--force"]) == 0 and trainings == [3, 3]


OTHER = {
    "image_size": 48, "released": ["resize"], "samples_per_modality": 3, "warmup_epochs": 2,
    "annealing_epochs": 3, "box_jitter": 1.0, "learning_rate": 0.1, "seed": 1, "epoch_slices": 2,
    "recipe": "deploy", "batch_size": [1, 4, 2], "model": "litemedsam", "float_checkpoint": "other.pth",
}  # fmt: skip
UNREAD = {"model", "float_checkpoint"}  # the parent's file decides them
READ = {
    1: set(OTHER) - UNREAD,
    2: set(OTHER) - UNREAD - {"batch_size"},
    3: set(OTHER) - UNREAD - {"batch_size", "recipe"},
}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_stage_s_identity_is_what_it_reads_and_no_more(data, float_model, monkeypatch, number):
    default = params()

    def identity(setup=default, parent=float_model, float_model=float_model):
        return fingerprint(setup, number, parent, None, data, float_model)

    assert {name for name, value in OTHER.items() if identity(params(**{name: value})) != identity()} == READ[
        number
    ]
    unread = dict(
        profile="other",
        outputs_root="there",
        threads=3,
        phantom_cases=99,
        eval_fraction=0.2,
        device="auto",
        decode_block=8,
        benchmark_runs=9,
    )
    for name, value in unread.items():  # device "cuda" would need a GPU
        assert identity(params(**{name: value})) == identity(), name
    assert identity(parent=data / "index_train.npz") != identity()
    assert (identity(float_model=data / "index_train.npz") != identity()) == (number == 1)
    assert identity(params(teacher=str(data / "index_train.npz"))) == identity(
        float_model=data / "index_train.npz"
    )
    released = params(released=["distillation"])
    assert (identity(released, float_model=data / "index_train.npz") != identity(released)) == (
        number in (1, 3)
    )
    alone = identity()
    monkeypatch.setattr("qmsam_core.train.fingerprint.world_size", lambda: 2)
    assert identity() != alone


# Processes and devices --------------------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """Simulate the second of two processes on a machine of two GPUs, and list its calls to join the group."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append(device))
    monkeypatch.setattr(processes.dist, "init_process_group", lambda backend: asked.append(backend))
    for name, value in dict(RANK="1", LOCAL_RANK="1", LOCAL_WORLD_SIZE="2", WORLD_SIZE="2").items():
        monkeypatch.setenv(name, value)
    return asked


def test_processes_on_gpus_take_one_each_and_talk_over_both_backends(gpus):
    processes.join_processes(params(device="auto"))
    assert gpus == ["cuda:1", "cpu:gloo,cuda:nccl"]  # the GPU first: NCCL uses the current GPU


def test_processes_on_the_cpu_talk_over_gloo_beside_gpus_too(gpus):
    processes.join_processes(params(device="cpu"))
    assert gpus == ["gloo"]


def test_a_process_alone_joins_none(gpus, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name)
    processes.join_processes(params(device="cuda"))
    assert gpus == [] and processes.device_of(params(device="cuda")) == "cuda:0"


def test_more_processes_than_gpus_are_refused(gpus, monkeypatch, data, tmp_path, capsys):
    words = "processes: found 3 on a machine of 2 GPUs; expected at most one a GPU"
    with pytest.raises(ValueError, match=words):
        launch_stage(params(device="auto", processes=3), 1, data, tmp_path)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    (tmp_path / "p.yaml").write_text("device: cuda")
    assert train_command([str(tmp_path / "p.yaml"), "--stage", "1"]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1 and gpus == []


def test_calibration_finds_all_of_the_model_on_the_device(data, monkeypatch):
    class Reached(Exception):
        """Calibration was called."""

    def look(model, run, batches):
        assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"meta"}
        raise Reached

    monkeypatch.setattr(calibration, "device_of", lambda params: "meta")  # stands for a GPU
    monkeypatch.setattr(calibration, "calibrate", look)
    with pytest.raises(Reached):
        quantise_and_calibrate(build_model("narrow", 32), params(), ("encoder", "decoder"), data)


def test_readers_beside_a_gpu_leave_ctrl_c_and_threads_alone(data, monkeypatch):
    class Made(Exception):
        """The loader was asked for."""

    def look(dataset, batch_size, **options):
        raise Made(options)

    made = make_data(params(), data, build_model("narrow", 32))
    monkeypatch.setattr(loop, "DataLoader", look)
    trainer = SimpleNamespace(
        model=torch.nn.Identity(), job=Job(STAGES[3], Schedule(1.0, 1, 2), 2, "", device="cuda:0")
    )
    with pytest.raises(Made) as found:
        loop.train_epoch(trainer, made, 0, None, StepRecord(), lambda at: None, print)
    assert found.value.args[0]["worker_init_fn"] is quiet_worker and found.value.args[0]["num_workers"] >= 1


def test_a_loss_that_is_not_finite_names_the_samples(data, float_model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        trainer, "segmentation_loss", lambda released: lambda logits, masks: logits.sum() * float("nan")
    )
    with pytest.raises(TrainingError, match=r"stage 3, epoch 0, step 0: loss is nan on \dDBox_"):
        run_stage(params(), 3, data, tmp_path, parent=float_model)


def test_evaluation_is_the_mean_over_modalities_and_leaves_modes_alone():
    class Always(torch.nn.Module):
        """Predicts the object everywhere."""

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


def test_a_model_whose_quantisers_are_off_is_not_scored():
    model = quantize(build_model("narrow", 32), "paper")
    with pytest.raises(ValueError, match="switched off or have no scale, image_encoder.*calibrate"):
        evaluate(model, [])


def test_training_fits_a_few_rectangles(data, float_model, tmp_path):
    setup = params(samples_per_modality=12, annealing_epochs=6, learning_rate=0.1)
    path, history = run_stage(setup, 3, data, tmp_path, parent=float_model)
    assert history["loss"].iloc[-1] < 0.9 * history["loss"].iloc[0] and history["eval_dsc"].iloc[-1] > 0.3


# "deploy" folds batch norm, whose statistics would depend on the images of each process
@pytest.mark.parametrize("number, recipe", [(1, "deploy")])
def test_two_processes_are_one_with_the_doubled_batch(
    data, float_model, tmp_path, number, recipe, monkeypatch
):
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.path.insert(0, {TESTS!r}); import narrow")
    # sitecustomize.py makes the narrow network known to the started processes
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    common = dict(recipe=recipe, samples_per_modality=4, learning_rate=0.01, model="litemedsam")
    setups = params(**common, batch_size=[4, 4, 4]), params(**common, batch_size=[2, 2, 2], processes=2)
    (_, one), (path, two) = (
        launch_stage(
            setup,
            number,
            data,
            tmp_path / str(setup.processes),
            parent=float_model,
            float_model=float_model,
            log=lambda line: None,
        )
        for setup in setups
    )
    # 4 samples of each of two modalities, whatever the number of processes
    assert two["samples"].tolist() == one["samples"].tolist() == [8, 8]
    losses = [c for c in one if c.endswith("loss")]
    assert len(losses) == (3 if number == 1 else 2)
    for loss in losses:
        # sums in another order let a few codes fall otherwise
        assert two[loss].tolist() == pytest.approx(one[loss].tolist(), abs=1e-3)
    assert describe_model(path)["parts"] == [["encoder"], ["decoder"]][number - 1]


def test_the_epoch_draws_as_many_of_each_modality(data):
    made = make_data(params(), data, build_model("narrow", 32))
    names = [made.train[i]["modality"] for i in made.sampler.epoch_slices().tolist()]
    assert sorted(names) == ["CT", "CT", "US", "US"]


def test_epochs_are_judged_by_as_many_slices_as_the_parameters_say(data):
    def number(**changes):
        return len(evaluation_batches(params(**changes), data, 32, 32).sampler)

    every = number(epoch_slices=0)
    assert number() == number(epoch_slices=Params().epoch_slices) <= every
    assert number(epoch_slices=1) == 2 < every  # one per modality
    assert len(evaluation_batches(params(epoch_slices=0), data, 32, 32, each=1).sampler) == 2


def test_a_teacher_of_another_shape_is_refused(float_model):
    with pytest.raises(
        ValueError, match=r"MedSAM gives embeddings of 256 x 64 x 64, the student narrow at 32 px 64 x 8 x 8"
    ):
        make_teacher(params(teacher="medsam_vit_b.pth"), float_model, None)


def test_a_file_that_is_not_medsam_s_is_told_with_where_to_get_it(tmp_path):
    setup = params(model="litemedsam", image_size=256, teacher=str(tmp_path / "medsam_vit_b.pth"))
    with pytest.raises(
        CheckpointError, match=r"medsam_vit_b.pth: no such file.*README of the official MedSAM repository"
    ):
        make_teacher(setup, None, None)
    torch.save(build_model("narrow").state_dict(), setup.teacher)  # weights of another network
    with pytest.raises(
        CheckpointError,
        match=r"does not fit Sam \(314 keys\): \d+ missing: .*; \d+ not of this model: .*; "
        r"\d+ wrong shape: .* expected .*README",
    ):
        make_teacher(setup, None, None)
    whole = (tmp_path / "medsam_vit_b.pth").read_bytes()
    (tmp_path / "medsam_vit_b.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        CheckpointError, match=r"is the download complete\?; the README of the official MedSAM"
    ):
        make_teacher(setup, None, None)


def test_the_float_parent_teaches_where_no_other_is_named(float_model, tmp_path):
    teacher, name = make_teacher(params(), float_model, EmbeddingCache(tmp_path))
    images, boxes = torch.rand(2, 3, 32, 32), torch.tensor([[2.0, 2, 20, 20]] * 2)
    embeddings, none = teacher(images, None)
    assert name == "the float parent" and none is None
    torch.testing.assert_close(
        embeddings, load_model(float_model).image_encoder(images), rtol=1e-3, atol=1e-3
    )  # the tolerance of float16
    assert teacher(images, boxes)[1].shape == (2, 1, 32, 32)


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
    rows = stage_summary(history, 0.25, "the float parent", PAPER["table3"]).set_index("quantity")
    assert rows["here"].tolist() == ["2", "20", "1.000", "10.0%", "the float parent", "25.00 %", "50.00 %"]
    assert rows.loc["training time (hours)", "paper"] == "2.5"


def test_budgets_account_alike_for_every_strategy_and_stage():
    rows = [
        ("min", 1, 0, 10, 36.0),
        ("min", 1, 1, 10, 36.0),
        ("min", 2, 0, 20, 36.0),
        ("tenth", 1, 0, 40, 36.0),
    ]
    histories = pd.DataFrame(rows, columns=["strategy", "stage", "epoch", "samples", "seconds"])
    budgets = stage_budgets(histories).set_index(["strategy", "stage"])
    assert budgets["samples"].to_dict() == {
        ("min", "1"): 20,
        ("min", "2"): 20,
        ("min", "all"): 40,
        ("tenth", "1"): 40,
        ("tenth", "all"): 40,
    }
    assert budgets.loc[("min", "all")].tolist() == pytest.approx([3, 40, 0.03, 2700.0])


def test_a_given_checkpoint_is_the_float_baseline_as_it_is(data, tmp_path):
    torch.save(build_model("narrow", 32, seed=5).state_dict(), tmp_path / "given.pth")
    setup = params(float_checkpoint=str(tmp_path / "given.pth"))
    path, score = make_float_baseline(setup, data, tmp_path / "float")
    assert digest(load_model(path)) == digest(build_model("narrow", 32, seed=5))
    assert describe_model(path)["eval_dsc"] == score and 0 <= score <= 1
    assert describe_model(path)["origin_sha256"] == sha256(tmp_path / "given.pth")


@pytest.mark.parametrize("size, pixels", [(32, 1.0), (64, 2.0)])
def test_boxes_move_in_training_by_what_the_parameters_say_and_never_in_evaluation(data, size, pixels):
    """`box_jitter` is in px of a 256 px input and is scaled to the input's size."""
    setup = params(box_jitter=8.0, image_size=size)
    made = make_data(setup, data, build_model("narrow", size))
    assert made.train.transform.box_jitter == pixels and not hasattr(
        made.evaluation.dataset.transform, "box_jitter"
    )
