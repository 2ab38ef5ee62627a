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
PROPOSED = "Stage 3, proposed"  # one model; the paper's Table 7 calls it by its stage, Table 10 proposed


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
    """Markdown: for each published run its caption, a table of scores by arm and one of differences and gains, with links to their CSVs."""
    blocks = []
    for index in sorted((root / "outputs" / "reference").glob("*/index.html")):
        run = index.parent
        record = read_record(min(run.glob("*/run.json")).parent)
        params = Params.check(record["parameters"], str(run))
        what, called = caption(params), {**{name: name for name in SETS}, **({"evaluation": "validation"} if params.validation_root else {})}
        others = [line for name in SETS for line in _paired(root, run, name, called[name])] + list(_gains(root, run))
        lines = [f"**{what}**; [the whole run on one page]({os.path.relpath(index, root)}) (download, open in a browser).", ""]
        lines += [*_scores(root, run, called), *_table(("", "here", "paper"), others)]
        blocks.append("\n".join(lines))
    return "\n".join(["", *blocks]) if blocks else "\nNo run is published yet.\n\n"


def _scores(root: Path, run: Path, called: dict[str, str]) -> list[str]:
    """The average of every arm that the tables of the sets, `called` so, hold, an arm a row, the paper's in brackets; below it where they come from."""
    columns: dict[str, dict[str, str]] = {}
    links = []
    for name, (stem, _, proposed, _) in SETS.items():
        for metric in ("dsc", "nsd"):
            path = run / f"{stem}_{metric}.csv"
            if not path.is_file():
                continue
            table, here = pd.read_csv(path).set_index("modality"), f" {metric} here"
            arms = [column.removesuffix(here) for column in table if column.endswith(here)]
            columns[f"{metric.upper()}, {called[name]}"] = {PROPOSED if arm == proposed else arm: _means(table, arm, metric) for arm in arms}
            links.append(_link(root, path, f"`{path.name}`"))
    if not columns:
        return []
    table = pd.DataFrame(columns).fillna(DASH)
    rows = [(arm, *cells) for arm, cells in zip(table.index, table.to_numpy())]
    brackets = "In brackets the mean over the modalities that the paper has too, here against the paper's, which is of its own cases."
    return [*_table(("mean over modalities, %", *table.columns), rows), f"{brackets} From {', '.join(links)}.", ""]


def _paired(root: Path, run: Path, name: str, called: str) -> Iterator[tuple[str, ...]]:
    """Int8 minus float, case by case, with the interval; the paper gives the difference of means alone."""
    stem, paired, first, second = SETS[name]
    if not (run / paired).is_file():
        return
    row, means = _average(run / paired), _average(run / f"{stem}_dsc.csv")
    paper = means.get(f"{first} dsc paper", float("nan")) - means.get(f"{second} dsc paper", float("nan"))
    here = f"{_points(row['difference'])} ({_points(row['difference_low'])} to {_points(row['difference_high'])})"
    yield _link(root, run / paired, f"DSC, stage 3 minus {second.lower()}, {called} cases, points (95 % interval)"), here, _points(paper)


def _gains(root: Path, run: Path) -> Iterator[tuple[str, ...]]:
    """How many times as fast as float int8 is on each engine, and where it was timed against float in the same rewritten graph."""
    for _, row in pd.read_csv(run / GAIN).iterrows() if (run / GAIN).is_file() else ():
        words = f"{row['engine']} ({row['table']})"
        yield _link(root, run / GAIN, f"speed-up by int8, {words}"), _times(row["speed-up here"]), _times(row["speed-up paper"])
        if pd.notna(row["speed-up same graph"]):
            yield f"the same against float in the rewritten graph, {words}", _times(row["speed-up same graph"]), DASH


def _average(path: Path) -> pd.Series:
    return pd.read_csv(path).set_index("modality").loc["Average"]


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *rows)] + [""] if rows else []


def _link(root: Path, path: Path, text: str) -> str:
    return f"[{text}]({path.relative_to(root).as_posix()})"


def _means(table: pd.DataFrame, arm: str, metric: str) -> str:
    """The mean over all modalities; in brackets that over the paper's, and the paper's own."""
    here, paper = table[f"{arm} {metric} here"], table.get(f"{arm} {metric} paper")
    everything = f"{100 * here['Average']:.1f}"
    if paper is None or pd.isna(paper["Average"]):
        return everything
    shared = here[paper.notna()].drop("Average").mean()
    return f"{everything} ({100 * shared:.1f} against {100 * paper['Average']:.1f})"


def _points(value: float) -> str:
    return DASH if pd.isna(value) else f"{100 * value:+.2f}"


def _times(value: float) -> str:
    return DASH if pd.isna(value) else f"{value:.2f}×"
