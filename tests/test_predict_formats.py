"""Masks go back to the file that their boxes came from: the same format, the same grid, the same voxels."""

import gzip
import json
import struct

import highdicom as hd
import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from box_engine import BoxEngine
from hospital_data import (
    CUBE_BOX,
    SHAPE,
    cube_labels,
    cube_values,
    image_of,
    rectangle,
    write_image,
    write_multi_frame,
    write_rtstruct,
    write_seg,
    write_series,
)
from PIL import Image

from qmsam_core.data import Case, CaseError, read_segmentation
from qmsam_core.data.importers.assemble import dicom_case, nifti_case, planar_case
from qmsam_core.data.importers.labels import LabelOptions
from qmsam_core.data.importers.options import ImportOptions
from qmsam_core.data.importers.series import DicomFolder
from qmsam_core.data.source import Source
from qmsam_core.deploy import Predictor, writing
from qmsam_core.deploy.batch import predict_folder
from qmsam_core.deploy.files.box_table import BoxRow
from qmsam_core.deploy.files.grid_boxes import boxes_to_case, boxes_to_source, voxels_inside
from qmsam_core.deploy.files.inputs import Input, find_inputs
from qmsam_core.deploy.files.mask_files import target_of
from qmsam_core.deploy.files.nifti_header import copy_geometry
from qmsam_core.deploy.files.reading import Reading, check_not_sizes
from qmsam_core.deploy.masks import MasksApart

LABELS, VALUES = cube_labels(), cube_values()
OPTIONS = ImportOptions()


class Returning(Predictor):
    """A predictor that returns the labels that it was given, on the axes of the case."""

    def __init__(self, labels):
        super().__init__(BoxEngine())
        self.labels = labels

    def segment(self, case):
        assert case.labels is None and len(case.boxes) == self.labels.max()
        return self.labels

    def segment_apart(self, case):
        masks = MasksApart(self.labels.shape, [[] for _ in case.boxes])
        for i in range(len(case.boxes)):
            planes = self.labels if self.labels.ndim == 3 else self.labels[None]
            for z, plane in enumerate(planes):
                masks.add(i, z, plane == i + 1, 0, 0)
        return masks


def predicted(path, out, labels, mask=None, apart=False, modality="MR", series="", **options):
    """Run the only input at `path`, or its series, through a predictor that returns `labels`.

    Returns the file written.
    """
    (one,) = (one for one in find_inputs(path) if series in ("", one.series))
    reading = Reading(modality, masks={one.name: mask} if mask else {}, **options)
    (row,) = predict_folder(Returning(labels), [one], out, reading=reading, apart=apart)
    assert row["status"] == "done"
    return target_of(one, reading.source(one), out, apart)


def dice(found, expected):
    return 2 * np.sum((found == expected) & (expected > 0)) / (np.sum(found > 0) + np.sum(expected > 0))


def header(path):
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.read(348)


def voxels_of(path):
    """Return stored values of a mask: palette indices of a PNG, voxels of a volume."""
    if path.suffix == ".png":
        return np.array(Image.open(path))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def volume(tmp_path, suffix, order="RAS", degrees=20.0, spacing=(0.8, 0.9, 2.5)):
    """Write an image and its mask. Returns both paths."""
    paths = []
    for name, array in (("a", VALUES), ("m", LABELS)):
        image = image_of(array, order, degrees)
        image.SetSpacing([spacing[k] for k in (0, 1, 2)])
        path = tmp_path / f"{name}{suffix}"
        sitk.WriteImage(image, str(path))
        paths.append(path)
    return paths


