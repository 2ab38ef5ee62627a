"""Put two runs of the study on one page: their answers and pictures side by side, their tables merged.

    python -m qmsam_core.study.compare outputs/laptop outputs/long-cases -o compare.html

A run is a folder that `python -m qmsam_core.study` or `study.publish` wrote. What both runs have is compared,
what one alone has is named. The page links the runs' own files, so it stays where it can reach them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ..provenance.files import write_atomic
from .answer_speed import features_of
from .answers import Answer, answers
from .index_page import report_link, templates
from .readable_tables import table_as_html
from .shown import Shown, other_readings, shown

RUN = "run.json"


class CompareError(ValueError):
    """Two runs cannot be compared. The message says which folder and why."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: holds a folder for each notebook.
        records: content of each notebook's `run.json`, by the notebook's name.
    """

    folder: Path
    records: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read the records of a run. Raises `CompareError` if there are none."""
        paths = sorted(folder.glob(f"[0-9][0-9]_*/{RUN}"))
        if not paths:
            raise CompareError(
                f"{folder}: holds no NN_name/{RUN}; expected the folder of a run, such as outputs/laptop"
            )
        return cls(folder, {path.parent.name: json.loads(path.read_text("utf-8")) for path in paths})

    def listed(self, kind: str) -> dict[str, Shown]:
        """Tables (`comparisons`) or `figures` whose files are there, by path within the folder."""
        items = {item.path: item for item in shown(self.folder, self.records, kind)}
        return {path: item for path, item in items.items() if (self.folder / path).is_file()}

    @property
    def answers(self) -> list[Answer]:
        """What the run says to the study's three questions."""
        return answers(self.folder, self.records)

    def link(self, path: str, page: Path) -> str:
        """Return the link from `page` to where the run shows a table or figure. Empty if it has none."""
        target = report_link(self.folder, path)
        return f"{_link(self.folder, page)}/{target}" if target else ""

    @property
    def facts(self) -> dict[str, str]:
        """Commit, CPU and seconds of the run."""
        last = max(self.records.values(), key=lambda record: record.get("ended", ""))
        around = last.get("environment", {})
        cpu = around.get("cpu", {})
        return {
            "commit": (around.get("commit") or "none")[:12],
            "CPU": f"{cpu.get('model', 'unknown')} ({features_of(cpu)})",
            "ended": str(last.get("ended", "")),
            "seconds in all": f"{sum(r.get('seconds') or 0 for r in self.records.values()):,.0f}",
        }


def merged(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame | None:
    """Merge a table of two runs: rows by their first texts, all other values of both runs side by side.

    A column that is the same in both, such as the paper's, appears once.

    Args:
        first: table of the first run.
        second: the same table of the second run.
        names: names of the runs, put behind the names of columns.

    Returns:
        Rows of both, in the order of the first. None if texts do not tell the rows apart.
    """
    texts = [c for c in first if c in second and not any(map(is_number, (first[c], second[c])))]
    for count in range(1, len(texts) + 1):
        keys = texts[:count]
        if not any(frame.duplicated(keys).any() for frame in (first, second)):
            break
    else:
        return None
    one, other = first.set_index(keys), second.set_index(keys)
    rows = one.index.append(other.index.difference(one.index, sort=False))
    one, other = one.reindex(rows), other.reindex(rows)
    table = pd.DataFrame(index=rows)
    for column in dict.fromkeys([*one, *other]):
        pair = [frame[column] for frame in (one, other) if column in frame]
        if len(pair) == 2 and pair[0].equals(pair[1]):
            table[column] = pair[0]
            continue
        for name, frame in zip(names, (one, other)):
            if column in frame:
                table[f"{column} {name}"] = frame[column]
    return table.reset_index()


def is_number(column: pd.Series) -> bool:
    """Whether a column holds numbers alone."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def tables(runs: tuple[Run, Run], names: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """Yield every table that both runs have: what it is in each, and HTML of both as one."""
    first, second = (run.listed("comparisons") for run in runs)
    for path, item in first.items():
        if path in second:
            frames = [pd.read_csv(run.folder / path) for run in runs]
            table = merged(*frames, names)
            html = [table] if table is not None else frames
            yield {"both": (item, second[path]), "html": "".join(map(table_as_html, html))}


def compare(folders: tuple[Path, Path], page: Path) -> Path:
    """Write the page that compares two runs. Returns its path.

    Raises:
        CompareError: a folder holds no run, or both are one.
    """
    first, second = folders
    if first.resolve() == second.resolve():
        raise CompareError(f"{first}: given twice; expected two runs")
    runs = Run.read(first), Run.read(second)
    names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    text = (
        templates()
        .get_template("compare.html.j2")
        .render(
            names=names,
            facts=[run.facts for run in runs],
            indexes=[_there(run.folder / "index.html", page) for run in runs],
            answers=list(zip(*(run.answers for run in runs))),
            links=[partial(run.link, page=page) for run in runs],
            seconds=[
                (name, *(run.records.get(name, {}).get("seconds") for run in runs))
                for name in dict.fromkeys([*runs[0].records, *runs[1].records])
            ],
            tables=list(tables(runs, names)),
            figures=list(_of_both(*(run.listed("figures") for run in runs))),
            others=list(_told(*(other_readings(run.folder, run.records) for run in runs))),
            file=lambda side, item: _link(runs[side].folder / item.path, page),
            alone=dict(zip(names, (_alone(*runs), _alone(*runs[::-1])))),
        )
    )
    return write_atomic(page, lambda path: path.write_text(text, encoding="utf-8"))


def _of_both(first: Mapping[str, Shown], second: Mapping[str, Shown]) -> Iterator[tuple[Shown, Shown]]:
    yield from ((item, second[path]) for path, item in first.items() if path in second)


def _told(
    first: Iterable[Shown], second: Iterable[Shown]
) -> Iterator[tuple[str, str, tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Yield notebook, name and both runs' sentences of every other result that one of them tells of."""
    told = [{(item.notebook, item.caption): item.sentences for item in items} for items in (first, second)]
    for notebook, name in dict.fromkeys([*told[0], *told[1]]):
        yield notebook, name, tuple(each.get((notebook, name), ()) for each in told)


def _alone(own: Run, other: Run) -> list[str]:
    """List the paths of the tables and figures that one run has and the other does not."""
    kinds = ("comparisons", "figures")
    return sorted(path for kind in kinds for path in set(own.listed(kind)) - set(other.listed(kind)))


def _there(file: Path, page: Path) -> str:
    return _link(file, page) if file.is_file() else ""


def _link(file: Path, page: Path) -> str:
    return Path(os.path.relpath(file.resolve(), page.resolve().parent)).as_posix()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns the exit code, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.study.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("-o", "--output", type=Path, default=Path("compare.html"), help="page, .html")
    options = parser.parse_args(arguments)
    try:
        print(compare(tuple(options.runs), options.output))
    except (ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
