"""The project's int8 model: made from a checkpoint with its card, and used by export and predict."""

import json

import pandas as pd
import pytest
import torch
from small_data import write_data

from qmsam_core.deploy import ship
from qmsam_core.deploy.export import main as export
from qmsam_core.deploy.exported import FROM_NOISE, read_export
from qmsam_core.deploy.model_card import by_modality, described
from qmsam_core.deploy.predict import main as predict
from qmsam_core.models import CheckpointError, build_model, checkpoint_path
from qmsam_core.provenance import weights
from qmsam_core.quant import calibrate, describe_model, load_model, quantize, save_model

SOURCES = """# Sources

## CT: 3 cases

| files | original data set | licence as stated |
|---|---|---|
| `3DBox_CT_0`, `3DBox_CT_1` | Set A | CC BY 4.0 (README) |
| `3DBox_CT_2` | Set B | none stated |
| `3DBox_CT_3` | Set C, of which no case is here | CC0 |
"""

IN_REPOSITORY = weights.SHIPPED_FILE  # before tests let it point elsewhere


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project whose int8 model is a narrow network, shipped by the command."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            weights, "SHIPPED_FILE", root / "outputs" / "pretrained" / "litemedsam_int8.safetensors"
        )
        patch.setattr(ship, "build_model", lambda name, size, checkpoint: build_model(name, size))
        for name in ("judging", "training"):
            (write_data(root / name, cases=3) / "SOURCES.md").write_text(SOURCES)
        model = quantize(build_model("narrow"), "paper")
        batch = torch.rand(2, 3, 64, 64), torch.tensor([[4.0, 4, 50, 40], [10, 20, 30, 60]])
        calibrate(model, lambda m, inputs: m(*inputs), [batch])
        save_model(model.eval(), root / "model.safetensors", origin="a batch | of noise", hours=0.25)
        arguments = [str(root / "model.safetensors"), "--judge", str(root / "judging")]
        assert (
            ship.main([*arguments, "--trained-on", str(root / "training"), "phantoms of all modalities"]) == 0
        )
        yield root


def card(root):
    return (root / "outputs" / "pretrained" / "README.md").read_text()


def test_the_file_is_packed_and_says_what_trained_it(root):
    facts = describe_model(checkpoint_path("int8"))
    assert (facts["packed"], facts["origin"], facts["hours"]) == (1, "a batch | of noise", 0.25)
    assert [one["name"] for one in facts["data"]] == ["training", "phantoms of all modalities"]
    assert facts["data"][0]["sources"] == [
        ["CT", "Set A", "CC BY 4.0 (README)", 2],
        ["CT", "Set B", "none stated", 1],
        ["US", "not stated", "not stated", 3],
    ]


def test_the_card_tells_origin_recipe_data_results_and_limits(root):
    text = card(root)
    assert weights.SHA256 in text and "Apache-2.0" in text and "bowang-lab/MedSAM" in text
    assert "Recipe `paper`, applied to decoder and encoder" in text and "| weight bits | 8 |" in text
    assert "| origin | a batch \\| of noise |" in text and "| hours | 0.25 |" in text
    assert "`training`, 6 cases; the sources of 2 state an open licence." in text and "Set C" not in text
    assert "| CT | Set B | none stated | 1 |" in text and "| US | not stated | not stated | 3 |" in text
    assert "phantoms of all modalities." in text and "not a medical device" in text
    assert "untested on anything but CT, US," in text
    assert "deploy.ship int8 --judge judging" in text and str(root) not in text
    rows = [
        line.split(" | ")
        for line in text.splitlines()
        if line.startswith(("| CT | 3", "| US | 3", "| Average"))
    ]
    assert [len(row) for row in rows] == [7, 7, 7] and [row[2] for row in rows] == ["3", "3", "6"]
    assert "{" not in text and "\n\n\n" not in text and text.endswith("```\n")


def test_shipping_the_shipped_model_repeats_file_and_card(root, capsys):
    before = checkpoint_path("int8").read_bytes(), card(root)
    assert ship.main(["int8", "--judge", str(root / "judging")]) == 0
    assert (checkpoint_path("int8").read_bytes(), card(root)) == before
    assert "judging on 6 slices" in capsys.readouterr().err


def test_export_takes_the_int8_model_by_name(root, tmp_path):
    assert export(["--model", "litemedsam", "--checkpoint", "int8", "-o", str(tmp_path)]) == 0
    facts = read_export(tmp_path)
    assert facts["recipe"] == "paper" and "litemedsam_int8.safetensors" in facts["origin"]
    assert load_model(tmp_path / "model.safetensors").quantised_parts == ("decoder", "encoder")


def test_predict_without_a_model_exports_the_int8_model_once(root, tmp_path, capsys):
    arguments = ["-i", str(root / "judging" / "US"), "--threads", "1"]
    assert predict([*arguments, "-o", str(tmp_path / "first")]) == 0
    error = capsys.readouterr().err
    assert "model: narrow in int8, recipe paper, from checkpoint litemedsam_int8.safetensors" in error
    assert "hours 0.25" in error
    written = root / "outputs" / "exported" / "litemedsam_int8" / "export.json"
    made = written.stat().st_mtime_ns, json.loads(written.read_text())
    assert predict([*arguments, "-o", str(tmp_path / "second")]) == 0
    assert (written.stat().st_mtime_ns, read_export(written.parent)) == made
    assert len(list((tmp_path / "second").glob("*.npz"))) == 3


