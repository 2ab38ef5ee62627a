"""Training a float model from nothing: phases, the learning rate, what is learned, and interruptions."""

import os
import resource
import signal

import pandas as pd
import pytest
import torch
from small_data import write_data

from qmsam_core.data.parts import make_parts
from qmsam_core.data.prompts import PromptDataset
from qmsam_core.models import build_model, same_weights
from qmsam_core.params import Params
from qmsam_core.phases import PEAK, Phase, course, learning_rate, overall, parse_phases
from qmsam_core.provenance import sha256
from qmsam_core.quant import describe_model, load_model, save_model
from qmsam_core.train import TrainingError, float_stage, launch_stage
from qmsam_core.train import pretrain as pretraining
from qmsam_core.train.__main__ import main as train_command
from qmsam_core.train.float_stage import float_sources, train_float
from qmsam_core.train.losses import predicted_iou_loss
from qmsam_core.train.phase_batches import PROMPTS, phase_seed
from qmsam_core.train.pretrain import whole_history

PHASES = ["32 px, 4 images, 12 steps", "48 px, 2 images, 6 steps"]


def params(**changes):
    return Params.check({"image_size": 64, "float_phases": PHASES, "threads": 1} | changes, "test")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_parts(write_data(root / "cases", 6), root / "prepared", 0.25, 0)
    return root / "prepared"


# Phases and the learning rate ---------------------------------------------------------------------------------------------------------------


def test_a_phase_reads_as_it_is_written():
    assert Phase.parse("128 px, 8 images, 2.5 minutes") == Phase(128, 8, 2.5, "minutes")
    assert Phase.parse("128 px, 8 images, 2.5 minutes").done(10, 75.0) == 0.5
    assert Phase.parse("64 px, 16 images, 40 steps").done(10, 1e9) == 0.25
    assert Phase.parse("64 px, 16 images, 40 steps, from 2.5e-4") == Phase(64, 16, 40, "steps", 2.5e-4)
    assert Phase.parse("64 px, 32 boxes on 900 images, 40 steps, from 1e-3") == Phase(64, 32, 40, "steps", 1e-3, kept=900)
    assert Phase.parse("64 px, 16 images, 40 steps, from 2.5e-4, new decoder") == Phase(64, 16, 40, "steps", 2.5e-4, new_decoder=True)
    assert Phase.parse("64 px, 32 boxes on 900 images, 40 steps, new decoder") == Phase(64, 32, 40, "steps", kept=900, new_decoder=True)
    assert Phase.parse("64 px, 16 images, 40 steps, from 1e-3, fixed stem") == Phase(64, 16, 40, "steps", 1e-3, fixed_stem=True)


@pytest.mark.parametrize(
    "text",
    [
        "", "64, 16, 40", "60 px, 16 images, 40 steps", "64 px, 0 images, 4 steps", "64 px, 1 images, 0 steps", "16 px, 1 images, 1 steps",
        "64 px, 1 images, 4 steps, from 0.1", "64 px, 1 images, 4 steps, from 0e-4", "64 px, 8 boxes, 4 steps", "64 px, 8 boxes on 0 images, 4 steps",
        "64 px, 8 images, new decoder, 4 steps", "64 px, 8 boxes on 9 images, 4 steps, fixed stem",
    ],
)  # fmt: skip
def test_a_phase_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match="phase"):
        Phase.parse(text)


def test_a_step_of_the_decoder_alone_weighs_what_it_costs():
    whole, alone = parse_phases(["64 px, 4 images, 30 steps", "64 px, 4 boxes on 9 images, 30 steps"])
    assert 0 < alone.weight < whole.weight / 10


def test_a_step_behind_a_fixed_stem_weighs_half():
    whole, behind = parse_phases(["64 px, 4 images, 30 steps", "64 px, 4 images, 30 steps, fixed stem"])
    assert behind.weight == whole.weight / 2
    assert len({phase.weight for phase in parse_phases(["64 px, 4 images, 3 minutes", "64 px, 4 images, 3 minutes, fixed stem"])}) == 1


