"""Masks mean what their files store, lie where they state, and are asked about where they seem to be none."""

import struct

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
from hospital_data import (
    CUBE,
    SHAPE,
    SPACING,
    check_cube,
    cube_labels,
    cube_values,
    error_of,
    image_of,
    imported,
    write_image,
)
from PIL import Image

from qmsam_core.data import CaseError
from qmsam_core.data.importers.batch import names_summary
from qmsam_core.data.importers.intensity import check_hounsfield, shown_already
from qmsam_core.data.importers.labels import LabelOptions, label_map
from qmsam_core.data.importers.planar import read_mask
from qmsam_core.data.importers.plausibility import has_soft_edge

VALUES, LABELS = cube_values(), cube_labels()


def objects_mask():
    mask = np.zeros((24, 32), np.uint8)
    mask[2:8, 3:10], mask[10:14, 20:28], mask[16:22, 4:9] = 1, 2, 3
    return mask


def read(path, **options):
    return read_mask(path, LabelOptions(**options))


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_palette_indices_are_the_labels(tmp_path, ending):
    image = Image.fromarray(objects_mask()).convert("P")
    image.putpalette([0, 0, 0, 128, 128, 0, 128, 0, 0, 0, 0, 128])
    image.save(tmp_path / f"m.{ending}")
    np.testing.assert_array_equal(read(tmp_path / f"m.{ending}").labels, objects_mask())
    chosen = read(tmp_path / f"m.{ending}", objects=("1",)).labels
    np.testing.assert_array_equal(chosen, objects_mask() == 1)


