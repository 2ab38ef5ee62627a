"""Run the notebooks that are not up to date, in order. Only a successful run replaces the last one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from traitlets.config import Config

from qmsam_core.allocator import MALLOC
from qmsam_core.params import Params
from qmsam_core.provenance.files import FINISHED
from qmsam_core.study.freshness import fingerprint, read_record, stale_because, store
from qmsam_core.study.index_page import Entry, write_index
from qmsam_core.study.notebooks import Notebook, StudyError
from qmsam_core.study.report import write_report

FORCED = "forced"


class NotebookFailure(RuntimeError):
    """A notebook failed: a cell raised an error, the kernel died, or an output was not written."""


@dataclass
class Study:
    """One run of the study.

    Attributes:
        root: the project's root.
        params: parameters of the run.
        notebooks: all notebooks, in order.
        failed: name of the notebook that failed. Empty if none did.
    """

    root: Path
    params: Params
    notebooks: list[Notebook]
    failed: str = ""

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return self.root / self.params.run_dir

    def select(self, only: Sequence[str] = (), start: str | None = None) -> list[Notebook]:
        """Select notebooks by number or name: those in `only`, or all if empty, from `start` on.

        Raises `StudyError` if there is no such notebook.
        """
        chosen = [self._find(key) for key in only] or self.notebooks
        first = self._find(start).name if start else ""
        return [book for book in self.notebooks if book in chosen and book.name >= first]

    def check_inputs(self, selected: Sequence[Notebook]) -> None:
        """Raise `StudyError` if an input is missing and no earlier notebook of the selection makes it."""
        lines = []
        for position, book in enumerate(selected):
            made = {earlier.name for earlier in selected[:position]}
            for name, maker in book.makers().items():
                if maker not in made and not (self.run_dir / name).exists():
                    lines.append(
                        f"{book.name}: needs {self.params.run_dir / name}, which is missing; "
                        f"run notebook {maker} first"
                    )
        if lines:
            raise StudyError("\n".join(lines))

    def run(self, selected: Sequence[Notebook], force: bool = False) -> bool:
        """Run the stale notebooks of `selected` in order, and write the index. Return False if one failed."""
        self._warn_of_stale_inputs(selected)
        for book in selected:
            started = time.time()
            reason = FORCED if force else stale_because(self.root, self.params, book)
            print(
                f"{book.name:<20} {f'running ({reason}) ...' if reason else 'up to date'}",
                end=" ",
                flush=True,
            )
            try:
                self._bring_up_to_date(book, reason, started)
            except NotebookFailure as failure:
                print(f"failed, {time.time() - started:.1f} s", flush=True)
                print(f"{book.name}: {failure}", file=sys.stderr)
                self.failed = book.name
                break
            print(f"done, {time.time() - started:.1f} s" if reason else "", flush=True)
        index = write_index(self.root, self.params, self._entries())
        print(f"results: {os.path.relpath(index)}")
        return not self.failed

    def _find(self, key: str) -> Notebook:
        for book in self.notebooks:
            if key == book.name or (key.isdigit() and book.name.startswith(f"{int(key):02d}_")):
                return book
        raise StudyError(
            f"{key}: no such notebook; there are {', '.join(book.name for book in self.notebooks)}"
        )

    def _warn_of_stale_inputs(self, selected: Sequence[Notebook]) -> None:
        """Warn if an input comes from a notebook outside the selection that is not up to date."""
        outside = {maker for book in selected for maker in book.makers().values()} - {
            book.name for book in selected
        }
        for book in self.notebooks:
            reason = stale_because(self.root, self.params, book) if book.name in outside else ""
            if reason:
                print(
                    f"note: {book.name}, whose files are read here, is not up to date ({reason})",
                    file=sys.stderr,
                )

    def _bring_up_to_date(self, book: Notebook, reason: str, started: float) -> None:
        """Run the notebook if there is a `reason`, and write its report.

        Afterwards the results are valid. The `failed.ipynb` of an attempt that changed none is then removed.
        """
        folder = self.run_dir / book.name
        if reason == FORCED:  # train again too: the marks would tell the notebook that training is finished
            for mark in folder.rglob(FINISHED):
                mark.unlink()
        if reason:
            self._execute(book, folder, started)
        (folder / "failed.ipynb").unlink(missing_ok=True)
        if reason or not (folder / "report.html").is_file():
            write_report(folder / "executed.ipynb", book.title)

    def _execute(self, book: Notebook, folder: Path, started: float) -> None:
        """Run one notebook under a temporary name. Only a successful run replaces the last one."""
        folder.mkdir(parents=True, exist_ok=True)
        marks = fingerprint(self.root, self.params, book)
        running, failed = folder / ".running.ipynb", folder / "failed.ipynb"
        try:
            _papermill(book, running, self.root, self.params)
            _check_outputs(book, folder, started, self.params)
        except NotebookFailure as failure:
            if not running.exists():
                raise
            os.replace(running, failed)
            raise NotebookFailure(
                f"{failure}\n  the notebook as far as it got: {os.path.relpath(failed)}"
            ) from None
        except BaseException:  # interrupted
            running.unlink(missing_ok=True)
            raise
        os.replace(running, folder / "executed.ipynb")
        store(folder, marks)

    def _entries(self) -> Iterator[Entry]:
        """Yield the index entry of each notebook."""
        for book in self.notebooks:
            record = read_record(self.run_dir / book.name)
            reason = stale_because(self.root, self.params, book) if record else "not run"
            yield Entry(book.name, book.title, "failed" if book.name == self.failed else reason, record)


def _papermill(book: Notebook, output: Path, root: Path, params: Params) -> None:
    """Execute a notebook. Raise `NotebookFailure` with the cell and the last lines of its error."""
    from papermill import PapermillExecutionError, execute_notebook

    values = params.model_dump(mode="json")
    with _kernel_environment(params.threads) as sockets:
        # Sockets in files need no free port and no network. By default they would lie in the current folder.
        kernel = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
        try:
            execute_notebook(
                book.path, output, values, kernel_name="python3", cwd=root, progress_bar=False, config=kernel
            )
        except PapermillExecutionError as error:
            raise NotebookFailure(
                f"error in cell [{error.exec_count}]\n{_last_lines(f'{error.ename}: {error.evalue}')}"
            ) from None
        # The kernel did not start or died. Any such error stops the study with one message.
        except Exception as error:
            where = f" in cell [{_cells_started(output)}]" if output.exists() else ""
            raise NotebookFailure(
                f"kernel failed{where}\n{_last_lines(f'{type(error).__name__}: {error}')}"
            ) from error


@contextmanager
def _kernel_environment(threads: int) -> Iterator[str]:
    """Set the environment that the kernel inherits, and yield a folder for its sockets.

    It sets malloc and threads, and puts this interpreter before any other `python3` kernel.
    """
    here = os.path.join(sys.prefix, "share", "jupyter")
    path = os.pathsep.join(filter(None, [here, os.environ.get("JUPYTER_PATH")]))
    settings = {
        **MALLOC,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "JUPYTER_PATH": path,
        "QMSAM_HEADLESS": "1",
    }
    before = {name: os.environ.get(name) for name in (*settings, "JUPYTER_RUNTIME_DIR")}
    # the path is short, because a socket's path may have only about 100 characters
    with TemporaryDirectory(prefix="study") as sockets:
        os.environ.update(settings, JUPYTER_RUNTIME_DIR=sockets)
        try:
            yield sockets
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _last_lines(text: str, count: int = 5) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-count:])


def _cells_started(path: Path) -> int:
    """Count the code cells that began. A dying kernel may or may not have numbered the last one."""
    cells = nbformat.read(path, as_version=4).cells
    return sum(
        cell.cell_type == "code" and bool(cell.metadata.get("papermill", {}).get("start_time"))
        for cell in cells
    )


def _check_outputs(book: Notebook, folder: Path, started: float, params: Params) -> None:
    """Raise `NotebookFailure` if a declared output is missing or a file is older than the start.

    A folder may hold files of an earlier run, so its time is not checked.
    """
    problems = [f"{name} is missing" for name in book.outputs if not (folder / name).exists()]
    files = [name for name in ("run.json", *book.outputs) if (folder / name).is_file()]
    problems += [
        f"{name} was not written by this run"
        for name in files
        if (folder / name).stat().st_mtime < started - 0.1
    ]
    if not (folder / "run.json").is_file():
        problems.append("run.json is missing; does the notebook end with run.finish()?")
    elif read_record(folder).get("parameters") != params.model_dump(mode="json"):
        problems.append(
            "run.json tells of other parameters; does the notebook change any after the parameters cell?"
        )
    if problems:
        raise NotebookFailure("ran to its end, but " + "; ".join(problems))
