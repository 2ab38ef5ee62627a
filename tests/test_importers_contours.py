"""RTSTRUCT: contours of one slice are united, holes stay, and what does not fit is left out by name."""

import numpy as np
import pydicom
import pytest
from hospital_data import (
    CUBE_BOX,
    SHAPE,
    cube_labels,
    cube_values,
    error_of,
    image_of,
    imported,
    rectangle,
    write_rtstruct,
    write_seg,
    write_series,
)

from qmsam_core.data.importers.contours import invert_inside
from qmsam_core.data.importers.regions import Region, between, combined, without_twins

IMAGE = image_of(cube_values())


def region(x, y, toggles=False, size=(20, 24)):
    points = np.array([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])], dtype=float)
    plane = np.zeros(size, bool)
    invert_inside(plane, points)
    return Region(plane, points, toggles)


OUTER, HOLE, ISLAND = (
    region((1.5, 15.5), (1.5, 15.5)),
    region((4.5, 11.5), (4.5, 11.5)),
    region((6.5, 8.5), (6.5, 8.5)),
)
BESIDE = region((12.5, 20.5), (3.5, 9.5))


@pytest.mark.parametrize(
    "regions, area",
    [
        ([OUTER], 196),
        ([OUTER, HOLE], 196 - 49),
        ([HOLE, OUTER], 196 - 49),
        ([ISLAND, OUTER, HOLE], 196 - 49 + 4),
        ([OUTER, BESIDE], 196 + 48 - 18),
        ([OUTER, region((4.5, 11.5), (4.5, 11.5), toggles=True)], 196 - 49),
        ([OUTER, region((12.5, 20.5), (3.5, 9.5), toggles=True)], 196 + 48 - 36),
        ([HOLE, BESIDE], 49 + 48),
    ],
)
def test_regions_are_united_and_holes_kept(regions, area):
    assert combined(regions).sum() == area


@pytest.mark.parametrize("shift, kept", [(0, 1), (0.05, 1), (0.5, 2)])
@pytest.mark.parametrize("turn", [0, 2])
def test_contours_that_repeat_another_count_once(shift, turn, kept):
    twin = Region(OUTER.mask, np.roll(OUTER.points, turn, axis=0)[:: 1 if turn else -1] + shift)
    assert len(without_twins([OUTER, twin, HOLE])) == kept + 1


def test_interpolation_moves_from_one_shape_to_the_other():
    small, large = region((5.5, 10.5), (5.5, 10.5)).mask, region((3.5, 12.5), (3.5, 12.5)).mask
    middle = between(small, large, 0.5)
    assert (middle == region((4.5, 11.5), (4.5, 11.5)).mask).mean() > 0.98
    assert (between(small, small, 0.3) == small).all()
    assert small.sum() < between(small, large, 0.5).sum() < large.sum()


def struct(tmp_path, structures, *arguments, code=0):
    write_series(tmp_path / "p")
    write_rtstruct(tmp_path / "p/rs.dcm", structures)
    return imported(tmp_path, "dicom", tmp_path / "p", *arguments, code=code).get("3DBox_CT_p")


def box(z, x=(3.6, 9.4), y=(2.7, 7.4)):
    return rectangle(IMAGE, z, x, y)


def test_a_structure_whose_contours_are_twice_in_the_file_stays(tmp_path, capsys):
    case = struct(tmp_path, {"cube": [box(2), box(3), box(2), box(3)]})
    np.testing.assert_array_equal(case.boxes, [CUBE_BOX])
    assert "'cube' has 2 contours that repeat another" in capsys.readouterr().out


def test_a_hole_keeps_through_a_twin(tmp_path):
    hole = box(2, (5.5, 6.5), (4.5, 5.5))
    case = struct(tmp_path, {"cube": [box(2), hole, box(2), hole]})
    assert case.labels.sum() == 29 and case.labels[2, 5, 6] == 0


def test_a_structure_that_covers_no_voxel_is_named_and_names_stay_bound(tmp_path, capsys):
    case = struct(tmp_path, {"seed": [box(2, (4.2, 4.4), (4.2, 4.4))], "cube": [box(2)]}, code=1)
    assert case.names == ("cube",)
    assert "left out: " in (said := capsys.readouterr().err) and "'seed' covers no voxel" in said


