"""Importers of NIfTI and image files: a known cube arrives at the right voxels, and bad inputs are named."""

from argparse import ArgumentTypeError

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
from hospital_data import (
    CUBE,
    RODS,
    SHAPE,
    check_cube,
    cube_labels,
    cube_values,
    error_of,
    image_of,
    imported,
    write_image,
)

from qmsam_core.data import CaseError, SliceIndex
from qmsam_core.data.importers.__main__ import main
from qmsam_core.data.importers.arguments import modality_name
from qmsam_core.data.importers.batch import file_name
from qmsam_core.data.importers.intensity import WINDOWS, parse_window, stretched, windowed
from qmsam_core.data.importers.labels import LabelOptions, finished, label_map, stacked
from qmsam_core.data.importers.pairing import find_pairs

LABELS, VALUES = cube_labels(), cube_values()


@pytest.mark.parametrize(
    "order, mask_order", [("LPS", "LPS"), ("RAS", "RAS"), ("PIR", "PIR"), ("ASL", "RAS"), ("LPI", "SAL")]
)
def test_nifti_of_any_orientation_becomes_axial(tmp_path, order, mask_order):
    image = write_image(tmp_path / "case one.nii.gz", VALUES, order)
    mask = write_image(tmp_path / "mask.nii.gz", LABELS, mask_order)
    cases = imported(tmp_path, "nifti", image, mask, "--modality", "ct", "--dataset", "Here")
    assert list(cases) == ["3DBox_CT_case_one"]
    check_cube(cases["3DBox_CT_case_one"])
    images = cases["3DBox_CT_case_one"].images
    assert (
        (images[CUBE] == 128).all()
        and (images[RODS] == 255).all()
        and images[0, 0, 0] == 64
        and images[0, 0, 1] == 0
    )
    assert (tmp_path / "out/CT/Here/3DBox_CT_case_one.npz").exists()


@pytest.mark.parametrize("degrees", [7, -20])
def test_an_oblique_volume_is_not_resampled(tmp_path, degrees):
    image = write_image(tmp_path / "a.mha", VALUES, "RAS", degrees)
    mask = write_image(tmp_path / "m.nrrd", LABELS, "LPS", degrees)
    check_cube(imported(tmp_path, "nifti", image, mask, "--modality", "CT")["3DBox_CT_a"])


def test_mr_is_stretched_between_percentiles_of_its_non_zero_voxels(tmp_path):
    values = np.zeros(SHAPE, np.float32)
    values[2:4] = np.linspace(100, 1100, values[2:4].size).reshape(values[2:4].shape)
    image, mask = (
        write_image(tmp_path / "a.nii", values),
        write_image(tmp_path / "m.nii", LABELS.astype(np.float32)),
    )
    case = imported(
        tmp_path, "nifti", image, mask, "--modality", "MR", "--percentiles", "0", "100", "--name", "b"
    )["3DBox_MR_b"]
    np.testing.assert_allclose(
        case.images[2:4], np.linspace(0, 255, values[2:4].size).reshape(values[2:4].shape), atol=0.51
    )
    assert (case.images[0] == 0).all()


def test_a_folder_of_masks_is_one_object_a_file(tmp_path, capsys):
    masks = tmp_path / "masks"
    inner = np.zeros_like(LABELS)
    inner[2, 4, 5] = 1
    for name, mask in {"liver": LABELS == 1, "tumour": inner, "spine": LABELS == 2}.items():
        write_image(masks / f"{name}.nii.gz", mask.astype(np.uint8) * 255)
    image = write_image(tmp_path / "a.nii.gz", VALUES)
    case = imported(tmp_path, "nifti", image, masks, "--modality", "CT", "--objects", "Liv*", "tumour")[
        "3DBox_CT_a"
    ]
    expected = np.where(LABELS == 1, 1, 0)
    expected[2, 4, 5] = 2
    np.testing.assert_array_equal(case.labels, expected)
    assert "'tumour' overlaps 'liver'" in capsys.readouterr().out


def planar_mask():
    mask = np.zeros((12, 15), np.uint8)
    mask[1:4, 2:6], mask[8:11, 7:14], mask[8:11, 10] = 1, 4, 0
    return mask


