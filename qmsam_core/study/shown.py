"""The tables and figures that a run shows: where they are, what they are called, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Records = Mapping[str, Mapping[str, Any]]
"""Content of each notebook's `run.json`, by the notebook's name, in their order."""


@dataclass(frozen=True)
class Shown:
    """A table or a figure of a run.

    Attributes:
        notebook: name of its notebook, which is also its folder.
        path: its file within the run's folder. It may be withheld and so not be there.
        caption: what it is called.
        sentences: what it says, made by `NotebookRun.reads`.
        withheld: why others may not see it. Empty if they may.
        credits: sources of the cases that it shows.
    """

    notebook: str
    path: str
    caption: str
    sentences: tuple[str, ...] = ()
    withheld: str = ""
    credits: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """File name without the folder. It is also the anchor in the notebook's report."""
        return Path(self.path).name


def shown(folder: Path, records: Records, kind: str) -> list[Shown]:
    """List the `comparisons` (tables beside the paper's) or `figures` of a run that are there or withheld."""
    found = []
    for notebook, record in records.items():
        for item in record.get(kind, ()):
            path, stem = f"{notebook}/{item['file']}", Path(item["file"]).stem
            withheld = item.get("withheld", "")
            if withheld or (folder / path).is_file():
                sentences = tuple(record.get("readings", {}).get(stem, ()))
                credits = tuple(item.get("credits", ()))
                found.append(Shown(notebook, path, item["caption"] or stem, sentences, withheld, credits))
    return found


def other_readings(folder: Path, records: Records) -> list[Shown]:
    """List what a run says about results that are neither comparisons nor figures.

    Their path is that of their table, or empty if they have none.
    """
    found = []
    for notebook, record in records.items():
        listed = {
            Path(item["file"]).stem for kind in ("comparisons", "figures") for item in record.get(kind, ())
        }
        for name, sentences in record.get("readings", {}).items():
            if name not in listed and sentences:
                path = f"{notebook}/{name}.csv"
                path = path if (folder / path).is_file() else ""
                found.append(Shown(notebook, path, name.replace("_", " "), tuple(sentences)))
    return found
