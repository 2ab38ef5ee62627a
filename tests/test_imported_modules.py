"""Which modules of the library a piece of code imports, directly or through other modules."""

from pathlib import Path

import pytest

from qmsam_core.provenance.imported_modules import modules_reached
from qmsam_core.study.freshness import LIBRARY
from qmsam_core.study.notebooks import find_notebooks

FILES = {
    "__init__.py": "",
    "alone.py": "",
    "circle.py": "from . import circle",
    "late.py": "def f():\n    from .part.deep import value",
    "part/__init__.py": "from .inner import thing",
    "part/__main__.py": "from ..alone import x",
    "part/deep.py": "",
    "part/inner.py": "",
}
PART = ["alone.py", "part/__init__.py", "part/__main__.py", "part/inner.py"]


@pytest.fixture
def library(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "library"


@pytest.mark.parametrize(
    "code, expected",
    [
        ("import json", []),
        ("import library", ["__init__.py"]),
        ("from library.alone import x", ["__init__.py", "alone.py"]),
        ("from library import alone", ["__init__.py", "alone.py"]),
        ("import library.alone as a", ["__init__.py", "alone.py"]),
        ("from library.circle import c", ["__init__.py", "circle.py"]),
        ("from library import part", ["__init__.py", *PART]),
        ("from library.late import f", ["__init__.py", *PART, "late.py", "part/deep.py"]),
        ("def g():\n    import library.part.inner", ["__init__.py", *PART]),
        ("no python at all", list(FILES)),
    ],
)
def test_modules_reached(library, code, expected):
    assert [str(p.relative_to(library)) for p in modules_reached(code, library)] == sorted(expected)


def test_training_does_not_rest_on_deployment_and_the_export_does():
    books = {book.name: book for book in find_notebooks(Path(__file__).parents[1] / "notebooks")}

    def folders(name: str) -> set[str]:
        return {str(p.relative_to(LIBRARY)).split("/")[0] for p in modules_reached(books[name].code, LIBRARY)}

    assert "deploy" not in folders("02_stage1_encoder") and {"train", "quant", "models", "data"} <= folders(
        "02_stage1_encoder"
    )
    assert {"deploy", "timing"} <= folders("05_export")