def test_a_palette_that_numbers_white_first_is_refused(tmp_path):
    image = Image.fromarray((objects_mask() == 0).astype(np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "m.png")
    with pytest.raises(CaseError, match="white at index 0.*save the mask in grey"):
        read(tmp_path / "m.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_png_of_few_bits_stores_labels(tmp_path, bits):
    mask = objects_mask() & 1 if bits == 1 else objects_mask()
    image = Image.fromarray(mask.astype(bool)) if bits == 1 else Image.fromarray(mask)
    image.save(tmp_path / "m.png", bits=bits)
    np.testing.assert_array_equal(read(tmp_path / "m.png").labels, mask)


def write_tiff(path, mask, bits, white_is_zero):
    """Write an uncompressed TIFF of one strip."""
    data = (np.packbits(mask, axis=1) if bits == 1 else mask.astype(f"<u{bits // 8}")).tobytes()
    tags = [(256, mask.shape[1]), (257, len(mask)), (258, bits), (259, 1), (262, 0 if white_is_zero else 1)]
    tags += [(273, 8), (277, 1), (278, len(mask)), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0))


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_tiff_of_any_depth_stores_labels_whatever_is_shown_white(tmp_path, bits, white_is_zero):
    mask = objects_mask() & 1 if bits == 1 else objects_mask()
    write_tiff(tmp_path / "m.tif", mask, bits, white_is_zero)
    np.testing.assert_array_equal(read(tmp_path / "m.tif").labels, mask)


def test_objects_in_transparency_and_colours_by_name(tmp_path):
    pixels = np.full((24, 32, 4), 255, np.uint8)
    pixels[..., 3] = objects_mask() * 80
    Image.fromarray(pixels, "RGBA").save(tmp_path / "clear.png")
    with pytest.raises(CaseError, match="transparency"):
        read(tmp_path / "clear.png")
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
    Image.fromarray(colours[objects_mask()]).save(tmp_path / "all.png")
    Image.fromarray(colours[objects_mask() * (objects_mask() > 1)]).save(tmp_path / "less.png")
    for name in ("all.png", "less.png"):
        found = read(tmp_path / name, objects=("00ff00",))
        assert {found.names[k] for k in np.unique(found.labels) if k} == {"00ff00"}
        np.testing.assert_array_equal(found.labels > 0, objects_mask() == 2)


def disc(size=64, radius=17.3, levels=255):
    y, x = np.mgrid[:size, :size]
    return np.clip((radius - np.hypot(y - 30, x - 33)) * 0.6 + 0.5, 0, 1) * levels


def test_a_mask_with_a_soft_edge_is_one_object(tmp_path, capsys):
    soft = np.rint(disc()).astype(np.uint8)
    assert len(np.unique(soft)) > 20
    cv2.imwrite(str(tmp_path / "m.png"), soft)
    cv2.imwrite(str(tmp_path / "i.png"), soft)
    case = imported(tmp_path, "images", tmp_path / "i.png", tmp_path / "m.png", "--modality", "US")[
        "2DBox_US_i"
    ]
    np.testing.assert_array_equal(case.labels, soft > 127.5)
    assert case.names == ("255",) and "soft edge" in capsys.readouterr().out
    assert has_soft_edge(np.repeat(soft[None], 3, axis=0).astype(np.int32))


@pytest.mark.parametrize("sigma", [0.6, 1, 2])
@pytest.mark.parametrize("colour", [None, (255, 0, 0), (90, 200, 0)])
def test_a_blurred_mask_is_one_object(tmp_path, sigma, colour):
    mask = np.zeros((80, 100), np.uint8)
    mask[15:60, 20:85] = 255
    soft = cv2.GaussianBlur(mask, (0, 0), sigma)
    if colour is not None:
        soft = np.rint(soft[..., None] * (np.array(colour) / 255)).astype(np.uint8)
    Image.fromarray(soft).save(tmp_path / "m.png")
    found = read(tmp_path / "m.png")
    assert (found.labels > 0).sum() == pytest.approx(45 * 65, rel=0.02) and len(np.unique(found.labels)) == 2
    assert list(found.names.values()) == (
        [] if colour is None else ["ff0000" if colour[0] > 200 else "5ac800"]
    )
    assert "soft edge" in found.notes[0]


def test_blended_colours_and_grey_ramps_are_asked_about(tmp_path):
    two = np.zeros((80, 100, 3), np.uint8)
    two[10:30, 10:50, 0], two[40:70, 30:90, 1] = 255, 255
    Image.fromarray(cv2.GaussianBlur(two, (5, 5), 1)).save(tmp_path / "m.png")
    with pytest.raises(CaseError, match="2 colours with edges that blend"):
        read(tmp_path / "m.png")
    wide = np.zeros((80, 100), np.uint8)
    wide[30:50, 30:60] = 255
    with pytest.raises(CaseError, match="looks like grey values.*--threshold"):
        label_map(cv2.GaussianBlur(wide, (0, 0), 5), LabelOptions(), "m")
    noise = np.random.default_rng(3).normal(128, 900, (60, 60)).astype(np.float32)
    picture = np.clip(cv2.GaussianBlur(noise, (0, 0), 5), 0, 200).astype(np.uint8)
    with pytest.raises(CaseError, match="that blend into each other.*--threshold"):
        label_map(picture, LabelOptions(), "m")
    rows = np.arange(400).reshape(20, 20)  # each label one piece, as an object is
    assert label_map(rows, LabelOptions(), "m").labels.max() == 399


def rings(step):
    return (disc(levels=1) > 0.5) * (10 - np.clip(np.rint(disc(radius=9) / 255 * step), 0, 9))


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(256, dtype=np.int32).repeat(30).reshape(-1, 60),
        rings(9).astype(np.int32),
        objects_mask().astype(np.int32) * 85,
        np.where(disc() > 200, 255, 0).astype(np.int32),
    ],
)
def test_label_maps_have_no_soft_edge(labels):
    assert not has_soft_edge(labels)