def test_rgb_png_keeps_its_colours_and_an_object_of_parts_its_label(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "eye.png"), colours[..., ::-1])
    cv2.imwrite(str(tmp_path / "eye_mask.png"), planar_mask())
    arguments = ["images", tmp_path / "eye.png", tmp_path / "eye_mask.png", "--modality", "fundus"]
    case = imported(tmp_path, *arguments)["2DBox_Fundus_eye"]
    np.testing.assert_array_equal(case.images, colours)
    np.testing.assert_array_equal(case.boxes, [[2, 1, 5, 3], [7, 8, 13, 10]])
    np.testing.assert_array_equal(case.labels, np.where(planar_mask() == 4, 2, planar_mask()))
    parts = imported(tmp_path, *arguments, "--instances", "--min-size", "10", "--overwrite")[
        "2DBox_Fundus_eye"
    ]
    np.testing.assert_array_equal(parts.boxes, [[2, 1, 5, 3]])
    assert len(imported(tmp_path, *arguments, "--instances", "--overwrite")["2DBox_Fundus_eye"].boxes) == 3


def test_16_bit_and_colour_coded_masks(tmp_path):
    grey = np.linspace(1000, 41000, 180).reshape(12, 15).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), grey)
    coded = np.zeros((12, 15, 3), np.uint8)
    # Blue and red, in OpenCV's order of channels.
    coded[planar_mask() == 1], coded[planar_mask() == 4] = (255, 0, 0), (0, 0, 255)
    cv2.imwrite(str(tmp_path / "m.tif"), coded)
    case = imported(
        tmp_path,
        "images",
        tmp_path / "x.png",
        tmp_path / "m.tif",
        "--modality",
        "X-Ray",
        "--percentiles",
        0,
        100,
    )["2DBox_X-Ray_x"]
    np.testing.assert_allclose(case.images[..., 0], (grey.astype(float) - 1000) * 255 / 40000, atol=0.51)
    assert case.images.shape == (12, 15, 3) and (case.images == case.images[..., :1]).all()
    np.testing.assert_array_equal(case.boxes, [[2, 1, 5, 3], [7, 8, 13, 10]])
    cv2.imwrite(str(tmp_path / "label16.png"), planar_mask().astype(np.uint16) * 300)
    cases = imported(
        tmp_path,
        "images",
        tmp_path / "x.png",
        tmp_path / "label16.png",
        "--modality",
        "X-Ray",
        "--objects",
        "1200",
        "--name",
        "y",
    )
    case = cases["2DBox_X-Ray_y"]
    np.testing.assert_array_equal(case.labels, planar_mask() == 4)


def test_a_folder_goes_on_after_bad_files_and_keeps_finished_cases(tmp_path, capsys):
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images / "s", masks / "s", masks / "many"):
        folder.mkdir(parents=True)
    picture, empty = np.full((12, 15), 7, np.uint8), np.zeros((12, 15), np.uint8)
    for name in ("good", "s/good", "lonely", "shape", "empty", "many"):
        cv2.imwrite(str(images / f"{name}.png"), picture)
    drawn = {
        "good_mask": planar_mask(),
        "s/good": planar_mask(),
        "shape": planar_mask()[:-1],
        "empty": empty,
        "extra": planar_mask(),
    }
    for name, mask in drawn.items():
        cv2.imwrite(str(masks / f"{name}.png"), mask)
    for number in (1, 4):
        cv2.imwrite(str(masks / f"many/cell{number}.png"), (planar_mask() == number) * np.uint8(255))
    (images / "broken.png").write_bytes(b"\x89PNG broken")
    cv2.imwrite(str(masks / "broken.png"), planar_mask())
    arguments = ["images", images, masks, "--modality", "Microscopy", "--dataset", "D"]
    cases = imported(tmp_path, *arguments, code=1)
    assert list(cases) == [f"2DBox_Microscopy_{name}" for name in ("good", "many", "s_good")]
    np.testing.assert_array_equal(cases["2DBox_Microscopy_many"].boxes, [[2, 1, 5, 3], [7, 8, 13, 10]])
    errors = " ".join(error_of(capsys))
    shape = "15x11 pixels, its image 15x12"
    for message in (
        "lonely.png: has no mask",
        "extra.png: is a mask without image",
        shape,
        "has an empty mask",
        "broken.png: cannot be read",
    ):
        assert message in errors, message
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npz")}
    imported(tmp_path, *arguments, code=1)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert "0 imported, 3 kept, 5 failed" in capsys.readouterr().out
    index = SliceIndex.build(tmp_path / "out")
    assert index.problems == [] and len(index) == 3 and index.cases.dataset.unique() == ["D"]


