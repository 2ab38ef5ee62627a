"""A finished run of two notebooks, made in milliseconds: a table of claims, two tables the README reads, a plot, a picture of a case, executed notebooks."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from matplotlib import pyplot

from qmsam_core.params import parameters_source
from qmsam_core.provenance import NotebookRun

SOURCES = """# Sources

## CT: 2 cases

| files | original data set | licence as stated |
|---|---|---|
| `A/3DBox_CT_A_*` | Set A & friends | CC BY 3.0 (README) |
| `B/3DBox_CT_B_*` | Set B | CC BY-NC 4.0 |
"""

CLAIMS = pd.DataFrame(
    {
        "claim": ["int8 is faster than float", "little is lost", "the image is used"],
        "where": ["Table 5", "Table 7", "not shown"],
        "paper": ["0.98x", "+0.19 points", "not shown"],
        "here": ["1.42x", "-0.10 points", "+4.00 points"],
        "holds in the paper": ["no", "yes", "not shown"],
        "holds here": ["yes", "yes", "yes"],
    }
)
WIDE = pd.DataFrame(
    {
        "modality": ["CT", "Average"],
        **{f"{arm} dsc {source}": [0.9, 0.8] for arm in ("Stage 3", "Stage 2", "Baseline") for source in ("paper", "here")},
        **{f"Arm {k} dsc here": [0.123456, 0.5] for k in range(8)},
    }
)
PAIRED = pd.DataFrame({"modality": ["Average"], "difference": [0.01], "difference_low": [-0.002], "difference_high": [0.022]})


def make_run(project: Path, data: Path | None = None, shows: tuple[str, ...] | None = ("CT/A/3DBox_CT_A_1.npz",), leak: str = "", validation: Path | None = None) -> Path:
    """A finished run below `project` (the current folder) on phantoms or the folder `data`; `shows` are the cases of its picture, of the folder `validation` if
    given, `leak` is printed in a report."""
    parameters = {name: None if folder is None else str(folder) for name, folder in (("data_root", data), ("validation_root", validation))}
    for name in ("07_validation", "10_beyond"):
        (project / "notebooks" / f"{name}.ipynb").write_text(nbformat.writes(_book(name, [])))
    run = NotebookRun.begin("07_validation", parameters)
    for file, frame in (("table7_dsc", WIDE), ("table7_nsd", WIDE.rename(columns=lambda c: c.replace("dsc", "nsd")))):
        run.comparison(file, frame, "Table 7 <wide>")
    run.table("paired_stage3", PAIRED)
    run.output("weights.safetensors").write_bytes(b"large")
    picture, axes = pyplot.subplots()
    axes.imshow(np.arange(256).reshape(16, 16))
    root = validation or data or run.params.run_dir / "00_prepare" / "phantoms"
    run.figure("fig2", picture, "Figure 2: a case", None if shows is None else [root / name for name in shows])
    plot, axes = pyplot.subplots()
    axes.plot([1, 2])
    run.figure("scatter", plot, "a plot")
    run.finish()
    _execute(run, [("run.figure(\n    'fig2', x)", run.dir / "fig2.png"), ('run.figure("scatter", y)', run.dir / "scatter.png")], f"{run.dir.resolve()}/table7.csv {leak}")
    last = NotebookRun.begin("10_beyond", parameters)
    last.input("07_validation", "table7_dsc.csv")
    last.comparison("claims", CLAIMS, "Claims")
    last.finish()
    _execute(last, [], "x" * 300)
    return run.params.run_dir


def _book(name: str, cells: list) -> nbformat.NotebookNode:
    parameters = nbformat.v4.new_code_cell(parameters_source(), metadata={"tags": ["parameters"]})
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {name} & more\n\nProse."), parameters, *cells])


def _execute(run: NotebookRun, pictures: list[tuple[str, Path]], printed: str) -> None:
    code, output = nbformat.v4.new_code_cell, nbformat.v4.new_output
    cells = [code(f"# Parameters\ndata_root = {run.params.data_root!r}", metadata={"tags": ["injected-parameters"]})]
    for source, path in pictures:
        data = {"image/png": base64.b64encode(path.read_bytes()).decode(), "text/plain": "<Figure>"}
        cells.append(code(source, outputs=[output("execute_result", data=data)]))
    cells.append(code("print(x)", outputs=[output("stream", text=printed)]))
    (run.dir / "executed.ipynb").write_text(nbformat.writes(_book(run.name, cells)))
