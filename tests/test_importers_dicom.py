"""Import of DICOM series with SEG, RTSTRUCT or NIfTI masks in any plane. Distorted series are refused."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hospital_data import (
    CUBE,
    CUBE_BOX,
    SHAPE,
    check_cube,
    cube_labels,
    cube_values,
    error_of,
    image_of,
    imported,
    rectangle,
    write_image,
    write_multi_frame,
    write_rtstruct,
    write_seg,
    write_series,
)
from matplotlib.path import Path as Polygon

from qmsam_core.data import Case
from qmsam_core.data.importers.contours import invert_inside

LABELS, VALUES = cube_labels(), cube_values()


@pytest.mark.parametrize("order", ["LPS", "LIP", "PIR"])
def test_dicom_with_seg_in_any_acquisition_plane(tmp_path, order):
    """Axial, coronal and sagittal series. The SEG holds only slices with an object, in the series' order."""
    image, labels = image_of(VALUES, order), sitk.GetArrayFromImage(image_of(LABELS, order))
    series = write_series(tmp_path / "p1/ct", image)
    write_seg(tmp_path / "p1/seg.dcm", series, {"liver": labels == 1, "spine": labels == 2})
    cases = imported(tmp_path, "dicom", tmp_path / "p1")
    check_cube(cases["3DBox_CT_p1"])
    assert (cases["3DBox_CT_p1"].images[CUBE] == 128).all()


def test_a_segment_on_a_single_slice(tmp_path):
    series = write_series(tmp_path / "p1")
    lesion = np.zeros_like(LABELS)
    lesion[4, 5:7, 6:9] = 1
    write_seg(tmp_path / "p1/seg.dcm", series, {"lesion": lesion})
    check_cube(imported(tmp_path, "dicom", tmp_path / "p1")["3DBox_CT_p1"], lesion, [[6, 5, 4, 8, 6, 4]])


@pytest.mark.parametrize("order, mask_order", [("LPS", "RAS"), ("PIR", "LPS")])
def test_dicom_with_nifti_mask_and_a_folder_of_cases(tmp_path, order, mask_order):
    for name in ("p1", "p2"):
        write_series(tmp_path / "scans" / name / "deep", image_of(VALUES, order), series=name)
        write_image(tmp_path / f"masks/{name}.nii.gz", LABELS, mask_order)
    (tmp_path / "scans/notes.txt").write_text("not DICOM")
    cases = imported(tmp_path, "dicom", tmp_path / "scans", tmp_path / "masks", "--window", "40,400")
    assert list(cases) == ["3DBox_CT_p1", "3DBox_CT_p2"]
    check_cube(cases["3DBox_CT_p1"])
    check_cube(cases["3DBox_CT_p2"])


@pytest.mark.parametrize("order", ["LPS", "LIP"])
def test_rtstruct_takes_voxels_by_their_centres_and_keeps_holes(tmp_path, order):
    image = image_of(VALUES, order)
    write_series(tmp_path / "p1", image)
    contours = [
        rectangle(image, 2, (3.6, 9.4), (2.7, 7.4)),
        rectangle(image, 2, (5.5, 6.5), (4.5, 5.5)),
        rectangle(image, 3, (11.6, 13.2), (1.9, 2.1)),
    ]
    write_rtstruct(
        tmp_path / "p1/rs.dcm",
        {"body": [rectangle(image, 0, (-5, 30), (-5, 30))], "GTV": contours, "empty": []},
    )
    case = imported(tmp_path, "dicom", tmp_path / "p1", "--objects", "gtv")["3DBox_CT_p1"]
    expected = np.zeros(image.GetSize()[::-1], np.uint8)
    expected[2, 3:8, 4:10] = 1
    expected[2, 5, 6] = 0
    expected[3, 2, 12:14] = 1
    stored = sitk.GetImageFromArray(expected)
    stored.CopyInformation(image)
    np.testing.assert_array_equal(case.labels, sitk.GetArrayFromImage(sitk.DICOMOrient(stored, "LPS")))
    assert len(case.boxes) == 1


