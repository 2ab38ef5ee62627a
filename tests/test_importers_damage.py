"""Damaged files are refused in one line before anything is written, and contradictions are noted."""

import gzip
import os
import struct

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hospital_data import (
    SHAPE,
    check_cube,
    cube_labels,
    cube_values,
    error_of,
    image_of,
    imported,
    rectangle,
    write_image,
    write_rtstruct,
    write_seg,
    write_series,
)
from PIL import Image

from qmsam_core.data import CaseError
from qmsam_core.data.importers.__main__ import main
from qmsam_core.data.importers.grids import read_volume
from qmsam_core.data.importers.labels import LabelOptions
from qmsam_core.data.importers.nifti import check_nifti, header_in, size_of
from qmsam_core.data.importers.planar import read_image, read_mask
from qmsam_core.data.importers.walk import files_below

VALUES, LABELS = cube_values(), cube_labels()
NOISE = np.random.default_rng(1).integers(-1000, 1000, SHAPE, dtype=np.int16)


def cut(path, share=0.6):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flip(path, share=0.7):
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 0x55
    path.write_bytes(data)


def edited(path, *fields):
    """Overwrite fields (offset, struct format, values) of a plain NIfTI file."""
    data = bytearray(path.read_bytes())
    for offset, kind, *values in fields:
        struct.pack_into("<" + kind, data, offset, *values)
    path.write_bytes(data)
    return path


def write(path, array, compressed=True):
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image_of(array), str(path), compressed)
    return path


@pytest.mark.parametrize("harm", [cut, flip])
@pytest.mark.parametrize("ending", ["nii.gz", "mha", "mhd", "nrrd"])
@pytest.mark.parametrize("part", ["image", "mask"])
def test_damaged_compressed_volumes_are_refused(tmp_path, capsys, harm, ending, part):
    image = write(tmp_path / f"i/a.{ending}", NOISE)
    mask = write(tmp_path / f"m/a.{ending}", np.abs(NOISE) % 3)
    broken = image if part == "image" else mask
    harm(broken.with_suffix(".zraw") if ending == "mhd" else broken)
    assert imported(tmp_path, "nifti", image, mask, "--modality", "CT", code=1) == {}
    (error,) = error_of(capsys)
    assert str(broken) in error and ("damaged or cut off" in error or "cannot be read" in error)


@pytest.mark.parametrize("ending", ["nii", "mha", "mhd", "nrrd"])
def test_plain_volumes_that_are_cut_are_refused(tmp_path, ending):
    path = write(tmp_path / f"a.{ending}", NOISE, compressed=False)
    cut(path.with_suffix(".raw") if ending == "mhd" else path)
    with pytest.raises(CaseError, match="cut off|cannot be read"):
        read_volume(path)


def test_a_lost_checksum_and_a_second_member_are_told_apart(tmp_path):
    path = write(tmp_path / "a.nii.gz", NOISE)
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:500]) + gzip.compress(whole[500:]))
    header, unfinished, notes = check_nifti(path)
    assert size_of(header) == SHAPE[::-1] and unfinished is None and notes == []
    path.write_bytes(gzip.compress(whole)[:-4])
    with pytest.raises(CaseError, match="damaged or cut off"):
        check_nifti(path)


@pytest.mark.parametrize(
    "fields, note",
    [
        ([(88, "f", 0.0)], "pixdim along z is no length"),
        ([(80, "f", -1.0)], "pixdim along x is no length"),
        ([(84, "f", np.nan)], "pixdim along y is no length"),
        ([(72, "h", 8)], "states 8 bits a voxel, its data type has 16"),
        ([(268, "f", 50.0)], "qform and sform differ by up to"),
        ([(108, "f", np.nan)], "4 bytes more than its header promises"),
    ],
)
def test_a_header_that_contradicts_itself_is_noted(tmp_path, capsys, fields, note):
    image = edited(write(tmp_path / "a.nii", VALUES), *fields)
    _, notes = read_volume(image)
    assert len(notes) == 1 and note in notes[0]