def test_nifti_2_equals_nifti_1(tmp_path):
    """It is told apart by its header only. Masks come back as NIfTI-1 with the geometry of the source."""
    one = write_image(tmp_path / "one" / "a.nii", VALUES, "RAS", 20.0)
    old = nibabel.load(one)
    two = tmp_path / "two" / "a.nii.gz"
    two.parent.mkdir()
    nibabel.Nifti2Image(np.asarray(old.dataobj), old.affine).to_filename(two)
    mask = write_image(tmp_path / "m.nii.gz", LABELS, "RAS", 20.0)
    cases = [nifti_case("a", path, mask, "CT", OPTIONS)[0] for path in (one, two)]
    np.testing.assert_array_equal(cases[0].images, cases[1].images)
    np.testing.assert_array_equal(cases[0].boxes, cases[1].boxes)
    target = predicted(two, tmp_path / "out", cases[0].labels, mask)
    made = nibabel.load(target)
    assert isinstance(made, nibabel.Nifti1Image) and target.name == "a.nii.gz"
    np.testing.assert_allclose(made.affine, old.affine, atol=1e-6)
    np.testing.assert_array_equal(voxels_of(target), voxels_of(mask))


def test_nifti_2_too_long_for_nifti_1_is_refused(tmp_path):
    path = tmp_path / "a.nii"
    nibabel.Nifti2Image(np.zeros((40_000, 2, 2), np.int16), np.eye(4)).to_filename(path)
    with pytest.raises(
        CaseError, match="a.nii: is NIfTI-2 with 40000x2x2 voxels; expected up to 32,767 an axis"
    ):
        nifti_case("a", path, path, "MR", OPTIONS)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize(
    "order, degrees, spacing",
    [
        ("LPS", 0, (0.8, 0.9, 2.5)),
        ("RAS", 20, (0.8, 0.9, 2.5)),
        ("PIR", -7, (0.9, 0.9, 4.0)),
        ("ASL", 0, (0.7, 0.9, 3.3)),
        ("SPL", 3, (1, 1, 1)),
    ],
    ids=["axial", "oblique RAS", "oblique sagittal", "sagittal", "isotropic"],
)
def test_a_volume_comes_back_on_its_own_grid(tmp_path, suffix, order, degrees, spacing):
    image, mask = volume(tmp_path / ".." / tmp_path.name, suffix, order, degrees, spacing)
    labels = nifti_case("a", image, mask, "MR", OPTIONS)[0].labels
    target = predicted(image, tmp_path / "out", labels, mask)
    assert target.name == ("a.seg.nrrd" if suffix == ".nrrd" else f"a{suffix}")
    found, source = sitk.ReadImage(str(target)), sitk.ReadImage(str(image))
    for value in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
        theirs = getattr(source, value)()
        # NRRD multiplies spacing and direction, which rounds the last digit
        assert getattr(found, value)() == (pytest.approx(theirs, rel=1e-14) if suffix == ".nrrd" else theirs)
    truth = voxels_of(mask)
    assert dice(sitk.GetArrayFromImage(found), truth) == 1 and found.GetPixelID() == sitk.sitkUInt8


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_nifti_header_s_geometry_is_copied_bit_by_bit(tmp_path, order):
    image, mask = volume(tmp_path, ".nii", "RAS", 20)
    content = bytearray(image.read_bytes())
    # a quaternion form of another scanner beside the affine form, with numbers that ITK would change
    struct.pack_into("<2h", content, 252, 1, 2)
    struct.pack_into("<6f", content, 256, 0.1, 0.2, 0.3, 1 / 3, 2 / 3, 1 / 7)
    fields = "i10s18sihcB8h3f4h8ffffhcB4f2i80s24s2h6f12f16s4s"
    struct.pack_into(order + fields, content, 0, *struct.unpack_from("<" + fields, content))
    image.write_bytes(content)
    voxels = mask.read_bytes()[352:]
    assert copy_geometry(image, mask)
    for offset, code in ((76, "4f"), (123, "B"), (252, "2h"), (256, "6f"), (280, "12f")):
        theirs = struct.unpack_from(order + code, header(image), offset)
        assert struct.unpack_from("<" + code, header(mask), offset) == theirs
    assert struct.unpack_from("<h", header(mask), 68) == (1002,)
    assert mask.read_bytes()[352:] == voxels