def test_a_picture_taken_for_a_mask_is_asked_about():
    noise = np.random.default_rng(0).integers(0, 200, (60, 60), dtype=np.uint8)
    with pytest.raises(CaseError, match="--threshold.*--instances.*--max-objects 199"):
        label_map(noise, LabelOptions(), "m")
    assert label_map(noise, LabelOptions(max_objects=199), "m").labels.max() == 199
    with pytest.raises(CaseError, match="--max-objects says 100"):
        label_map(noise, LabelOptions(max_objects=100), "m")
    cells = np.kron(np.arange(1, 401).reshape(20, 20), np.ones((3, 3), int))
    assert label_map(cells, LabelOptions(), "m").labels.max() == 400


@pytest.mark.parametrize(
    "value, label", [(1.00001526, 1), (0.9995, 1), (2.0009, 2), (-0.0002, 0), (254.9992, 255)]
)
def test_labels_off_by_rounding_are_rounded(value, label):
    assert label_map(np.array([[0.0, value]], np.float32), LabelOptions(), "x").labels[0, 1] == label


@pytest.mark.parametrize("value", [1.002, 0.5, -0.9, np.nan])
def test_fractions_are_no_labels(value):
    with pytest.raises(CaseError, match="--threshold"):
        label_map(np.array([[0.0, value]], np.float32), LabelOptions(), "x")


@pytest.mark.parametrize("order", ["LPS", "RAS", "PIR"])
@pytest.mark.parametrize("degrees", [0, 11])
def test_a_mask_cropped_to_its_extent_is_padded(tmp_path, capsys, order, degrees):
    image = write_image(tmp_path / "a.nii.gz", VALUES, "RAS", degrees)
    whole = image_of(LABELS, degrees=degrees)
    cropped = sitk.DICOMOrient(whole[3:19, 2:15, 0:6], order)
    sitk.WriteImage(cropped, str(tmp_path / "m.nii.gz"))
    check_cube(imported(tmp_path, "nifti", image, tmp_path / "m.nii.gz", "--modality", "CT")["3DBox_CT_a"])
    assert "the rest is background" in capsys.readouterr().out


def test_a_mask_larger_than_its_image_may_only_be_empty_outside(tmp_path, capsys):
    image = write_image(tmp_path / "a.nii.gz", VALUES)
    padded = sitk.ConstantPad(image_of(LABELS), [2, 1, 3], [0, 4, 1])
    sitk.WriteImage(padded, str(tmp_path / "m.nii.gz"))
    arguments = ["nifti", image, tmp_path / "m.nii.gz", "--modality", "CT"]
    check_cube(imported(tmp_path, *arguments)["3DBox_CT_a"])
    padded[0, 0, 0] = 1
    sitk.WriteImage(padded, str(tmp_path / "m.nii.gz"))
    imported(tmp_path, *arguments, "--overwrite", code=1)
    assert "labels voxels outside it" in error_of(capsys)[0]


@pytest.mark.parametrize("change", ["SetSpacing", "SetOrigin"])
def test_a_cropped_mask_on_another_grid_is_refused(tmp_path, capsys, change):
    image = write_image(tmp_path / "a.nii.gz", VALUES)
    cropped = image_of(LABELS)[3:19, 2:15, 0:6]
    getattr(cropped, change)((0.7, 1.1, 2.0))
    sitk.WriteImage(cropped, str(tmp_path / "m.nii.gz"))
    imported(tmp_path, "nifti", image, tmp_path / "m.nii.gz", "--modality", "CT", code=1)
    assert "lies on another grid" in error_of(capsys)[0]


def test_a_mask_without_geometry_takes_the_images_by_a_switch(tmp_path, capsys):
    image = write_image(tmp_path / "a.nii.gz", VALUES, "RAS")
    stored = sitk.GetImageFromArray(sitk.GetArrayFromImage(image_of(LABELS, "RAS")))
    stored.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # the identity, as NIfTI counts
    sitk.WriteImage(stored, str(tmp_path / "m.nii.gz"))
    arguments = ["nifti", image, tmp_path / "m.nii.gz", "--modality", "CT"]
    imported(tmp_path, *arguments, code=1)
    (error,) = error_of(capsys)
    assert "carries no geometry" in error and "--image-geometry" in error
    check_cube(imported(tmp_path, *arguments, "--image-geometry")["3DBox_CT_a"])
    sitk.WriteImage(stored[:, :, 1:], str(tmp_path / "m.nii.gz"))
    imported(tmp_path, *arguments, "--image-geometry", "--overwrite", code=1)
    assert "needs equal sizes" in error_of(capsys)[0]


