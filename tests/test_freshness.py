"""Whether a notebook's results are up to date: each cause that makes them stale, alone."""

import json
import os

import pytest

from qmsam_core.params import Params
from qmsam_core.study import freshness
from qmsam_core.study.freshness import fingerprint, stale_because, store
from qmsam_core.study.notebooks import Notebook


@pytest.fixture
def done(project, write_notebook, monkeypatch):
    """A project whose notebook 01_read has run: root, notebook, folder of its results."""
    monkeypatch.setattr(freshness, "LIBRARY", project / "library")
    (project / "library").mkdir()
    (project / "library" / "a.py").write_text("1")
    book = Notebook.read(write_notebook("01_read", ["import library.a"], ["00_make/in.csv"], ["out.csv"]))
    folder = project / "outputs" / "smoke" / "01_read"
    for path, text in [
        (folder.parent / "00_make" / "in.csv", "in"),
        (folder / "out.csv", "out"),
        (folder / "executed.ipynb", ""),
    ]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "run.json").write_text(
        json.dumps({"outputs": {"out.csv": freshness.sha256(folder / "out.csv")}})
    )
    store(folder, fingerprint(project, Params(), book))
    return project, book, folder


def test_nothing_changed(done):
    root, book, _ = done
    assert stale_because(root, Params(), book) == ""


def test_parameters(done):
    root, book, _ = done
    assert stale_because(root, Params(seed=1), book) == "parameters changed"


def test_the_shipped_model_concerns_the_notebooks_that_compare_it(done, monkeypatch):
    root, book, folder = done
    monkeypatch.setattr(freshness.weights, "SHIPPED_FILE", root / "shipped.safetensors")
    (root / "shipped.safetensors").write_text("new")
    assert stale_because(root, Params(), book) == ""
    monkeypatch.setattr(freshness, "READS_SHIPPED", "a.py")
    assert stale_because(root, Params(), book) == "checkpoints changed"
    store(folder, fingerprint(root, Params(), book))
    assert stale_because(root, Params(), book) == ""
    (root / "shipped.safetensors").unlink()
    assert stale_because(root, Params(), book) == "checkpoints changed"


def test_notebook_source(done, write_notebook):
    root, _, _ = done
    changed = Notebook.read(
        write_notebook("01_read", ["import library.a", "2"], ["00_make/in.csv"], ["out.csv"])
    )
    assert stale_because(root, Params(), changed) == "notebook changed"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("library/a.py", "library changed"),
        ("library/__init__.py", "library changed"),
        ("library/not_imported.py", ""),
        ("outputs/smoke/00_make/in.csv", "inputs changed"),
        ("outputs/smoke/01_read/out.csv", "out.csv missing or altered"),
    ],
)
def test_files(done, file, reason):
    root, book, _ = done
    (root / file).write_text("other")
    assert stale_because(root, Params(), book) == reason


@pytest.mark.parametrize(
    ("file", "reason"),
    [("out.csv", "out.csv missing or altered"), ("executed.ipynb", "first run"), ("run.json", "first run")],
)
def test_removed_results(done, file, reason):
    root, book, folder = done
    (folder / file).unlink()
    assert stale_because(root, Params(), book) == reason


def test_touching_an_input_without_changing_it_is_no_change(done):
    root, book, folder = done
    os.utime(folder.parent / "00_make" / "in.csv", (1, 1))
    assert stale_because(root, Params(), book) == ""


def test_run_by_plain_papermill_is_not_trusted(done):
    root, book, folder = done
    (folder / "run.json").write_text("{}\n")
    assert stale_because(root, Params(), book) == "first run"
    (folder / "run.json").write_text('{"outputs": {}}')
    assert stale_because(root, Params(), book) == "last run by hand or broken off"


def test_data_folder_and_checkpoint(project, write_notebook):
    book = Notebook.read(write_notebook("00_make", []))
    (project / "pack" / "CT").mkdir(parents=True)
    (project / "w.pth").write_text("1")
    params = Params(data_root="pack", float_checkpoint="w.pth")
    seen = [fingerprint(project, params, book)]
    (project / "pack" / "CT" / "a.npz").write_text("1")
    seen.append(fingerprint(project, params, book))
    (project / "w.pth").write_text("2")
    seen.append(fingerprint(project, params, book))
    changed = [{key for key in a if a[key] != b[key]} for a, b in zip(seen, seen[1:], strict=False)]
    assert changed == [{"data"}, {"checkpoints"}]


def test_folders_of_validation_cases_count_as_data(project, write_notebook):
    book, params = Notebook.read(write_notebook("00_make", [])), Params(validation_root="public")
    before = fingerprint(project, params, book)["data"]
    (project / "public" / "CT").mkdir(parents=True)
    (project / "public" / "CT" / "a.npz").write_text("1")
    assert fingerprint(project, params, book)["data"] not in (before, "phantoms")


def test_the_statement_of_licences_goes_by_content(project, write_notebook):
    book, params = Notebook.read(write_notebook("00_make", [])), Params(data_root="pack")
    sources = project / "pack" / "SOURCES.md"
    sources.parent.mkdir()
    seen = [fingerprint(project, params, book)["data"]]
    for text, seconds in (("CC0", 1), ("MIT", 1), ("MIT", 2)):
        sources.write_text(text)
        os.utime(sources, (seconds, seconds))
        seen.append(fingerprint(project, params, book)["data"])
    assert len(set(seen[:3])) == 3 and seen[3] == seen[2]