@pytest.mark.parametrize("content", [b"", b"x" * 400, None])
def test_a_header_of_something_else_changes_nothing(tmp_path, content):
    _, mask = volume(tmp_path, ".nii")
    before = mask.read_bytes()
    if content is not None:
        (tmp_path / "other.nii").write_bytes(content)
    assert not copy_geometry(tmp_path / "other.nii", mask) and mask.read_bytes() == before


def test_the_same_mask_gives_the_same_file(tmp_path):
    image, mask = volume(tmp_path, ".nii.gz")
    labels = nifti_case("a", image, mask, "MR", OPTIONS)[0].labels
    first, second = (predicted(image, tmp_path / out, labels, mask).read_bytes() for out in "bc")
    assert first == second


def test_nrrd_holds_names_as_slicer_does(tmp_path):
    image, _ = volume(tmp_path, ".nrrd")
    folder = tmp_path / "masks"
    for name, number in (("Leber", 1), ("rod, left", 2)):
        write_image(folder / f"{name}.nrrd", (LABELS == number).astype(np.uint8), "RAS", 20)
    labels = nifti_case("a", image, folder, "MR", OPTIONS)[0].labels
    found = sitk.ReadImage(str(predicted(image, tmp_path / "out", labels, folder)))
    assert [found.GetMetaData(f"Segment{k}_Name") for k in (0, 1)] == ["Leber", "rod, left"]
    assert [found.GetMetaData(f"Segment{k}_LabelValue") for k in (0, 1)] == ["1", "2"]
    objects = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert objects["name"].tolist() == ["Leber", "rod, left"]
    assert objects["voxels"].tolist() == [np.sum(LABELS == 1), np.sum(LABELS == 2)]
    assert objects["ml"].tolist() == pytest.approx([v * 0.8 * 0.9 * 2.5 / 1000 for v in objects["voxels"]])


def oblique_series(folder):
    """Write a series turned about two axes, its slices straight above each other. Returns image and paths."""
    image = image_of(VALUES)
    a, b = np.radians(20), np.radians(-12)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    image.SetDirection((about_z @ about_x).ravel().tolist())
    return image, write_series(folder, image)


def check_seg(target, image, names=("cube", "rod")):
    file = hd.seg.segread(target)
    grid = hd.Volume.from_simpleitk(image).get_geometry()
    assert [file.get_segment_description(k).SegmentLabel for k in file.segment_numbers] == list(names)
    for number in file.segment_numbers:
        found = file.get_volume(segment_numbers=[number]).squeeze_channel().match_geometry(grid, tol=1e-3)
        assert dice(found.array.transpose(2, 1, 0), LABELS == number) == 1
    return file


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("drawn", ["beside", "SEG", "nifti"])
def test_a_series_gives_a_seg_on_its_own_slices(tmp_path, drawn, apart):
    image, paths = oblique_series(tmp_path / "pat")
    mask, names = None, ("cube", "rod")
    if drawn == "nifti":
        mask = tmp_path / "m.nii.gz"
        labels = sitk.GetImageFromArray(LABELS)
        labels.CopyInformation(image)
        sitk.WriteImage(labels, str(mask))
        names = ("1", "2")
    else:
        path = (tmp_path / "pat" if drawn == "beside" else tmp_path) / "drawn.dcm"
        write_seg(path, paths, {"cube": LABELS == 1, "rod": LABELS == 2})
        mask = None if drawn == "beside" else path
    labels = dicom_case(
        "a", DicomFolder.of(tmp_path / "pat", sorted((tmp_path / "pat").iterdir())), mask, "CT", OPTIONS
    )[0].labels
    target = predicted(tmp_path / "pat", tmp_path / "out", labels, mask, apart, modality=None)
    file = check_seg(target, image, names)
    sources = {pydicom.dcmread(path).SOPInstanceUID for path in paths}
    referred = {
        item.SourceImageSequence[0].ReferencedSOPInstanceUID
        for frame in file.PerFrameFunctionalGroupsSequence
        for item in frame.DerivationImageSequence
    }
    assert referred <= sources and (file.Rows, file.Columns) == SHAPE[1:]
    assert file.FrameOfReferenceUID == pydicom.dcmread(paths[0]).FrameOfReferenceUID