@pytest.mark.parametrize("fields", [(40, "h", 0), (40, "h", -3), (108, "f", np.inf)])
def test_a_header_without_axes_or_voxels_is_refused(tmp_path, fields):
    with pytest.raises(CaseError, match="cannot be read|cut off"):
        read_volume(edited(write(tmp_path / "a.nii", VALUES), fields))


def test_bytes_behind_the_voxels_are_noted(tmp_path):
    path = write(tmp_path / "a.nii", VALUES)
    path.write_bytes(path.read_bytes() + b"x" * 7)
    assert read_volume(path)[1] == ["the file holds 7 bytes more than its header promises"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_headers_of_nifti_2_and_of_either_byte_order(order):
    data = bytearray(540)
    struct.pack_into(order + "i", data, 0, 540)
    struct.pack_into(order + "2h", data, 12, 16, 32)
    struct.pack_into(order + "8q", data, 16, 3, 20, 16, 6, 1, 1, 1, 1)
    struct.pack_into(order + "8d", data, 104, 1, 0.8, 0.9, 2.5, 0, 0, 0, 0)
    struct.pack_into(order + "q", data, 168, 544)
    header = header_in(bytes(data))
    assert (header.endianness, size_of(header), header.get_data_offset()) == (order, (20, 16, 6), 544)
    assert header["datatype"] == 16 and header_in(bytes(540)) is None
    assert header["pixdim"][1:4].tolist() == [0.8, 0.9, 2.5]


@pytest.mark.parametrize("shear, accepted", [(1e-5, True), (2e-3, True), (0.05, False)])
def test_axes_at_right_angles_up_to_rounding_are_taken(tmp_path, shear, accepted):
    path = write(tmp_path / "a.nii", VALUES)
    rows = (-0.8, shear, 0, 7, 0, -0.9, 0, -11, 0, 0, 2.5, -30)
    edited(path, (252, "2h", 0, 1), (280, "12f", *rows))
    if not accepted:
        with pytest.raises(CaseError, match="sheared axes: a corner lies .* resample"):
            read_volume(path)
        return
    image, notes = read_volume(path)
    np.testing.assert_allclose(image.GetSpacing(), (0.8, 0.9, 2.5), rtol=1e-3)
    assert len(notes) == (shear > 1e-4) and all("taken for rounding" in note for note in notes)


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "mha", "nrrd"])
def test_nan_outside_the_field_of_view_is_the_darkest_value(tmp_path, capsys, ending):
    values = VALUES.astype(np.float32)
    values[:, :2, :3] = np.nan
    image = write(tmp_path / f"i/a.{ending}", values)
    mask = write(tmp_path / "m/a.nii", LABELS)
    case = imported(tmp_path, "nifti", image, mask, "--modality", "CT", "--window=-900,400")["3DBox_CT_a"]
    assert (case.images[:, :2, :3] == 0).all() and case.images[0, 5, 0] == 64
    assert "36 NaN voxels outside the field of view" in capsys.readouterr().out
    case = imported(tmp_path, "nifti", image, mask, "--modality", "MR")["3DBox_MR_a"]
    assert (case.images[:, :2, :3] == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_inside_an_image_is_refused(tmp_path, capsys, value):
    values = VALUES.astype(np.float32)
    values[2, 5, 6] = value
    image, mask = write(tmp_path / "a.nii.gz", values), write(tmp_path / "m.nii", LABELS)
    imported(tmp_path, "nifti", image, mask, "--modality", "CT", code=1)
    assert "holds 1 NaN or infinite voxels inside the image" in error_of(capsys)[0]


def photograph():
    return np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "bmp"])
def test_images_that_are_cut_are_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(photograph()).save(path)
    read_image(path, (0, 100))
    cut(path)
    with pytest.raises(CaseError, match="cut off|cannot be read"):
        read_image(path, (0, 100))
    with pytest.raises(CaseError):
        read_mask(path, LabelOptions(threshold=100))


