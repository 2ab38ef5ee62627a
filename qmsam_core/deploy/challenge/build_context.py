"""Gather the build context of the challenge's container: the folder that `docker build` takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import qmsam_core

from ..by_modality import exports_in, is_by_modality
from ..exported import read_export

HERE = Path(__file__).parent
PACKAGE = Path(qmsam_core.__file__).parent
MODEL = "model"
"""Folder of the export in the context, and in the image."""
AS_THEY_ARE = ("Dockerfile", "predict.sh", "requirements.txt")
RUN_BY_OPENVINO = (".xml", ".bin")
"""Endings of an export's files that OpenVINO reads. The others would only make the image larger."""

_LIST_MODULES = """
import sys
import qmsam_core.deploy.predict
print(*(name for name in sys.modules if name.partition(".")[0] == "qmsam_core"), sep="\\n")
"""


def build_context(folder: Path, export: Path) -> Path:
    """Write the build context, atomically: Dockerfile, `predict.sh`, requirements, code and model.

    Args:
        folder: absent or empty.
        export: folder written by `qmsam_core.deploy.export`, or one of several by modality.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds something, or `export` is no export (`ExportError`).
        OSError: the folder cannot be written.
    """
    check_empty(folder, "-o")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part") as work:
        made = Path(work) / folder.name
        copy_model(export, made / MODEL)
        copy_code(made)
        for name in AS_THEY_ARE:
            shutil.copyfile(HERE / name, made / name)
        licence = PACKAGE.parent / "LICENSE"
        if licence.is_file():  # it lies in a checkout, and not beside an installed package
            shutil.copyfile(licence, made / licence.name)
        os.replace(made, folder)
    return folder


def check_empty(folder: Path, option: str) -> None:
    """Raise `ValueError` if a folder to write to holds something, or is a file."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(
            f"{option} {folder}: holds something already; expected a new or empty folder; "
            "remove it, or give another"
        )


def copy_model(export: Path, target: Path) -> None:
    """Copy what OpenVINO runs of an export, or of each of several by modality. Raises `ExportError`."""
    if is_by_modality(export):
        for name, one in exports_in(export).items():
            copy_export(one, target / name)
    else:
        copy_export(export, target)


def copy_export(export: Path, target: Path) -> None:
    """Copy the files that OpenVINO runs, and an `export.json` of these alone. Raises `ExportError`."""
    facts = read_export(export)
    files = {name: file for name, file in facts["files"].items() if name.endswith(RUN_BY_OPENVINO)}
    target.mkdir(parents=True)
    for name in files:
        shutil.copyfile(export / name, target / name)
    text = json.dumps({**facts, "files": files}, indent=2)
    (target / "export.json").write_text(text, encoding="utf-8")


def copy_code(target: Path) -> None:
    """Copy the modules of the package that segmenting an npz case on OpenVINO imports."""
    for source in code_files():
        copy = target / source.relative_to(PACKAGE.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)


def code_files() -> list[Path]:
    """List the modules that `qmsam_core.deploy.predict` imports when it starts.

    Those imported inside functions are left out. They read hospitals' formats, or belong to other engines.
    """
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", _LIST_MODULES],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return sorted(_file(name) for name in done.stdout.split())


def _file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