def bad_volumes(tmp_path):
    """Write bad volumes and masks. Returns tuples of image, mask and part of the expected message."""
    image, mask = write_image(tmp_path / "i.nii.gz", VALUES), write_image(tmp_path / "m.nii.gz", LABELS)
    shifted = image_of(LABELS)
    shifted.SetOrigin((-7.0, 11.0, -29.0))
    sitk.WriteImage(shifted, str(tmp_path / "shifted.nii.gz"))
    sitk.WriteImage(sitk.JoinSeries([image_of(VALUES)] * 2), str(tmp_path / "4d.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(VALUES[0]), str(tmp_path / "2d.nii.gz"))
    sitk.WriteImage(sitk.Compose([image_of(VALUES)] * 3), str(tmp_path / "rgb.nii.gz"))
    (tmp_path / "cut.nii.gz").write_bytes(image.read_bytes()[:90])
    nan = VALUES.astype(np.float32)
    nan[2, 5, 6] = np.nan
    return [
        (
            image,
            write_image(tmp_path / "large.nii.gz", LABELS.repeat(2, 0)),
            "20x16x12 voxels, its image 20x1",
        ),
        (image, tmp_path / "shifted.nii.gz", "lies up to 1 mm off its image"),
        (tmp_path / "4d.nii.gz", mask, "is 4-D of size 20x16x6x2; expected a 3-D volume"),
        (tmp_path / "2d.nii.gz", mask, "has 20x16x6 voxels, its image 20x16"),
        (tmp_path / "rgb.nii.gz", mask, "3 channels"),
        (tmp_path / "cut.nii.gz", mask, "is damaged or cut off"),
        (write_image(tmp_path / "nan.mha", nan), mask, "holds 1 NaN"),
        (image, write_image(tmp_path / "soft.nii.gz", LABELS * np.float32(0.3)), "holds fractions"),
        (image, write_image(tmp_path / "zero.nii.gz", LABELS * 0), "empty mask"),
        (image, image, "expected label ids"),
        (tmp_path / "notes.txt", mask, "unsupported type"),
        (image, tmp_path / "none", "holds no mask"),
    ]


@pytest.mark.parametrize("number", range(12))
def test_bad_volumes_are_refused_in_one_line(tmp_path, capsys, number):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "none").mkdir()
    image, mask, message = bad_volumes(tmp_path)[number]
    assert imported(tmp_path, "nifti", image, mask, "--modality", "CT", code=1) == {}
    (error,) = error_of(capsys)
    assert message in error and str(tmp_path) in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["nifti", "absent.nii", "absent.nii", "--modality", "CT"],
        ["dicom", "absent"],
        ["images", ".", ".", "--modality", "US"],
        ["images", ".", ".", "--modality", "../US"],
        ["images", ".", ".", "--modality", "US", "--dataset", "a/b"],
        ["nifti", ".", ".", "--modality", "CT", "--window", "kidney"],
        ["nifti", ".", ".", "--modality", "CT", "--percentiles", "60", "40"],
        ["nifti", ".", ".", "--modality", "CT", "--name", "x"],
    ],
)
def test_exit_code_2_where_nothing_can_start(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    try:
        code = main([*arguments, "--out", "out"])
    except SystemExit as stop:  # argparse exits itself
        code = stop.code
    assert code == 2 and not (tmp_path / "out").exists()


def test_two_inputs_of_one_name(tmp_path, capsys):
    for name in ("a b", "a_b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((12, 15), 9, np.uint8))
        cv2.imwrite(str(tmp_path / f"{name}_seg.png"), planar_mask())
    assert list(imported(tmp_path, "images", tmp_path, tmp_path, "--modality", "US", code=1)) == [
        "2DBox_US_a_b"
    ]
    assert "gives the same file" in error_of(capsys)[0]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("../../etc/x", "2DBox_US_etc_x.npz"),
        ("a b/c", "2DBox_US_a_b_c.npz"),
        ("...", "2DBox_US_case.npz"),
        ("Ä-1.2", "2DBox_US_Ä-1.2.npz"),
    ],
)
def test_names_stay_in_the_folder(name, expected):
    assert file_name(name, "US", False) == expected