def test_without_the_file_one_line_says_what_makes_it(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(weights, "SHIPPED_FILE", tmp_path / "pretrained" / "litemedsam_int8.safetensors")
    cases, output = str(root / "judging" / "US"), str(tmp_path / "segs")
    for command, arguments in (
        (predict, ["-i", cases]),
        (export, ["--model", "litemedsam", "--checkpoint", "int8"]),
    ):
        assert command([*arguments, "-o", output]) == 2
        line = capsys.readouterr().err.strip()
        assert "\n" not in line
        assert "no such file; `python -m qmsam_core.deploy.ship CHECKPOINT --judge FOLDER` makes it" in line
    with pytest.raises(CheckpointError, match="int8 means the quantised LiteMedSAM, not medsam"):
        checkpoint_path("int8", "medsam")


def test_what_cannot_be_shipped_is_told_and_leaves_the_present_model(root, capsys):
    before = checkpoint_path("int8").read_bytes(), card(root)
    judging = ["--judge", str(root / "judging")]
    save_model(build_model("narrow"), root / "float.safetensors")
    save_model(load_model(root / "model.safetensors"), root / "noise.safetensors", origin=FROM_NOISE)
    for arguments, words in (
        ([str(root / "nothing.safetensors"), *judging], "no such file"),
        ([str(root / "float.safetensors"), *judging], "the model is float; expected a quantised one"),
        ([str(root / "noise.safetensors"), *judging], "expected a model calibrated on cases, or trained"),
        (["int8", *judging, "--trained-on", str(root / "judging")], "trained, so it cannot judge"),
        (["int8", "--judge", str(root / "outputs")], "no .npz files"),
    ):
        assert ship.main(arguments) == 2
        line = capsys.readouterr().err.strip()
        assert line.startswith("ship: ") and words in line and "\n" not in line
    assert (checkpoint_path("int8").read_bytes(), card(root)) == before


def test_other_networks_than_litemedsam_are_not_shipped(root, monkeypatch, capsys):
    monkeypatch.setattr(ship, "build_model", build_model)
    assert ship.main([str(root / "model.safetensors"), "--judge", str(root / "judging")]) == 2
    assert "public means LiteMedSAM's weights, not those of narrow" in capsys.readouterr().err


def test_means_are_over_objects_then_cases_then_modalities():
    nan = float("nan")
    objects = pd.DataFrame(
        [
            ("CT", "a", 0.9, 0.8, 0.7),
            ("CT", "a", 0.7, 0.6, 0.7),
            ("CT", "b", 1.0, nan, nan),
            ("US", "c", 0.5, 0.4, 0.5),
        ],
        columns=["group", "case", "agreement", "dsc float", "dsc int8"],
    )
    table = by_modality(objects).set_index("modality")
    assert table["agreement"].tolist() == pytest.approx([0.9, 0.5, 0.7])
    assert table["dsc float"].tolist() == pytest.approx([0.7, 0.4, 0.55])
    assert table["difference"].tolist() == pytest.approx([0.0, 0.1, 0.05])
    assert table["cases"].tolist() == [2, 1, 3] and table["labelled"].tolist() == [1, 1, 2]
    assert table.loc["CT", "agreement low"] < 0.9 < table.loc["CT", "agreement high"]
    assert table["dsc int8 low"].isna().all()


def test_without_labels_there_is_agreement_alone():
    objects = pd.DataFrame(
        [("CT", "a", 0.9, None, None)], columns=["group", "case", "agreement", "dsc float", "dsc int8"]
    )
    table = by_modality(objects.astype({"dsc float": float, "dsc int8": float}))
    assert table["agreement"].tolist() == [0.9, 0.9] and table["difference"].isna().all()


def test_a_folder_without_sources_is_told_by_its_name(tmp_path):
    (tmp_path / "cases").mkdir()
    assert described(str(tmp_path / "cases")) == {"name": "cases", "cases": 0, "open": 0, "sources": []}


@pytest.mark.shipped
def test_the_model_in_the_repository_is_small_and_its_card_is_its_own():
    path = IN_REPOSITORY
    facts, text = describe_model(path), path.with_name("README.md").read_text()
    assert path.stat().st_size <= 12e6 and facts["packed"] == 1
    assert (facts["model"], facts["image_size"], facts["parts"]) == (
        "litemedsam",
        256,
        ["decoder", "encoder"],
    )
    assert weights.sha256(path) in text
    model = load_model(path)
    with torch.no_grad():
        masks = model(torch.rand(1, 3, 256, 256), torch.tensor([[20.0, 30, 200, 180]]))[0]
    assert masks.shape == (1, 1, 256, 256) and masks.isfinite().all()