def test_a_cut_palette_mask_is_refused(tmp_path):
    image = Image.fromarray(photograph()[..., 0] % 4).convert("P")
    image.save(tmp_path / "a.png")
    cut(tmp_path / "a.png")
    with pytest.raises(CaseError, match="cannot be read"):
        read_mask(tmp_path / "a.png", LabelOptions())


@pytest.mark.parametrize("size", [0, 100, 140, 300])
def test_a_dicom_file_whose_copy_broke_off_makes_the_series_incomplete(tmp_path, capsys, size):
    series = write_series(tmp_path / "p")
    write_seg(tmp_path / "seg.dcm", series, {"liver": LABELS == 1})
    series[-1].write_bytes(series[-1].read_bytes()[:size])
    assert imported(tmp_path, "dicom", tmp_path / "p", tmp_path / "seg.dcm", code=1) == {}
    (error,) = error_of(capsys)
    assert str(series[-1]) in error


def test_a_broken_slice_without_ending_and_files_of_other_kinds(tmp_path, capsys):
    series = write_series(tmp_path / "p")
    write_seg(tmp_path / "p/seg", series, {"liver": LABELS == 1})
    for path in series:
        path.rename(path.with_suffix(""))
    (tmp_path / "p/README").write_text("notes")
    (tmp_path / "p/list.csv").write_text("a,b")
    imported(tmp_path, "dicom", tmp_path / "p")
    assert "2 files are no DICOM images: README, list.csv" in capsys.readouterr().out
    (tmp_path / "p/IM99").write_bytes(b"")
    imported(tmp_path, "dicom", tmp_path / "p", "--overwrite", code=1)
    assert "IM99: is no readable DICOM file (empty): the series is incomplete" in error_of(capsys)[0]


def test_series_that_are_not_imported_are_named(tmp_path, capsys):
    series = write_series(tmp_path / "p/a", series="a")
    write_series(tmp_path / "p/b", series="b")
    write_seg(tmp_path / "p/seg.dcm", series, {"liver": LABELS == 1})
    imported(tmp_path, "dicom", tmp_path / "p")
    assert "p/b: series 1_series_b, 6 files, is not imported: it has no mask" in capsys.readouterr().out


@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("order", ["LPS", "PIR"])
def test_positions_rounded_to_the_digits_written_are_accepted(tmp_path, digits, order):
    image = image_of(VALUES)
    image.SetSpacing((0.8, 0.9, 1.25))
    labels = image_of(LABELS)
    labels.CopyInformation(image)
    series = write_series(tmp_path / "p", sitk.DICOMOrient(image, order), digits=digits)
    turned = sitk.GetArrayFromImage(sitk.DICOMOrient(labels, order))
    write_seg(tmp_path / "seg.dcm", series, {"cube": turned == 1, "rod": turned == 2})
    sitk.WriteImage(labels, str(tmp_path / "m.nii.gz"))
    box = [rectangle(image, z, (3.6, 9.4), (2.7, 7.4)) for z in (2, 3)]
    rod = [rectangle(image, z, (14.5, 17.5), (11.5, 13.5)) for z in range(6)]
    write_rtstruct(tmp_path / "rs.dcm", {"cube": box, "rod": rod})
    for mask in ("seg.dcm", "m.nii.gz") if order == "PIR" else ("seg.dcm", "m.nii.gz", "rs.dcm"):
        arguments = ["dicom", tmp_path / "p", tmp_path / mask, "--plane", "axial", "--overwrite"]
        case = imported(tmp_path, *arguments)["3DBox_CT_p"]
        np.testing.assert_array_equal(case.labels, LABELS)


def test_a_slice_that_is_missing_is_seen_though_positions_are_rounded(tmp_path, capsys):
    image = image_of(np.repeat(VALUES, 3, axis=0))
    image.SetSpacing((0.8, 0.9, 1.25))
    series = write_series(tmp_path / "p", image, digits=1)
    series[7].unlink()
    write_image(tmp_path / "m.nii.gz", LABELS)
    imported(tmp_path, "dicom", tmp_path / "p", tmp_path / "m.nii.gz", code=1)
    assert "misses slices" in error_of(capsys)[0]