def test_a_multi_frame_file_gives_a_seg_where_its_slices_would(tmp_path):
    image, paths = oblique_series(tmp_path / "slices")
    write_multi_frame(tmp_path / "pat/ct.dcm", paths)
    mask = write_seg(tmp_path / "drawn.dcm", paths, {"cube": LABELS == 1, "rod": LABELS == 2})
    (one,) = find_inputs(tmp_path / "pat")
    boxes = Reading(masks={"pat": mask}).case(one)[0].boxes
    (slices,) = find_inputs(tmp_path / "slices")
    np.testing.assert_array_equal(boxes, Reading(masks={"slices": mask}).case(slices)[0].boxes)
    check_seg(predicted(tmp_path / "pat", tmp_path / "out", LABELS, mask, modality=None), image)


def test_of_two_multi_frame_files_the_one_that_the_mask_refers_to_gets_the_seg(tmp_path):
    images = [image_of(VALUES), image_of(VALUES)]
    images[1].SetOrigin((50.0, 60.0, 70.0))
    for k, image in enumerate(images):
        paths = write_series(tmp_path / f"slices{k}", image, series=str(k))
        whole = write_multi_frame(tmp_path / "pat" / f"{k}.dcm", paths)
    contours = [rectangle(images[1], z, (3.5, 9.5), (2.5, 7.5)) for z in (2, 3)]
    uid = pydicom.dcmread(whole).SeriesInstanceUID
    mask = write_rtstruct(tmp_path / "pat" / "rt.dcm", {"cube": contours}, series_uid=uid)
    labels = (LABELS == 1).astype(np.uint8)
    target = predicted(tmp_path / "pat", tmp_path / "out", labels, modality=None, series=uid)
    check_seg(target, images[1], ("cube",))
    assert (
        mask.exists() and hd.seg.segread(target).StudyInstanceUID == pydicom.dcmread(whole).StudyInstanceUID
    )


def edit(paths, change):
    """Change the headers of DICOM files in place."""
    for path in paths:
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)


def series_predicted(root, out, name="cube"):
    """Segment the series below `root`, with a box in each. Returns rows and the lines that were logged."""
    inputs, lines = find_inputs(root), []
    cells = dict(zip(("name", "x_min", "y_min", "z_min", "x_max", "y_max", "z_max"), (name, *CUBE_BOX)))
    rows = {one.name: [BoxRow("boxes.csv row 2", {k: str(v) for k, v in cells.items()})] for one in inputs}
    done = predict_folder(Predictor(BoxEngine()), inputs, out, lines.append, reading=Reading(rows=rows))
    return {row["case"]: row["status"] for row in done}, lines


@pytest.mark.parametrize(
    "change",
    [
        *(
            lambda data, key=key: delattr(data, key)
            for key in (
                "PatientID PatientName PatientBirthDate PatientSex StudyDate StudyTime StudyID "
                "AccessionNumber SOPClassUID SliceThickness"
            ).split()
        ),
        lambda data: setattr(data, "PatientSex", "X"),
        lambda data: setattr(data, "StudyDate", ""),
        lambda data: setattr(data, "SliceThickness", None),
    ],
)
def test_a_series_without_what_the_standard_lets_be_empty_gives_a_seg(tmp_path, change):
    paths = write_series(tmp_path / "in" / "pat")
    edit(paths, change)
    rows, _ = series_predicted(tmp_path / "in", tmp_path / "out")
    assert rows == {"pat": "done"}
    file = hd.seg.segread(tmp_path / "out" / "pat.dcm")
    assert file.segment_numbers == [1] and file.PatientID in ("1", "")


