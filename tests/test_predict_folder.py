"""Folders of many kinds of files, shards, and several processes on one output folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import highdicom as hd
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from box_engine import BoxEngine
from hospital_data import cube_labels, cube_values, image_of, write_image, write_seg, write_series
from PIL import Image
from small_data import rectangle_case

from qmsam_core.data import Case, CaseError, read_segmentation, write_segmentation
from qmsam_core.data.importers.__main__ import main as import_command
from qmsam_core.deploy import Predictor, batch, predict
from qmsam_core.deploy.batch import OutputError, predict_folder
from qmsam_core.deploy.files.inputs import Input, find_inputs, name_of
from qmsam_core.deploy.files.mask_pairs import masks_of
from qmsam_core.deploy.files.reading import Reading
from qmsam_core.deploy.predict import main as predict_command
from qmsam_core.deploy.reservations import FOLDER, STALE_SECONDS, UNWRITTEN_SECONDS, Reservations, started_at
from qmsam_core.evaluate.__main__ import main as evaluate_command

LABELS, VALUES = cube_labels(), cube_values()


@pytest.fixture
def boxes_engine(monkeypatch):
    """Let the command segment with an engine whose masks are the boxes."""
    monkeypatch.setattr(predict, "opened_predictor", lambda options: Predictor(BoxEngine()))


def run(capsys, *arguments, code=0):
    """Run the command. Returns its lines on stdout and on stderr."""
    capsys.readouterr()
    assert predict_command([*map(str, arguments)]) == code
    out, error = capsys.readouterr()
    return out.splitlines(), error.splitlines()


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# Finding ----------------------------------------------------------------------------------------------------


def many_kinds(root):
    """Write one of each kind of input below `root`, and files that belong to them."""
    rectangle_case("2DBox_US_a", 1, False).save(root / "US" / "2DBox_US_a.npz")
    for name in ("a.nii.gz", "b.nii", "c.nrrd", "d.mha", "e.mhd"):
        write_image(root / "volumes" / name, VALUES)
    write_series(root / "pat" / "series")
    for name in ("x.png", "y.JPG", "z.tif", "w.bmp"):
        (root / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 30), 7, np.uint8)).save(root / "images" / name)
    for name in (".DS_Store", "Thumbs.db", "pat/DICOMDIR"):
        (root / name).write_bytes(b"")
    return root


def test_every_kind_is_found_in_depth_and_what_belongs_to_it_is_no_case(tmp_path):
    found = find_inputs(many_kinds(tmp_path))
    assert all(isinstance(one, Input) for one in found)
    assert {one.name: one.kind for one in found} == {
        "US/2DBox_US_a.npz": "npz",
        **{f"volumes/{name}": "volume" for name in ("a.nii.gz", "b.nii", "c.nrrd", "d.mha", "e.mhd")},
        "pat/series": "dicom",
        **{f"images/{name}": "image" for name in ("x.png", "y.JPG", "z.tif", "w.bmp")},
    }


def test_dicom_files_need_no_ending_and_a_series_may_be_the_input_itself(tmp_path):
    for path in write_series(tmp_path / "pat"):
        path.rename(path.with_suffix(""))
    (one,) = find_inputs(tmp_path / "pat")
    assert (one.name, one.kind, len(one.files)) == ("pat", "dicom", 6)


def test_links_are_followed_once(tmp_path):
    rectangle_case("2DBox_US_a", 1, False).save(tmp_path / "real" / "2DBox_US_a.npz")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.npz").symlink_to(tmp_path / "nowhere.npz")
    (tmp_path / "in" / "file.npz").symlink_to(tmp_path / "real" / "2DBox_US_a.npz")
    found = [name_of(one) for one in find_inputs(tmp_path / "in")]
    assert found == [str(tmp_path / "in" / "gone.npz"), "file.npz", "linked/2DBox_US_a.npz"]


def test_what_is_no_case_is_named(tmp_path):
    rectangle_case("2DBox_US_a", 1, False).save(tmp_path / "2DBox_US_a.npz")
    (tmp_path / "report.pdf").write_bytes(b"%PDF")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    errors = [str(one) for one in find_inputs(tmp_path) if isinstance(one, CaseError)]
    assert len(errors) == 2
    assert "nowhere, which is not there" in errors[0]
    assert "report.pdf: is no case; expected .npz" in errors[1]


def test_masks_beside_their_images_are_no_inputs(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.nii.gz", VALUES)
        write_image(tmp_path / f"{name}_seg.nii.gz", LABELS)
    write_image(tmp_path / "c.nii.gz", VALUES)
    inputs, masks, errors = masks_of(find_inputs(tmp_path), tmp_path, tmp_path)
    assert [one.name for one in inputs] == ["a.nii.gz", "b.nii.gz"]
    assert {name: path.name for name, path in masks.items()} == {
        "a.nii.gz": "a_seg.nii.gz",
        "b.nii.gz": "b_seg.nii.gz",
    }
    assert len(errors) == 1 and "c.nii.gz" in str(errors[0])


def test_masks_of_series_are_named_like_their_folders(tmp_path):
    for name in ("p1", "p2", "p3"):
        paths = write_series(tmp_path / "in" / name, series=name)
        (tmp_path / "masks").mkdir(exist_ok=True)
        if name == "p1":
            write_seg(tmp_path / "masks" / "p1.dcm", paths, {"cube": LABELS == 1})
        if name == "p2":
            write_image(tmp_path / "masks" / "p2.nii.gz", LABELS)
    write_image(tmp_path / "masks" / "p9.nii.gz", LABELS)
    inputs, masks, errors = masks_of(find_inputs(tmp_path / "in"), tmp_path / "in", tmp_path / "masks")
    assert len(errors) == 2 and "p9.nii.gz: is a mask without series" in str(errors[1])
    assert [one.name for one in inputs] == ["p1", "p2"] == list(masks)
    assert "no masks for case 'p3'" in str(errors[0])


# The command ------------------------------------------------------------------------------------------------


def test_the_importers_and_predict_follow_on_from_each_other(tmp_path, boxes_engine, capsys):
    for name in ("p1/c", "p2/c"):
        write_image(tmp_path / "images" / f"{name}.nii.gz", VALUES)
        write_image(tmp_path / "masks" / f"{name}.nii.gz", LABELS)
    imported = [
        "nifti",
        tmp_path / "images",
        tmp_path / "masks",
        "--modality",
        "CT",
        "--out",
        tmp_path / "cases",
    ]
    assert import_command([*map(str, imported)]) == 0
    out, _ = run(capsys, "-i", tmp_path / "cases", "-o", tmp_path / "segs")
    assert out[-1].startswith("2 cases done, 0 failed")
    npz = [f"CT/Imported/3DBox_CT_{name}_c.npz" for name in ("p1", "p2")]
    assert files(tmp_path / "segs") == [*npz, "objects.csv", "predictor.json", "timing.csv"]
    assert evaluate_command(["-i", str(tmp_path / "cases"), "-s", str(tmp_path / "segs")]) == 0
    run(capsys, "-i", tmp_path / "cases", "-o", tmp_path / "back", "--to-source")
    mask = sitk.ReadImage(str(tmp_path / "back" / "CT" / "Imported" / "3DBox_CT_p1_c.nii.gz"))
    assert mask.GetOrigin() == image_of(VALUES).GetOrigin() and sitk.GetArrayFromImage(mask).max() == 2


def test_one_image_and_a_table(tmp_path, boxes_engine, capsys):
    write_image(tmp_path / "ct.nii.gz", VALUES, "RAS", 10)
    (tmp_path / "boxes.csv").write_text("name,x,y,z,width,height,depth\ncube,2,3,1,8,9,3\n")
    out, _ = run(
        capsys,
        *("-i", tmp_path / "ct.nii.gz", "--boxes", tmp_path / "boxes.csv"),
        *("--modality", "ct", "-o", tmp_path / "out"),
    )
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "ct.nii.gz")))
    z, y, x = np.nonzero(mask)
    assert [x.min(), y.min(), z.min(), x.max(), y.max(), z.max()] == pytest.approx([2, 3, 1, 9, 11, 3], abs=1)
    assert out[-1].startswith("1 cases done, 0 failed; objects in")


def test_another_file_that_is_at_fault_is_named(tmp_path, boxes_engine, capsys):
    write_image(tmp_path / "a.nii.gz", VALUES)
    (tmp_path / "drawn.nii.gz").write_bytes(b"no mask")
    arguments = ["-i", tmp_path / "a.nii.gz", "--boxes-from", tmp_path / "drawn.nii.gz", "--modality", "CT"]
    _, error = run(capsys, *arguments, "-o", tmp_path / "out", code=1)
    assert any(line.startswith("a.nii.gz: ") and "drawn.nii.gz" in line for line in error)
    paths = write_series(tmp_path / "in" / "pat")
    paths[-1].write_bytes(paths[-1].read_bytes()[:100])
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("x,y,z,width,height,depth\n1,1,1,5,5,2\n")
    arguments = ["-i", tmp_path / "in", "--boxes", boxes, "-o", tmp_path / "series"]
    _, error = run(capsys, *arguments, code=1)
    assert any(line.startswith("pat: ") and paths[-1].name in line for line in error)


def test_a_single_dicom_file(tmp_path, boxes_engine, capsys):
    paths = write_series(tmp_path / "pat")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("name,x,y,z,width,height,depth\ncube,4,3,0,6,5,1\n")
    run(capsys, "-i", paths[2], "--boxes", boxes, "-o", tmp_path / "out")
    seg = hd.seg.segread(tmp_path / "out" / paths[2].name)
    (frame,) = seg.PerFrameFunctionalGroupsSequence
    place = frame.PlanePositionSequence[0].ImagePositionPatient
    assert list(place) == pytest.approx(list(pydicom.dcmread(paths[2]).ImagePositionPatient))
    assert seg.get_segment_description(1).SegmentLabel == "cube"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-i", "in/volumes/e.raw", "-o", "out"], "e.raw: is no case"),
        (["-i", "in", "-o", "out", "--boxes", "nowhere.csv"], "nowhere.csv: is no table of boxes"),
        (["-i", "in", "-o", "out", "--boxes-from", "nowhere"], "nowhere: there is no such file"),
        (["-i", "in", "-o", "out", "--boxes", "a", "--boxes-from", "b"], "expected one of the two"),
        (["-i", "empty", "-o", "out"], "nothing to segment"),
        (["-i", "in", "-o", "out", "--percentiles", "9", "1"], "expected 0 <= LOW < HIGH <= 100"),
    ],
)
def test_what_cannot_start_is_told_in_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    many_kinds(tmp_path / "in")
    (tmp_path / "empty").mkdir()
    out, error = run(capsys, *arguments, code=2)
    assert len(error) == 1 and words in error[0] and not (tmp_path / "out").exists()


def mixed(root):
    """Write 180 small inputs of all kinds with boxes, and 20 odd files. Returns (boxes, names of the odd)."""
    rows = ["file,x_min,y_min,z_min,x_max,y_max,z_max"]
    for k in range(90):
        rectangle_case(f"2DBox_US_{k}", k, False).save(root / "US" / f"2DBox_US_{k}.npz")
    for k in range(40):
        name = f"png/{k}.png"
        (root / "png").mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 30), k, np.uint8)).save(root / name)
        rows.append(f"{name},2,3,,9,9,")
    for k in range(40):
        name = f"mr/{k % 4}/{k}{('.nii.gz', '.nrrd', '.mha', '.nii')[k % 4]}"
        write_image(root / name, VALUES)
        rows.append(f"{name},2,3,1,9,9,3")
    for k in range(10):
        write_series(root / "dicom" / f"p{k}", modality="MR", series=str(k))
        rows.append(f"dicom/p{k},2,3,1,9,9,3")
    odd = odd_files(root, rows)
    boxes = root.parent / "boxes.csv"
    boxes.write_text("\n".join(rows) + "\n")
    return boxes, odd


def odd_files(root, rows):
    """Write 20 files that cannot be segmented, each in its own way or place. Returns their names."""
    odd = []

    def write(name, content, row=None):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        odd.append(name)
        if row:
            rows.append(f"{name},{row}")
        return path

    for name in ("notes.txt", "US/table.xlsx", "mr/report.pdf", "png/readme", "dicom/study.json"):
        write(name, b"something else")
    for name in (
        "US/empty.npz",
        "US/cut.npz",
        "mr/cut.nii.gz",
        "mr/zero.nrrd",
        "png/cut.png",
        "png/zero.jpg",
    ):
        write(name, b"" if "zero" in name or "empty" in name else b"PK no archive", "1,1,1,2,2,2")
    np.savez(write("US/float.npz", None), imgs=np.zeros((4, 4, 3)), boxes=np.zeros((0, 4)))
    np.savez(write("US/no_boxes.npz", None), imgs=np.zeros((4, 4, 3), np.uint8))
    write_image(write("mr/no_row.nii.gz", None), VALUES)
    write_image(write("mr/outside.nii.gz", None, "0,0,0,99,9,9"), VALUES)
    write_image(write("mr/flat.nii.gz", None, "0,0,0,9,9,2"), np.zeros_like(VALUES))
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(write("png/no_row.png", None))
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(write("png/row.png", None, "5,5,,1,1,"))
    write("dicom/p_cut/1.dcm", b"too short", None)
    odd[-1] = "dicom/p_cut"
    (root / "gone.npz").symlink_to(root / "nowhere.npz")
    odd.append("gone.npz")
    return odd


def test_of_200_mixed_files_20_odd_ones_are_named_the_rest_is_done_and_a_second_run_does_what_is_missing(
    tmp_path, boxes_engine, capsys
):
    boxes, odd = mixed(tmp_path / "in")
    assert len(odd) == 20
    arguments = ["-i", tmp_path / "in", "-o", tmp_path / "out", "--boxes", boxes, "--modality", "MR"]
    out, error = run(capsys, *arguments, code=1)
    assert out[-1].startswith("180 cases done, 20 failed")
    lines = [line for line in error if not line.endswith(" cases")]
    for name in odd:
        assert sum(name in line for line in lines) == 1, name
    assert len(lines) == 20
    timing = pd.read_csv(tmp_path / "out" / "timing.csv")
    assert timing["status"].str.startswith("failed").sum() == 20 and len(timing) == 200
    objects = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert objects["file"].nunique() == 180
    made = files(tmp_path / "out")
    assert len(made) == 180 + 3 and "mr/1/1.seg.nrrd" in made and "dicom/p3.dcm" in made

    (tmp_path / "out" / "png" / "7.png").unlink()
    Image.fromarray(np.full((9, 9), 3, np.uint8)).save(tmp_path / "in" / "png" / "row.png")
    boxes.write_text(boxes.read_text().replace("png/row.png,5,5,,1,1,", "png/row.png,1,1,,5,5,"))
    out, error = run(capsys, *arguments, code=1)
    assert out[-1].startswith("181 cases done (179 kept from before), 19 failed")
    assert files(tmp_path / "out") == sorted([*made, "png/row.png"])


@pytest.mark.parametrize("module", ["deploy.predict", "data.importers", "evaluate"])
def test_the_commands_greet_without_a_warning(module):
    command = [sys.executable, "-W", "always::RuntimeWarning", "-m", f"qmsam_core.{module}", "--help"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0 and "RuntimeWarning" not in found.stderr


# Nothing that was there is lost -----------------------------------------------------------------------------


def picture(path, value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30), value, np.uint8)).save(path)
    return path


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


REPLACED = {
    "an image": ("-i a.png --boxes b.csv -o .", "a.png: the output would replace a.png"),
    "a volume": ("-i ct.nii.gz --boxes b.csv --modality CT -o .", "ct.nii.gz: the output would replace"),
    "a slice": ("-i s/000.dcm --boxes b.csv -o s", "s/000.dcm: the output would replace"),
    "a case": ("-i cases/2DBox_US_a.npz -o cases", "the output would replace cases/2DBox_US_a.npz"),
    "a linked image": ("-i a.png --boxes b.csv -o link", "a.png: the output would replace a.png"),
    "a mask": ("-i images/a.png --boxes-from masks/a.png -o masks", "would replace masks/a.png"),
    "a folder of masks": ("-i images --boxes-from masks -o masks", "masks: is the folder of --boxes-from"),
    "the table": ("-i a.png --boxes o/objects.csv -o o", "the output would replace this table"),
    "the folder": ("-i images -o .", ".: contains the input images"),
}


@pytest.mark.parametrize("arguments, words", REPLACED.values(), ids=REPLACED)
def test_outputs_that_would_replace_what_they_are_made_from_are_refused(
    tmp_path, monkeypatch, boxes_engine, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "images/a", "masks/a"):
        picture(tmp_path / f"{name}.png")
    write_image(tmp_path / "ct.nii.gz", VALUES)
    write_series(tmp_path / "s")[0].rename(tmp_path / "s" / "000.dcm")
    rectangle_case("2DBox_US_a", 1, False).save(tmp_path / "cases" / "2DBox_US_a.npz")
    (tmp_path / "o").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("b.csv", "o/objects.csv"):
        (tmp_path / name).write_text("x,y,z,width,height,depth\n1,1,0,5,5,1\n")
    before = contents(tmp_path)
    _, error = run(capsys, *arguments.split(), code=2)
    assert len(error) == 1 and words in error[0] and contents(tmp_path) == before


@pytest.mark.parametrize("one", ["data/sub", "data/sub/a.png"])
@pytest.mark.parametrize("name", ["a.png", "a/drawn.png"])
def test_a_file_of_others_at_the_place_of_a_mask_is_kept_and_named(tmp_path, boxes_engine, capsys, one, name):
    picture(tmp_path / "data" / "sub" / "a.png")
    drawn = picture(tmp_path / "out" / name, 1).read_bytes()
    (tmp_path / "b.csv").write_text("x,y,width,height\n1,1,5,5\n")
    arguments = ["-i", tmp_path / one, "--boxes", tmp_path / "b.csv", "-o", tmp_path / "out"]
    apart = ["--one-mask-an-object"] * ("/" in name)
    _, error = run(capsys, *arguments, *apart, code=1)
    assert any(f"{name}: was not written by this program" in line for line in error)
    assert (tmp_path / "out" / name).read_bytes() == drawn
    (tmp_path / "out" / name).unlink()
    run(capsys, *arguments, *apart)
    run(capsys, *arguments, *apart, "--propagate")  # what was written here may be made again


def test_masks_apart_of_one_case_never_replace_those_of_another(tmp_path, boxes_engine, capsys):
    for name in ("a", "a/b"):
        picture(tmp_path / "in" / f"{name}.png")
    (tmp_path / "b.csv").write_text("file,name,x,y,width,height\na.png,q,1,1,5,5\na/b.png,r,1,1,5,5\n")
    arguments = ["--boxes", tmp_path / "b.csv", "-o", tmp_path / "out", "--one-mask-an-object"]
    for _ in range(2):
        _, error = run(capsys, "-i", tmp_path / "in", *arguments, code=1)
        assert sum("overlaps with that of a.png; rename one" in line for line in error) == 1
        assert (tmp_path / "out" / "a" / "001_q.png").exists()
    (tmp_path / "in" / "a.png").rename(tmp_path / "a.png")  # apart, neither sees the other
    run(capsys, "-i", tmp_path / "in", *arguments, code=1)
    (tmp_path / "b.csv").write_text("name,x,y,width,height\nq,2,2,5,5\n")
    _, error = run(capsys, "-i", tmp_path / "a.png", *arguments, code=1)
    assert any("001_r.png: is a mask of a/b.png and would be replaced" in line for line in error)
    assert (tmp_path / "out" / "a" / "b" / "001_r.png").exists()


def test_a_mask_apart_that_was_removed_is_made_again(tmp_path, boxes_engine, capsys):
    picture(tmp_path / "a.png")
    (tmp_path / "b.csv").write_text("name,x,y,width,height\nq,1,1,5,5\nr,9,9,5,5\n")
    arguments = ["-i", tmp_path / "a.png", "--boxes", tmp_path / "b.csv", "-o", tmp_path / "out"]
    run(capsys, *arguments, "--one-mask-an-object")
    (tmp_path / "out" / "a" / "002_r.png").unlink()
    out, _ = run(capsys, *arguments, "--one-mask-an-object")
    assert out[-1].startswith("1 cases done, 0 failed") and (tmp_path / "out" / "a" / "002_r.png").exists()
    run(capsys, *arguments)
    (tmp_path / "out" / "a" / "002_r.png").unlink()  # of the other settings
    out, _ = run(capsys, *arguments)
    assert out[-1].startswith("1 cases done (1 kept from before)")


def test_sources_that_masks_go_back_to_are_never_replaced(tmp_path, boxes_engine, capsys):
    for folder, values in (("images", VALUES), ("masks", LABELS)):
        write_image(tmp_path / folder / "c.nii.gz", values)
    imported = ["nifti", tmp_path / "images", tmp_path / "masks", "--modality", "CT", "--out"]
    assert import_command([*map(str, imported), str(tmp_path / "cases")]) == 0
    (case,) = (tmp_path / "cases").rglob("*.npz")
    source = (tmp_path / "images" / "c.nii.gz").read_bytes()
    case = case.rename(case.with_name("c.npz"))
    _, error = run(capsys, "-i", case, "-o", tmp_path / "images", "--to-source", code=2)
    assert "c.nii.gz: the output would replace" in error[0]
    assert files(tmp_path / "images") == ["c.nii.gz"]
    assert (tmp_path / "images" / "c.nii.gz").read_bytes() == source


@pytest.mark.parametrize("there", [False, True])
def test_the_command_says_when_it_exports_and_when_it_begins(
    tmp_path, boxes_engine, capsys, monkeypatch, there
):
    facts = {"model": "m", "recipe": "r", "from": "o", "origin": "o"}
    checkpoint = tmp_path / "params" / "x" / "m.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    monkeypatch.setattr("qmsam_core.deploy.shipped_export.checkpoint_path", lambda name: checkpoint)
    monkeypatch.setattr("qmsam_core.deploy.export.model_to_export", lambda *_, **__: (None, "o"))
    monkeypatch.setattr("qmsam_core.deploy.export.export_if_stale", lambda *_: facts)
    monkeypatch.setattr("qmsam_core.quant.facts_of", lambda path: {})
    if there:
        (tmp_path / "params" / "exported" / "m").mkdir(parents=True)
    predict.shipped_model()
    lines = capsys.readouterr().err.splitlines()
    assert any("exporting the project's int8 model to" in line for line in lines) != there
    rectangle_case("2DBox_US_a", 1, False).save(tmp_path / "in" / "2DBox_US_a.npz")
    _, error = run(capsys, "-i", tmp_path / "in", "-o", tmp_path / "out")
    assert error[0] == "segmenting 1 cases"


def test_another_size_of_the_projects_model_has_an_export_of_its_own(tmp_path, monkeypatch, capsys):
    asked, facts = {}, {"model": "m", "recipe": "r", "origin": "o"}

    def model_to_export(*_, image_size):
        asked["size"] = image_size
        return None, "o"

    checkpoint = tmp_path / "params" / "x" / "m.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    monkeypatch.setattr("qmsam_core.deploy.shipped_export.checkpoint_path", lambda name: checkpoint)
    monkeypatch.setattr("qmsam_core.deploy.export.model_to_export", model_to_export)
    monkeypatch.setattr("qmsam_core.deploy.export.export_if_stale", lambda *_: facts)
    monkeypatch.setattr("qmsam_core.quant.facts_of", lambda path: {})
    assert predict.shipped_model(128).name == "m_128" and asked["size"] == 128
    assert predict.shipped_model().name == "m" and asked["size"] is None


@pytest.mark.parametrize(
    "given, words",
    [
        (
            ["--image-size", "128", "--model", "m"],
            "--image-size 128: m has its size; export it at another one",
        ),
        (["--image-size", "100"], "--image-size 100: expected a multiple of 16, at least 32 px"),
        (["--image-size", "0"], "--image-size 0: expected a multiple of 16"),
    ],
)
def test_sizes_that_cannot_be_are_told(tmp_path, capsys, given, words):
    rectangle_case("2DBox_US_a", 1, False).save(tmp_path / "in" / "2DBox_US_a.npz")
    _, error = run(capsys, "-i", tmp_path / "in", "-o", tmp_path / "out", *given, code=2)
    assert words in error[-1] and not (tmp_path / "out").exists()


def test_after_a_failed_rerun_the_tables_and_the_message_tell_of_the_old_mask(tmp_path, boxes_engine, capsys):
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png")
    table, rows = tmp_path / "b.csv", ["file,x,y,width,height", "a.png,1,1,5,5", "b.png,1,1,5,5"]
    table.write_text("\n".join(rows) + "\n")
    arguments = ["-i", tmp_path / "in", "--boxes", table, "-o", tmp_path / "out"]
    run(capsys, *arguments)
    table.write_text("\n".join(rows[:2]) + "\n")
    _, error = run(capsys, *arguments, code=1)
    old = tmp_path / "out" / "b.png"
    assert any(f"{old} and its rows of objects.csv are of an earlier run" in line for line in error)
    status = pd.read_csv(tmp_path / "out" / "timing.csv").set_index("case")["status"]
    assert status["a.png"] == "kept" and status["b.png"].startswith("failed: has no boxes")
    (tmp_path / "in" / "b.png").unlink()
    _, error = run(capsys, *arguments)
    assert any("holds masks of 1 other inputs (b.png)" in line for line in error)


def test_cases_may_be_called_like_numbers_or_like_nothing(tmp_path, boxes_engine, capsys):
    rows = ["file,x,y,z,width,height,depth"]
    for name in ("001", "002", "NA", "1e3"):
        write_series(tmp_path / "in" / name, series=name)
        rows.append(f"{name},1,1,0,5,5,1")
    (tmp_path / "b.csv").write_text("\n".join(rows) + "\n")
    for _ in range(3):
        run(capsys, "-i", tmp_path / "in", "--boxes", tmp_path / "b.csv", "-o", tmp_path / "out")
        timing = pd.read_csv(tmp_path / "out" / "timing.csv", dtype=str, keep_default_na=False)
        assert sorted(timing["case"]) == ["001", "002", "1e3", "NA"] and (timing["total"] != "").all()


@pytest.mark.parametrize("shard", [[], ["--shard", "1/1"]])
def test_cases_and_series_whose_names_are_no_utf8_are_done(tmp_path, boxes_engine, capsys, shard):
    odd = os.fsdecode(b"2DBox_US_M\xfcller")
    rectangle_case("2DBox_US_a", 1, False).save(tmp_path / "in" / f"{odd}.npz")
    rectangle_case("2DBox_US_b", 1, False).save(tmp_path / "in" / "2DBox_US_b.npz")
    arguments = ["-i", tmp_path / "in", "-o", tmp_path / "out", *shard]
    for kept in ("", " (2 kept from before)"):
        out, _ = run(capsys, *arguments)
        assert out[-1].startswith(f"2 cases done{kept}, 0 failed")
        assert (tmp_path / "out" / f"{odd}.npz").exists()
        timing = pd.read_csv(tmp_path / "out" / "timing.csv")
        assert sorted(timing["case"]) == ["2DBox_US_M\\udcfcller.npz", "2DBox_US_b.npz"]
        assert len(pd.read_csv(tmp_path / "out" / "objects.csv")) == 4


@pytest.mark.parametrize("ending", [".png", ".nii.gz"])
@pytest.mark.parametrize("what", ["file", "folder", "mask"])
def test_images_whose_names_are_no_utf8_are_named_and_the_rest_is_done(
    tmp_path, boxes_engine, capsys, ending, what
):
    odd = os.fsdecode(b"M\xfcller")
    name = {"file": f"{odd}{ending}", "folder": f"{odd}/a{ending}", "mask": f"a{ending}"}[what]
    for path, values in (("in", VALUES), ("masks", LABELS)):
        for place in (name, f"ok{ending}"):
            write_image(tmp_path / "made.nii.gz", values)
            if ending == ".png":
                Image.fromarray(values[2].clip(0, 255).astype(np.uint8)).save(tmp_path / "made.png")
            (tmp_path / path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"made{ending}").rename(tmp_path / path / place)
    masks = tmp_path / "masks"
    if what == "mask":
        (tmp_path / "in" / f"ok{ending}").unlink()
        (tmp_path / "in" / f"a{ending}").rename(tmp_path / "in" / f"ok{ending}")
        masks = masks.rename(tmp_path / odd)
    arguments = ["--boxes-from", masks, "--modality", "MR", "-o", tmp_path / "out"]
    out, error = run(capsys, "-i", tmp_path / "in", *arguments, code=2 if what == "mask" else 1)
    assert any("M\\udcfcller" in line and "no UTF-8" in line and "rename it" in line for line in error)
    assert what == "mask" or out[-1].startswith("1 cases done, 1 failed")


def test_outputs_of_earlier_runs_below_the_input_are_passed_over(tmp_path, boxes_engine, capsys):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "b.csv").write_text("file,x,y,width,height\na.png,1,1,5,5\n")
    for name in ("first", "second"):
        arguments = ["-i", tmp_path / "in", "--boxes", tmp_path / "b.csv", "-o", tmp_path / "in" / name]
        out, error = run(capsys, *arguments)
        assert out[-1].startswith("1 cases done, 0 failed")
    assert sum("in/first: passed over, it holds outputs" in line for line in error) == 1


HEADERS = {
    "ct.mhd": "ElementDataFile = data/ct.raw\n",
    "dos.mhd": "ElementDataFile = data\\ct.raw\r\n",
    "list.mhd": "ElementDataFile = LIST\ndata/ct.raw\ndata/2.raw\n",
    "pattern.mhd": "ElementDataFile = data/%d.raw 1 2 1\n",
    "n.nhdr": "NRRD0004\ndata file: data/ct.raw\n",
    "list.nhdr": "NRRD0004\ndata file: LIST\n./data/ct.raw\ndata/2.raw\n",
}


@pytest.mark.parametrize("name, text", HEADERS.items())
def test_voxels_of_a_header_in_a_folder_of_their_own_are_no_inputs(tmp_path, name, text):
    (tmp_path / "data").mkdir()
    (tmp_path / name).write_text(text)
    for file in ("ct.raw", "1.raw", "2.raw"):
        if file.split(".")[0] in text or ("%" in text and file != "ct.raw"):
            (tmp_path / "data" / file).write_bytes(b"1")
    own = [one for one in find_inputs(tmp_path) if not str(name_of(one)).endswith("nhdr")]
    assert [name_of(one) for one in own] == [name] * name.endswith("mhd")
    for one in own:
        state = one.state()
        (one.path.parent / "data" / "2.raw").write_bytes(b"123")
        (one.path.parent / "data" / "ct.raw").write_bytes(b"123")
        assert len(one.files) > 1 and one.state() != state


# Shards -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_shards_are_disjoint_and_complete_whatever_else_is_in_the_folder(count):
    inputs = [Input(Path(f"{k}.png"), f"p{k % 3}/{k}.png", "image", ()) for k in range(100)]
    shards = [[one for one in inputs if one.in_shard((k, count))] for k in range(1, count + 1)]
    assert sorted(one.name for shard in shards for one in shard) == sorted(one.name for one in inputs)
    assert max(map(len, shards)) < 4 * 100 / count


def test_the_shards_of_a_folder_do_it_all_and_name_what_is_odd_once(tmp_path, boxes_engine, capsys):
    for k in range(12):
        rectangle_case(f"2DBox_US_{k}", k, False).save(tmp_path / "in" / f"2DBox_US_{k}.npz")
    (tmp_path / "in" / "notes.txt").write_text("")
    counts = []
    for k in (1, 2, 3):
        code = 1 if k == 1 else 0
        out, _ = run(capsys, "-i", tmp_path / "in", "-o", tmp_path / "out", "--shard", f"{k}/3", code=code)
        counts.append(int(out[-1].split()[0]))
    assert sum(counts) == 12 and len(files(tmp_path / "out")) == 15
    assert len(pd.read_csv(tmp_path / "out" / "timing.csv")) == 13
    out, _ = run(capsys, "-i", tmp_path / "in", "-o", tmp_path / "out", code=1)
    assert out[-1].startswith("12 cases done (12 kept from before), 1 failed")


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0"])
def test_shards_that_are_none(text, capsys):
    with pytest.raises(SystemExit):
        predict_command(["-i", "in", "-o", "out", "--shard", text])
    error = capsys.readouterr().err
    assert "expected K/N such as 3/16" in error and len(error.splitlines()) == 2


# Processes --------------------------------------------------------------------------------------------------


PROCESS = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from box_engine import BoxEngine
from qmsam_core.deploy import Predictor, batch
from qmsam_core.deploy.batch import predict_folder

class Slow(BoxEngine):
    def encode(self, images):
        time.sleep(0.03)
        return super().encode(images)

class Told(Predictor):
    def segment(self, case):
        print(case.name, flush=True)
        return super().segment(case)

batch.SAVE_SECONDS, batch.WAIT_SECONDS = 0.2, 0.05
print("ready", flush=True)
sys.stdin.readline()
paths = sorted(Path(sys.argv[1]).glob("*.npz"))
rows = predict_folder(Told(Slow()), paths, Path(sys.argv[2]), lambda line: None)
bad = [row for row in rows if row["status"].startswith("failed")]
print("end", len(rows), len(bad), flush=True)
"""


