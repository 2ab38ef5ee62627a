"""The README's results, written from the tables of the published runs (`outputs/reference/*/`), between two comments."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from qmsam_core.evaluate.tables import DASH, caption
from qmsam_core.freshness import read_record
from qmsam_core.params import Params
from qmsam_core.provenance import write_atomic

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
SETS = {  # set of cases: its tables of DSC and NSD, and of paired differences with the two arms these are of
    "evaluation": ("07_validation/table7", "07_validation/paired_stage3.csv", "Stage 3", "Baseline"),
    "testing": ("09_testing/table10", "09_testing/paired.csv", "Proposed", "Baseline"),
}
GAIN = "06_engine_speed/int8_gain.csv"


class ReadmeError(RuntimeError):
    """The README cannot take the results; the message names the file."""


def update_readme(root: Path) -> bool:
    """Put the results of every published run between the two comments of `README.md`; True if that changed it. Raises `ReadmeError` without the comments."""
    path = root / "README.md"
    before = path.read_text(encoding="utf-8")
    if before.count(BEGIN) != 1 or before.count(END) != 1 or before.index(BEGIN) > before.index(END):
        raise ReadmeError(f"{path}: expected one line {BEGIN} and below it one line {END}; put them where the results belong")
    head, rest = before.split(BEGIN)
    after = f"{head}{BEGIN}\n{results(root)}{END}{rest.split(END)[1]}"
    if after != before:
        write_atomic(path, lambda partial: partial.write_text(after, encoding="utf-8"))
    return after != before


def results(root: Path) -> str:
    """Markdown: for each published run its caption, a table of scores by arm and one of differences and gains, each line with a link to its CSV."""
    blocks = []
    for index in sorted((root / "outputs" / "reference").glob("*/index.html")):
        run = index.parent
        record = read_record(min(run.glob("*/run.json")).parent)
        what = caption(Params.check(record["parameters"], str(run)))
        page = os.path.relpath(index, root)
        scores = [line for name in SETS for line in _scores(root, run, name)]
        others = [line for name in SETS for line in _paired(root, run, name)] + list(_gains(root, run))
        lines = [f"**{what}**; [the whole run on one page]({page}) (download, open in a browser).", ""]
        lines += _table(("cases", "arm", "DSC", "DSC paper", "NSD", "NSD paper", "from"), scores)
        lines += _table(("what", "here", "paper", "from"), others)
        blocks.append("\n".join(lines))
    return "\n".join(["", *blocks]) if blocks else "\nNo run is published yet.\n\n"


def _scores(root: Path, run: Path, name: str) -> Iterator[tuple[str, ...]]:
    """The average of every arm that the set's tables hold, in their order."""
    stem = SETS[name][0]
    averages = {metric: _average(run / f"{stem}_{metric}.csv") for metric in ("dsc", "nsd") if (run / f"{stem}_{metric}.csv").is_file()}
    suffix = " dsc here"
    for arm in (column.removesuffix(suffix) for column in averages.get("dsc", pd.Series(dtype=float)).index if column.endswith(suffix)):
        cells = [_share(averages[metric].get(f"{arm} {metric} {source}")) if metric in averages else DASH for metric in ("dsc", "nsd") for source in ("here", "paper")]
        yield name, arm, *cells, ", ".join(_link(root, run / f"{stem}_{metric}.csv") for metric in averages)


def _paired(root: Path, run: Path, name: str) -> Iterator[tuple[str, ...]]:
    """Int8 minus float, case by case, with the interval; the paper gives the difference of means alone."""
    stem, paired, first, second = SETS[name]
    if not (run / paired).is_file():
        return
    row, means = _average(run / paired), _average(run / f"{stem}_dsc.csv")
    paper = means.get(f"{first} dsc paper", float("nan")) - means.get(f"{second} dsc paper", float("nan"))
    here = f"{_points(row['difference'])} ({_points(row['difference_low'])} to {_points(row['difference_high'])})"
    yield f"DSC, {first.lower()} minus {second.lower()}, {name} cases, points (95 % interval)", here, _points(paper), _link(root, run / paired)


def _gains(root: Path, run: Path) -> Iterator[tuple[str, ...]]:
    """How many times as fast as float int8 is on each engine."""
    for row in pd.read_csv(run / GAIN).itertuples() if (run / GAIN).is_file() else ():
        yield f"float time over int8 time, {row.engine} ({row.table})", _times(row.here), _times(row.paper), _link(root, run / GAIN)


def _average(path: Path) -> pd.Series:
    return pd.read_csv(path).set_index("modality").loc["Average"]


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *rows)] + [""] if rows else []


def _link(root: Path, path: Path) -> str:
    return f"[`{path.name}`]({path.relative_to(root).as_posix()})"


def _share(value: float | None) -> str:
    return DASH if value is None or pd.isna(value) else f"{100 * value:.2f} %"


def _points(value: float) -> str:
    return DASH if pd.isna(value) else f"{100 * value:+.2f}"


def _times(value: float) -> str:
    return DASH if pd.isna(value) else f"{value:.2f}×"