def test_series_that_can_hold_no_seg_are_named_before_they_are_computed_and_the_rest_goes_on(tmp_path):
    needed = ("FrameOfReferenceUID", "FrameOfReferenceUID", "FrameOfReferenceUID", "StudyInstanceUID")
    for k, key in enumerate(needed):
        paths = write_series(tmp_path / "in" / f"p{k}", series=str(k))
        edit(paths, lambda data, key=key: delattr(data, key))
    write_series(tmp_path / "in" / "p9", series="9")
    rows, _ = series_predicted(tmp_path / "in", tmp_path / "out")
    assert rows.pop("p9") == "done" and len(rows) == 4
    for status, key in zip(rows.values(), needed):
        assert status.startswith("failed") and f"has no {key}" in status and "dcm2niix" in status


def test_faults_of_many_sources_do_not_blame_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "write_masks", lambda target, *_: {}[target.name])
    for k in range(5):
        write_series(tmp_path / "in" / f"p{k}", series=str(k))
    rows, lines = series_predicted(tmp_path / "in", tmp_path / "out")
    assert len(rows) == 5 and all("KeyError: 'p" in status for status in rows.values())
    assert len(lines) == 5 and not any("\n" in line for line in lines)


@pytest.mark.parametrize("name", ["ąę печень, 肝", "Niere ü"])
@pytest.mark.parametrize("character_set", ["", "ISO_IR 100", "ISO_IR 144", "ISO_IR 192"])
def test_names_in_any_script_are_kept_whatever_the_series_is_written_in(tmp_path, name, character_set):
    patient = {"ISO_IR 100": "Müller^Ä", "ISO_IR 144": "Иванов^И", "ISO_IR 192": "肝^ü"}.get(
        character_set, "A^B"
    )
    paths = write_series(tmp_path / "in" / "pat")

    def change(data):
        if character_set:
            data.SpecificCharacterSet = character_set
        data.PatientName = patient

    edit(paths, change)
    assert series_predicted(tmp_path / "in", tmp_path / "out", name)[0] == {"pat": "done"}
    file = pydicom.dcmread(tmp_path / "out" / "pat.dcm")
    assert file.SegmentSequence[0].SegmentLabel == name and str(file.PatientName) == patient


@pytest.mark.parametrize("name, label", [("n" * 70, "n" * 64), ("a\\b\nc", "a/b c"), ("  ", "object 1")])
def test_a_name_that_a_seg_cannot_hold_is_changed_with_a_note(tmp_path, name, label):
    write_series(tmp_path / "in" / "pat")
    _, lines = series_predicted(tmp_path / "in", tmp_path / "out", name)
    file = hd.seg.segread(tmp_path / "out" / "pat.dcm")
    assert file.SegmentSequence[0].SegmentLabel == label
    assert not name.strip() or any(label in line and "note" in line for line in lines)


def test_a_slice_that_is_there_twice_counts_once(tmp_path):
    paths = write_series(tmp_path / "in" / "pat")
    (tmp_path / "in" / "pat" / "copy.dcm").write_bytes(paths[1].read_bytes())
    rows, lines = series_predicted(tmp_path / "in", tmp_path / "out")
    assert rows == {"pat": "done"} and any("copy.dcm repeat" in line for line in lines)
    edit(
        [tmp_path / "in" / "pat" / "copy.dcm"], lambda data: setattr(data, "PixelData", data.PixelData[::-1])
    )
    rows, _ = series_predicted(tmp_path / "in", tmp_path / "other")
    assert "several slices at one position" in rows["pat"] and "copy.dcm" in rows["pat"]


def test_boxes_of_an_rtstruct(tmp_path):
    image, _ = oblique_series(tmp_path / "pat")
    contours = [rectangle(image, z, (3.5, 9.5), (2.5, 7.5)) for z in (2, 3)]
    write_rtstruct(tmp_path / "rt.dcm", {"Cube": contours})
    reading = Reading(masks={"pat": tmp_path / "rt.dcm"})
    (one,) = find_inputs(tmp_path / "pat")
    case, _ = reading.case(one)
    assert case.names == ("Cube",) and case.boxes.tolist() == [[4, 3, 2, 9, 7, 3]]