def start(folder):
    command = [sys.executable, "-c", PROCESS.format(tests=os.path.dirname(__file__))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, str(folder / "in"), str(folder / "out")], **pipes)


def test_four_processes_share_a_folder_and_one_is_killed(tmp_path):
    for k in range(60):
        rectangle_case(f"2DBox_US_{k}", k, False).save(tmp_path / "in" / f"2DBox_US_{k}.npz")
    processes = [start(tmp_path) for _ in range(4)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        killed = [processes[0].stdout.readline().strip() for _ in range(4)]
        processes[0].send_signal(signal.SIGKILL)
        killed += processes[0].communicate()[0].split()
        said = [process.communicate(timeout=120)[0].split() for process in processes[1:]]
    finally:
        for process in processes:
            process.kill()
    assert all(words[-3:] == ["end", "60", "0"] for words in said)
    done = [word for words in said for word in words if word.startswith("2DBox")]
    assert len(done) == len(set(done))  # no case twice
    assert set(done) | set(killed) == {f"2DBox_US_{k}" for k in range(60)}
    assert len(set(done) & set(killed)) <= 3  # what the killed process had in work: read, segmented, written
    assert files(tmp_path / "out") == sorted(
        [*(f"2DBox_US_{k}.npz" for k in range(60)), "objects.csv", "predictor.json", "timing.csv"]
    )
    assert not (tmp_path / "out" / FOLDER).exists()
    timing = pd.read_csv(tmp_path / "out" / "timing.csv")
    assert timing["case"].is_unique and len(timing) == 60 and timing["status"].isin(["done", "kept"]).all()
    assert len(pd.read_csv(tmp_path / "out" / "objects.csv")) == 120
    made = json.loads((tmp_path / "out" / "predictor.json").read_text())
    assert len(made["cases"]) == 60
    for k in range(60):
        assert read_segmentation(tmp_path / "out" / f"2DBox_US_{k}.npz").max() == 2


def small_folder(tmp_path, count=3):
    for k in range(count):
        rectangle_case(f"2DBox_US_{k}", k, False).save(tmp_path / "in" / f"2DBox_US_{k}.npz")
    return sorted((tmp_path / "in").glob("*.npz"))


def held_by(output, name, **facts):
    """Leave a reservation as another process would."""
    with Reservations(output) as reserved:
        path = reserved._path(name)
        path.write_text(json.dumps({"name": name, **reserved._me, **facts}))
    return path


def test_a_case_of_a_dead_process_is_taken_over(tmp_path):
    paths = small_folder(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    held_by(tmp_path / "out", "2DBox_US_1.npz", pid=dead.pid, started="1")
    rows = predict_folder(Predictor(BoxEngine()), paths, tmp_path / "out")
    assert [row["status"] for row in rows] == ["done"] * 3


def test_a_later_process_of_the_same_number_is_another_one(tmp_path):
    paths = small_folder(tmp_path)
    held_by(tmp_path / "out", "2DBox_US_1.npz", pid=os.getppid(), started="1")
    rows = predict_folder(Predictor(BoxEngine()), paths, tmp_path / "out")
    assert [row["status"] for row in rows] == ["done"] * 3


def test_a_case_of_another_machine_is_taken_over_only_when_it_was_not_renewed_for_long(tmp_path):
    with Reservations(tmp_path / "out") as reserved:
        path = held_by(tmp_path / "out", "a", host="elsewhere/1", pid=1, started="1")
        assert not reserved.take("a") and reserved.holder("a") == "process 1 on elsewhere"
        long_ago = time.time() - STALE_SECONDS - 60
        os.utime(path, (long_ago, long_ago))
        assert reserved.take("a") and not reserved.take("a")
    assert not (tmp_path / "out" / FOLDER).exists()


def test_a_half_written_reservation_counts_until_it_is_old(tmp_path):
    with Reservations(tmp_path) as reserved:
        path = reserved._path("a")
        path.write_text("")
        assert not reserved.take("a") and reserved.holder("a") is None
        long_ago = time.time() - UNWRITTEN_SECONDS - 60
        os.utime(path, (long_ago, long_ago))
        assert reserved.take("a")


def test_what_a_process_finished_before_it_was_killed_is_not_done_again(tmp_path, monkeypatch):
    paths = small_folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            "qmsam_core.deploy.batch.Records.save", lambda self, last=False: None
        )  # SIGKILL prevents it
        predict_folder(Predictor(BoxEngine()), paths[:2], tmp_path / "out")
    engine = BoxEngine()
    rows = predict_folder(Predictor(engine), paths, tmp_path / "out")
    assert [row["status"] for row in rows] == ["kept", "kept", "done"] and engine.encoded == 1
    assert len(pd.read_csv(tmp_path / "out" / "timing.csv")) == 3
    assert len(pd.read_csv(tmp_path / "out" / "objects.csv")) == 6


def test_processes_that_wait_for_each_other_take_in_what_the_other_finished(tmp_path, monkeypatch):
    paths = small_folder(tmp_path)
    monkeypatch.setattr(batch, "WAIT_SECONDS", 0.01)
    lines, first = [], []

    def finish_elsewhere(line):
        lines.append(line)
        with Reservations(tmp_path / "out") as other:  # the holder finishes, and saves nothing
            monkeypatch.setattr(Reservations, "take", take)
            one = Input.case(paths[1])
            record = {
                "predictor": settings(tmp_path),
                "origin": Reading().origin(one),
                "row": {},
                "objects": [],
            }
            record["row"] = {"case": one.name, "status": "done"}
            predict_one(tmp_path, paths[1])
            other.finish(one.name, record)

    def settings(root):
        return json.loads((root / "out" / "predictor.json").read_text())["predictor"]

    def predict_one(root, path):
        segs = Predictor(BoxEngine()).segment(Case.load(path))
        write_segmentation(root / "out" / path.name, segs)

    take = Reservations.take

    def held(self, name, *rest):
        if name == paths[1].name:
            first.append(name)
            return False
        return take(self, name, *rest)

    monkeypatch.setattr(Reservations, "take", held)
    rows = predict_folder(Predictor(BoxEngine()), paths, tmp_path / "out", finish_elsewhere)
    assert [row["status"] for row in rows] == ["done", "done elsewhere", "done"] and first
    assert lines[0].startswith("waiting for 1 cases of other processes")


def test_a_process_with_other_settings_does_not_mix_its_masks_in(tmp_path):
    paths = small_folder(tmp_path)
    predict_folder(Predictor(BoxEngine()), paths, tmp_path / "out")
    path = held_by(tmp_path / "out", "2DBox_US_1.npz", pid=os.getppid(), started=started_at(os.getppid()))
    with pytest.raises(OutputError, match="writes outputs of another model or other settings"):
        predict_folder(Predictor(BoxEngine(), propagate=True), paths, tmp_path / "out")
    path.unlink()
    rows = predict_folder(Predictor(BoxEngine()), paths, tmp_path / "out")
    assert [row["status"] for row in rows] == ["kept"] * 3


def test_two_inputs_that_give_one_output_are_told(tmp_path, boxes_engine, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.bmp"):
        Image.fromarray(np.full((20, 30), 7, np.uint8)).save(tmp_path / "in" / name)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("file,x,y,width,height\na.png,1,1,5,5\na.bmp,1,1,5,5\n")
    _, error = run(capsys, "-i", tmp_path / "in", "--boxes", boxes, "-o", tmp_path / "out", code=1)
    assert sum("gives the same output" in line for line in error) == 1
