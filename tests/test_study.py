"""The runner on throw-away notebooks: order, what is run again, what is refused, failures."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml

from qmsam_core.params import Params
from qmsam_core.provenance.files import FINISHED
from qmsam_core.study import freshness, runner
from qmsam_core.study.__main__ import main

MAKE = "run.output('made.txt').write_text('made')"
READ = "run.output('read.txt').write_text(run.input('00_make', 'made.txt').read_text() + ' and read')"


@pytest.fixture
def small_study(project, write_notebook, monkeypatch):
    """A profile and two notebooks. The second reads from the first. The library counts as unchanged."""
    (project / "library").mkdir()
    monkeypatch.setattr(freshness, "LIBRARY", project / "library")
    write_notebook("00_make", [MAKE], [], ["made.txt"])
    write_notebook("01_read", [READ], ["00_make/made.txt"], ["read.txt"])
    (project / "weights.pth").touch()
    (project / "smoke.yaml").write_text(
        yaml.safe_dump(Params(float_checkpoint="weights.pth").model_dump(mode="json"))
    )
    return project


@pytest.fixture
def in_process(monkeypatch):
    """Notebooks run in the test's process instead of a kernel. The value lists the notebooks that ran."""
    ran = []

    def execute(book, output, root, params):
        source = nbformat.read(book.path, as_version=4)
        space = {}
        ran.append(book.name)
        shutil.copy(book.path, output)
        for cell in source.cells:
            if cell.cell_type == "code":
                try:
                    exec(cell.source, space)
                except Exception as error:
                    raise runner.NotebookFailure(f"error\n{error}") from None
            if "parameters" in cell.metadata.get("tags", []):
                del space["__builtins__"]
                space.update(params.model_dump(mode="json"))

    monkeypatch.setattr(runner, "_papermill", execute)
    return ran


def snapshot(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def run(*arguments):
    return main(["smoke.yaml", *arguments])


def test_by_papermill_and_a_real_kernel(small_study, write_notebook, monkeypatch):
    other = small_study / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(
        json.dumps({"argv": ["false"], "display_name": "another python", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(small_study / "jupyter"))
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    settings = "sys.prefix, os.environ['MALLOC_TRIM_THRESHOLD_'], os.environ['OMP_NUM_THREADS']"
    write_notebook(
        "00_make",
        [f"import os, sys\nrun.output('made.txt').write_text(' '.join([{settings}]))"],
        [],
        ["made.txt"],
    )
    assert run("--set", "threads=1", "--set", "outputs_root=here") == 0
    folder = small_study / "here" / "smoke"
    assert (folder / "00_make" / "made.txt").read_text() == f"{runner.sys.prefix} 8589934592 1"
    assert (folder / "01_read" / "read.txt").exists() and (folder / "index.html").exists()
    for name in ("executed.ipynb", "report.html", "run.json"):
        assert (folder / "01_read" / name).stat().st_size > 0
    assert not list(folder.rglob(".*")) and "MALLOC_TRIM_THRESHOLD_" not in os.environ


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("raise ValueError('first\\nsecond')", ["error in cell [4]", "ValueError: first", "second"]),
        ("import os; os._exit(1)", ["kernel failed in cell [4]"]),
    ],
)
def test_failing_notebook_by_papermill(small_study, write_notebook, capsys, cell, told):
    write_notebook("00_make", [cell])
    assert run() == 1
    message = capsys.readouterr().err
    for part in ("00_make: ", *told, "outputs/smoke/00_make/failed.ipynb"):
        assert part in message
    folder = small_study / "outputs" / "smoke"
    assert [path.name for path in (folder / "00_make").iterdir()] == ["failed.ipynb"]
    assert not (folder / "01_read").exists() and "failed" in (folder / "index.html").read_text()


def test_second_run_has_nothing_to_do(small_study, in_process, capsys):
    assert run() == 0 and in_process == ["00_make", "01_read"]
    before = snapshot("outputs/smoke/00_make")
    assert run() == 0 and len(in_process) == 2
    assert capsys.readouterr().out.count("up to date") == 2 and snapshot("outputs/smoke/00_make") == before


def test_a_change_travels_only_as_far_as_it_matters(small_study, in_process, write_notebook):
    run()
    write_notebook("00_make", [MAKE, "'the same result'"], [], ["made.txt"])
    run()
    assert in_process[2:] == ["00_make"]
    write_notebook("00_make", [MAKE.replace("'made')", "'other')")], [], ["made.txt"])
    run()
    assert in_process[3:] == ["00_make", "01_read"]


def test_force_and_selection(small_study, in_process):
    run()
    run("--only", "1", "--force")
    run("--from", "01_read", "--force")
    run("--only", "00", "--only", "01", "--force")
    assert in_process[2:] == ["01_read", "01_read", "00_make", "01_read"]


def test_force_trains_anew_what_was_finished(small_study, in_process):
    run()
    marks = [Path("outputs/smoke/00_make", below, FINISHED) for below in ("", "float")]
    for mark in marks:
        mark.parent.mkdir(exist_ok=True)
        mark.write_text("{}")
    run()
    assert all(mark.exists() for mark in marks)
    run("--only", "00", "--force")
    assert not any(mark.exists() for mark in marks)


def test_lost_report_is_rendered_without_running(small_study, in_process):
    run()
    report = Path("outputs/smoke/01_read/report.html")
    report.unlink()
    run()
    assert report.exists() and len(in_process) == 2


def test_missing_inputs_are_refused_with_their_maker(small_study, in_process, capsys):
    assert run("--only", "01") == 2 and in_process == []
    assert (
        capsys.readouterr().err
        == "01_read: needs outputs/smoke/00_make/made.txt, which is missing; run notebook 00_make first\n"
    )
    assert run("--from", "00") == 0


def test_stale_inputs_are_told(small_study, in_process, capsys, write_notebook):
    run()
    write_notebook("00_make", [MAKE, "1"], [], ["made.txt"])
    assert run("--only", "01") == 0
    assert (
        "00_make, whose files are read here, is not up to date (notebook changed)" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("pass", "made.txt is missing"),
        (
            f"import os; {MAKE}; os.utime(run.dir / 'made.txt', (1, 1))",
            "made.txt was not written by this run",
        ),
        (f"{MAKE}; run.finish = lambda: None", "run.json is missing"),
        (f"from qmsam_core.params import Params; run.params = Params(seed=9); {MAKE}", "other parameters"),
    ],
)
def test_declared_outputs_must_be_there_and_new(small_study, in_process, write_notebook, capsys, cell, told):
    write_notebook("00_make", [cell], [], ["made.txt"])
    assert run() == 1
    assert told in capsys.readouterr().err
    assert (
        not Path("outputs/smoke/00_make/executed.ipynb").exists()
        and Path("outputs/smoke/00_make/failed.ipynb").exists()
    )