@pytest.mark.parametrize("drawn", ["folder", "SEG", "images"])
def test_boxes_are_those_of_whole_objects_also_of_covered_ones(tmp_path, drawn):
    masks = {name: np.zeros(SHAPE, np.uint8) for name in ("liver", "tumour", "twin", "organ", "inside")}
    masks["liver"][2:4, 3:8, 4:16] = masks["tumour"][2:4, 3:8, 12:16] = masks["twin"][2:4, 3:8, 12:16] = 1
    masks["organ"][2:4, 10:12, 4:16] = masks["inside"][2:4, 10:12, 4:10] = 1
    rest = masks["rest"] = masks["organ"] - masks["inside"]
    assert rest.any()  # the two together cover the organ wholly
    if drawn == "SEG":
        paths = write_series(tmp_path / "i")
        folder = write_seg(tmp_path / "m.dcm", paths, masks)
    for name, mask in masks.items():
        if drawn == "folder":
            folder = write_image(tmp_path / "m" / f"{name}.nii.gz", mask).parent
            write_image(tmp_path / "i" / "i.nii.gz", VALUES)
        elif drawn == "images":
            (tmp_path / "m").mkdir(exist_ok=True), (tmp_path / "i").mkdir(exist_ok=True)
            Image.fromarray(mask[2]).save(tmp_path / "m" / f"{name}.png")
            Image.fromarray(np.full(SHAPE[1:], 9, np.uint8)).save(tmp_path / "i" / "i.png")
            folder = tmp_path / "m"
    (one,) = find_inputs(tmp_path / "i")
    case, notes = Reading("CT", masks={one.name: folder}).case(one)
    expected = {
        "liver": [4, 3, 2, 15, 7, 3],
        "tumour": [12, 3, 2, 15, 7, 3],
        "twin": [12, 3, 2, 15, 7, 3],
        "organ": [4, 10, 2, 15, 11, 3],
        "inside": [4, 10, 2, 9, 11, 3],
        "rest": [10, 10, 2, 15, 11, 3],
    }
    if drawn == "images":
        expected = {name: [*box[:2], *box[3:5]] for name, box in expected.items()}
    assert dict(zip(case.names, case.boxes.tolist())) == expected and not notes


@pytest.mark.parametrize(
    "name, orientation",
    [(name, k) for name in ("a.png", "a.jpg") for k in (1, 3, 6, 8)] + [("a.tif", 1), ("a.bmp", 1)],
)
def test_an_image_gives_a_png_as_viewers_show_it(tmp_path, name, orientation):
    upright = np.zeros((12, 15), np.uint8)
    upright[1:4, 2:6], upright[8:11, 7:14] = 1, 2
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.rot90(upright * 80, turns))
    stored.save(tmp_path / name, **({"exif": exif} if orientation != 1 else {}))
    Image.fromarray(upright).save(tmp_path / "m.png")
    labels = planar_case("a", tmp_path / name, tmp_path / "m.png", OPTIONS)[0].labels
    target = predicted(tmp_path / name, tmp_path / "out", labels, tmp_path / "m.png", modality=None)
    with Image.open(target) as image:
        assert target.name == "a.png" and image.mode == "P"
        assert dice(np.array(image), upright) == 1 and np.array(image).shape == (12, 15)
    objects = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert objects[["x_min", "y_min", "x_max", "y_max"]].to_numpy().tolist() == [[2, 1, 5, 3], [7, 8, 13, 10]]


def test_more_than_255_objects_in_an_image_are_16_bit_grey(tmp_path):
    truth = np.random.default_rng(0).permutation(400).astype(np.uint16).reshape(20, 20)
    Image.fromarray((truth % 251).astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(truth).save(tmp_path / "m.png")
    many = ImportOptions(labels=LabelOptions(max_objects=400))
    target = predicted(tmp_path / "a.png", tmp_path / "out", truth, tmp_path / "m.png", options=many)
    assert np.array_equal(np.array(Image.open(target)), truth)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".png"])