def test_links_are_followed_and_loops_and_dead_links_named(tmp_path, capsys):
    write(tmp_path / "real/ct.nii.gz", VALUES)
    write(tmp_path / "real/ct_seg.nii.gz", LABELS)
    data = tmp_path / "data"
    data.mkdir()
    (data / "p1").symlink_to("../real")
    (data / "dead").symlink_to("nowhere")
    (data / "text").write_text("../real\n")
    (tmp_path / "real/up").symlink_to(data)
    cases = imported(tmp_path, "nifti", data, data, "--modality", "CT", code=1)
    assert list(cases) == ["3DBox_CT_p1_ct"]
    said = capsys.readouterr()
    assert "p1/up leads to a folder above it" in said.out
    assert "dead: is a link to nowhere" in said.err and "text: is a text that names the folder" in said.err
    assert [p.name for p in files_below(data).files] == ["ct.nii.gz", "ct_seg.nii.gz"]


def test_a_linked_dicom_folder_is_one_of_the_cases(tmp_path, capsys):
    series = write_series(tmp_path / "real/ct")
    write_seg(tmp_path / "real/seg.dcm", series, {"cube": LABELS == 1, "rod": LABELS == 2})
    (tmp_path / "scans/p1").mkdir(parents=True)
    for name in ("ct", "seg.dcm"):
        (tmp_path / "scans/p1" / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "scans/p2").symlink_to(tmp_path / "real")
    (tmp_path / "real/ct/up").symlink_to(tmp_path / "scans")
    cases = imported(tmp_path, "dicom", tmp_path / "scans")
    assert list(cases) == ["3DBox_CT_p1", "3DBox_CT_p2"]
    check_cube(cases["3DBox_CT_p1"])
    assert "ct/up leads to a folder above it" in capsys.readouterr().out


def test_dicom_masks_without_case_are_named(tmp_path, capsys):
    write_series(tmp_path / "scans/p1", series="1")
    (tmp_path / "scans/notes.txt").write_text("")
    for name in ("p1", "p2"):
        write_image(tmp_path / f"masks/{name}.nii.gz", LABELS)
    imported(tmp_path, "dicom", tmp_path / "scans", tmp_path / "masks", code=1)
    said = capsys.readouterr()
    assert "p2.nii.gz: is a mask without series" in said.err and "notes.txt" in said.out
    assert pydicom.dcmread(next((tmp_path / "scans/p1").iterdir())).Modality == "CT"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.nii.gz", b"", "holds 0 bytes, less than a NIfTI header"),
        ("a.nii", b"no header", "less than a NIfTI header"),
        ("a.mha", b"", "is empty (0 bytes)"),
        ("a.nrrd", b"", "is empty (0 bytes)"),
        ("a.mhd", b"NDims = 3\nElementDataFile = a.raw\n", "has its voxels in a.raw, which is not there"),
    ],
)
def test_files_that_hold_nothing_say_so(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CaseError) as caught:
        read_volume(tmp_path / name)
    assert message in str(caught.value)


def test_endings_that_say_the_wrong_thing(tmp_path):
    path = write(tmp_path / "a.nii", VALUES)
    (tmp_path / "plain.nii.gz").write_bytes(path.read_bytes())
    image, notes = read_volume(tmp_path / "plain.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), VALUES)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(CaseError, match="holds compressed data; name it .nii.gz"):
        read_volume(path)


@pytest.mark.parametrize("kind, ending", [("images", "png"), ("nifti", "nii.gz")])
def test_a_name_that_is_no_utf8_is_told(tmp_path, capsys, kind, ending):
    for folder in ("i", "m"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / os.fsdecode(b"M\xfcller." + ending.encode())).write_bytes(b"\0" * 500)
    command = [
        kind,
        str(tmp_path / "i"),
        str(tmp_path / "m"),
        "--modality",
        "US",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(command) == 1
    assert "has a name that is no UTF-8 and cannot be opened; rename it" in capsys.readouterr().err
