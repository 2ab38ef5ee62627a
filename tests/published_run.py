"""Make a finished run of two notebooks in milliseconds, for tests of reports and of publishing.

The run has a table of claims, two comparison tables, a table of paired differences, a plot, a picture of a
case and executed notebooks. On demand it also has tables as wide as the study's widest.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from matplotlib import pyplot

from qmsam_core.evaluate import PAPER, beside, caption, styled
from qmsam_core.evaluate.tables import across
from qmsam_core.params import Params
from qmsam_core.quant import RECIPES
from qmsam_core.study.parameters_cell import parameters_source
from qmsam_core.study.record import NotebookRun
from qmsam_core.timing.pipelines import PIPELINES

SOURCES = """# Sources

## CT: 2 cases

| files | original data set | licence as stated |
|---|---|---|
| `A/3DBox_CT_A_*` | Set A & friends | CC BY 3.0 (README) |
| `B/3DBox_CT_B_*` | Set B | CC BY-NC 4.0 |
"""

CLAIMS = pd.DataFrame(
    [
        ("int8 is faster than float", "Table 5", "0.98x", "1.42x", "no", "yes"),
        ("fine-tuning end to end pays", "Table 7", "-0.39 points", "-0.96 points", "no", "no"),
        ("little is lost", "Table 7", "+0.19 points", "-0.10 points", "yes", "yes"),
        (
            "whole cases are faster than the baseline's pipeline, median",
            "Table 8",
            "4.16x",
            "0.90x",
            "yes",
            "no",
        ),
        ("few samples are enough", "Table 9", "+0.04 points", "-0.80 points", "yes", "cannot be told"),
        ("the image is used", "not shown", "not shown", "+4.00 points", "not shown", "yes"),
    ],
    columns=["claim", "where", "paper", "here", "holds in the paper", "holds here"],
)
WIDE = pd.DataFrame(
    {
        "modality": ["CT", "Average"],
        **{f"{arm} dsc {s}": [0.9, 0.8] for arm in ("Stage 3", "Stage 2") for s in ("paper", "here")},
        **{f"Baseline dsc {s}": [0.9, 0.8] for s in ("paper", "here")},
        **{f"Arm {k} dsc here": [0.123456, 0.5] for k in range(8)},
    }
)
ARMS = ["Stage 3", "Stage 2", "Stage 1", "Baseline", "Baseline, own order", "Calibrated", "NNCF", "Ellipse"]
INTERVAL = {"difference": [0.01], "difference_low": [-0.002], "difference_high": [0.022]}
PAIRED = pd.DataFrame({"modality": ["Average"], **INTERVAL})


def wide_tables() -> dict[str, pd.DataFrame]:
    """Return the study's widest tables: Table 7 with two columns for each of 8 arms, Table 3, Table 8."""
    paper = pd.concat([PAPER["table7"].query("arm == 'Stage 1'").assign(arm=arm) for arm in ARMS])
    stages = PAPER["table3"].set_index("stage").T
    table3 = pd.concat([stages, stages.replace("LiteMedSAM", "litemedsam (public)")], axis=1)
    table3.columns = [f"stage {stage} {source}" for source in ("paper", "here") for stage in (1, 2, 3)]
    table3.loc["teacher"] = ["MedSAM ViT-B", "-", "-", "the float parent", "-", "-"]
    pipelines = tuple(PIPELINES)
    times = [f"{name} {pipeline} here" for name in ("seconds", "peak MB") for pipeline in pipelines]
    table8 = PAPER["table8"].rename(columns=lambda name: f"{name} paper" if "seconds" in name else name)
    return {
        "table7": across(beside(paper, paper, on=["modality", "arm"]), "dsc", ARMS),
        "table3": table3.rename_axis("setting").reset_index(),
        "table8": table8.assign(**dict.fromkeys(times, 1234.56), **{"speed-up over baseline here": 16.53}),
    }


