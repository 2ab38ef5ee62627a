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


def drawn(path, paths, name="cube"):
    """Write an RTSTRUCT of the cube that refers to a series."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contours = [rectangle(IMAGE, z, (3.5, 9.5), (2.5, 7.5)) for z in (2, 3)]
    return write_rtstruct(path, {name: contours}, series_uid=uid_of(paths))


def titled(paths, number, description):
    """Give a series another number and description."""
    for path in paths:
        data = pydicom.dcmread(path)
        data.SeriesNumber, data.SeriesDescription = number, description
        data.save_as(path)
    return paths


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
    lone = drawn(tmp_path / "in" / "p2" / "rs.dcm", write_series(tmp_path / "gone", series="gone"))
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
    shutil.rmtree(tmp_path / "out")
    np.testing.assert_array_equal(
        imported(tmp_path, "dicom", tmp_path / "p1")["3DBox_CT_p1"].images, expected
    )
    assert predicted(tmp_path / "p1", tmp_path / "masks") == {"p1": "done"}