def test_one_mask_an_object(tmp_path, suffix):
    if suffix == ".png":
        image, mask = tmp_path / "a.png", tmp_path / "m.png"
        Image.fromarray(LABELS[2] * 80).save(image)
        Image.fromarray(LABELS[2]).save(mask)
        labels = planar_case("a", image, mask, OPTIONS)[0].labels
    else:
        image, mask = volume(tmp_path, suffix)
        labels = nifti_case("a", image, mask, "MR", OPTIONS)[0].labels
    folder = predicted(image, tmp_path / "out", labels, mask, apart=True)
    ending = ".seg.nrrd" if suffix == ".nrrd" else suffix
    assert sorted(path.name for path in folder.iterdir()) == [f"001_1{ending}", f"002_2{ending}"]
    for k in (1, 2):
        found, truth = (voxels_of(path) for path in (folder / f"00{k}_{k}{ending}", mask))
        assert np.array_equal(found, truth == k)
    again = predict_folder(
        Returning(labels),
        find_inputs(image),
        tmp_path / "out",
        reading=Reading("MR", masks={image.name: mask}),
        apart=True,
    )
    assert [row["status"] for row in again] == ["kept"]


@pytest.mark.parametrize("order", ["RAS", "PIR"])
def test_an_imported_case_goes_back_to_its_source(tmp_path, order):
    image, mask = volume(tmp_path, ".nii.gz", order)
    case = nifti_case("3DBox_MR_a", image, mask, "MR", OPTIONS)[0]
    case.save(tmp_path / "in" / "sub" / "3DBox_MR_a.npz")

    class Known(Returning):
        def segment(self, case):
            return self.labels

    def run(*paths):
        inputs = find_inputs(tmp_path / "in")
        return predict_folder(Known(case.labels), inputs, tmp_path / "out", reading=Reading(to_source=True))

    assert [row["status"] for row in run()] == ["done"]
    target = tmp_path / "out" / "sub" / "3DBox_MR_a.nii.gz"
    truth = voxels_of(mask)
    assert dice(voxels_of(target), truth) == 1
    source = sitk.ReadImage(str(image))
    assert sitk.ReadImage(str(target)).GetDirection() == source.GetDirection()
    assert [row["status"] for row in run()] == ["kept"]
    image.unlink()  # the case keeps the geometry
    target.unlink()
    assert [row["status"] for row in run()] == ["done"]
    np.testing.assert_allclose(sitk.ReadImage(str(target)).GetDirection(), source.GetDirection(), atol=1e-6)
    assert dice(voxels_of(target), truth) == 1


def test_a_case_without_source_cannot_go_back(tmp_path):
    case = Case("2DBox_US_a", np.zeros((8, 8, 3), np.uint8), np.array([[1, 1, 4, 4]]), None, np.ones(3))
    case.save(tmp_path / "2DBox_US_a.npz")
    lines = []
    rows = predict_folder(
        Predictor(BoxEngine()),
        find_inputs(tmp_path / "2DBox_US_a.npz"),
        tmp_path / "out",
        lines.append,
        reading=Reading(to_source=True),
    )
    assert rows[0]["status"].startswith("failed: has no 'source' to go back to") and len(lines) == 1


