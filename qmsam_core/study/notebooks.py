"""The numbered notebooks as source files: read what each declares, hash its source, and clean it.

A notebook declares in its metadata what it reads and writes:
`"qmsam": {"inputs": ["00_prepare/float/model.safetensors"], "outputs": ["table7.csv"]}`.
Inputs are relative to the run's folder, outputs to the notebook's own folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from qmsam_core.study.parameters_cell import parameters_source


class StudyError(RuntimeError):
    """The study cannot start. The message has one line per problem."""


class NotebookError(ValueError):
    """A notebook cannot take part in the study. The message starts with its file."""


@dataclass(frozen=True)
class Notebook:
    """One numbered notebook.

    Attributes:
        path: its file.
        title: its first heading, or the file name without its ending.
        inputs: declared inputs, relative to the run's folder.
        outputs: declared outputs, relative to the notebook's own folder.
        source: SHA-256 over its cells and its declarations.
        code: all code cells, without magics and shell lines.
    """

    path: Path
    title: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: str
    code: str

    @property
    def name(self) -> str:
        """File name without its ending, e.g. `02_stage1_encoder`."""
        return self.path.stem

    @classmethod
    def read(cls, path: Path) -> Notebook:
        """Read a notebook. Raises `NotebookError` if invalid or without exactly one `parameters` cell."""
        try:
            book = nbformat.read(path, as_version=4)
        except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
            raise NotebookError(f"{path}: no valid notebook: {str(error).splitlines()[0]}") from None
        tagged = sum("parameters" in cell.metadata.get("tags", []) for cell in book.cells)
        if tagged != 1:
            raise NotebookError(f"{path}: expected one cell tagged parameters, found {tagged}")
        declared = book.metadata.get("qmsam", {})
        cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in book.cells]
        source = hashlib.sha256(json.dumps([cells, declared]).encode()).hexdigest()
        lines = (line for kind, text, _ in cells if kind == "code" for line in text.splitlines())
        return cls(
            path,
            title_of(book) or path.stem,
            tuple(declared.get("inputs", ())),
            tuple(declared.get("outputs", ())),
            source,
            "\n".join(line for line in lines if not line.startswith(("%", "!"))),
        )

    def makers(self) -> dict[str, str]:
        """Return for each declared input the name of the notebook that makes it."""
        return {name: name.split("/", 1)[0] for name in self.inputs}


def find_notebooks(folder: Path) -> list[Notebook]:
    """Read all `NN_name.ipynb` of a folder, in order.

    Raises `NotebookError` if there are none, two share a number, or one is invalid.
    """
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise NotebookError(f"{folder}: no notebooks named NN_name.ipynb")
    numbers = [path.name[:2] for path in paths]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise NotebookError(f"{folder}: more than one notebook with the number {', '.join(twice)}")
    return [Notebook.read(path) for path in paths]


def clean(path: Path) -> bool:
    """Clean a notebook's source file in place, and return whether it changed.

    This drops outputs and execution counts. It rewrites the `parameters` cell, and the lines in the prose
    that list inputs and outputs.
    """
    before = path.read_text(encoding="utf-8")
    book = nbformat.reads(before, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = parameters_source()
        if cell.cell_type == "markdown":
            cell.source = _declare(cell.source, book.metadata.get("qmsam", {}))
    book.metadata = nbformat.from_dict({k: v for k, v in book.metadata.items() if k in ("qmsam", "title")})
    book.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.metadata.language_info = {"name": "python"}
    after = nbformat.writes(book) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def _declare(prose: str, declared: Mapping[str, Sequence[str]]) -> str:
    """Rewrite the lines `**Reads** ...` and `**Leaves** ...` of the prose from the notebook's metadata."""
    for word, where, names in (
        ("Reads", "from the run's folder", declared.get("inputs", ())),
        ("Leaves", "in its own folder", [*declared.get("outputs", ()), "run.json"]),
    ):
        listed = ", ".join(f"`{name}`" for name in names) or "nothing"
        prose = re.sub(
            rf"^\*\*{word}\*\* .*?\.( *)$",
            lambda line, text=f"**{word}** ({where}) {listed}": f"{text}.{line[1]}",
            prose,
            flags=re.M,
        )
    return prose


def title_of(book: nbformat.NotebookNode) -> str:
    """Return the first heading of the notebook's prose. Empty if it has none."""
    prose = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(.+)$", prose, re.M)
    return heading[1].strip() if heading else ""


def main(arguments: Sequence[str]) -> None:
    """Clean the notebooks named on the command line."""
    for name in arguments:
        if clean(Path(name)):
            print(f"{name}: cleaned")


if __name__ == "__main__":
    main(sys.argv[1:])
