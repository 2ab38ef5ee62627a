"""The parameters cell: papermill can inspect it, every notebook has it, and slips in it are refused."""

from pathlib import Path

import nbformat
import papermill.inspection
import papermill.translators
import pytest

from qmsam_core.params import Params, ParamsError
from qmsam_core.study.parameters_cell import parameters_source, params_of

ROOT = Path(__file__).resolve().parents[1]


def test_namespace_of_a_script():
    import math

    space = {"seed": 7, "batch_size": [1, 1, 1], "math": math, "_hidden": 3, "__name__": "x"}
    assert params_of(space).seed == 7
    with pytest.raises(ParamsError, match="did you mean seed"):
        params_of({**space, "sed": 1})


@pytest.mark.parametrize("cell", ["# Parameters\nsed = 1\n", "seed = 7\nsed = 1"])
def test_namespace_of_a_notebook_sees_what_papermill_injected(cell):
    space = {"_ih": ["", "seed = 7", cell], "In": [], "Out": {}, "seed": 7, "sed": 1, "TABLES": {"a": 1}}
    with pytest.raises(ParamsError, match="sed: no such parameter"):
        params_of(space)


def test_namespace_of_a_notebook_leaves_other_variables_alone():
    space = {
        "_ih": ["", "seed = 7", "%matplotlib inline", "count = 3"],
        "In": [],
        "Out": {},
        "seed": 7,
        "count": 3,
    }
    assert params_of(space).seed == 7


def test_parameters_cell_is_short_and_papermill_can_inspect_it():
    source = parameters_source()
    assert len(source.splitlines()) == len(Params.model_fields) <= 35
    assert max(map(len, source.splitlines())) <= 120
    found = papermill.translators.PythonTranslator.inspect({"source": source})
    assert [p.name for p in found] == list(Params.model_fields) and all(p.help for p in found)
    space = {}
    exec(source, space)  # the cell alone must give the smoke profile
    del space["__builtins__"]
    assert params_of(space) == Params()


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_every_notebook_declares_the_same_parameters(path):
    cells = [c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1, f"{path.name}: expected one cell tagged parameters, found {len(cells)}"
    assert cells[0].source.strip() == parameters_source(), (
        f"{path.name}: run `make notebooks-clean` to renew its parameters cell"
    )