@pytest.mark.parametrize(
    "value, expected", [(-160, 0), (-400, 0), (40, 128), (240, 255), (900, 255), (140, 191)]
)
def test_window(value, expected):
    assert windowed(np.array([value], np.int16), *WINDOWS["abdomen"])[0] == expected


def test_windows_by_name_and_number():
    assert parse_window("Lung") == (-600, 1500) and parse_window("-50, 90.5") == (-50, 90.5)
    for text in ("kidney", "40", "40,0", "40,-3", "nan,3", "1,2,3"):
        with pytest.raises(ValueError, match="expected one of"):
            parse_window(text)


def test_percentiles_leave_zero_out():
    values = np.concatenate([np.zeros(1000), np.arange(1, 101)])
    result = stretched(values, (1, 99), "x")
    assert (
        result[:1000].max() == 0
        and result[-1] == 255
        and result[1049] == round((50 - 1.99) / (99.01 - 1.99) * 255)
    )
    with pytest.raises(CaseError, match="is constant"):
        stretched(np.full(9, 4.0), (1, 99), "x")


def test_overlaps_go_to_the_smaller_object_and_covered_ones_are_noted():
    big, small, twin = np.zeros((3, 5, 6), bool)
    big[:, :], small[1:3, 1:3], twin[1:3, 1:3] = True, True, True
    found = stacked([("big", big), ("small", small), ("twin", twin)], big.shape)
    assert (found.labels[1:3, 1:3] == 3).all() and (found.labels == 1).sum() == 26
    assert "'small' is wholly covered by smaller objects" in found.notes
    assert found.boxes == {1: [0, 0, 5, 4], 3: [1, 1, 2, 2]}
    kept = finished(stacked([("twin", twin), ("small", small)], big.shape, True), LabelOptions(), "x")
    assert kept.names == {1: "twin", 2: "small"} and kept.notes == () and kept.labels.max() == 2
    assert kept.boxes == {1: [1, 1, 2, 2], 2: [1, 1, 2, 2]}
    done = finished(found, LabelOptions(), "x")
    assert done.labels.max() == 2 and done.names == {1: "big", 2: "twin"}


@pytest.mark.parametrize(
    "values", [np.array([[0.5]]), np.array([[np.nan]]), np.array([[-1]]), np.array([[70000]])]
)
def test_values_that_are_no_labels(values):
    with pytest.raises(CaseError, match="--threshold"):
        label_map(values, LabelOptions(), "x")
    assert label_map(values, LabelOptions(threshold=0.4), "x").labels.max() <= 1


def test_pairing_by_folder_and_by_word(tmp_path):
    for name in (
        "p1/ct.nii.gz",
        "p1/seg.nii.gz",
        "p2/t1_0000.nii",
        "p2/t1_label.nii",
        "p3/a.nii",
        "p3/b.nii",
        "p3/mask.nii",
        ".hidden/x.nii",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_pairs(tmp_path, tmp_path, (".nii", ".nii.gz"))
    assert [(p.name, p.mask.name) for p in found.pairs] == [
        ("p1_ct", "seg.nii.gz"),
        ("p2_t1_0000", "t1_label.nii"),
    ]
    assert sorted(str(e.path.relative_to(tmp_path)) for e in found.errors) == [
        "p3/a.nii",
        "p3/b.nii",
        "p3/mask.nii",
    ]


@pytest.mark.parametrize("name", ["CTA", "ct_abdomen", "CBCT", "CT-like", "PET-CT", "HRCT"])
def test_a_name_for_ct_that_would_not_be_windowed_is_refused(name):
    with pytest.raises(ArgumentTypeError, match="only CT is; give CT if these are CT images"):
        modality_name(name)


def test_other_modalities_keep_their_names():
    asked = ["ct", "oct", "SPECT", "OCTA", "Mammography", "x-ray"]
    assert [modality_name(name) for name in asked] == ["CT", "OCT", "SPECT", "OCTA", "Mammography", "X-Ray"]