def test_a_half_written_mask_is_made_again(tmp_path):
    image, mask = volume(tmp_path, ".nii.gz")
    labels = nifti_case("a", image, mask, "MR", OPTIONS)[0].labels
    target = predicted(image, tmp_path / "out", labels, mask)
    whole = target.read_bytes()
    target.write_bytes(whole[: len(whole) * 3 // 4])
    assert predicted(image, tmp_path / "out", labels, mask).read_bytes() == whole


def test_other_boxes_or_options_make_a_mask_again(tmp_path):
    image, mask = volume(tmp_path, ".nii.gz")
    (one,) = find_inputs(image)
    first = Reading("MR", masks={one.name: mask})
    same = Reading("MR", masks={one.name: mask})
    other = [
        Reading("CT", masks={one.name: mask}),
        Reading("MR", ImportOptions((0, 10)), masks={one.name: mask}),
    ]
    assert first.origin(one) == same.origin(one)
    assert len({r.origin(one) for r in (first, *other)}) == 3
    before = first.origin(one)
    mask.write_bytes(mask.read_bytes() + b"\0")
    assert first.origin(one) != before


# Boxes on the grid ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [(1, 2, 3), (-1, 2, -3), (3, -1, 2), (-2, 3, 1)])
def test_boxes_turn_as_the_voxels_do(axes):
    shape = (5, 7, 9)
    source = Source("a.nii", "volume", shape, axes)
    stored = np.zeros(shape, np.uint8)
    stored[1:3, 2:7, 4:5] = 1
    box = np.array([[4, 2, 1, 4, 6, 2]])
    z, y, x = np.nonzero(source.to_case(stored))
    turned = boxes_to_case(source, box)
    assert turned.tolist() == [[x.min(), y.min(), z.min(), x.max(), y.max(), z.max()]]
    np.testing.assert_array_equal(boxes_to_source(source, turned), box)


@pytest.mark.parametrize("frame", ["lps", "ras"])
@pytest.mark.parametrize("order", ["LPS", "RAS", "PIR"])
def test_a_box_in_mm_covers_the_voxels_with_their_centres_inside(order, frame):
    image = image_of(VALUES, order)
    geometry = (image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    source = Source("a.nii", "volume", image.GetSize()[::-1], (1, 2, 3), *geometry)
    sides = np.array(image.GetSize())
    expected = np.minimum([(4, 3, 1), (9, 7, 2)], sides - 1)
    ends = np.array([image.TransformIndexToPhysicalPoint(end.tolist()) for end in expected])
    if frame == "ras":
        ends[:, :2] *= -1
    found = voxels_inside(source, ends.min(axis=0) - 0.3, ends.max(axis=0) + 0.3, frame)
    assert found.tolist() == [*expected[0], *expected[1]]
    middle = ends.mean(axis=0)
    thin = voxels_inside(source, middle, middle, frame)
    assert (thin[:3] == thin[3:]).all() and (np.abs(thin[:3] - expected.mean(axis=0)) <= 0.5).all()


def test_an_image_has_no_mm():
    with pytest.raises(ValueError, match="give boxes in voxels"):
        voxels_inside(Source("a.png", "image", (5, 5), (1, 2)), np.zeros(3), np.ones(3), "lps")


@pytest.mark.parametrize(
    "boxes, fine",
    [([[4, 5, 13, 15]], True), ([[4, 5, 10, 11]], False), ([[3, 3, 15, 17]], True), ([[0, 0, 2, 2]], True)],
    ids=["tight corners", "corner and size", "loose corners", "elsewhere"],
)
def test_sizes_for_corners_are_told_from_the_labels(boxes, fine):
    labels = np.zeros((20, 20), np.uint8)
    labels[5:16, 4:14] = 1
    case = Case("a", np.zeros((20, 20, 3), np.uint8), np.array(boxes), labels, np.ones(3))
    if fine:
        check_not_sizes(case)
    else:
        with pytest.raises(CaseError, match="as corner and size"):
            check_not_sizes(case)


def test_names_of_npz_masks_are_in_the_table(tmp_path):
    case = Case(
        "3DBox_CT_a",
        np.zeros((6, 64, 64), np.uint8),
        np.array([[8, 8, 2, 30, 30, 3]]),
        None,
        np.ones(3),
        ("NA",),
    )
    case.save(tmp_path / "3DBox_CT_a.npz")
    predict_folder(Predictor(BoxEngine()), [Input.case(tmp_path / "3DBox_CT_a.npz")], tmp_path / "out")
    assert read_segmentation(tmp_path / "out" / "3DBox_CT_a.npz").max() == 1
    table = pd.read_csv(tmp_path / "out" / "objects.csv", keep_default_na=False)
    assert table[["file", "label", "name", "z_max"]].to_numpy().tolist() == [["3DBox_CT_a.npz", 1, "NA", 3]]
    assert json.loads((tmp_path / "out" / "predictor.json").read_text())["cases"].keys() == {"3DBox_CT_a.npz"}
