"""Every command of docs/your_images.md runs on generated data, and leaves what the page says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hospital_data import (
    cube_labels,
    cube_values,
    image_of,
    rectangle,
    write_image,
    write_rtstruct,
    write_series,
)
from PIL import Image

from qmsam_core.deploy.export import export_model
from qmsam_core.models import build_model

PAGE = Path(__file__).parents[1] / "docs" / "your_images.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
COMMANDS = [(kind, text) for kind, text in BLOCKS if kind in ("sh", "slurm")]
TABLES = [text for kind, text in BLOCKS if kind == "csv"]

PYTHON = """#!/bin/sh
case "$2" in
  qmsam_core.deploy.predict) exec {python} "$@" --model {model} --threads 1 ;;
  *) exec {python} "$@" ;;
esac
"""
PARALLEL = """#!/bin/bash
command=()
while [ "$1" != ":::" ]; do command+=("$1"); shift; done
shift
for value in "$@"; do "${command[@]//\\{\\}/$value}" || exit 1; done
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with the page's files, a small model behind `python`, and a stand-in for GNU parallel."""
    root = tmp_path_factory.mktemp("desk")
    export_model(build_model("narrow"), root / "model")
    (root / "bin").mkdir()
    scripts = {"python": PYTHON.format(python=sys.executable, model=root / "model"), "parallel": PARALLEL}
    for name, text in scripts.items():
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    for name, table in zip(("boxes.csv", "boxes_mm.csv", "boxes_photo.csv"), TABLES, strict=True):
        (root / name).write_text(table)
    write_image(root / "ct.nii.gz", cube_values())
    series = image_of(cube_values(), degrees=15)
    write_series(root / "patient7", series)
    contours = [rectangle(series, z, (3.5, 9.5), (2.5, 7.5)) for z in (2, 3)]
    write_rtstruct(root / "patient7_rtstruct.dcm", {"Cube": contours})
    Image.fromarray(np.tile(np.arange(30, dtype=np.uint8) * 8, (20, 1))).save(root / "lesion.jpg")
    rows = ["file,x_min,y_min,z_min,x_max,y_max,z_max"]
    for name in ("a", "b", "sub/c"):
        write_image(root / "images" / f"{name}.nii.gz", cube_values())
        write_image(root / "masks_drawn" / f"{name}.nii.gz", cube_labels())
        rows.append(f"{name}.nii.gz,4,3,1,9,7,3")
    (root / "boxes_many.csv").write_text("\n".join(rows) + "\n")
    return root


def run(desk, text, **variables):
    place = os.pathsep.join([str(desk / "bin"), os.environ["PATH"]])
    project = str(PAGE.parents[1])
    environment = {**os.environ, "PATH": place, "PYTHONPATH": project, **variables}
    found = subprocess.run(
        ["bash", "-e", "-c", text], cwd=desk, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_the_commands_of_the_page_run(desk, number):
    kind, text = COMMANDS[number]
    outputs = [desk / name for name in re.findall(r"(?:-o|--out) (\w+)", text)]
    assert outputs
    for output in outputs:
        shutil.rmtree(output, ignore_errors=True)
    if kind == "slurm":
        for task in ("1", "7", "16"):
            run(desk, text, SLURM_ARRAY_TASK_ID=task, SLURM_CPUS_PER_TASK="2")
    else:
        run(desk, text)
    made = [path for output in outputs for path in output.rglob("*") if path.is_file()]
    assert any(path.name == "timing.csv" for path in made) or kind == "slurm"


def test_what_the_page_says_of_its_first_masks(desk):
    for command in COMMANDS[:4]:
        run(desk, command[1])
    image, mask = (sitk.ReadImage(str(desk / name)) for name in ("ct.nii.gz", "masks/ct.nii.gz"))
    assert image.GetDirection() == mask.GetDirection() and image.GetOrigin() == mask.GetOrigin()
    objects = pd.read_csv(desk / "masks" / "objects.csv")
    assert objects["name"].tolist() == ["liver", "kidney left", "tumour"]
    assert (desk / "masks_dicom" / "patient7.dcm").is_file()
    assert Image.open(desk / "masks_photo" / "lesion.png").mode == "P"