@pytest.mark.parametrize(
    "low, high, refused",
    [(0, 1, True), (0, 255, True), (-1, 1, True), (-3, 12, True), (-1000, 1000, False), (0, 4095, False)],
)
def test_ct_that_cannot_be_in_hounsfield_units(low, high, refused):
    values = np.linspace(low, high, 50)
    if refused:
        with pytest.raises(CaseError, match="cannot be Hounsfield units.*--windowed"):
            check_hounsfield(values, "x")
    else:
        assert len(check_hounsfield(values, "x")) == (low == 0)


@pytest.mark.parametrize("top, kind", [(1.0, np.float32), (255, np.float32), (255, np.uint8)])
def test_grey_values_are_taken_as_they_are_by_a_switch(tmp_path, top, kind):
    grey = np.zeros(SHAPE, np.float32)
    grey[CUBE], grey[0] = 0.4, 1
    image = write_image(tmp_path / "a.nii.gz", (grey * top).astype(kind))
    mask = write_image(tmp_path / "m.nii.gz", LABELS)
    case = imported(tmp_path, "nifti", image, mask, "--modality", "CT", "--windowed")["3DBox_CT_a"]
    np.testing.assert_array_equal(case.images, np.rint(grey * 255))
    with pytest.raises(CaseError, match="leave it out"):
        shown_already(np.array([-5, 300]), "x")


def test_names_that_differ_between_cases_are_summed_up(tmp_path, capsys):
    assert names_summary([("a", "b"), ("b", "a", "a")]) == [] and names_summary([]) == []
    for name, present in {"p1": (1, 2), "p2": (2,)}.items():
        write_image(tmp_path / f"i/{name}.nii.gz", VALUES)
        write_image(tmp_path / f"m/{name}.nii.gz", np.where(np.isin(LABELS, present), LABELS, 0))
    arguments = ["nifti", tmp_path / "i", tmp_path / "m", "--modality", "CT"]
    cases = imported(tmp_path, *arguments)
    assert cases["3DBox_CT_p2"].names == ("2",) and cases["3DBox_CT_p1"].names == ("1", "2")
    for _ in range(2):  # also where all cases are kept
        assert "objects differ between the 2 cases; cases with each name: 1 1, 2 2" in capsys.readouterr().out
        imported(tmp_path, *arguments)
    np.testing.assert_allclose(cases["3DBox_CT_p1"].spacing, SPACING, rtol=1e-5)


def test_empty_and_covered_masks_of_a_folder_are_named(tmp_path, capsys):
    for name, mask in {"a": LABELS == 1, "b": LABELS == 1, "none": LABELS == 9}.items():
        write_image(tmp_path / f"masks/{name}.nii.gz", mask.astype(np.uint8))
    image = write_image(tmp_path / "i.nii.gz", VALUES)
    case = imported(tmp_path, "nifti", image, tmp_path / "masks", "--modality", "CT", code=1)["3DBox_CT_i"]
    said = capsys.readouterr()
    assert case.names == ("b",) and "no voxel is labelled in none" in said.out
    assert "'a' is wholly covered" in said.err


def test_a_mask_whose_name_begins_like_the_image_keeps_its_name(tmp_path):
    for name, label in {"ctv": 1, "ct_rod": 2}.items():
        write_image(tmp_path / f"masks/{name}.nii.gz", (LABELS == label).astype(np.uint8))
    image = write_image(tmp_path / "ct.nii.gz", VALUES)
    (case,) = imported(tmp_path, "nifti", image, tmp_path / "masks", "--modality", "CT").values()
    assert sorted(case.names) == ["ctv", "rod"]
