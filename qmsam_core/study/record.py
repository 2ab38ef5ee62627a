"""Where a result comes from: one `run.json` beside each notebook's tables and figures.

It holds the commit, package versions, the CPU and its int8 and bf16 instructions, the resolved parameters,
seeds, and the SHA-256 of everything read and written.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qmsam_core.params import Params
from qmsam_core.provenance.environment import ProvenanceError, environment, project_root
from qmsam_core.provenance.files import sha256, write_atomic, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class MissingInputError(FileNotFoundError):
    """A file an earlier notebook should have left is not there; the message says which notebook makes it."""


def set_seeds(seed: int) -> dict[str, int]:
    """Seed python, numpy and torch; return what was set, for the record."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return {"python": seed, "numpy": seed, "torch": seed}


class NotebookRun:
    """One notebook at work: its parameters, its folder, what it read and wrote.

    Attributes: `params`; `dir`, the folder `<outputs_root>/<label>/<name>` relative to the project's root.
    """

    def __init__(self, name: str, params: Params) -> None:
        self.name = name
        self.params = params
        self.dir = params.run_dir / name
        self.dir.mkdir(parents=True, exist_ok=True)
        self._started = time.time()
        self._seeds: dict[str, int] = {}
        self._inputs: dict[str, str] = {}
        self._outputs: list[str] = []
        self._weights: dict[str, Any] = {}
        self._comparisons: list[dict[str, str]] = []
        self._figures: list[dict[str, Any]] = []

    @classmethod
    def begin(cls, name: str, namespace: Mapping[str, Any]) -> NotebookRun:
        """Validate the notebook's parameters, go to the project's root, set seeds and threads, make the folder.

        `namespace` is the notebook's `globals()`. Works whether the kernel started in the project's root (papermill)
        or in `notebooks/` (JupyterLab). Raises `ParamsError`, `ProvenanceError`.
        """
        import pandas as pd
        import torch

        pd.set_option("display.max_colwidth", None)  # texts in a table wrap; none is cut short
        params = Params.from_namespace(namespace, source=name)
        os.chdir(project_root())
        run = cls(name, params)
        torch.set_num_threads(params.threads)
        run._seeds = set_seeds(params.seed)
        return run

    def input(self, notebook: str, name: str) -> Path:
        """The path of what an earlier notebook left (a file or a folder), recorded with its SHA-256.

        Raises `MissingInputError`, naming the notebook to run first.
        """
        path = self.params.run_dir / notebook / name
        if not path.exists():
            raise MissingInputError(
                f"{path}: not found; run notebook {notebook} first (profile {self.params.label})"
            )
        self._inputs[f"{notebook}/{name}"] = sha256(path)
        return path

    def external(self, path: str | Path) -> Path:
        """A file from outside the run, such as a downloaded checkpoint, recorded with its SHA-256.

        Raises `MissingInputError`.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingInputError(
                f"{path}: not found; put the file there or correct the parameter that names it"
            )
        self._inputs[str(path)] = sha256(path)
        return path

    def weights(self, origin: Mapping[str, Any]) -> None:
        """Record where the float model's weights come from."""
        self._weights = dict(origin)

    def output(self, name: str) -> Path:
        """The path of a file or folder this notebook is about to write; `finish` records its SHA-256."""
        if name not in self._outputs:
            self._outputs.append(name)
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def table(self, name: str, frame: DataFrame) -> DataFrame:
        """Write `<name>.csv` and return the frame for display. A plain 0, 1, 2 ... index is left out."""
        plain = frame.index.name is None and frame.index.equals(type(frame)(index=range(len(frame))).index)
        write_atomic(self.output(f"{name}.csv"), lambda partial: frame.to_csv(partial, index=not plain))
        return frame

    def comparison(self, name: str, frame: DataFrame, caption: str) -> DataFrame:
        """Like `table`, and shown with `caption` on the study's index page as one of "paper vs this run"."""
        self._comparisons = [c for c in self._comparisons if c["file"] != f"{name}.csv"]
        self._comparisons.append({"file": f"{name}.csv", "caption": caption})
        return self.table(name, frame)

    def figure(
        self, name: str, figure: Figure, caption: str = "", shows: Iterable[str | Path] | None = None
    ) -> Figure:
        """Write `<name>.png`, list it on the study's index page, and return the figure for display.

        `shows` names the cases (paths of their files) whose images it shows: only then can `publish` tell whether others may see them. It is
        recorded as names below the data folder (see `_below_data` for others); as none for a figure without images; as unknown (null) for images that are not accounted for.
        Raises `ProvenanceError` for a case from elsewhere.
        """
        from matplotlib import pyplot

        names = None if shows is None else [self._below_data(path) for path in shows]
        if names is None and not any(axes.images for axes in figure.axes):
            names = []

        write_atomic(self.output(f"{name}.png"), lambda partial: figure.savefig(partial, bbox_inches="tight"))
        pyplot.close(figure)  # else the notebook shows it twice: as the cell's value and as an open figure
        self._figures = [f for f in self._figures if f["file"] != f"{name}.png"]
        self._figures.append({"file": f"{name}.png", "caption": caption, "shows": names})
        return figure

    def _below_data(self, path: str | Path) -> str:
        """A case's name below the data folder or the phantoms notebook 00 drew; below another folder of the run's, with that parameter's name before it."""
        roots = {"data_root": self.params.run_dir / "00_prepare" / "phantoms", **self.params.data_roots}
        for parameter, root in roots.items():
            name = os.path.relpath(path, root)
            if not name.startswith(os.pardir):
                return (
                    Path(name).as_posix()
                    if parameter == "data_root"
                    else f"{parameter}:{Path(name).as_posix()}"
                )
        raise ProvenanceError(
            f"{path}: a figure shows this case, which is not in the run's data folder {', '.join(os.path.abspath(root) for root in roots.values())}"
        )

    def finish(self) -> None:
        """Write `run.json`. Raises `ProvenanceError` for an output that was announced and never written."""
        missing = [name for name in self._outputs if not (self.dir / name).exists()]
        if missing:
            raise ProvenanceError(
                f"{self.dir}: announced by run.output() and never written: {', '.join(missing)}"
            )
        ended = time.time()
        record = {
            "notebook": self.name,
            "label": self.params.label,
            "data": self.params.data_label,
            "started": _utc(self._started),
            "ended": _utc(ended),
            "seconds": round(ended - self._started, 3),
            "parameters": self.params.model_dump(mode="json"),
            "seeds": self._seeds,
            "environment": environment(self.params.threads),
            **({"weights": self._weights} if self._weights else {}),
            "inputs": self._inputs,
            "outputs": {name: sha256(self.dir / name) for name in self._outputs},
            "comparisons": self._comparisons,
            "figures": self._figures,
        }
        write_json(self.dir / "run.json", record)
        counts = f"{len(self._inputs)} inputs, {len(self._outputs)} outputs"
        print(f"{self.dir / 'run.json'}: {counts}, {record['seconds']:.1f} s")


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
