"""Shared set-up: no display, the same Hypothesis examples at every run, small throw-away projects."""

import os
import shutil
import tempfile

os.environ.setdefault("MPLBACKEND", "Agg")
# Tests leave the user's own cache alone, and only those of the choice measure what is quickest.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="qmsam-tests-")
os.environ["QMSAM_PRECISION"] = "f32"
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    # One processor for each worker. If the threads of engines and PyTorch compete, the tests are far slower.
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[int(worker.removeprefix("gw")) % len(processors)]})

from collections.abc import Callable, Sequence
from pathlib import Path

import narrow  # noqa: F401  the import registers the narrow networks
import nbformat
import pytest
from hypothesis import settings

from qmsam_core.provenance.weights import CheckpointError, public_checkpoint, shipped_checkpoint
from qmsam_core.study.parameters_cell import parameters_source

settings.register_profile("study", deadline=None, derandomize=True, database=None, max_examples=30)
settings.load_profile("study")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `weights` or `shipped` if the public weights or the int8 model are missing."""
    for marker, find in (("weights", public_checkpoint), ("shipped", shipped_checkpoint)):
        try:
            find()
        except CheckpointError as error:
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=str(error)))


def pytest_unconfigure() -> None:
    """Remove this process's cache."""
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty project folder. It is also the current folder."""
    root = tmp_path / "project"
    (root / "notebooks").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def write_notebook(project) -> Callable[..., Path]:
    """A function that adds a notebook to the project: `write_notebook("00_make", cells, inputs, outputs)`."""

    def write(
        name: str, cells: Sequence[str], inputs: Sequence[str] = (), outputs: Sequence[str] = ()
    ) -> Path:
        begin = (
            f'from qmsam_core.study.record import NotebookRun\nrun = NotebookRun.begin("{name}", globals())'
        )
        parameters = nbformat.v4.new_code_cell(parameters_source(), metadata={"tags": ["parameters"]})
        code = [nbformat.v4.new_code_cell(source) for source in (begin, *cells, "run.finish()")]
        book = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_markdown_cell(f"# Title of {name}"), parameters, *code]
        )
        book.metadata.update(kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"})
        book.metadata.update(qmsam={"inputs": list(inputs), "outputs": list(outputs)})
        path = project / "notebooks" / f"{name}.ipynb"
        nbformat.write(book, path)
        return path

    return write