@pytest.mark.parametrize("seed", range(12))
def test_polygons_are_filled_as_matplotlib_would(seed):
    """Polygons that intersect themselves and leave the plane are filled by the even-odd rule."""
    rng = np.random.default_rng(seed)
    polygon, plane = rng.uniform(-10, 45, (rng.integers(3, 12), 2)), np.zeros((30, 36), bool)
    invert_inside(plane, polygon)
    centres = np.stack(np.meshgrid(np.arange(36), np.arange(30)), axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal(plane, Polygon(polygon).contains_points(centres).reshape(30, 36))


def test_a_circle_has_its_area():
    angles, plane = np.linspace(0, 2 * np.pi, 400, endpoint=False), np.zeros((200, 220), bool)
    invert_inside(plane, np.column_stack([110.3 + 80 * np.cos(angles), 99.6 + 80 * np.sin(angles)]))
    assert abs(plane.sum() / (np.pi * 80**2) - 1) < 0.002


@pytest.mark.parametrize("order", ["LPS", "PIR", "LIP"])
@pytest.mark.parametrize("drawn", ["nifti", "RTSTRUCT", "SEG"])
def test_a_multi_frame_file_equals_its_slices(tmp_path, order, drawn):
    image, labels = image_of(VALUES, order), sitk.GetArrayFromImage(image_of(LABELS, order))
    series = write_series(tmp_path / "slices", image)
    write_multi_frame(tmp_path / "whole/ct.dcm", series)
    if drawn == "nifti":
        mask = write_image(tmp_path / "m.nii.gz", LABELS)
    elif drawn == "SEG":
        mask = write_seg(tmp_path / "m.dcm", series, {"cube": labels == 1, "rod": labels == 2})
    else:
        contours = {"cube": [], "rod": []}
        for k, name in enumerate(contours, 1):
            for z in np.flatnonzero((labels == k).any(axis=(1, 2))):
                y, x = np.nonzero(labels[z] == k)
                limits = (x.min() - 0.5, x.max() + 0.5), (y.min() - 0.5, y.max() + 0.5)
                contours[name].append(rectangle(image, int(z), *limits))
        mask = write_rtstruct(tmp_path / "m.dcm", contours)
    for name in ("slices", "whole"):
        check_cube(imported(tmp_path, "dicom", tmp_path / name, mask)[f"3DBox_CT_{name}"])
    a, b = (Case.load(tmp_path / f"out/CT/Imported/3DBox_CT_{name}.npz") for name in ("slices", "whole"))
    np.testing.assert_array_equal(a.images, b.images)
    assert (a.names, a.source.shape, a.source.axes) == (b.names, b.source.shape, b.source.axes)
    for key in ("spacing", "origin", "direction"):
        assert getattr(a.source, key) == pytest.approx(getattr(b.source, key), abs=1e-6)


def test_a_multi_frame_file_of_one_frame(tmp_path):
    series = write_series(tmp_path / "slices")
    write_multi_frame(tmp_path / "whole/ct.dcm", series[2:3])
    contours = {"cube": [rectangle(image_of(VALUES), 2, (3.5, 9.5), (2.5, 7.5))]}
    mask = write_rtstruct(tmp_path / "m.dcm", contours)
    (case,) = imported(tmp_path, "dicom", tmp_path / "whole", mask).values()
    assert case.boxes.tolist() == [[4, 3, 0, 9, 7, 0]] and case.images.shape == (1, *SHAPE[1:])


def test_the_mask_picks_its_series_and_pet_slopes_are_applied_slice_by_slice(tmp_path):
    activity = np.full(SHAPE, 1000, np.int16)
    activity[CUBE] = 3000
    series = write_series(tmp_path / "p/pet", image_of(activity), "PT", series="pet", slopes=(1.0, 0.5, 0.25))
    write_series(tmp_path / "p/ct", image_of(VALUES), series="ct")
    uid = pydicom.dcmread(series[0]).SeriesInstanceUID
    image = image_of(activity)
    write_rtstruct(
        tmp_path / "p/rs.dcm",
        {"hot": [rectangle(image, z, (3.5, 9.5), (2.5, 7.5)) for z in (2, 3)]},
        series_uid=uid,
    )
    case = imported(tmp_path, "dicom", tmp_path / "p")["3DBox_PET_p"]
    np.testing.assert_array_equal(case.images, np.where(LABELS == 1, 255, 0))
    np.testing.assert_array_equal(case.boxes, [CUBE_BOX])


def dicom_damage(name, folder, series):
    """Damage a good series with a SEG in the way that `name` says."""
    data = pydicom.dcmread(series[2])
    edit = {
        "gap": lambda: series[2].unlink(),
        "repeated": lambda: repeated(data, folder / "again.dcm"),
        "mixed": lambda: write_series(folder / "other", series="other") and (folder / "seg.dcm").unlink(),
        "no mask": lambda: (folder / "seg.dcm").unlink(),
        "two kinds": lambda: write_rtstruct(folder / "rs.dcm", {"a": []}),
        "two masks": lambda: (folder / "seg2.dcm").write_bytes((folder / "seg.dcm").read_bytes()),
        "spacing": lambda: without_spacing(data),
        "truncated": lambda: series[2].write_bytes(series[2].read_bytes()[:-100]),
        "tilt": lambda: tilt(series),
        "sizes": lambda: resized(data),
        "position": lambda: without_position(data),
        "orientation": lambda: odd_orientation(data),
        "frame": lambda: write_rtstruct(folder / "seg.dcm", {"a": []}, frame="1.2.3"),
        "between": lambda: write_rtstruct(
            folder / "seg.dcm", {"a": [rectangle(image_of(VALUES), 2.4, (1, 4), (1, 4))]}
        ),
        "beyond": lambda: write_rtstruct(
            folder / "seg.dcm", {"a": [rectangle(image_of(VALUES), 9, (1, 4), (1, 4))]}
        ),
    }
    edit[name]()


def tilt(series):
    for k, path in enumerate(series):
        data = pydicom.dcmread(path)
        data.ImagePositionPatient[1] = float(data.ImagePositionPatient[1]) + 0.5 * k
        data.save_as(path)


def repeated(data, path):
    """Write another slice at the same position. The very same slice would count once."""
    data.PixelData = data.PixelData[::-1]
    data.save_as(path)


def resized(data):
    data.Rows, data.PixelData = data.Rows - 1, data.PixelData[: -2 * data.Columns]
    data.save_as(data.filename)


def without_position(data):
    del data.ImagePositionPatient
    data.save_as(data.filename)


def without_spacing(data):
    data.PixelSpacing = [0, 0]
    data.save_as(data.filename)


def odd_orientation(data):
    data.ImageOrientationPatient = [1, 0, 0]
    data.save_as(data.filename)


@pytest.mark.parametrize(
    "damage, message",
    [
        ("gap", "misses slices: 5 mm from slice 1 to the next where 2.5 mm is usual"),
        ("repeated", "several slices at one position"),
        ("mixed", "6 files, holds no mask"),
        ("no mask", "holds no mask"),
        ("two masks", "has a segment 'liver' as seg.dcm has"),
        ("two kinds", "holds 2 masks (rs.dcm, seg.dcm)"),
        ("truncated", "is a slice that cannot be read"),
        ("spacing", "has pixel spacing [0.0, 0.0]; expected mm above 0"),
        ("tilt", "tilted gantry"),
        ("sizes", "slices of 20x1"),
        ("position", "no position"),
        ("orientation", "cannot be used (ValueError"),
        ("frame", "belongs to another scan"),
        ("between", "slices off the middle of slice 2"),
        ("beyond", "has a contour on slice 9, the series has slices 0..5"),
    ],
)
def test_bad_series_are_refused_in_one_line_and_the_rest_goes_on(tmp_path, capsys, damage, message):
    for name in ("bad", "good"):
        series = write_series(tmp_path / "scans" / name, series=name)
        write_seg(tmp_path / "scans" / name / "seg.dcm", series, {"liver": LABELS == 1})
        if name == "bad":
            dicom_damage(damage, tmp_path / "scans/bad", series)
    cases = imported(tmp_path, "dicom", tmp_path / "scans", code=1)
    assert list(cases) == ["3DBox_CT_good"]
    errors = error_of(capsys)
    assert len(errors) == 1 + (damage == "mixed")
    assert all(message in error and "bad" in error for error in errors)


def test_a_file_that_is_there_twice_is_named_and_counts_once(tmp_path, capsys):
    series = write_series(tmp_path / "p")
    (tmp_path / "p" / "copies").mkdir()
    for path in series[:2]:
        (tmp_path / "p" / "copies" / f"x{path.name}").write_bytes(path.read_bytes())
    write_seg(tmp_path / "seg.dcm", series, {"cube": LABELS == 1, "rod": LABELS == 2})
    (case,) = imported(tmp_path, "dicom", tmp_path / "p", tmp_path / "seg.dcm").values()
    check_cube(case)
    assert f"x{series[0].name}" in (said := capsys.readouterr().out) and "repeat slices" in said


def test_mixed_series_need_a_mask_that_refers_to_one(tmp_path, capsys):
    for name in ("a", "b"):
        write_series(tmp_path / "p" / name, series=name)
    mask = write_image(tmp_path / "m.nii.gz", LABELS)
    imported(tmp_path, "dicom", tmp_path / "p", mask, code=1)
    assert "m.nii.gz: is one mask for 2 image series" in error_of(capsys)[0]
    imported(tmp_path, "dicom", tmp_path / "p/a", mask, "--modality", "MR", code=1)
    assert "is a CT series; --modality says MR" in error_of(capsys)[0]