@pytest.mark.parametrize(("arguments", "runs"), [([], 3), (["--force"], 5)], ids=["up to date", "run again"])
def test_failure_keeps_the_last_good_notebook_and_a_good_study_clears_it(
    small_study, in_process, write_notebook, arguments, runs
):
    run()
    kept = {
        name: Path("outputs/smoke/01_read", name).read_bytes() for name in ("executed.ipynb", "report.html")
    }
    write_notebook("01_read", ["1 / 0"], ["00_make/made.txt"], ["read.txt"])
    assert run() == 1
    assert {name: Path("outputs/smoke/01_read", name).read_bytes() for name in kept} == kept
    assert Path("outputs/smoke/01_read/failed.ipynb").exists()
    write_notebook("01_read", [READ], ["00_make/made.txt"], ["read.txt"])
    assert run(*arguments) == 0 and not Path("outputs/smoke/01_read/failed.ipynb").exists()
    assert len(in_process) == runs and {
        name: Path("outputs/smoke/01_read", name).exists() for name in kept
    } == dict.fromkeys(kept, True)


def bad_cases(root):
    """Write a data folder without a usable case."""
    folder = root / "bad" / "CT" / "Set"
    folder.mkdir(parents=True)
    (folder / "2DBox_a.npz").write_text("no archive")
    np.savez(folder / "2DBox_b.npz", gts=np.zeros((4, 4), np.uint8))
    return folder


