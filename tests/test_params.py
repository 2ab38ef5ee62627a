"""Parameters: what is refused and with which message. The profiles and the parameter class agree."""

from pathlib import Path

import pytest
import yaml

from qmsam_core.params import Params, ParamsError, accepted, parse_override

ROOT = Path(__file__).resolve().parents[1]
PROFILES = sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))


def refused(**values):
    with pytest.raises(ParamsError) as caught:
        Params.check(values, "here.yaml")
    return str(caught.value)


@pytest.mark.parametrize("profile", PROFILES)
def test_shipped_profiles_are_valid_and_state_every_key(profile):
    path = ROOT / "params" / f"{profile}.yaml"
    assert Params.load(path).profile == profile
    assert list(yaml.safe_load(path.read_text())) == list(Params.model_fields)


def test_defaults_are_the_smoke_profile():
    assert Params.load(ROOT / "params" / "smoke.yaml") == Params()


def test_paper_profile_has_table_3():
    paper = Params.load(ROOT / "params" / "paper.yaml")
    assert (paper.batch_size, paper.samples_per_modality, paper.warmup_epochs, paper.annealing_epochs) == (
        (2, 4, 2),
        900,
        5,
        10,
    )
    assert (paper.learning_rate, paper.processes, paper.image_size, paper.released) == (0.01, 4, 256, ())
    assert 0 < paper.eval_cases <= 100  # notebooks hold all these cases in memory


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("learning_rate", "1e-4", ["the text '1e-4'", "a number, > 0", "write 1.0e-4"]),
        ("learning_rate", "3E5", ["write 3.0e+5"]),
        ("learning_rate", 0.0, ["the number 0.0"]),
        ("learning_rate", float("nan"), ["nan"]),
        ("threads", "2", ["the text '2'", ">= 1", "without quotes"]),
        ("threads", 2.0, ["the number 2.0", "a whole number"]),
        ("seed", True, ["the truth value True"]),
        ("seed", -1, ["-1", ">= 0"]),
        ("image_size", 100, ["100", ">= 32, <= 1024, a multiple of 16"]),
        ("image_size", 2048, ["<= 1024"]),
        ("eval_fraction", 0.9, ["0.9", "> 0, <= 0.5"]),
        ("model", "tiny", ["'tiny'", "one of litemedsam, medsam"]),
        ("profile", "a/b", ["'a/b'", "letters"]),
        ("phantom_cases", 10, [">= 33"]),
        ("batch_size", [2, 2], ["[2, 2]", "a list of 3"]),
        ("batch_size", [2, 0, 2], ["batch_size[1]", "the number 0", ">= 1"]),
        ("released", ["losses"], ["released[0]", "'losses'", "frozen_statistics"]),
        ("released", ["loss", "loss"], ["named twice"]),
        ("data_root", "", ["not empty, or null"]),
        ("data_root", "/", ["without a folder name"]),
        ("testing_root", "/", ["testing_root", "without a folder name"]),
        ("teacher", "", ["not empty"]),
        ("float_checkpoint", None, ["float_checkpoint: found nothing", "text"]),
        ("vit_blocks", 13, ["vit_blocks", "<= 12"]),
        ("seed", None, ["found nothing"]),
    ],
)
def test_wrong_value_is_one_line_with_file_key_value_and_range(key, value, parts):
    message = refused(**{key: value})
    assert message.startswith("here.yaml: ") and "\n" not in message
    assert key in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("learningrate", "learning_rate"), ("Batch_size", "batch_size"), ("lr", "learning_rate")],
)
def test_unknown_key_names_the_nearest(slip, meant):
    assert refused(**{slip: 1}) == f"here.yaml: {slip}: no such parameter; did you mean {meant}?"


@pytest.mark.parametrize("other", [{"released": ["loss"]}, {"teacher": "medsam_vit_b.pth"}])
def test_learning_from_the_float_model_excludes_other_targets(other):
    with pytest.raises(ParamsError, match="beside learns_from: float"):
        Params.check({"learns_from": "float", **other}, "test")


def test_several_problems_are_several_lines():
    assert len(refused(lr=1, threads="2", seed=-1, batch_size=[1, 0]).splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- 1\n", "key: value"),
        ("", "found nothing"),
        ("seed: 1\nseed: 2\n", "seed: given twice"),
        ("seed: [1\n", "no valid YAML"),
    ],
)
def test_broken_files(tmp_path, text, part):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=part) as caught:
        Params.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_file_names_the_profiles():
    with pytest.raises(ParamsError, match=r"smok\.yaml: cannot be read.*smoke\.yaml"):
        Params.load(ROOT / "params" / "smok.yaml")


def test_run_folder_carries_the_data():
    assert Params().run_dir == Path("outputs/smoke") and Params().data_label == "phantoms"
    on_data = Params(data_root="somewhere/pack/")
    assert (
        on_data.run_dir == Path("outputs/smoke-pack")
        and on_data.data_label == on_data.data_description == "pack"
    )


def test_folders_of_validation_and_testing_cases_are_told_beside_the_data():
    params = Params(validation_root="x/public", testing_root="x/hidden/")
    assert (
        params.label == "smoke"
        and params.data_description == "phantoms, validated on public, tested on hidden"
    )
    assert params.data_roots == {"validation_root": "x/public", "testing_root": "x/hidden/"}


def test_frozen_and_without_shared_lists():
    with pytest.raises(ValueError, match="frozen"):
        Params().seed = 1
    assert Params.check({"batch_size": [1, 2, 3]}, "x").batch_size == (1, 2, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=3", ("seed", 3)),
        ("learning_rate=0.5", ("learning_rate", 0.5)),
        ("released=[loss, resize]", ("released", ["loss", "resize"])),
        ("float_checkpoint=2024", ("float_checkpoint", "2024")),
        ("float_checkpoint=null", ("float_checkpoint", None)),
        ("data_root=", ("data_root", None)),
        ("nonsense=1", ("nonsense", 1)),
    ],
)
def test_overrides_from_the_command_line(text, expected):
    assert parse_override(text) == expected


def test_override_of_data_root_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data_root", "validation_root", "testing_root"):
        assert parse_override(f"{name}=pack") == (name, str(tmp_path / "pack"))


def test_override_without_value_is_refused():
    with pytest.raises(ParamsError, match="key=value"):
        parse_override("seed")


def test_accepted_speaks_of_every_parameter():
    for name in Params.model_fields:
        assert accepted(name)
