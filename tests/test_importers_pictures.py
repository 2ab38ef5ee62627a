"""The way an image lies in its case: the plane of the slices, EXIF orientation, names, and the way back."""

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
from hospital_data import (
    ORIGIN,
    SHAPE,
    cube_labels,
    cube_values,
    error_of,
    image_of,
    imported,
    write_image,
    write_seg,
    write_series,
)
from PIL import Image

from qmsam_core.data.importers.options import ImportOptions
from qmsam_core.data.importers.pictures import planar_image, series_image, volume_image
from qmsam_core.data.importers.planes import ORDERS, acquired_plane, axes_to, order_of, plane_of
from qmsam_core.data.importers.series import DicomFolder

VALUES, LABELS = cube_values(), cube_labels()
EYE = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def write_spaced(path, array, spacing, order="LPS", degrees=0.0):
    """Write an axial array with another spacing (x,y,z), and return the image as it is stored."""
    image = image_of(array, "LPS", degrees)
    image.SetSpacing(spacing)
    image = sitk.DICOMOrient(image, order)
    sitk.WriteImage(image, str(path))
    return image


@pytest.mark.parametrize(
    "spacing, size, plane",
    [
        ((1, 1, 5), (9, 9, 9), "axial"),
        ((4, 1, 1), (9, 9, 9), "sagittal"),
        ((1, 4, 1), (9, 9, 9), "coronal"),
        ((1, 1, 1), (9, 9, 9), "axial"),
        ((1.4, 1, 1), (9, 9, 9), "axial"),
        ((1.5, 1, 1), (9, 9, 9), "sagittal"),
        ((3, 3, 1), (9, 9, 9), "axial"),
        ((1, 1, 1), (1, 9, 9), "sagittal"),
        ((1, 1, 1), (9, 1, 9), "coronal"),
        ((1, 1, 1), (1, 1, 9), "axial"),
    ],
)
def test_the_plane_lies_across_the_coarsest_axis(spacing, size, plane):
    assert acquired_plane(size, spacing, EYE) == plane


@pytest.mark.parametrize("order", ["LPS", "RAS", "PIR", "ASL", "LIP", "SRP"])
@pytest.mark.parametrize("plane", sorted(ORDERS))
@pytest.mark.parametrize("degrees", [0, 12])
def test_axes_turn_an_array_as_simpleitk_does(order, plane, degrees):
    image = image_of(VALUES, order, degrees)
    axes = axes_to(plane, image.GetDirection())
    picture = sitk.DICOMOrient(image, ORDERS[plane])
    turned = sitk.GetArrayFromImage(image).transpose([abs(a) - 1 for a in axes])
    turned = np.flip(turned, [k for k, a in enumerate(axes) if a < 0])
    np.testing.assert_array_equal(turned, sitk.GetArrayFromImage(picture))
    assert plane_of(axes, image.GetDirection()) == plane and order_of(image.GetDirection()) == order


@pytest.mark.parametrize("order", ["LPS", "RAS", "PIR"])
@pytest.mark.parametrize(
    "spacing, plane, shape",
    [((4.0, 1.0, 1.0), "sagittal", (20, 6, 16)), ((1.0, 4.0, 1.0), "coronal", (16, 6, 20))],
)
def test_a_volume_is_cut_along_its_acquired_plane(tmp_path, capsys, order, spacing, plane, shape):
    stored = write_spaced(tmp_path / "a.nii.gz", VALUES, spacing, order, 9)
    write_spaced(tmp_path / "a_seg.nii.gz", LABELS, spacing, "RAS", 9)
    arguments = ["nifti", tmp_path / "a.nii.gz", tmp_path / "a_seg.nii.gz", "--modality", "CT"]
    case = imported(tmp_path, *arguments)["3DBox_CT_a"]
    assert case.images.shape == shape and f"{plane}, spacing" in capsys.readouterr().out
    np.testing.assert_allclose(case.spacing, [1, 1, 4], rtol=1e-5)
    head_up = sitk.GetArrayFromImage(sitk.DICOMOrient(image_of(LABELS), ORDERS[plane]))
    np.testing.assert_array_equal(case.labels, head_up)
    back = case.source.to_source(case.labels)
    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(image_of(LABELS, degrees=9), order))
    np.testing.assert_array_equal(back, expected)
    for name in ("Spacing", "Origin", "Direction"):
        np.testing.assert_allclose(
            getattr(case.source, name.lower()), getattr(stored, f"Get{name}")(), atol=1e-5
        )
    case = imported(tmp_path, *arguments, "--plane", "axial", "--overwrite")["3DBox_CT_a"]
    np.testing.assert_array_equal(case.labels, LABELS)


def test_a_sagittal_slice_has_the_head_up_and_the_front_on_the_left(tmp_path):
    values = np.zeros((8, 9, 5), np.int16) - 1000
    values[7, 0] = 240  # the top of the front
    write_spaced(tmp_path / "a.nii.gz", values, (4, 1, 1), "RAS")
    pixels = volume_image(tmp_path / "a.nii.gz", "CT", ImportOptions()).pixels
    assert pixels.shape == (5, 8, 9) and (pixels[:, 0, 0] == 255).all() and pixels[:, 1:, 1:].max() == 0