@pytest.mark.parametrize(
    ("arguments", "lines", "told"),
    [
        (["--set", "threads=two"], 1, ["smoke.yaml: threads: found the text 'two'"]),
        (["--set", "lr=1"], 1, ["did you mean learning_rate?"]),
        (["--set", "seed"], 1, ["key=value"]),
        (["--only", "07"], 1, ["07: no such notebook", "00_make, 01_read"]),
        (["--set", "data_root=nowhere"], 1, ["nowhere"]),
        (["--set", "data_root=empty"], 1, ["empty"]),
        (["--set", "data_root=bad"], 1, ["no usable case (2 files", "2DBox_a.npz"]),
        (
            ["--set", "testing_root=nowhere", "--set", "validation_root=bad"],
            2,
            ["nowhere", "no usable case (2 files"],
        ),
        (["--set", "testing_root=bare"], 1, ["none of its 1 cases has labels"]),
        (["--set", "float_checkpoint=gone.pth"], 1, ["float_checkpoint", "gone.pth"]),
        (["--set", "profile=paper"], 1, ["data_root", "DATA="]),
    ],
)
def test_refused_before_anything_starts(small_study, in_process, capsys, arguments, lines, told):
    run()
    (small_study / "empty").mkdir()
    (small_study / "bare" / "CT").mkdir(parents=True)
    np.savez(
        small_study / "bare" / "CT" / "2DBox_a.npz",
        imgs=np.zeros((4, 4, 3), np.uint8),
        boxes=np.array([[0, 0, 2, 2]]),
    )
    bad_cases(small_study)
    before = snapshot(small_study)
    capsys.readouterr()
    assert run(*arguments) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == lines
    for part in told:
        assert part in message
    assert snapshot(small_study) == before and len(in_process) == 2


@pytest.mark.parametrize(("more", "counted"), [(0, []), (12, ["5 more; 1 cases can be used"])])
def test_a_case_that_cannot_be_used_is_told_and_the_others_are_used(
    small_study, in_process, capsys, more, counted
):
    folder = bad_cases(small_study)
    np.savez(folder / "2DBox_c.npz", imgs=np.zeros((4, 4, 3), np.uint8), gts=np.ones((4, 4), np.uint8))
    (folder.parent / "Twice").mkdir()
    shutil.copy(folder / "2DBox_c.npz", folder.parent / "Twice")
    for number in range(more):
        (folder / f"2DBox_d{number:02d}.npz").touch()
    assert run("--set", "data_root=bad") == 0 and in_process == ["00_make", "01_read"]
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith("note: left out: ") for line in told) and len(told) == min(3 + more, 10) + len(
        counted
    )
    for part in ("2DBox_a.npz", "2DBox_b.npz", "2DBox_d07.npz" if more else "same file name", *counted):
        assert sum(part in line for line in told) == 1


def test_outside_a_project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke.yaml").write_text("seed: 1\n")
    assert run() == 2 and "not inside the project" in capsys.readouterr().err


def test_interrupt_leaves_no_half_notebook(small_study, monkeypatch, capsys):
    def interrupted(book, output, root, params):
        output.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_papermill", interrupted)
    assert run() == 130 and "interrupted" in capsys.readouterr().err
    assert list(Path("outputs/smoke/00_make").iterdir()) == []


def test_a_run_in_a_kernel_leaves_nothing_outside_its_folder(small_study):
    before = set(small_study.iterdir())
    assert run() == 0
    assert {path.name for path in set(small_study.iterdir()) - before} == {"outputs"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["params/laptop.yaml"]),
        (
            ["DATA=/d", "VALIDATION=/the public", "TESTING=/t", "SET=seed=1"],
            [
                "params/laptop.yaml",
                "--set",
                "data_root=/d",
                "--set",
                "validation_root=/the public",
                "--set",
                "testing_root=/t",
                "--set",
                "seed=1",
            ],
        ),
        (
            ["PROFILE=paper", "DATA=/the pack", "ONLY=00"],
            ["params/paper.yaml", "--set", "data_root=/the pack", "--only", "00"],
        ),
        (
            ["ONLY=00 07", "SET=recipe=deploy batch_size=[1,2,1]"],
            [
                "params/laptop.yaml",
                "--only",
                "00",
                "--only",
                "07",
                "--set",
                "recipe=deploy",
                "--set",
                "batch_size=[1,2,1]",
            ],
        ),
    ],
)
def test_make_passes_on_what_it_is_given(given, expected):
    path = {"PATH": os.environ["PATH"]}  # if make runs this test, its variables must not be inherited
    shown = subprocess.run(
        ["make", "-n", "study", *given],
        cwd=Path(__file__).parents[1],
        env=path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shlex.split(shown.splitlines()[-1])[3:] == expected