def test_the_rate_rises_once_and_falls_over_all_phases():
    phases = parse_phases(["64 px, 4 images, 30 steps", "128 px, 1 images, 10 steps"])
    assert overall(phases, 0, 1.0) == overall(phases, 1, 0.0) == 0.75
    assert overall(phases, 1, 1.0) == 1.0
    rates = [course(1e-3, k / 1000) for k in range(1001)]
    assert rates[0] == pytest.approx(1e-5) and rates[-1] == pytest.approx(1e-5) and max(rates) == pytest.approx(1e-3)
    peak = rates.index(max(rates))
    assert peak == 30 and sorted(rates[:peak]) == rates[:peak] and sorted(rates[peak:], reverse=True) == rates[peak:]


def test_a_phase_with_a_peak_begins_the_rate_anew_and_leaves_the_phases_before_as_they_were():
    before = ["64 px, 4 images, 30 steps", "128 px, 1 images, 10 steps"]
    alone, longer = parse_phases(before), parse_phases([*before, "64 px, 4 images, 30 steps, from 4e-4", "128 px, 1 images, 10 steps"])
    for number, done in ((0, 0.0), (0, 0.5), (1, 0.2), (1, 1.0)):
        assert learning_rate(longer, number, done) == learning_rate(alone, number, done)
        assert learning_rate(longer, number + 2, done) == pytest.approx(learning_rate(alone, number, done) * 4e-4 / PEAK)
    assert learning_rate(longer, 2, 0.04) == pytest.approx(4e-4)


# Training -----------------------------------------------------------------------------------------------------------------------------------


def test_the_predicted_iou_is_judged_by_the_true_one():
    logits, masks = torch.full((1, 1, 2, 2), -1.0), torch.zeros(1, 1, 2, 2)
    logits[0, 0, 0] = 1.0  # two pixels, of which the truth has one
    masks[0, 0, 0, 0] = 1.0
    assert predicted_iou_loss(torch.tensor([[0.5]]), logits, masks) == 0
    assert predicted_iou_loss(torch.tensor([[1.0]]), logits, masks) == 0.25


def test_phases_change_the_size_and_the_model_leaves_at_its_own(data, tmp_path):
    path, history = train_float(params(), data, tmp_path)
    assert history["image_size"].tolist() == [32] * 6 + [48] * 6
    assert history["samples"].sum() == 12 * 4 + 6 * 2
    assert describe_model(path)["image_size"] == 64 and describe_model(path)["phases"] == PHASES
    assert history["best"].tolist() == [False] * 11 + [True]
    assert (tmp_path / "curves.png").stat().st_size > 1000 and not (tmp_path / "progress.pt").exists()
    assert pd.read_csv(tmp_path / "history.csv")["eval_dsc"].between(0, 1).all()


def test_a_model_is_described_with_what_it_scores_at_its_own_size(data, tmp_path, monkeypatch):
    sizes, evaluate = [], pretraining.evaluate
    monkeypatch.setattr(pretraining, "evaluate", lambda model, *rest: (sizes.append(model.image_size), evaluate(model, *rest))[1])
    path, history = train_float(params(), data, tmp_path / "other")
    assert sizes[-1] == 64 and describe_model(path)["eval_dsc"] == evaluate(load_model(path), float_stage.evaluation_batches(params(), data, 64, 64))
    assert history["phase"].tolist() == [0] * 6 + [1] * 6 == pd.read_csv(path.parent / "history.csv")["phase"].tolist()
    path, history = train_float(params(image_size=48), data, tmp_path / "same")
    assert sizes.count(48) == 12 and describe_model(path)["eval_dsc"] == history["eval_dsc"].iloc[-1]  # measured already


def test_no_phase_is_one_line(data, tmp_path, capsys):
    (tmp_path / "p.yaml").write_text("float_phases: []")
    assert train_command([str(tmp_path / "p.yaml"), "--stage", "0", "--data", str(data), "-o", str(tmp_path / "out")]) == 2
    assert "float_phases: found []" in capsys.readouterr().err