@pytest.mark.parametrize("z, problem", [(-2, "contour on slice -2"), (9, "slice 9"), (2.4, "off the middle")])
def test_a_structure_that_does_not_fit_is_left_out_by_name(tmp_path, capsys, z, problem):
    structures = {"couch": [box(2), box(z)], "cube": [box(2), box(3)]}
    case = struct(tmp_path, structures, code=1)
    assert case.names == ("cube",)
    said = capsys.readouterr()
    assert "'couch'" in said.err and problem in said.err and "--objects" in said.err
    assert "1 imported, 0 kept, 0 failed, 1 left out" in said.out
    struct(tmp_path, structures, code=1)  # the case is kept, and what it lacks is told again
    again = capsys.readouterr()
    assert again.err == said.err and "0 imported, 1 kept, 0 failed, 1 left out" in again.out
    assert struct(tmp_path, structures, "--objects", "cube", "--overwrite").names == ("cube",)


def test_nothing_that_fits_is_an_error(tmp_path, capsys):
    assert struct(tmp_path, {"couch": [box(9)]}, code=1) is None
    assert "empty mask" in (error := error_of(capsys)[0]) and "'couch' has a contour on slice 9" in error


def test_slices_without_contour_are_noted_and_filled_by_a_switch(tmp_path, capsys):
    rod = {"rod": [box(z) for z in (0, 2, 5)]}
    case = struct(tmp_path, rod)
    assert [int(plane.any()) for plane in case.labels] == [1, 0, 1, 0, 0, 1]
    assert "'rod' has no contour on slices 1, 3, 4 between its others" in capsys.readouterr().out
    case = struct(tmp_path, rod, "--interpolate", "--overwrite")
    assert (case.labels == case.labels[0]).all() and case.labels.shape == SHAPE
    assert "filled by interpolation" in capsys.readouterr().out


def test_segments_that_reach_beyond_the_series_or_are_empty_are_named(tmp_path, capsys):
    labels = cube_labels()
    series = write_series(tmp_path / "p")
    masks = {"cube": labels == 1, "rod": labels == 2, "none": labels == 9}
    write_seg(tmp_path / "seg.dcm", series, masks)
    for path in series[4:]:
        path.unlink()
    case = imported(tmp_path, "dicom", tmp_path / "p", tmp_path / "seg.dcm", code=1)["3DBox_CT_p"]
    said = capsys.readouterr()
    assert case.names == ("cube", "rod") and "no voxel is labelled in none" in said.out
    assert "'rod' has 12 of its voxels outside the series" in said.err and "'cube'" not in said.err


def test_a_structure_without_area_and_a_name_that_is_not_there_are_said(tmp_path, capsys):
    struct(tmp_path, {"empty": [], "cube": [box(2)]}, "--objects", "cube", "empty", "kidney")
    said = capsys.readouterr().out
    assert "'empty' has no contour, so no area" in said and "--objects kidney: no such object" in said


def test_a_structure_of_points_alone_counts_as_left_out(tmp_path, capsys):
    write_series(tmp_path / "p")
    path = write_rtstruct(tmp_path / "rs.dcm", {"seed": [box(2)], "cube": [box(2)]})
    data = pydicom.dcmread(path)
    data.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "POINT"
    data.save_as(path)
    case = imported(tmp_path, "dicom", tmp_path / "p", path, code=1)["3DBox_CT_p"]
    assert case.names == ("cube",)
    assert "left out" in (said := capsys.readouterr().err) and "'seed' has 1 contours of type POINT" in said


@pytest.mark.parametrize(
    "values, words", [("MONOCHROME1", "dcm2niix"), ("RGB", "PNG"), ("twice", "--boxes-from")]
)
def test_advice_leads_somewhere(tmp_path, capsys, values, words):
    for path in write_series(tmp_path / "p"):
        data = pydicom.dcmread(path)
        data.PhotometricInterpretation = values if values != "twice" else "MONOCHROME2"
        data.SamplesPerPixel = 3 if values == "RGB" else 1
        data.save_as(path)
    for name in ("a", "b")[: 2 if values == "twice" else 1]:
        write_rtstruct(tmp_path / "p" / f"{name}.dcm", {"cube": [box(2)]})
    imported(tmp_path, "dicom", tmp_path / "p", code=1)
    assert words in capsys.readouterr().err
