"""Layouts of public data sets are paired by the rules that the help states. What fits no rule is listed."""

import subprocess
import sys

import numpy as np
import pytest
from hospital_data import cube_labels, cube_values, error_of, imported, write_image
from PIL import Image

from qmsam_core.data.importers.__main__ import main
from qmsam_core.data.importers.pairing import find_pairs

ENDINGS = (".nii.gz", ".nii", ".png", ".tif")


def paired(tmp_path, names, images=".", masks=".", contrast=None):
    """Pair empty files. Returns {case: masks' names or the one mask's name}, and the errors."""
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = find_pairs(tmp_path / images, tmp_path / masks, ENDINGS, contrast)
    pairs = {
        p.name: [m.name for m in p.mask] if isinstance(p.mask, tuple) else p.mask.name for p in found.pairs
    }
    return pairs, [f"{e.path.name}: {e.message}" for e in found.errors]


@pytest.mark.parametrize(
    "names, expected",
    [
        (  # BUSI
            ["b/benign (4).png", "b/benign (4)_mask.png", "b/benign (4)_mask_1.png", "b/benign (40).png"]
            + ["b/benign (40)_mask.png"],
            {"b_benign (4)": ["benign (4)_mask.png", "benign (4)_mask_1.png"],
             "b_benign (40)": "benign (40)_mask.png"},
        ),
        (  # TotalSegmentator
            ["s1/ct.nii.gz", "s1/segmentations/liver.nii.gz", "s1/segmentations/spleen.nii.gz"]
            + ["s2/ct.nii.gz", "s2/segmentations/liver.nii.gz"],
            {"s1_ct": ["liver.nii.gz", "spleen.nii.gz"], "s2_ct": ["liver.nii.gz"]},
        ),
        (  # nnU-Net
            ["imagesTr/la_003_0000.nii.gz", "labelsTr/la_003.nii.gz"],
            {"imagesTr_la_003_0000": "la_003.nii.gz"},
        ),
        (["volume-1.nii", "segmentation-1.nii", "volume-11.nii", "segmentation-11.nii"],  # LiTS
         {"volume-1": "segmentation-1.nii", "volume-11": "segmentation-11.nii"}),
        (  # DSB2018
            ["7f/images/7f.png", "7f/masks/a.png", "7f/masks/b.png", "8e/images/8e.png", "8e/masks/c.png"],
            {"7f_images_7f": ["a.png", "b.png"], "8e_images_8e": ["c.png"]},
        ),
        (["x.tif", "x_masks.tif", "y_img.tif", "y_masks.tif", "z.png", "z_cp_masks.png"],  # cellpose
         {"x": "x_masks.tif", "y_img": "y_masks.tif", "z": "z_cp_masks.png"}),
        (["images/x.tif", "masks/x.tif"], {"images_x": "x.tif"}),  # stardist
        (["x.tif", "masks/x.tif", "y.tif", "masks/y.tif"], {"x": "x.tif", "y": "y.tif"}),
        (["img_1.png", "mask_1.png", "img_12.png", "mask_12.png"],
         {"img_1": "mask_1.png", "img_12": "mask_12.png"}),
        (["img/img0001.nii", "label/label0001.nii"], {"img_img0001": "label0001.nii"}),  # BTCV
        (["case_1/imaging.nii.gz", "case_1/segmentation.nii.gz"],  # KiTS
         {"case_1_imaging": "segmentation.nii.gz"}),
        (["imagesTr/liver_1.nii.gz", "labelsTr/liver_1.nii.gz", "imagesTr/._liver_1.nii.gz"],  # MSD
         {"imagesTr_liver_1": "liver_1.nii.gz"}),
        (["Original/1.tif", "Ground Truth/1.tif"], {"Original_1": "1.tif"}),
        (["p/ct.nii", "p/liver_mask.nii", "p/spleen_mask.nii"],
         {"p_ct": ["liver_mask.nii", "spleen_mask.nii"]}),
        (["train/images/x.png", "train/labels/x.png", "test/images/x.png", "test/labels/x.png"],
         {"train_images_x": "x.png", "test_images_x": "x.png"}),
    ],
)  # fmt: skip
def test_layouts_of_public_data_sets(tmp_path, names, expected):
    assert paired(tmp_path, names) == (expected, [])


def test_two_folders_and_nnunet_as_two_arguments(tmp_path):
    names = ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz"]
    pairs, errors = paired(tmp_path, names, "imagesTr", "labelsTr")
    assert pairs == {"a_0000": "a.nii.gz", "b_0000": "b.nii.gz"} and errors == []