def test_a_full_disk_at_the_end_is_told_and_costs_nothing_but_the_end(data, tmp_path, monkeypatch):
    whole, _ = train_float(params(), data, tmp_path / "whole")
    save = pretraining.save_weights

    def full(*arguments, **facts):
        most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most[1]))
        try:
            return save(*arguments, **facts)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)

    monkeypatch.setattr(pretraining, "save_weights", full)
    with pytest.raises(TrainingError, match=r"model.safetensors: cannot be written \(.*make space and start again"):
        train_float(params(), data, tmp_path / "full")
    assert not list((tmp_path / "full").glob("*.part"))
    monkeypatch.setattr(pretraining, "save_weights", save)
    resumed, _ = train_float(params(), data, tmp_path / "full")
    assert same_weights(load_model(resumed), load_model(whole))


@pytest.fixture
def no_training(monkeypatch):
    """`train_float` gives what it would have trained on."""
    monkeypatch.setattr(float_stage, "pretrain", lambda model, work, folder, log: work)


def test_what_a_parent_has_seen_does_not_come_again(data, tmp_path, no_training):
    parents = [tmp_path / f"{seed}.safetensors" for seed in range(2)]
    for seed, path in enumerate(parents):
        save_model(build_model("nano", 64, seed=seed), path)
    begun, *later = (train_float(params(), data, tmp_path / "out", parent=parent).samples(32, PROMPTS) for parent in (None, *parents))
    first = PromptDataset(float_sources(params(), data), 32, 32, PROMPTS, 0)  # of seed 0, as ever
    for n in range(3):
        assert torch.equal(begun[n]["image"], first[n]["image"])
        images = [samples[n]["image"] for samples in (begun, *later)]
        assert not any(torch.equal(images[a], images[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    again = train_float(params(), data, tmp_path / "out", parent=parents[0]).samples(32, PROMPTS)
    assert torch.equal(again[1]["image"], later[0][1]["image"])


def test_another_seed_is_another_draw_in_every_phase(data, tmp_path, monkeypatch):
    phases = ["32 px, 2 images, 2 steps, fixed stem", "32 px, 5 boxes on 4 images, 2 steps", "32 px, 5 boxes on 4 images, 2 steps, new decoder"]
    drawn, fresh, kept = [], pretraining.fresh_batches, pretraining.kept_batches
    monkeypatch.setattr(pretraining, "fresh_batches", lambda *a: (drawn.append(a[2]), fresh(*a))[1])
    monkeypatch.setattr(pretraining, "kept_batches", lambda *a: (drawn.append(a[3]), kept(*a))[1])
    monkeypatch.setattr(pretraining, "begin_with_filled_boxes", lambda model, images, seed: drawn.append((seed, images.sum().item())))
    setups = [params(model="litemedsam", float_phases=phases, seed=seed) for seed in range(2)]
    parent, _ = train_float(setups[0], data, tmp_path / "0")
    assert [d for d in drawn if isinstance(d, int)] == [phase_seed(0, number) for number in range(3)]
    train_float(setups[1], data, tmp_path / "1")
    train_float(setups[0], data, tmp_path / "2", parent=parent)
    assert len(drawn) == 3 * 4 and len(set(drawn)) == len(drawn)  # three phases and a new decoder, each of its own


def test_a_parent_s_history_counts_once_however_often_its_continuation_is_interrupted(data, tmp_path, monkeypatch):
    first, begun = train_float(params(), data, tmp_path)
    own = whole_history(tmp_path)
    step, taken = pretraining.FloatTrainer.step, 0

    def killed(self, *arguments):
        nonlocal taken
        taken += 1
        if taken in (6, 20):  # behind rows of the history; no progress is saved on the way
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(pretraining.FloatTrainer, "step", killed)
    longer = params(float_phases=[*PHASES, "48 px, 2 images, 2 steps"])
    for setup in (params(), longer):  # the second is other work on the same parent
        with pytest.raises(KeyboardInterrupt):
            train_float(setup, data, tmp_path, parent=first)
    monkeypatch.setattr(pretraining.FloatTrainer, "step", step)
    _, history = train_float(params(), data, tmp_path, parent=first)
    told = whole_history(tmp_path)
    assert told["samples"].sum() == begun["samples"].sum() + history["samples"].sum() and len(told) == len(begun) + len(history)
    assert told["phase"].tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    pd.testing.assert_frame_equal(told[: len(own)], own)


def test_a_phase_by_the_clock_is_judged_on_the_way(data, tmp_path, monkeypatch):
    def clock(self, begun):
        self.seconds += 0.5
        return self.seconds

    monkeypatch.setattr(pretraining.FloatTrainer, "shared_seconds", clock)
    _, history = train_float(params(float_phases=["32 px, 4 images, 0.2 minutes"]), data, tmp_path)
    assert len(history) == pretraining.EVALUATIONS and history["step"].is_monotonic_increasing


KEPT = ["32 px, 4 images, 4 steps", "32 px, 10 boxes on 8 images, 8 steps", "48 px, 2 images, 6 steps"]
STEM = ["32 px, 4 images, 4 steps", "48 px, 2 images, 6 steps, fixed stem", "32 px, 4 images, 2 steps"]


@pytest.mark.parametrize(
    "phases,images,steps",
    [(PHASES, 12 * 4 + 6 * 2, 3), (PHASES, 12 * 4 + 6 * 2, 14), (KEPT, 4 * 4 + 8 + 6 * 2, 7), (KEPT, 4 * 4 + 8 + 6 * 2, 14), (STEM, 36, 7), (STEM, 36, 11)],
    ids=["in the first phase", "in the second", "among kept images", "after them", "behind a fixed stem", "after it"],
)
def test_killed_and_resumed_training_gives_the_same_weights(data, tmp_path, monkeypatch, phases, images, steps):
    whole, _ = train_float(params(float_phases=phases), data, tmp_path / "whole")
    taken, step = 0, pretraining.FloatTrainer.step

    def killed(self, *arguments):
        nonlocal taken
        taken += 1
        if taken > steps:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(pretraining, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(pretraining.FloatTrainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_float(params(float_phases=phases), data, tmp_path / "killed")
    assert (tmp_path / "killed" / "progress.pt").is_file()
    monkeypatch.setattr(pretraining.FloatTrainer, "step", step)
    lines = []
    resumed, history = train_float(params(float_phases=phases), data, tmp_path / "killed", log=lines.append)
    assert any("resumed" in line for line in lines)
    assert same_weights(load_model(resumed), load_model(whole))
    assert history["samples"].sum() == images


def encoder_and_rest(model):
    """Whether a weight is the image encoder's, and its value, by name; without the encoder's running statistics."""
    return {name: (name.startswith("image_encoder"), value.detach()) for name, value in model.named_parameters()}


def test_kept_images_train_the_decoder_alone_from_given_weights(data, tmp_path):
    first, _ = train_float(params(float_phases=["32 px, 4 images, 6 steps"]), data, tmp_path / "first")
    second, history = train_float(params(float_phases=["48 px, 10 boxes on 8 images, 12 steps"]), data, tmp_path / "second", parent=first)
    before, after = (encoder_and_rest(load_model(path)) for path in (first, second))
    assert all(torch.equal(value, after[name][1]) for name, (encoder, value) in before.items() if encoder)
    changed = [name for name, (encoder, value) in before.items() if not encoder and not torch.equal(value, after[name][1])]
    assert any(name.startswith("mask_decoder") for name in changed) and any(name.startswith("prompt_encoder") for name in changed)
    assert describe_model(second)["parent"] == sha256(first) and "parent" not in describe_model(first)
    assert history["samples"].sum() == 8 and history["image_size"].eq(48).all()
    assert describe_model(second)["parent_phases"] == describe_model(first)["phases"]
    told = whole_history(second.parent)
    _, alone = train_float(params(float_phases=["32 px, 4 images, 6 steps"]), data, second.parent)
    assert whole_history(second.parent)["image_size"].tolist() == [32] * len(alone)  # of the parent that another training had nothing is left
    assert told["image_size"].tolist() == [32] * (len(told) - len(history)) + [48] * len(history) and told["samples"].sum() == 6 * 4 + 8


def test_a_fixed_stem_stays_and_the_rest_is_trained(data, tmp_path):
    first, _ = train_float(params(float_phases=["32 px, 4 images, 6 steps"]), data, tmp_path / "first")
    second, history = train_float(params(float_phases=["48 px, 4 images, 6 steps, fixed stem"]), data, tmp_path / "second", parent=first)
    before, after = (load_model(path).state_dict() for path in (first, second))
    stem = ("image_encoder.patch_embed.", "image_encoder.layers.0.")
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith(stem))
    learned = ("image_encoder.layers.1.", "image_encoder.layers.2.", "image_encoder.layers.3.", "image_encoder.neck.", "mask_decoder.transformer.")
    assert not any(torch.equal(after[name], value) for name, value in before.items() if name.endswith("weight") and name.startswith(learned))
    assert history["samples"].sum() == 24
    _, third = train_float(params(float_phases=["32 px, 4 images, 2 steps, fixed stem", "32 px, 4 images, 2 steps"]), data, tmp_path / "third", parent=first)
    assert not torch.equal(load_model(tmp_path / "third" / "model.safetensors").state_dict()[stem[1] + "blocks.0.conv1.c.weight"], before[stem[1] + "blocks.0.conv1.c.weight"])


def test_a_new_decoder_is_trained_on_at_another_size_and_resumed(data, tmp_path, monkeypatch):
    phases = ["32 px, 5 boxes on 4 images, 2 steps, from 1e-5, new decoder", "48 px, 5 boxes on 4 images, 3 steps"]
    chosen = params(model="litemedsam", float_phases=phases)
    whole, _ = train_float(chosen, data, tmp_path / "whole")
    weights = load_model(whole).state_dict()
    matrix = weights["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    assert (matrix == 0).sum() == matrix.numel() / 2  # each wave along one axis, and the new decoder's are in the averaged weights
    first, _ = train_float(params(model="litemedsam", float_phases=phases[:1]), data, tmp_path / "blunt")
    later, _ = train_float(params(model="litemedsam", float_phases=[phases[1] + ", from 1e-5"]), data, tmp_path / "later", parent=first)
    blunt = load_model(first).state_dict()
    queries = "mask_decoder.transformer.layers.0.cross_attn_image_to_token.q_proj.weight"
    lengths = blunt[queries].unflatten(0, (8, -1)).norm(dim=(1, 2))
    expected = torch.tensor([(12 / 8) ** 0.5] * 4 + [1.0] * 4)  # sharpened from 8 cells a side to 12; the rate is too low to move them
    for trained in (weights, load_model(later).state_dict()):  # in one training, and in one that goes on from another's weights
        torch.testing.assert_close(trained[queries].unflatten(0, (8, -1)).norm(dim=(1, 2)) / lengths, expected, rtol=1e-2, atol=0)

    step = pretraining.FloatTrainer.step

    def killed(self, *arguments):
        if self.phase == 1 and self.steps == 1:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(pretraining, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(pretraining.FloatTrainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_float(chosen, data, tmp_path / "killed")
    monkeypatch.setattr(pretraining.FloatTrainer, "step", step)
    resumed, _ = train_float(chosen, data, tmp_path / "killed")
    assert same_weights(load_model(resumed), load_model(whole))


def test_a_new_decoder_needs_a_model_with_heads_for_it():
    with pytest.raises(ValueError, match="float_phases.*new decoder.*litemedsam"):
        params(float_phases=["32 px, 4 images, 2 steps, new decoder"])


def test_a_fixed_stem_needs_an_encoder_that_has_one():
    with pytest.raises(ValueError, match="float_phases.*fixed stem.*litemedsam"):
        params(model="medsam", float_phases=["32 px, 4 images, 2 steps, fixed stem"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_stops_between_steps_and_loses_none(data, tmp_path, monkeypatch, number):
    whole, _ = train_float(params(), data, tmp_path / "whole")
    step, handlers = pretraining.FloatTrainer.step, signal.getsignal(number)

    def interrupted(self, *arguments):
        if self.samples == 5 * 4:
            os.kill(os.getpid(), number)
        return step(self, *arguments)

    monkeypatch.setattr(pretraining.FloatTrainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_float(params(), data, tmp_path / "stopped")
    assert torch.load(tmp_path / "stopped" / "progress.pt", weights_only=True)["steps"] == 6
    monkeypatch.setattr(pretraining.FloatTrainer, "step", step)
    resumed, _ = train_float(params(), data, tmp_path / "stopped")
    assert same_weights(load_model(resumed), load_model(whole)) and signal.getsignal(number) == handlers


def test_progress_of_other_work_is_not_taken_up(data, tmp_path):
    train_float(params(seed=1, float_phases=["32 px, 2 images, 2 steps"]), data, tmp_path / "a")
    (tmp_path / "b").mkdir()
    torch.save({"fingerprint": "another"}, tmp_path / "b" / "progress.pt")
    lines = []
    train_float(params(seed=1, float_phases=["32 px, 2 images, 2 steps"]), data, tmp_path / "b", log=lines.append)
    assert not any("resumed" in line for line in lines) and sum("progress of other work" in line for line in lines) == 1
    assert same_weights(*(load_model(tmp_path / x / "model.safetensors") for x in "ab"))


def test_two_processes_share_the_steps(data, tmp_path):
    setup, lines = params(processes=2, float_phases=["32 px, 4 images, 6 steps"]), []
    _, history = launch_stage(setup, 0, data, tmp_path, log=lambda line: None)
    assert history["samples"].sum() == 6 * 4 and len(history) == 6
    launch_stage(setup, 0, data, tmp_path, log=lines.append)
    assert sum("finished before" in line for line in lines) == 1 and not any("eval DSC" in line for line in lines)


def test_two_processes_share_kept_images(data, tmp_path):
    phases = ["32 px, 8 boxes on 6 images, 6 steps", "32 px, 4 images, 6 steps"]
    _, history = launch_stage(params(processes=2, float_phases=phases), 0, data, tmp_path, log=lambda line: None)
    assert history["samples"].sum() == 6 + 6 * 4


def test_a_loss_that_is_not_finite_names_the_samples(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "learning_rate", lambda phases, number, done: float("inf"))
    with pytest.raises(TrainingError, match=r"step \d+: loss is nan on .*Box_"):
        train_float(params(), data, tmp_path)


# What it learns from ------------------------------------------------------------------------------------------------------------------------


def test_open_data_are_those_whose_licence_says_so_and_phantoms(tmp_path):
    root = write_data(tmp_path / "cases", 6)
    (root / "SOURCES.md").write_text("## US: 6\n\n| files | licence as stated |\n|---|---|\n| `2DBox_US_` | CC0 |\n\n## CT: 6\n\n| files | licence as stated |\n|---|---|\n| `3DBox_CT_` | CC BY-NC 4.0 |\n")
    make_parts(root, tmp_path, 0.25, 0)
    (tmp_path / "float_phantoms").symlink_to(write_data(tmp_path / "phantoms", 1))
    setup = params(data_root=str(root), float_data="open")
    cases, phantoms = float_sources(setup, tmp_path)
    assert cases.modalities == ["US"] and phantoms.modalities == ["CT", "US"]
    (root / "SOURCES.md").unlink()
    with pytest.raises(ValueError, match="names no case under an open licence"):
        float_sources(setup, tmp_path)


def test_the_model_of_another_size_has_the_same_weights():
    model, other = build_model("nano", 64), build_model("nano", 128)
    model.set_image_size(128)
    images, boxes = torch.rand(1, 3, 128, 128), torch.tensor([[10.0, 20, 60, 90]])
    assert torch.equal(model(images, boxes)[0], other(images, boxes)[0])
    for size in (100, 16):
        with pytest.raises(ValueError, match=f"image_size = {size}"):
            model.set_image_size(size)
    with pytest.raises(ValueError, match="nano_vit has positions for 256 px only"):
        build_model("nano_vit").set_image_size(128)


def test_several_boxes_an_image_are_the_boxes_one_by_one():
    model = build_model("nano", 64)
    images, boxes = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 4) * 60
    together = model(images, boxes)[0].view(2, 3, 1, 64, 64)
    for k in range(3):
        assert torch.allclose(together[:, k], model(images, boxes[:, k])[0], atol=1e-5)
