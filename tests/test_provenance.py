"""Provenance: the contents of run.json. Files are written completely or not at all."""

import hashlib
import json
import random
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot

from qmsam_core.params import Params, ParamsError
from qmsam_core.provenance.environment import CPU_FEATURES, ProvenanceError, environment, project_root
from qmsam_core.provenance.files import sha256, write_atomic
from qmsam_core.study.record import MissingInputError, NotebookRun


def record_of(run):
    return json.loads((run.dir / "run.json").read_text())


def test_sha256_of_a_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256(path) == hashlib.sha256(b"abc").hexdigest()


def test_sha256_of_a_folder_sees_names_and_contents(tmp_path):
    (tmp_path / "sub").mkdir()
    digests = {sha256(tmp_path)}
    for name, text in [("sub/a", "1"), ("sub/a", "2"), ("b", "1")]:
        (tmp_path / name).write_text(text)
        digests.add(sha256(tmp_path))
    assert len(digests) == 4
    (tmp_path / "b").rename(tmp_path / "c")
    assert sha256(tmp_path) not in digests


def test_project_root_from_a_folder_below(project, monkeypatch):
    assert project_root() == project
    monkeypatch.chdir(project / "notebooks")
    assert project_root() == project


def test_no_project_around(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProvenanceError, match="pyproject.toml"):
        project_root()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half(partial):
        partial.write_text("ha")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, half)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_environment_in_a_repository(project):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e@x", *arguments],
            cwd=project,
            check=True,
            capture_output=True,
        )

    (project / "requirements.txt").write_text("# a comment\nnumpy==0\nno-such-package==1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = environment(threads=3)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False and clean["threads"] == 3
    assert (
        clean["versions"]["numpy"] == np.__version__
        and clean["versions"]["no-such-package"] == "not installed"
    )
    assert set(CPU_FEATURES) <= set(clean["cpu"])
    (project / "new").touch()
    assert environment()["dirty"] is True


def test_environment_without_git(project, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None and environment()["dirty"] is None


def test_begin_from_the_notebooks_folder(project, monkeypatch):
    monkeypatch.chdir(project / "notebooks")
    run = NotebookRun.begin("00_make", Params().model_dump())
    assert run.dir.resolve() == project / "outputs" / "smoke" / "00_make" and run.dir.is_dir()
    assert torch.get_num_threads() == Params().threads


def test_begin_refuses_wrong_parameters_before_it_makes_anything(project):
    with pytest.raises(ParamsError, match="00_make: threads"):
        NotebookRun.begin("00_make", {"threads": "2"})
    assert not (project / "outputs").exists()


def test_begin_seeds_everything(project):
    def draws():
        NotebookRun.begin("00_make", {"seed": 5})
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draws() == draws()


def test_record_of_a_run(project):
    first = NotebookRun.begin("00_make", {"seed": 5})
    first.output("sub/weights.bin").write_bytes(b"abc")
    first.finish()
    second = NotebookRun.begin("01_read", {"seed": 5})
    assert second.input("00_make", "sub/weights.bin").read_bytes() == b"abc"
    second.finish()
    record = record_of(second)
    assert record["inputs"] == {"00_make/sub/weights.bin": sha256(first.dir / "sub/weights.bin")}
    assert record["parameters"] == Params(seed=5).model_dump(mode="json")
    assert record["seeds"] == {"python": 5, "numpy": 5, "torch": 5}
    assert record["started"] <= record["ended"] and record["seconds"] >= 0 and record["label"] == "smoke"
    assert record_of(first)["outputs"] == {"sub/weights.bin": hashlib.sha256(b"abc").hexdigest()}


def test_missing_input_names_the_notebook_to_run(project):
    run = NotebookRun.begin("01_read", {})
    with pytest.raises(
        MissingInputError, match="outputs/smoke/00_make/weights.bin: not found; run notebook 00_make first"
    ):
        run.input("00_make", "weights.bin")


def test_announced_and_never_written(project):
    run = NotebookRun.begin("00_make", {})
    run.output("weights.bin")
    with pytest.raises(ProvenanceError, match="never written: weights.bin"):
        run.finish()
    assert not (run.dir / "run.json").exists()


def test_tables_and_comparisons(project):
    run = NotebookRun.begin("00_make", {})
    plain = pd.DataFrame({"modality": ["CT", "MR"], "DSC": [0.9, 0.8]})
    assert run.table("plain", plain) is plain
    run.table("indexed", plain.set_index("modality"))
    run.comparison("table7", plain, "once")
    run.comparison("table7", plain, "twice")
    run.finish()
    assert pd.read_csv(run.dir / "plain.csv").equals(plain) and pd.read_csv(run.dir / "indexed.csv").equals(
        plain
    )
    assert record_of(run)["comparisons"] == [{"file": "table7.csv", "caption": "twice"}]
    assert set(record_of(run)["outputs"]) == {"plain.csv", "indexed.csv", "table7.csv"}


def test_figure_is_written_returned_and_closed(project):
    run = NotebookRun.begin("00_make", {})
    figure, _ = pyplot.subplots()
    assert run.figure("fig1", figure, "Fig. 1") is figure
    run.finish()
    assert (run.dir / "fig1.png").read_bytes().startswith(b"\x89PNG") and not pyplot.fignum_exists(
        figure.number
    )
    assert record_of(run)["figures"] == [{"file": "fig1.png", "caption": "Fig. 1", "shows": []}]


def picture():
    figure, axes = pyplot.subplots()
    axes.imshow(np.zeros((4, 4)))
    return figure


def test_pictures_tell_whose_cases_they_show(project):
    run = NotebookRun.begin("01_read", {"data_root": "pack"})
    run.figure("told", picture(), "", shows=[project / "pack" / "CT" / "A" / "x.npz", "pack/US/y.npz"])
    run.figure("untold", picture())
    run.finish()
    assert [figure["shows"] for figure in record_of(run)["figures"]] == [["CT/A/x.npz", "US/y.npz"], None]
    with pytest.raises(ProvenanceError, match="not in the run's data folder"):
        run.figure("elsewhere", picture(), shows=["other/CT/x.npz"])


def test_cases_of_other_folders_are_told_apart_from_those_of_the_data(project):
    run = NotebookRun.begin("01_read", {"data_root": "pack", "validation_root": "public"})
    run.figure("both", picture(), "", shows=["public/CT/x.npz", "pack/CT/x.npz"])
    run.finish()
    assert record_of(run)["figures"][0]["shows"] == ["validation_root:CT/x.npz", "CT/x.npz"]


def test_phantoms_are_named_below_their_folder(project):
    run = NotebookRun.begin("01_read", {})
    run.figure("phantom", picture(), shows=["outputs/smoke/00_prepare/phantoms/CT/x.npz"])
    run.finish()
    assert record_of(run)["figures"][0]["shows"] == ["CT/x.npz"]


def test_sentences_on_a_table_are_kept_and_shown(project):
    run = NotebookRun.begin("00_make", {})
    shown = run.reads("table7", ["Int8 loses 0.3 points.", "", "CT loses most."])
    assert shown.data == "Int8 loses 0.3 points. CT loses most."
    run.finish()
    assert record_of(run)["readings"] == {"table7": ["Int8 loses 0.3 points.", "CT loses most."]}
