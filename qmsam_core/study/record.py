"""Record where a result comes from, in one `run.json` beside each notebook's tables and figures.

It holds the commit, the package versions, the CPU with its int8 and bf16 instructions, the resolved
parameters, the seeds, and the SHA-256 of everything read and written.
"""

from __future__ import annotations

import atexit
import gc
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
from qmsam_core.study.parameters_cell import params_of

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.figure import Figure
    from pandas import DataFrame


class MissingInputError(FileNotFoundError):
    """An input file is missing. The message names the notebook that makes it."""


def set_seeds(seed: int) -> dict[str, int]:
    """Seed Python, NumPy and PyTorch. Return the seeds by library, for the record."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return {"python": seed, "numpy": seed, "torch": seed}


class NotebookRun:
    """A running notebook: its parameters, its folder, and the files it read and wrote.

    Attributes:
        params: the notebook's parameters.
        dir: its folder `<outputs_root>/<label>/<name>`, relative to the project's root.
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
        self._readings: dict[str, list[str]] = {}

    @classmethod
    def begin(cls, name: str, namespace: Mapping[str, Any]) -> NotebookRun:
        """Validate the parameters, change to the project's root, set seeds and threads, and make the folder.

        The kernel may have started in the project's root (papermill) or in `notebooks/` (JupyterLab).

        Args:
            name: file name of the notebook without its ending.
            namespace: the notebook's `globals()`.

        Raises:
            ParamsError: a parameter is unknown or wrong.
            ProvenanceError: the project's root was not found.
        """
        import pandas as pd
        import torch

        pd.set_option("display.max_colwidth", None)  # do not cut texts in tables short
        params = params_of(namespace, source=name)
        os.chdir(project_root())
        run = cls(name, params)
        torch.set_num_threads(params.threads)
        run._seeds = set_seeds(params.seed)
        return run

    def input(self, notebook: str, name: str) -> Path:
        """Return the path of an earlier notebook's file or folder, and record its SHA-256.

        Raises `MissingInputError`, which names the notebook to run first.
        """
        path = self.params.run_dir / notebook / name
        if not path.exists():
            raise MissingInputError(
                f"{path}: not found; run notebook {notebook} first (profile {self.params.label})"
            )
        self._inputs[f"{notebook}/{name}"] = sha256(path)
        return path

    def weights(self, origin: Mapping[str, Any]) -> None:
        """Record where the float model's weights come from."""
        self._weights = dict(origin)

    def output(self, name: str) -> Path:
        """Return the path of a file or folder to be written. `finish` records its SHA-256."""
        if name not in self._outputs:
            self._outputs.append(name)
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def table(self, name: str, frame: DataFrame) -> DataFrame:
        """Write `<name>.csv` and return the frame for display. A plain index 0, 1, 2, ... is left out."""
        plain = frame.index.name is None and frame.index.equals(type(frame)(index=range(len(frame))).index)
        write_atomic(self.output(f"{name}.csv"), lambda partial: frame.to_csv(partial, index=not plain))
        return frame

    def comparison(self, name: str, frame: DataFrame, caption: str) -> DataFrame:
        """Do as `table`, and list it with `caption` on the index page as a comparison with the paper."""
        self._comparisons = [c for c in self._comparisons if c["file"] != f"{name}.csv"]
        self._comparisons.append({"file": f"{name}.csv", "caption": caption})
        return self.table(name, frame)

    def figure(
        self, name: str, figure: Figure, caption: str = "", shows: Iterable[str | Path] | None = None
    ) -> Figure:
        """Write `<name>.png`, list it on the study's index page, and return the figure for display.

        The record holds the cases' names, an empty list for a figure without images, or null for images whose
        cases are not given. `publish` needs the names to decide whether others may see the figure.

        Args:
            name: file name without its ending.
            figure: figure to save. It is closed.
            caption: text on the index page.
            shows: paths of the case files whose images the figure shows.

        Raises:
            ProvenanceError: a case is in none of the run's data folders.
        """
        from matplotlib import pyplot

        names = None if shows is None else [self._below_data(path) for path in shows]
        if names is None and not any(axes.images for axes in figure.axes):
            names = []

        write_atomic(self.output(f"{name}.png"), lambda partial: figure.savefig(partial, bbox_inches="tight"))
        pyplot.close(figure)  # else the notebook shows it twice, as the cell's value and as an open figure
        self._figures = [f for f in self._figures if f["file"] != f"{name}.png"]
        self._figures.append({"file": f"{name}.png", "caption": caption, "shows": names})
        return figure

    def reads(self, name: str, sentences: Iterable[str]) -> Markdown:
        """Say in sentences what a table or figure of this run shows. Code makes them from the numbers.

        They are kept in `run.json` under `readings`, and `index.html` shows them beside the table or figure.

        Args:
            name: file name of the table or figure without its ending.
            sentences: one to three sentences in plain text, without Markdown. Empty ones are left out.

        Returns:
            The sentences for display.
        """
        from IPython.display import Markdown

        self._readings[name] = [sentence for sentence in sentences if sentence]
        return Markdown(" ".join(self._readings[name]))

    def _below_data(self, path: str | Path) -> str:
        """Return a case's name below its data folder, or below the phantoms that notebook 00 drew.

        The parameter's name and a colon come first if the folder is not `data_root`.
        """
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
            f"{path}: a figure shows this case, which is not in the run's data folder "
            f"{', '.join(os.path.abspath(root) for root in roots.values())}"
        )

    def finish(self) -> None:
        """Write `run.json`. Raises `ProvenanceError` if an announced output was never written."""
        missing = [name for name in self._outputs if not (self.dir / name).exists()]
        if missing:
            raise ProvenanceError(
                f"{self.dir}: announced by run.output() and never written: {', '.join(missing)}"
            )
        atexit.register(gc.freeze)  # else Python searches all objects for garbage several times as it exits
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
            "readings": self._readings,
        }
        write_json(self.dir / "run.json", record)
        counts = f"{len(self._inputs)} inputs, {len(self._outputs)} outputs"
        print(f"{self.dir / 'run.json'}: {counts}, {record['seconds']:.1f} s")


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