def shown_tables() -> list[str]:
    """Return HTML as notebooks show it, styled and plain: the wide tables and a recipe with long texts."""
    tables, recipe = wide_tables(), pd.Series(vars(RECIPES["deploy"]), name="deploy").to_frame()
    with pd.option_context("display.max_colwidth", None):
        plain = [frame._repr_html_() for frame in (tables["table3"], recipe, recipe.loc[:"in_float"].T)]
    return [styled(frame, caption(Params(), name)).to_html() for name, frame in tables.items()] + plain


def make_run(
    project: Path,
    data: Path | None = None,
    shows: tuple[str, ...] | None = ("CT/A/3DBox_CT_A_1.npz",),
    leak: str = "",
    validation: Path | None = None,
    wide: bool = False,
) -> Path:
    """Write a finished run below `project` and return its folder.

    Args:
        project: the project, which must be the current folder.
        data: folder of the run's cases. None stands for phantoms.
        shows: cases in the run's picture, as paths below `validation` if given, else below the run's data.
            None states no cases.
        leak: text that is printed in a report.
        validation: folder of validation cases.
        wide: whether the index page and a report show the tables of `wide_tables`.
    """
    folders = {"data_root": data, "validation_root": validation}
    parameters = {name: None if folder is None else str(folder) for name, folder in folders.items()}
    for name in ("07_validation", "10_beyond"):
        (project / "notebooks" / f"{name}.ipynb").write_text(nbformat.writes(_book(name, [])))
    run = NotebookRun.begin("07_validation", parameters)
    run.comparison("table7_dsc", WIDE, "Table 7 <wide>")
    run.comparison(
        "table7_nsd", WIDE.rename(columns=lambda name: name.replace("dsc", "nsd")), "Table 7 <wide>"
    )
    for file, frame in wide_tables().items() if wide else ():
        run.comparison(file, frame, file)
    run.table("paired_stage3", PAIRED)
    run.reads("table7_dsc", [f"Read from {run.dir.resolve()}: stage 3 and float differ by 3 points."])
    run.output("weights.safetensors").write_bytes(b"large")
    picture, axes = pyplot.subplots()
    axes.imshow(np.arange(256).reshape(16, 16))
    root = validation or data or run.params.run_dir / "00_prepare" / "phantoms"
    paths = None if shows is None else [root / name for name in shows]
    run.figure("fig2", picture, "Figure 2: a case", paths)
    plot, axes = pyplot.subplots()
    axes.plot([1, 2])
    run.figure("scatter", plot, "a plot")
    run.finish()
    pictures = [("run.figure(\n    'fig2', x)", run.dir / "fig2.png")]
    pictures += [('run.figure("scatter", y)', run.dir / "scatter.png")]
    _execute(run, pictures, f"{run.dir.resolve()}/table7.csv {leak}", shown_tables() if wide else [])
    last = NotebookRun.begin("10_beyond", parameters)
    last.input("07_validation", "table7_dsc.csv")
    last.comparison("claims", CLAIMS, "Claims")
    last.finish()
    _execute(last, [], "x" * 300)
    return run.params.run_dir


def _book(name: str, cells: list) -> nbformat.NotebookNode:
    parameters = nbformat.v4.new_code_cell(parameters_source(), metadata={"tags": ["parameters"]})
    title = nbformat.v4.new_markdown_cell(f"# {name} & more\n\nProse.")
    return nbformat.v4.new_notebook(cells=[title, parameters, *cells])


def _execute(
    run: NotebookRun, pictures: list[tuple[str, Path]], printed: str, tables: Sequence[str] = ()
) -> None:
    code, output = nbformat.v4.new_code_cell, nbformat.v4.new_output
    injected = f"# Parameters\ndata_root = {run.params.data_root!r}"
    cells = [code(injected, metadata={"tags": ["injected-parameters"]})]
    for source, path in pictures:
        data = {"image/png": base64.b64encode(path.read_bytes()).decode(), "text/plain": "<Figure>"}
        cells.append(code(source, outputs=[output("execute_result", data=data)]))
    for html in tables:
        data = {"text/html": html, "text/plain": "t"}
        cells.append(code("table", outputs=[output("execute_result", data=data)]))
    cells.append(code("print(x)", outputs=[output("stream", text=printed)]))
    (run.dir / "executed.ipynb").write_text(nbformat.writes(_book(run.name, cells)))