BRATS = [f"B_1/B_1_{word}.nii.gz" for word in ("t1", "t1ce", "t2", "flair", "seg")]


@pytest.mark.parametrize("names", [BRATS, ["imagesTr/x_0000.nii", "imagesTr/x_0001.nii", "labelsTr/x.nii"]])
def test_several_contrasts_of_one_mask_need_a_switch(tmp_path, names):
    pairs, errors = paired(tmp_path, names)
    assert pairs == {} and len(errors) == 1
    assert "--contrast " in errors[0] and "--contrast all" in errors[0]
    assert len(paired(tmp_path, names, contrast="all")[0]) == len(names) - 1


@pytest.mark.parametrize("word", ["t1ce", "T1CE", "_t1ce"])
def test_one_contrast_is_taken(tmp_path, word):
    assert paired(tmp_path, BRATS, contrast=word) == ({"B_1_B_1_t1ce": "B_1_seg.nii.gz"}, [])


def test_what_fits_no_rule_is_listed_with_what_was_expected(tmp_path):
    names = [
        "a.png",
        "b_mask.png",
        "c.png",
        "c_mask.png",
        "c_seg.png",
        "d.gif",
        "e.webp",
        "f.nii",
        "f.nii.gz",
    ]
    pairs, errors = paired(tmp_path, names)
    assert pairs == {}
    for part in (
        "a.png: has no mask in",
        "b_mask.png: is a mask without image",
        "c.png: has 2 masks (c_mask, c_seg)",
        "d.gif: is of a type this command does not read",
        "e.webp: is of a type",
        "f.nii.gz: has the name of f.nii",
    ):
        assert any(part in error for error in errors), part
    assert any("expected x with x_mask, masks/x" in error for error in errors)


def test_busi_becomes_a_case_of_two_objects(tmp_path):
    masks = np.zeros((2, 20, 30), np.uint8)
    masks[0, 2:6, 3:9], masks[1, 10:15, 20:26] = 255, 255
    for name, mask in zip(("", "_mask", "_mask_1"), (masks[0], *masks)):
        Image.fromarray(mask).save(tmp_path / f"benign (4){name}.png")
    case = imported(tmp_path, "images", tmp_path, tmp_path, "--modality", "US")["2DBox_US_benign_4"]
    assert case.names == ("mask", "mask_1")
    np.testing.assert_array_equal(case.labels, (masks[0] > 0) + 2 * (masks[1] > 0))


def test_an_organ_absent_in_one_patient_shifts_no_name(tmp_path, capsys):
    labels = cube_labels()
    for name, organs in {"s1": {"liver": 1, "spine": 2}, "s2": {"liver": 9, "spine": 2}}.items():
        write_image(tmp_path / f"{name}/ct.nii.gz", cube_values())
        for organ, label in organs.items():
            write_image(tmp_path / f"{name}/segmentations/{organ}.nii.gz", (labels == label).astype(np.uint8))
    cases = imported(tmp_path, "nifti", tmp_path, tmp_path, "--modality", "CT")
    assert cases["3DBox_CT_s1_ct"].names == ("liver", "spine") and cases["3DBox_CT_s2_ct"].names == ("spine",)
    said = capsys.readouterr().out
    assert "no voxel is labelled in liver" in said and "liver 1, spine 2" in said


def test_files_of_other_types_are_said(tmp_path, capsys):
    for name in ("a.png", "a_mask.png"):
        Image.fromarray(np.eye(12, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "list.csv").touch()
    imported(tmp_path, "images", tmp_path, tmp_path, "--modality", "US")
    assert "1 files of other types" in capsys.readouterr().out
    (tmp_path / "b.webp").touch()
    imported(tmp_path, "images", tmp_path, tmp_path, "--modality", "US", code=1)
    assert "b.webp: is of a type this command does not read" in error_of(capsys)[0]


def test_the_command_greets_and_states_its_rules(capsys):
    command = [sys.executable, "-W", "error", "-m", "qmsam_core.data.importers"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr == "" and "{nifti,dicom,images}" in run.stdout
    with pytest.raises(SystemExit):
        main(["nifti", "--help"])
    said = capsys.readouterr().out
    for word in ("BUSI", "TotalSegmentator", "nnU-Net", "LiTS", "BraTS", "DSB2018", "cellpose"):
        assert word in said
