"""The challenge's container: its build context, and `predict.sh` where only the listed wheels are found."""

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from small_data import rectangle_case

from qmsam_core.data import Case, read_segmentation
from qmsam_core.deploy import OpenVinoEngine, Predictor, open_engine
from qmsam_core.deploy.challenge.__main__ import main as challenge_command
from qmsam_core.deploy.challenge.build_context import HERE, build_context
from qmsam_core.deploy.challenge.image_contents import (
    distributions_of,
    image_contents,
    install,
    installed_bytes,
    requirements_in,
)
from qmsam_core.deploy.export import export_model
from qmsam_core.deploy.predict import main as predict_command
from qmsam_core.models import build_model

REQUIREMENTS = HERE / "requirements.txt"
PROJECT = Path(__file__).parents[1]

# Runs `python -m MODULE ...` and ends it with code 97 at the first look for another machine. Modules that are
# none of the standard library are noted, to be compared with the wheels that are listed.
ALONE = """
import atexit, os, runpy, sys

def forbid(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        os.write(2, f"network: {event} {arguments[1:]}\\n".encode())
        os._exit(97)

sys.addaudithook(forbid)
noted = os.environ["NOTED"]
names = lambda: {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
atexit.register(lambda: open(noted, "w").write(" ".join(names() - set(sys.stdlib_module_names))))
assert sys.argv[1] == "-m", sys.argv
sys.argv = sys.argv[2:]
sys.path[0] = os.getcwd()
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_model(build_model("narrow", seed=3), folder)
    return folder


@pytest.fixture(scope="module")
def context(export, tmp_path_factory) -> Path:
    return build_context(tmp_path_factory.mktemp("built") / "context", export)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """A folder of links to the listed distributions and those they depend on, and to nothing else."""
    folder = tmp_path_factory.mktemp("wheels")
    for one in distributions_of(REQUIREMENTS):
        for name in {Path(file).parts[0] for file in one.files} - {"..", "__pycache__"}:
            (folder / name).symlink_to(one.locate_file(name))
    return folder


@dataclass
class Bare:
    """Runs `predict.sh` with a Python that finds its standard library and `wheels`, and no network."""

    context: Path
    wheels: Path
    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        (self.folder / "empty").mkdir()
        (self.folder / "alone.py").write_text(ALONE)
        python = self.folder / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -S {self.folder / "alone.py"} "$@"\n')
        python.chmod(0o755)

    @property
    def inputs(self) -> Path:
        return self.folder / "inputs"

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    @property
    def imported(self) -> set[str]:
        """Names outside the standard library that the last run imported."""
        return set((self.folder / "noted").read_text().split())

    def run(self, script: Path | None = None) -> subprocess.CompletedProcess:
        environment = {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(self.wheels),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NOTED": str(self.folder / "noted"),
            "QMSAM_INPUTS": str(self.inputs),
            "QMSAM_OUTPUTS": str(self.outputs),
        }
        command = ["sh", str(script or self.context / "predict.sh")]
        return subprocess.run(
            command, env=environment, cwd=self.folder / "empty", capture_output=True, text=True
        )


@pytest.fixture
def bare(context, wheels, tmp_path) -> Bare:
    made = Bare(context, wheels, tmp_path)
    made.inputs.mkdir()
    made.outputs.mkdir()
    return made


def given(bare: Bare, name: str, seed: int = 0) -> Case:
    """Put a case into the inputs, as the challenge does: with boxes and without labels."""
    one = rectangle_case(name, seed, name.startswith("3D"))
    case = Case(one.name, one.images, one.boxes, None, one.spacing)
    case.save(bare.inputs / f"{name}.npz")
    return case


# Running predict.sh -----------------------------------------------------------------------------------------


def test_one_case_a_run_as_the_challenge_calls_it_keeps_the_compiled_models_and_only_masks_are_npz(
    bare, export
):
    cases = [given(bare, "2DBox_US_1")]
    first = bare.run()
    assert first.returncode == 0, first.stderr
    blobs = {blob: blob.stat().st_mtime_ns for blob in (bare.outputs / ".engine_cache").iterdir()}
    assert len(blobs) == 3  # encoder, prepare, decoder

    (bare.inputs / "2DBox_US_1.npz").unlink()
    cases.append(given(bare, "3DBox_CT_2", seed=1))
    second = bare.run()
    assert second.returncode == 0, second.stderr
    assert {b: b.stat().st_mtime_ns for b in (bare.outputs / ".engine_cache").iterdir()} == blobs

    assert sorted(path.name for path in bare.outputs.rglob("*.npz")) == ["2DBox_US_1.npz", "3DBox_CT_2.npz"]
    predictor = Predictor(open_engine("openvino", export))
    for case in cases:
        segs = read_segmentation(bare.outputs / f"{case.name}.npz")
        assert segs.shape == (case.images.shape if case.is_volume else case.plane_shape)
        assert segs.dtype == np.uint8
        np.testing.assert_array_equal(segs, predictor.segment(case))


def test_the_second_start_takes_the_compiled_models_of_the_first(bare):
    given(bare, "2DBox_US_1")
    assert bare.run().returncode == 0

    def taken(cache: Path) -> list[bool]:
        engine = open_engine("openvino", bare.context / "model", os.cpu_count(), cache=cache)
        assert isinstance(engine, OpenVinoEngine)
        requests = (engine.encoder, engine.preparer, engine.decoder)
        return [one.get_compiled_model().get_property("LOADED_FROM_CACHE") for one in requests]

    assert taken(bare.outputs / ".engine_cache") == [True] * 3
    assert taken(bare.folder / "another cache") == [False] * 3


def test_many_cases_a_damaged_one_is_named_and_the_others_are_done(bare):
    good = [given(bare, f"{kind}_{k}", k) for k, kind in enumerate(("2DBox_US", "3DBox_CT", "2DBox_XRay"))]
    whole = (bare.inputs / f"{good[0].name}.npz").read_bytes()
    (bare.inputs / "2DBox_US_cut.npz").write_bytes(whole[: len(whole) // 2])
    (bare.inputs / "slice.dcm").write_bytes(b"\0" * 128 + b"DICM")  # of a format that is not installed here
    done = bare.run()
    assert done.returncode == 1
    assert "2DBox_US_cut.npz: " in done.stderr
    assert "slice.dcm: is a DICOM file, which needs the module" in done.stderr
    assert "3 cases done, 2 failed" in done.stdout
    assert sorted(p.stem for p in bare.outputs.glob("*.npz")) == sorted(case.name for case in good)


def test_a_damaged_cache_is_made_again(bare):
    given(bare, "2DBox_US_1")
    assert bare.run().returncode == 0
    for blob in (bare.outputs / ".engine_cache").iterdir():
        content = blob.read_bytes()
        blob.unlink()
        blob.write_bytes(content[: len(content) // 2])  # as a container leaves it that is stopped meanwhile
    given(bare, "2DBox_US_2")
    done = bare.run()
    assert done.returncode == 0, done.stderr
    assert (bare.outputs / "2DBox_US_2.npz").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--engine", "onnxruntime", "--cache", "new"),
            "--cache: expected the engine openvino, found onnxruntime",
        ),
        (("--cache", "file"), "--cache file: is a file; expected a folder"),
    ],
)
def test_a_cache_that_could_not_be_used_is_refused(options, message, export, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    rectangle_case("2DBox_US_1", 0, False).save(tmp_path / "2DBox_US_1.npz")
    given = ["-i", "2DBox_US_1.npz", "-o", "out", "--model", str(export), *options]
    assert predict_command(given) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_imported_but_what_the_listed_wheels_bring_and_each_is_needed(bare):
    given(bare, "2DBox_US_1")
    assert bare.run().returncode == 0
    top_level = metadata.packages_distributions()
    brought = {one.name for one in distributions_of(REQUIREMENTS)}
    found = {name for module in bare.imported for name in top_level.get(module, ())}
    assert found - {"qmsam-core"} <= brought
    assert {wanted.name for wanted in requirements_in(REQUIREMENTS)} <= found


def test_no_network_can_be_used_and_no_other_package_is_found(bare):
    # the guard of the runs above
    script = bare.folder / "try.sh"
    script.write_text("exec python -m probe\n")
    probe = bare.folder / "empty" / "probe.py"
    probe.write_text("import socket\nsocket.create_connection(('127.0.0.1', 9))\n")
    assert bare.run(script).returncode == 97
    probe.write_text("import torch\n")
    assert "No module named 'torch'" in bare.run(script).stderr


# The build context ------------------------------------------------------------------------------------------


def test_requirements_are_the_projects_own_and_the_code_has_no_pytorch(context):
    pinned = {one.name: one.specifier for one in requirements_in(PROJECT / "requirements.txt")}
    for wanted in requirements_in(REQUIREMENTS):
        assert str(wanted.specifier).startswith("==")
        assert wanted.specifier == pinned[wanted.name], wanted
    assert "torch" not in {one.name for one in distributions_of(REQUIREMENTS)}
    assert not any("import torch" in path.read_text() for path in context.rglob("*.py"))


def test_the_context_holds_what_the_dockerfile_copies_and_an_export_that_opens(context, export):
    assert {path.name for path in context.iterdir()} >= {
        "Dockerfile",
        "predict.sh",
        "requirements.txt",
        "model",
        "qmsam_core",
    }
    assert {path.suffix for path in (context / "model").iterdir()} == {".json", ".xml", ".bin"}
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    ours, theirs = (open_engine("openvino", folder) for folder in (context / "model", export))
    np.testing.assert_array_equal(ours.encode(image), theirs.encode(image))


def test_exports_by_modality_go_into_the_context_as_they_are(export, tmp_path):
    (tmp_path / "models").mkdir()
    for name in ("default", "CT+MR"):
        (tmp_path / "models" / name).symlink_to(export)
    made = build_context(tmp_path / "context", tmp_path / "models")
    assert {path.parent.name for path in (made / "model").rglob("export.json")} == {"default", "CT+MR"}


def test_the_table_adds_up_and_counts_every_file_of_a_wheel(context, capsys, export, tmp_path):
    contents = {one.name: one for one in image_contents(context)}
    size = sum(path.stat().st_size for path in (context / "model").iterdir())
    assert contents["model"].mb == pytest.approx(size / 1e6)
    numpy = metadata.distribution("numpy")
    assert contents["numpy"].version == np.__version__
    assert contents["numpy"].mb == pytest.approx(installed_bytes(numpy) / 1e6)
    assert installed_bytes(numpy) > (Path(np.__file__).stat().st_size)

    assert challenge_command(["-o", str(tmp_path / "made"), "--model", str(export)]) == 0
    cells = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    mb = {row[1]: float(row[3]) for row in cells}
    assert mb.pop("sum") == pytest.approx(sum(mb.values()), abs=0.1 * len(mb))
    assert mb.keys() == contents.keys()


def test_requirements_are_installed_into_a_prefix_and_measured_there(tmp_path):
    source = tmp_path / "tiny"
    source.mkdir()
    wheel = source / "tiny_thing-1.0-py3-none-any.whl"
    _write_wheel(wheel)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{wheel}\n")
    install(requirements, tmp_path / "prefix")
    requirements.write_text("tiny-thing==1.0  # as in a context\n")
    (one,) = distributions_of(requirements, [str(tmp_path / "prefix")])
    compiled = {path for path in (tmp_path / "prefix").rglob("*") if path.is_file()}
    assert installed_bytes(one) == sum(path.stat().st_size for path in compiled)
    requirements.write_text("tiny-thing==2.0\n")
    with pytest.raises(ValueError, match="tiny-thing==2.0, found version 1.0"):
        distributions_of(requirements, [str(tmp_path / "prefix")])
    requirements.write_text("absent-thing==2.0\n")
    with pytest.raises(ValueError, match="absent-thing==2.0, found nothing installed"):
        distributions_of(requirements, [str(tmp_path / "prefix")])


def _write_wheel(path: Path) -> None:
    info = "tiny_thing-1.0.dist-info"
    files = {
        "tiny_thing/__init__.py": "answer = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.mark.parametrize("option", ["-o", "--prefix"])
def test_a_folder_that_holds_something_is_refused(option, export, tmp_path, capsys):
    folders = {"-o": tmp_path / "made", "--prefix": tmp_path / "prefix"}
    folders[option].mkdir()
    (folders[option] / "precious").touch()
    arguments = [str(part) for pair in folders.items() for part in pair]
    assert challenge_command([*arguments, "--model", str(export)]) == 2
    assert f"{option} {folders[option]}: holds something already" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {folders[option].name}


def test_a_folder_that_is_no_export_is_named(tmp_path, capsys):
    assert challenge_command(["-o", str(tmp_path / "made"), "--model", str(tmp_path)]) == 2
    assert f"{tmp_path / 'export.json'}: no such file" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_requirements_are_read_line_by_line(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("# a comment\n\na==1\nb>=2  # why\n")
    assert requirements_in(file) == [Requirement("a==1"), Requirement("b>=2")]