def test_images_are_read_without_masks(tmp_path):
    write_image(tmp_path / "a.nii.gz", VALUES, "RAS", 20)
    write_series(tmp_path / "p", image_of(VALUES, "LIP"))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((12, 15), 9, np.uint8))
    options = ImportOptions()
    volume = volume_image(tmp_path / "a.nii.gz", "CT", options)
    series = series_image(DicomFolder.of(tmp_path / "p", sorted((tmp_path / "p").iterdir())), "CT", options)
    np.testing.assert_array_equal(volume.pixels, series.pixels)
    assert volume.shape == series.shape == SHAPE and volume.source.kind == "volume"
    assert series.source.kind == "dicom" and series.source.path == str(tmp_path / "p") and series.frame
    flat = planar_image(tmp_path / "b.png", options)
    assert flat.pixels.shape == (12, 15, 3) and flat.shape == (12, 15) and flat.source.kind == "image"
    case = flat.case("x")
    assert case.labels is None and case.boxes is None and case.source == flat.source


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_exif_orientation_turns_the_image_upright(tmp_path, capsys, orientation, ending):
    upright = np.zeros((24, 40), np.uint8)
    upright[4:12, 6:14] = 200
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = Image.fromarray(upright)
    if orientation > 1:  # the turn that undoes the orientation
        stored = stored.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    kind = {"tiffinfo": {0x0112: orientation}} if ending == "tif" else {"exif": exif}
    stored.save(tmp_path / f"a.{ending}", **kind)
    Image.fromarray(np.uint8(upright > 0)).save(tmp_path / "m.png")
    arguments = ["images", tmp_path / f"a.{ending}", tmp_path / "m.png", "--modality", "Dermoscopy"]
    if ending == "tif" and orientation > 4:
        imported(tmp_path, *arguments, code=1)
        assert "save it upright" in error_of(capsys)[0]
        return
    case = imported(tmp_path, *arguments)["2DBox_Dermoscopy_a"]
    np.testing.assert_allclose(case.images[..., 0], upright, atol=40)
    assert (case.images[..., 0] > 100).sum() == 64
    np.testing.assert_array_equal(case.labels, upright > 0)
    assert ("EXIF" in capsys.readouterr().out) == (orientation > 1)
    if ending != "tif":  # whose decoders turn it
        back = case.source.to_source(case.labels)
        np.testing.assert_array_equal(back, np.asarray(stored) > 0)


def test_a_mask_carries_its_own_orientation_and_must_fit_the_turned_image(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((12, 20), np.uint8)
    pixels[2:5, 3:9] = 1
    Image.fromarray(pixels * 200).save(tmp_path / "a.jpg", exif=exif, quality=95)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    arguments = ["images", tmp_path / "a.jpg", tmp_path / "turned.png", "--modality", "US"]
    case = imported(tmp_path, *arguments)["2DBox_US_a"]
    assert case.labels.shape == (20, 12) and (case.images[..., 0][case.labels == 1] > 100).all()
    arguments[2] = tmp_path / "plain.png"
    imported(tmp_path, *arguments, "--overwrite", code=1)
    (error,) = error_of(capsys)
    assert "is 20x12 pixels, its image 12x20" in error and "EXIF" in error


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "mhd", "nrrd"])
@pytest.mark.parametrize("command", ["nifti", "images"])
def test_a_2d_volume_file_is_a_2d_case(tmp_path, ending, command):
    for name, array in {"a": VALUES[3], "a_gt": LABELS[3]}.items():
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.5, 0.7))
        image.SetOrigin((3.0, 4.0))
        sitk.WriteImage(image, str(tmp_path / f"{name}.{ending}"))
    arguments = [command, tmp_path / f"a.{ending}", tmp_path / f"a_gt.{ending}", "--modality", "US"]
    case = imported(tmp_path, *arguments)["2DBox_US_a"]
    assert case.images.shape == (16, 20, 3) and not case.is_volume and case.source.kind == "volume"
    np.testing.assert_array_equal(case.labels, LABELS[3])
    np.testing.assert_allclose(case.source.spacing, (0.5, 0.7), rtol=1e-6)
    np.testing.assert_array_equal(case.source.to_source(case.labels), LABELS[3])


def test_names_are_bound_to_labels_whatever_is_absent(tmp_path):
    image = write_image(tmp_path / "a.nii.gz", VALUES)
    write_image(tmp_path / "m.nii.gz", np.where(LABELS == 2, 7, 0).astype(np.uint8))
    case = imported(tmp_path, "nifti", image, tmp_path / "m.nii.gz", "--modality", "CT")["3DBox_CT_a"]
    assert case.names == ("7",) and case.labels.max() == 1
    for name, number in {"liver": 1, "kidney": 3, "spine": 2}.items():
        write_image(tmp_path / f"masks/{name}.nii.gz", (LABELS == number).astype(np.uint8))
    arguments = ["nifti", image, tmp_path / "masks", "--modality", "CT", "--name", "b"]
    assert imported(tmp_path, *arguments)["3DBox_CT_b"].names == ("liver", "spine")
    parts = imported(tmp_path, *arguments[:-1], "c", "--instances")["3DBox_CT_c"]
    assert parts.names == ("liver", "spine")


def test_dicom_masks_keep_their_names_and_the_way_back(tmp_path):
    image = image_of(VALUES, "LIP")
    labels = sitk.GetArrayFromImage(image_of(LABELS, "LIP"))
    series = write_series(tmp_path / "p", image)
    write_seg(tmp_path / "p/seg.dcm", series, {"liver": labels == 1, "spine": labels == 2})
    case = imported(tmp_path, "dicom", tmp_path / "p")["3DBox_CT_p"]
    assert case.names == ("liver", "spine") and case.source.kind == "dicom"
    np.testing.assert_array_equal(case.source.to_source(case.labels), labels)
    np.testing.assert_allclose(case.source.origin, image.GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(image_of(VALUES).GetOrigin(), ORIGIN)
