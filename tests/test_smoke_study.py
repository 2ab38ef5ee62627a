"""The whole study: run the smoke profile through the runner and check its outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from qmsam_core.data.phantoms import write_phantoms

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.weights
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def study(*arguments):
    command = [sys.executable, "-m", "qmsam_core.study", "params/smoke.yaml", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"}
    )


def validation_cases(folder):
    """Write one case of each modality that no run on phantoms contains."""
    write_phantoms(folder, 33, seed=1234)
    (folder / "phantoms.json").unlink()
    for modality in folder.iterdir():
        first, *others = sorted(modality.rglob("*.npz"))
        first.rename(first.with_stem(f"{first.stem}99"))  # a name that no phantom has
        for path in others:
            path.unlink()
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One complete run in its own folder; the tests below read its outputs."""
    outputs = tmp_path_factory.mktemp("outputs")
    settings = [
        f"--set={setting}"
        for setting in (
            "threads=1",  # other tests run beside it
            "recipe=deploy",  # of the laptop profile; test_train.py trains the stages with "paper"
            f"validation_root={validation_cases(outputs / 'public')}",
        )
    ]
    options = [f"--set=outputs_root={outputs}", *settings]
    done = study(*options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return outputs / "smoke", options


def test_every_notebook_leaves_what_it_declares(run):
    folder, _ = run
    assert NOTEBOOKS == sorted(path.parent.name for path in folder.glob("*/run.json"))
    for name in NOTEBOOKS:
        declared = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["metadata"]["qmsam"][
            "outputs"
        ]
        assert all((folder / name / output).exists() for output in declared)
        assert (folder / name / "report.html").stat().st_size > 10_000


def test_all_ten_tables_and_three_figures_are_there_with_the_paper_beside(run):
    folder, _ = run
    tables = {
        f"table{n}"
        for path in folder.glob("*/table*.csv")
        for n in [path.stem.split("_")[0].removeprefix("table")]
    }
    assert tables == {f"table{n}" for n in range(1, 11)}
    assert {path.stem for path in folder.glob("*/fig*.png")} == {"fig1", "fig2", "fig3"}
    for path in folder.glob("*/table*.csv"):
        columns = " ".join(pd.read_csv(path).columns)
        assert "paper" in columns and "here" in columns, path


def test_the_ellipse_and_post_training_quantisation_stand_beside_the_stages(run):
    folder, _ = run
    scores = pd.read_csv(folder / "07_validation" / "scores.csv")
    assert set(scores["arm"]) == {
        "Baseline",
        "Baseline, own order",
        "Stage 1",
        "Stage 2",
        "Stage 3",
        "Calibrated",
        "NNCF",
        "Ellipse",
    }
    assert scores["modality"].nunique() == 11
    given = {path.stem for path in (folder.parent / "public").rglob("*.npz")}
    assert set(scores["case"]) == given and not given & set(
        pd.read_csv(folder / "09_testing" / "scores.csv")["case"]
    )
    assert scores[["dsc", "nsd"]].stack().between(0, 1).all()


# in int8, values at the edge of two codes fall to either side with the order of the sums; most at 64 px
@pytest.mark.parametrize("model, least", [("float", 0.9999), ("int8", 0.99)])
def test_engines_agree_with_pytorch(run, model, least):
    folder, _ = run
    parity = pd.read_csv(folder / "05_export" / "parity.csv").set_index(["model", "engine"])["equal pixels"]
    assert (parity[model] >= least).all(), parity


def test_the_index_links_every_report(run):
    folder, _ = run
    page = (folder / "index.html").read_text()
    assert all(f"{name}/report.html" in page for name in NOTEBOOKS)
    assert "http://" not in page and 'src="http' not in page


def test_a_second_run_finds_everything_up_to_date(run):
    folder, options = run
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/run.json")}
    done = study(*options)
    assert done.returncode == 0 and done.stdout.count("up to date") == len(NOTEBOOKS)
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/run.json")}
