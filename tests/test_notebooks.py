"""Notebook sources: their declarations, when they count as changed, and cleaning, which is idempotent."""

import nbformat
import pytest

from qmsam_core.study.notebooks import Notebook, NotebookError, clean, find_notebooks
from qmsam_core.study.parameters_cell import parameters_source


def test_reads_what_is_declared(write_notebook):
    book = Notebook.read(write_notebook("01_read", ["pass"], ["00_make/a.csv", "00_make/b.csv"], ["c.csv"]))
    assert (book.name, book.title, book.outputs) == ("01_read", "Title of 01_read", ("c.csv",))
    assert book.makers() == {"00_make/a.csv": "00_make", "00_make/b.csv": "00_make"}


def test_source_ignores_outputs_and_sees_code_and_declarations(write_notebook):
    before = Notebook.read(path := write_notebook("00_make", ["1"])).source
    book = nbformat.read(path, 4)
    book.cells[-1].outputs = [nbformat.v4.new_output("stream", text="x")]
    nbformat.write(book, path)
    assert Notebook.read(path).source == before
    assert Notebook.read(write_notebook("00_make", ["2"])).source != before
    assert Notebook.read(write_notebook("00_make", ["1"], [], ["a.csv"])).source != before


@pytest.mark.parametrize("text", ["", "{}", "no json"])
def test_no_notebook(tmp_path, text):
    path = tmp_path / "00_x.ipynb"
    path.write_text(text)
    with pytest.raises(NotebookError) as caught:
        Notebook.read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_one_parameters_cell(tmp_path):
    path = tmp_path / "00_x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(NotebookError, match="one cell tagged parameters, found 0"):
        Notebook.read(path)


def test_order_and_numbers(project, write_notebook):
    for name in ("10_last", "02_b", "00_a"):
        write_notebook(name, [])
    (project / "notebooks" / "scratch.ipynb").touch()
    assert [book.name for book in find_notebooks(project / "notebooks")] == ["00_a", "02_b", "10_last"]
    write_notebook("02_c", [])
    with pytest.raises(NotebookError, match="number 02"):
        find_notebooks(project / "notebooks")


def test_no_notebooks(tmp_path):
    with pytest.raises(NotebookError, match="no notebooks"):
        find_notebooks(tmp_path)


def test_clean_drops_outputs_and_renews_the_parameters_cell(write_notebook):
    path = write_notebook("00_make", ["1"], [], ["a.csv"])
    book = nbformat.read(path, 4)
    book.cells[1].source = "profile = 'old'"
    book.cells[-1].update(execution_count=7, outputs=[nbformat.v4.new_output("stream", text="x")])
    book.cells[-1].metadata["collapsed"] = True
    nbformat.write(book, path)
    assert clean(path) is True and clean(path) is False
    after = nbformat.read(path, 4)
    assert after.cells[1].source == parameters_source() and after.cells[1].metadata["tags"] == ["parameters"]
    assert (
        after.cells[-1].outputs == []
        and after.cells[-1].execution_count is None
        and not after.cells[-1].metadata
    )
    assert after.metadata.qmsam.outputs == ["a.csv"] and after.metadata.kernelspec.name == "python3"


def test_clean_lists_what_the_metadata_declare(write_notebook):
    path = write_notebook("01_read", ["1"], ["00_make/a.csv"], ["b.csv", "c.png"])
    book = nbformat.read(path, 4)
    book.cells[0].source = (
        "# Title\n\n**Reads** (from the run's folder) `00_make/old.csv`.  \n"
        "**Leaves** (in its own folder) nothing."
    )
    nbformat.write(book, path)
    assert clean(path) and not clean(path)
    reads, leaves = nbformat.read(path, 4).cells[0].source.splitlines()[2:]
    assert (
        reads == "**Reads** (from the run's folder) `00_make/a.csv`.  "
        and leaves == "**Leaves** (in its own folder) `b.csv`, `c.png`, `run.json`."
    )
