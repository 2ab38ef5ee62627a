"""Write the results in the README from the tables of the published runs (`outputs/reference/*/`)."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from qmsam_core.evaluate.tables import DASH, caption, markdown
from qmsam_core.params import Params
from qmsam_core.provenance.files import write_atomic
from qmsam_core.study.answer_speed import features_of
from qmsam_core.study.freshness import read_record

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
SUMMARY, GAIN = "09_testing/summary.csv", "06_engine_speed/int8_gain.csv"
OURS = ("Table 5", "OpenVINO")
"""Row of `int8_gain.csv` that the README quotes: LiteMedSAM's int8 export on the engine it is made for."""


class ReadmeError(RuntimeError):
    """The README has no place for the results. The message names the file."""


def update_readme(root: Path) -> bool:
    """Write the results of all published runs between the comments `BEGIN` and `END` of `README.md`.

    Returns whether the file changed.

    Raises:
        ReadmeError: the file does not have each comment once, in this order.
    """
    path = root / "README.md"
    before = path.read_text(encoding="utf-8")
    if before.count(BEGIN) != 1 or before.count(END) != 1 or before.index(BEGIN) > before.index(END):
        raise ReadmeError(
            f"{path}: expected one line {BEGIN} and below it one line {END}; "
            "put them where the results belong"
        )
    head, rest = before.split(BEGIN)
    after = f"{head}{BEGIN}\n{results(root)}{END}{rest.split(END)[1]}"
    if after != before:
        write_atomic(path, lambda partial: partial.write_text(after, encoding="utf-8"))
    return after != before


def results(root: Path) -> str:
    """Return Markdown with the machine, the results and the speed-up by int8 of each published run."""
    runs = sorted(index.parent for index in (root / "outputs" / "reference").glob("*/index.html"))
    blocks = [_block(root, run) for run in runs if (run / SUMMARY).is_file()]
    return "\n".join(["", *blocks]) if blocks else "\nNo run is published yet.\n\n"


def _block(root: Path, run: Path) -> str:
    record = read_record((run / SUMMARY).parent)
    params, cpu = Params.check(record["parameters"], str(run)), record["environment"]["cpu"]
    where = os.path.relpath(run / "index.html", root)
    lines = [
        f"**{caption(params)}**, on {cpu['model']} ({features_of(cpu)}), {params.threads} threads;",
        f"[the whole run on one page]({where}) (download, open in a browser), "
        f"[the table]({_path(root, run / SUMMARY)}).",
        "",
        *_table(pd.read_csv(run / SUMMARY)),
        "",
        *_gain(root, run),
    ]
    return "\n".join([*lines, ""])


def _table(summary: pd.DataFrame) -> list[str]:
    header = (
        "mean over modalities, testing cases",
        "DSC %",
        "to float, points (95 %)",
        "NSD %",
        "agreement with float %",
        "ms",
    )
    rows = [
        (
            row["model"],
            _percent(row["dsc"]),
            _interval(row),
            _percent(row["nsd"]),
            _percent(row["agreement with float"]),
            DASH if pd.isna(row["ms"]) else f"{row['ms']:.0f}",
        )
        for row in summary.to_dict("records")
    ]
    return markdown(header, rows).splitlines()


def _gain(root: Path, run: Path) -> list[str]:
    """Compare int8's speed with the best float arm, plain float and the paper, in one sentence."""
    if not (run / GAIN).is_file():
        return []
    row = pd.read_csv(run / GAIN).set_index(["table", "engine"]).loc[OURS]
    return [
        f"An image and a box in int8 is {row['speed-up over best float']:.2f} times as fast as "
        f"on the best float arm of this CPU ({row['best float']}) and "
        f"{row['speed-up over plain float']:.2f} times as fast as float exported plainly; in the paper's"
        f" Table 5 it is {row['speed-up paper']:.2f} times ([all arms]({_path(root, run / GAIN)})).",
        "",
    ]


def _path(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _percent(value: float) -> str:
    return DASH if pd.isna(value) else f"{100 * value:.1f}"


def _interval(row: dict) -> str:
    """Format the difference with its interval. An interval without width saw no spread and is left out."""
    values = [row[name] for name in ("difference to float", "difference low", "difference high")]
    if pd.isna(values[0]):
        return DASH
    middle, low, high = (f"{100 * value:+.2f}" for value in values)
    return middle if pd.isna(values[1]) or values[1] == values[2] else f"{middle} ({low} to {high})"
