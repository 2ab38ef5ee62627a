"""The numbered notebooks as source files: what each declares, a fingerprint of its source, and keeping it clean.

A notebook declares in its metadata what it reads and leaves,
`"qmsam": {"inputs": ["00_prepare/float.safetensors"], "outputs": ["table7.csv"]}`:
inputs relative to the run's folder, outputs relative to the notebook's own.
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

from qmsam_core.params import parameters_source


class StudyError(RuntimeError):
    """The study cannot start; the message has one line a problem."""


class NotebookError(ValueError):
    """A notebook cannot take part in the study; the message starts with its file."""


@dataclass(frozen=True)
class Notebook:
    """One numbered notebook: `path`, its declared `inputs` and `outputs`, `source`, a SHA-256 over its cells, and their `code` without magics."""

    path: Path
    title: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: str
    code: str

    @property
    def name(self) -> str:
        """The file name without its ending, e.g. `02_stage1_encoder`."""
        return self.path.stem

    @classmethod
    def read(cls, path: Path) -> Notebook:
        """Read a notebook; raise `NotebookError` if it is none or has not exactly one cell tagged `parameters`."""
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
        """Each declared input, with the name of the notebook that makes it."""
        return {name: name.split("/", 1)[0] for name in self.inputs}


def find_notebooks(folder: Path) -> list[Notebook]:
    """All `NN_name.ipynb` of a folder in order; raise `NotebookError` if there are none or two share a number."""
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise NotebookError(f"{folder}: no notebooks named NN_name.ipynb")
    numbers = [path.name[:2] for path in paths]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise NotebookError(f"{folder}: more than one notebook with the number {', '.join(twice)}")
    return [Notebook.read(path) for path in paths]


def clean(path: Path) -> bool:
    """Drop outputs and counts from a notebook's source, renew its `parameters` cell and what its prose says it reads and leaves; True if it changed."""
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
    """The prose with its lines `**Reads** ...` and `**Leaves** ...`, if it has any, as the notebook's metadata declare it."""
    for word, where, names in (
        ("Reads", "from the run's folder", declared.get("inputs", ())),
        ("Leaves", "in its own folder", [*declared.get("outputs", ()), "run.json"]),
    ):
        listed = ", ".join(f"`{name}`" for name in names) or "nothing"
        prose = re.sub(
            rf"^\*\*{word}\*\* .*?\.( *)$",
            lambda line: f"**{word}** ({where}) {listed}.{line[1]}",
            prose,
            flags=re.M,
        )
    return prose


def title_of(book: nbformat.NotebookNode) -> str:
    """The first heading of the notebook's prose."""
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
