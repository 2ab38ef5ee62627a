"""Folders as hospitals export them: series and masks are sorted by what they say, not by where they lie."""

import shutil

import highdicom as hd
import numpy as np
import pydicom
import pytest
from box_engine import BoxEngine
from hospital_data import (
    CUBE_BOX,
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

from qmsam_core.data.importers.dicom_tree import find_series, series_names
from qmsam_core.data.importers.walk import files_below
from qmsam_core.deploy import Predictor
from qmsam_core.deploy.batch import predict_folder
from qmsam_core.deploy.files.box_table import BoxRow, rows_by_input
from qmsam_core.deploy.files.inputs import Input, find_inputs
from qmsam_core.deploy.files.mask_pairs import masks_of
from qmsam_core.deploy.files.reading import Reading

LABELS, VALUES = cube_labels(), cube_values()
IMAGE = image_of(VALUES)


def uid_of(paths):
    return pydicom.dcmread(paths[0]).SeriesInstanceUID


def drawn(path, paths, name="cube", **facts):
    """Write an RTSTRUCT of the cube that refers to a series."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contours = [rectangle(IMAGE, z, (3.5, 9.5), (2.5, 7.5)) for z in (2, 3)]
    return write_rtstruct(path, {name: contours}, **{"series_uid": uid_of(paths), **facts})


def edited(paths, **values):
    """Set elements of a series' files."""
    for path in paths:
        data = pydicom.dcmread(path)
        for key, value in values.items():
            setattr(data, key, value)
        data.save_as(path)
    return paths


def titled(paths, number, description):
    return edited(paths, SeriesNumber=number, SeriesDescription=description)


def moved(paths, folder, start=""):
    """Move a series' files into a folder under other names."""
    folder.mkdir(parents=True, exist_ok=True)
    return [path.rename(folder / f"{start}{path.name}") for path in paths]


def tree(root):
    found = find_series(files_below(root).files)
    return found, dict(zip(series_names(found.series, root), found.series))


def predicted(root, out, masks=None):
    """Segment with an engine whose masks are the boxes. Returns statuses by case."""
    found = find_inputs(root)
    inputs = [one for one in found if isinstance(one, Input)]
    of, errors = {}, []
    if masks:
        inputs, of, errors = masks_of(inputs, root, masks)
    left = [one for one in found if not isinstance(one, Input)] + errors
    rows = predict_folder(
        Predictor(BoxEngine()), [*inputs, *left], out, lambda line: None, reading=Reading(masks=of)
    )
    return {row["case"].replace(f"{root}/", ""): row["status"] for row in rows}


def check_written(path, paths, name="cube"):
    """Assert that a SEG refers to a series and holds the cube's box."""
    file = hd.seg.segread(path)
    assert {str(item.SeriesInstanceUID) for item in file.ReferencedSeriesSequence} == {uid_of(paths)}
    assert file.get_segment_description(1).SegmentLabel == name
    volume = file.get_volume(segment_numbers=[1]).squeeze_channel().array
    assert 0 < np.count_nonzero(volume) <= np.count_nonzero(LABELS == 1)


@pytest.mark.parametrize("order", ["CT first", "RTSTRUCT first"])
def test_series_and_rtstruct_in_folders_of_their_own(tmp_path, order):
    folders = ("1_CT", "2_RS") if order == "CT first" else ("2_CT", "1_RS")
    root = tmp_path / "study"
    paths = write_series(root / folders[0])
    drawn(root / folders[1] / "rs.dcm", paths)
    (case,) = imported(tmp_path, "dicom", root).items()
    assert case[0] == "3DBox_CT_study" and case[1].boxes.tolist() == [CUBE_BOX] and case[1].names == ("cube",)
    assert predicted(root, tmp_path / "masks") == {folders[0]: "done"}
    check_written(tmp_path / "masks" / f"{folders[0]}.dcm", paths)


def test_patients_with_studies_and_series_below(tmp_path, capsys):
    """As a DICOMDIR lists them: patient/study/series. The second patient has two series with masks."""
    for patient in ("p1", "p2"):
        for k in range(1 + (patient == "p2")):
            folder = tmp_path / "in" / patient / f"study{k}"
            paths = write_series(folder / "CT", series=f"{patient}{k}")
            drawn(folder / "RS" / "1.2.3.dcm", paths, f"organ {patient}{k}")
            write_series(folder / "scout", series=f"scout{patient}{k}")
    cases = imported(tmp_path, "dicom", tmp_path / "in")
    assert {name: case.names[0] for name, case in cases.items()} == {
        "3DBox_CT_p1": "organ p10",
        "3DBox_CT_p2_study0_CT": "organ p20",
        "3DBox_CT_p2_study1_CT": "organ p21",
    }
    assert capsys.readouterr().out.count("/scout: series") == 3
    rows = predicted(tmp_path / "in", tmp_path / "masks")
    assert sorted(name for name, status in rows.items() if status == "done") == [
        "p1/study0/CT",
        "p2/study0/CT",
        "p2/study1/CT",
    ]
    assert all("has no boxes" in status for name, status in rows.items() if "scout" in name)


def test_series_and_masks_mixed_in_one_folder(tmp_path, capsys):
    """Two series of one grid, so that only the UID tells which slices a SEG is of."""
    root, series = tmp_path / "export", {}
    for number, name in ((3, "T1 / axial"), (5, "T2")):
        paths = titled(write_series(tmp_path / name[:2], series=name), number, name)
        write_seg(root.parent / f"{number}.dcm", paths, {f"cube {name[:2]}": LABELS == 1})
        series[name] = moved(paths, root, f"IM{number}")
        (tmp_path / f"{number}.dcm").rename(root / f"SEG{number}.dcm")
    moved(write_series(tmp_path / "other", series="other"), root, "other")
    cases = imported(tmp_path, "dicom", root)
    assert {name: case.names for name, case in cases.items()} == {
        "3DBox_CT_export_3_T1_axial": ("cube T1",),
        "3DBox_CT_export_5_T2": ("cube T2",),
    }
    assert "1_series_other, 6 files, is not imported: it has no mask" in capsys.readouterr().out
    rows = predicted(root, tmp_path / "masks")
    assert {name: status for name, status in rows.items() if status == "done"} == {
        "3_T1_axial": "done",
        "5_T2": "done",
    }
    assert "has no boxes" in rows["1_series_other"]
    check_written(tmp_path / "masks" / "3_T1_axial.dcm", series["T1 / axial"], "cube T1")
    check_written(tmp_path / "masks" / "5_T2.dcm", series["T2"], "cube T2")


def test_slices_of_one_series_in_several_folders(tmp_path):
    root = tmp_path / "in" / "p1"
    paths = write_series(root)
    drawn(root / "rs.dcm", paths)
    for k, name in enumerate(("DIR000", "DIR001")):
        moved(paths[3 * k : 3 * k + 3], root / name)
    (case,) = imported(tmp_path, "dicom", tmp_path / "in").values()
    np.testing.assert_array_equal(case.images, imported_whole(tmp_path))
    assert predicted(tmp_path / "in", tmp_path / "masks") == {"p1": "done"}
    check_written(tmp_path / "masks" / "p1.dcm", [root / "DIR000" / paths[0].name])


def imported_whole(tmp_path):
    (tmp_path / "whole").mkdir()
    drawn(tmp_path / "whole" / "p" / "rs.dcm", write_series(tmp_path / "whole" / "p"))
    return imported(tmp_path / "whole", "dicom", tmp_path / "whole" / "p")["3DBox_CT_p"].images


def test_patients_whose_uids_were_made_the_same_stay_apart(tmp_path):
    for name in ("p1", "p2"):
        paths = write_series(tmp_path / "in" / name, series="same")
        write_seg(tmp_path / "in" / name / "seg.dcm", paths, {name: LABELS == 1})
    cases = imported(tmp_path, "dicom", tmp_path / "in")
    assert {name: case.names for name, case in cases.items()} == {
        "3DBox_CT_p1": ("p1",),
        "3DBox_CT_p2": ("p2",),
    }
    assert predicted(tmp_path / "in", tmp_path / "masks") == {"p1": "done", "p2": "done"}


def test_masks_in_another_folder_are_found_by_the_series_they_refer_to(tmp_path):
    """Their names are UIDs, as planning systems write them; one is named like a folder, one fits nothing."""
    for name in ("p1", "p2", "p3"):
        paths = write_series(tmp_path / "in" / name / "CT", series=name)
        if name == "p1":
            drawn(tmp_path / "rs" / "RS.1.2.826.dcm", paths, "by series")
        if name == "p2":
            write_image(tmp_path / "rs" / "p2.nii.gz", LABELS)
    drawn(tmp_path / "rs" / "other.dcm", write_series(tmp_path / "elsewhere", series="x"))
    cases = imported(tmp_path, "dicom", tmp_path / "in", tmp_path / "rs", code=1)
    assert {name: len(case.boxes) for name, case in cases.items()} == {"3DBox_CT_p1": 1, "3DBox_CT_p2": 2}
    rows = predicted(tmp_path / "in", tmp_path / "masks", tmp_path / "rs")
    assert rows["p1/CT"] == "done"
    (tmp_path / "rs" / "p2.nii.gz").unlink()
    assert predicted(tmp_path / "in" / "p1" / "CT", tmp_path / "alone", tmp_path / "rs") == {"CT": "done"}
    assert any("other.dcm" in name and "mask without series" in status for name, status in rows.items())


def test_masks_of_no_series_and_damaged_files_are_named(tmp_path, capsys):
    paths = write_series(tmp_path / "in" / "p1")
    drawn(tmp_path / "in" / "p1" / "rs.dcm", paths)
    gone = write_series(tmp_path / "gone", series="gone")
    lone = drawn(tmp_path / "in" / "p2" / "rs.dcm", gone, frame="1.2.9")
    (tmp_path / "in" / "p3").mkdir()
    (tmp_path / "in" / "p3" / "1.dcm").write_bytes(paths[0].read_bytes()[:140])
    assert list(imported(tmp_path, "dicom", tmp_path / "in", code=1)) == ["3DBox_CT_p1"]
    errors = error_of(capsys)
    assert len(errors) == 2 and any("p3/1.dcm: is no readable DICOM image" in error for error in errors)
    assert any(f"{lone}: is a mask that refers to" in error and "it is not here" in error for error in errors)
    rows = predicted(tmp_path / "in", tmp_path / "masks")
    assert [name for name, status in rows.items() if status == "done"] == ["p1"] and len(rows) == 3


def test_a_damaged_file_stops_every_series_of_its_folder(tmp_path):
    root = tmp_path / "in"
    for k in (1, 2):
        paths = titled(write_series(tmp_path / f"s{k}", series=str(k)), k, "T1")
        write_seg(tmp_path / f"{k}.dcm", paths, {"cube": LABELS == 1})
        moved([*paths, tmp_path / f"{k}.dcm"], root, f"{k}_")
    (root / "9.dcm").write_bytes(b"")
    _, series = tree(root)
    assert [path.name for one in series.values() for path in one.beside] == ["9.dcm", "9.dcm"]
    rows = predicted(root, tmp_path / "masks")
    assert len(rows) == 2 and all("9.dcm" in status and "incomplete" in status for status in rows.values())


def test_rows_of_a_table_call_a_series_by_its_folder_its_title_or_its_uid(tmp_path):
    root = tmp_path / "in"
    alone = write_series(root / "p1", series="1")
    for k in (2, 3):
        paths = moved(titled(write_series(tmp_path / f"s{k}", series=str(k)), k, "MR"), root / "p2", f"{k}_")
    asked = ("p1", "2_MR", "p2/2_MR", uid_of(paths), uid_of(alone))
    rows = [BoxRow(f"row {k}", {"file": file}) for k, file in enumerate(asked)]
    found, errors = rows_by_input(rows, find_inputs(root))
    assert {name: len(own) for name, own in found.items()} == {
        "p1": 2,
        "p2/2_MR": 2,
        "p2/3_MR": 1,
    } and not errors


def test_files_without_preamble_are_read(tmp_path):
    """Old archives wrote the data set alone, without the 128 bytes and "DICM" in front of it."""
    paths = write_series(tmp_path / "p1")
    write_seg(tmp_path / "p1" / "seg.dcm", paths, {"cube": LABELS == 1})
    expected = imported(tmp_path, "dicom", tmp_path / "p1")["3DBox_CT_p1"].images
    for path in paths:
        data = pydicom.dcmread(path)
        data.preamble = None
        data.file_meta = pydicom.dataset.FileMetaDataset()
        pydicom.dcmwrite(path, data, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
        path.rename(path.with_suffix(""))
    shutil.rmtree(tmp_path / "out")
    np.testing.assert_array_equal(
        imported(tmp_path, "dicom", tmp_path / "p1")["3DBox_CT_p1"].images, expected
    )
    assert predicted(tmp_path / "p1", tmp_path / "masks") == {"p1": "done"}


def test_names_never_hide_a_case(tmp_path):
    for name in ("p1/a", "p1/b", "p1_a", "q/x_y", "q/x/y"):
        drawn(tmp_path / "in" / name / "rs.dcm", write_series(tmp_path / "in" / name, series=name), name)
    cases = imported(tmp_path, "dicom", tmp_path / "in")
    assert sorted(case.names[0] for case in cases.values()) == ["p1/a", "p1/b", "p1_a", "q/x/y", "q/x_y"]
    assert set(predicted(tmp_path / "in", tmp_path / "masks").values()) == {"done"}
    assert len(list((tmp_path / "masks").rglob("*.dcm"))) == 5


def test_series_of_one_title_keep_their_names_when_others_come(tmp_path, capsys):
    root, series = tmp_path / "in", {}
    for k, title in enumerate(("T1", "T1", "T1 2")):
        paths = titled(write_series(tmp_path / f"s{k}", series=str(k)), 4, title)
        write_seg(tmp_path / f"{k}.dcm", paths, {f"cube {k}": LABELS == 1})
        series[k] = moved([*paths, tmp_path / f"{k}.dcm"], root, f"{9 - k}_")
        before = {name: case.names for name, case in imported(tmp_path, "dicom", root).items()} if k else {}
        assert k != 1 or len(before) == 2
    assert sorted(names[0] for names in before.values()) == ["cube 0", "cube 1", "cube 2"]
    assert "2 kept" in capsys.readouterr().out
    rows = predicted(root, tmp_path / "masks")
    assert set(rows.values()) == {"done"} and len(list((tmp_path / "masks").glob("*.dcm"))) == 3
    for name in rows:
        label = hd.seg.segread(tmp_path / "masks" / f"{name}.dcm").get_segment_description(1).SegmentLabel
        check_written(tmp_path / "masks" / f"{name}.dcm", series[int(label[-1])], label)


@pytest.mark.parametrize("shift", [(0, 0, 15), (3, 0, 0), (0, 0, 60)])
def test_patients_of_equal_uids_at_other_places_stay_apart(tmp_path, shift):
    """The second of them continues the first without a gap, for one of the shifts."""
    write_series(tmp_path / "in" / "p1", series="same")
    image = image_of(VALUES)
    image.SetOrigin(np.add(image.GetOrigin(), shift).tolist())
    paths = write_series(tmp_path / "in" / "p2", image, series="same")
    write_seg(tmp_path / "in" / "p2" / "seg.dcm", paths, {"p2": LABELS == 1})
    (case,) = imported(tmp_path, "dicom", tmp_path / "in", code=1).items()
    assert case[0] == "3DBox_CT_p2" and case[1].images.shape == LABELS.shape


def test_a_kept_case_of_another_series_is_an_error(tmp_path, capsys):
    for name in ("a", "b"):
        drawn(tmp_path / name / "p" / "rs.dcm", write_series(tmp_path / name / "p", series=name))
    imported(tmp_path, "dicom", tmp_path / "a")
    imported(tmp_path, "dicom", tmp_path / "a")
    imported(tmp_path, "dicom", tmp_path / "b", code=1)
    (error,) = error_of(capsys)
    assert "b/p: would be 3DBox_CT_p.npz, which is of" in error and "give another --name" in error
    images = [write_image(tmp_path / name / "x.nii.gz", VALUES) for name in ("a", "b")]
    mask = write_image(tmp_path / "m.nii.gz", LABELS)
    arguments = ["--modality", "CT", "--dataset", "D"]
    imported(tmp_path, "nifti", images[0], mask, *arguments)
    imported(tmp_path, "nifti", images[1], mask, *arguments, code=1)
    images[0].unlink()  # as if it had been moved
    imported(tmp_path, "nifti", images[1], mask, *arguments)


def test_masks_that_predict_made_are_not_taken_for_drawn_ones(tmp_path, capsys):
    root = tmp_path / "in"
    paths = write_series(root / "p1" / "ct")
    mask = drawn(tmp_path / "rs.dcm", paths)
    assert predicted(root, root / "p1" / "made", mask) == {"p1/ct": "done"}
    imported(tmp_path, "dicom", root, code=1)
    assert "holds no mask" in error_of(capsys)[0]
    mask.rename(root / "p1" / "rs.dcm")
    assert list(imported(tmp_path, "dicom", root)) == ["3DBox_CT_p1"]


@pytest.mark.parametrize("beside", [True, False])
def test_several_segs_of_a_series_are_an_object_each(tmp_path, beside):
    paths = write_series(tmp_path / "in" / "p1" / "ct")
    folder = tmp_path / ("in/p1/segs" if beside else "masks")
    folder.mkdir(parents=True)
    for k, name in enumerate(("cube", "rod"), 1):
        write_seg(folder / f"{name}.dcm", paths, {name: LABELS == k})
    masks = () if beside else (folder,)
    (case,) = imported(tmp_path, "dicom", tmp_path / "in", *masks).values()
    assert case.names == ("cube", "rod") and len(case.boxes) == 2
    assert predicted(tmp_path / "in", tmp_path / "out2", *masks) == {"p1/ct": "done"}


def test_reports_plans_and_doses_beside_the_slices_are_no_damage(tmp_path, capsys):
    paths = write_series(tmp_path / "in" / "p1")
    drawn(tmp_path / "in" / "p1" / "rs.dcm", paths)
    for kind in ("SR", "RTPLAN", "PR"):
        data = pydicom.dcmread(drawn(tmp_path / "in" / "p1" / f"{kind}.dcm", paths))
        data.Modality = kind
        del data.StructureSetROISequence, data.ROIContourSequence
        data.save_as(data.filename)
    edited([paths[0].rename(tmp_path / "dose.dcm")], Modality="RTDOSE", SeriesInstanceUID="1.2.3")
    write_series(tmp_path / "in" / "p1")
    (tmp_path / "dose.dcm").rename(tmp_path / "in" / "p1" / "dose.dcm")
    imported(tmp_path, "dicom", tmp_path / "in")
    assert "4 files are no DICOM images" in capsys.readouterr().out
    assert predicted(tmp_path / "in", tmp_path / "masks") == {"p1": "done"}


def test_a_mask_of_a_series_that_is_not_here_goes_to_its_coordinate_system(tmp_path, capsys):
    """As where an archive gave the images new UIDs. Another patient's mask goes nowhere."""
    paths = write_series(tmp_path / "in" / "p1" / "ct")
    edited(
        write_series(tmp_path / "in" / "p1" / "mr", modality="MR", series="mr"), FrameOfReferenceUID="1.2.9"
    )
    mask = drawn(tmp_path / "in" / "p1" / "rs" / "rs.dcm", paths, series_uid="1.2.840.9")
    (case,) = imported(tmp_path, "dicom", tmp_path / "in")
    assert case == "3DBox_CT_p1" and "refers to series 1.2.840.9" in capsys.readouterr().out
    edited([mask], PatientID="2")
    imported(tmp_path, "dicom", tmp_path / "in", "--overwrite", code=1)
    assert "is a mask that refers to series 1.2.840.9, it is not here" in error_of(capsys)[0]


def test_masks_that_are_not_used_are_named_and_names_of_several_series_are_not_guessed(tmp_path, capsys):
    paths = write_series(tmp_path / "in" / "p1" / "ct")
    drawn(tmp_path / "mk" / "rs" / "1.dcm", paths)
    drawn(tmp_path / "mk" / "rs" / "2.dcm", paths, series_uid="1.2.840.9")
    (tmp_path / "mk" / "rs" / "3.dcm").write_bytes(paths[0].read_bytes()[:200])
    write_image(tmp_path / "mk" / "p1.nii.gz", LABELS)
    (case,) = imported(tmp_path, "dicom", tmp_path / "in", tmp_path / "mk", code=1).values()
    assert len(case.boxes) == 1  # the file that refers to the series, not that of its name
    errors = "".join(error_of(capsys))
    assert all(name in errors for name in ("2.dcm", "3.dcm", "p1.nii.gz")) and "1.dcm" not in errors
    write_series(tmp_path / "in" / "p1" / "scout", series="scout")
    shutil.rmtree(tmp_path / "mk" / "rs")
    imported(tmp_path, "dicom", tmp_path / "in", tmp_path / "mk", "--overwrite", code=1)
    assert "p1.nii.gz: is a mask without series" in "".join(error_of(capsys))
    (tmp_path / "mk" / "p1").mkdir()
    (tmp_path / "mk" / "p1.nii.gz").rename(tmp_path / "mk" / "p1" / "ct.nii.gz")
    rows = predicted(tmp_path / "in", tmp_path / "masks", tmp_path / "mk")
    assert rows.pop("p1/ct") == "done" and "no masks for case 'p1/scout'" in rows.pop("p1/scout") and not rows


def test_one_mask_file_picks_its_series_among_others(tmp_path, capsys):
    paths = write_series(tmp_path / "in" / "ct")
    write_series(tmp_path / "in" / "scout", series="scout")
    mask = drawn(tmp_path / "rs.dcm", paths)
    assert predicted(tmp_path / "in", tmp_path / "masks", mask) == {"ct": "done"}
    assert "rs.dcm: note: is of ct; left without boxes: scout" in capsys.readouterr().out


@pytest.mark.parametrize("description", ["x" * 300, "肝" * 64, "..", "a/b\\c", "ü ä"])
def test_any_description_gives_a_name_that_file_systems_allow(tmp_path, description):
    for k in (1, 2):
        paths = titled(write_series(tmp_path / f"s{k}", series=str(k)), k, description)
        write_seg(tmp_path / f"{k}.dcm", paths, {"cube": LABELS == 1})
        moved([*paths, tmp_path / f"{k}.dcm"], tmp_path / "in" / ("folder " * 12) / "p", f"{k}_")
    assert len(imported(tmp_path, "dicom", tmp_path / "in")) == 2
    assert set(predicted(tmp_path / "in", tmp_path / "masks").values()) == {"done"}


def test_copies_of_some_slices_in_a_folder_beside_count_once(tmp_path, capsys):
    paths = write_series(tmp_path / "p1")
    drawn(tmp_path / "p1" / "rs.dcm", paths)
    parts = [moved(paths[3 * k : 3 * k + 3], tmp_path / "p1" / f"DIR{k}") for k in range(2)]
    (tmp_path / "p1" / "DIR2").mkdir()
    for path in parts[0][:2]:
        shutil.copy(path, tmp_path / "p1" / "DIR2")
    (case,) = imported(tmp_path, "dicom", tmp_path / "p1").values()
    assert case.images.shape == LABELS.shape and "repeat slices" in capsys.readouterr().out


def test_equal_uids_are_told_apart_by_the_patient_or_by_the_masks_names(tmp_path):
    for k in (1, 2):
        paths = edited(write_series(tmp_path / f"s{k}", series="same"), PatientID=f"P{k}")
        write_seg(tmp_path / f"{k}.dcm", paths, {f"cube {k}": LABELS == 1})
        moved([*paths, tmp_path / f"{k}.dcm"], tmp_path / "flat", f"{k}_")
        paths = write_series(tmp_path / "in" / f"p{k}", series="same")
        (tmp_path / "mk").mkdir(exist_ok=True)
        write_seg(tmp_path / "mk" / f"p{k}.dcm", paths, {f"rod {k}": LABELS == 2})
    assert set(predicted(tmp_path / "flat", tmp_path / "m1").values()) == {"done"}
    assert len(list((tmp_path / "m1").glob("*.dcm"))) == 2
    assert set(predicted(tmp_path / "in", tmp_path / "m2", tmp_path / "mk").values()) == {"done"}
    flat = imported(tmp_path, "dicom", tmp_path / "flat").values()
    assert sorted(case.names for case in flat) == [("cube 1",), ("cube 2",)]
    cases = imported(tmp_path / "in", "dicom", tmp_path / "in", tmp_path / "mk")
    assert {name: case.names for name, case in cases.items()} == {
        "3DBox_CT_p1": ("rod 1",),
        "3DBox_CT_p2": ("rod 2",),
    }
