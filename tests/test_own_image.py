"""One's own image is read as `predict` reads it, from a path or from files that a browser sent."""

import cv2
import numpy as np
import pytest
from hospital_data import CUBE, cube_values, image_of, write_image, write_series
from small_data import rectangle_case

from qmsam_core.data.archive import CaseError
from qmsam_core.study.own_image import open_image, open_sent


def sent(*paths):
    return [{"name": path.name, "content": memoryview(path.read_bytes())} for path in paths]


@pytest.fixture
def volume(tmp_path):
    return write_image(tmp_path / "ct.nii.gz", cube_values())


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "series", image_of(cube_values()))


def is_cube(case):
    assert case.boxes is None and case.is_volume
    assert case.images.shape == cube_values().shape and (case.images[CUBE] > case.images[0, 9, 9]).all()


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp"])
def test_a_picture_needs_no_modality(tmp_path, ending):
    path = tmp_path / f"mine.{ending}"
    cv2.imwrite(str(path), np.full((30, 20), 99, np.uint8))
    for case, _ in (open_image(f" {path} "), open_sent(sent(path))):
        assert case.name == path.name and case.boxes is None and case.images.shape == (30, 20, 3)


def test_a_volume_by_its_path_and_sent(volume):
    is_cube(open_image(volume, "CT")[0])
    is_cube(open_sent(sent(volume), "CT")[0])
    with pytest.raises(CaseError, match="ct.nii.gz: does not tell its modality; choose it"):
        open_image(volume)


def test_a_dicom_series_tells_its_modality_itself(series):
    is_cube(open_image(series[0].parent)[0])
    is_cube(open_sent(sent(*series))[0])


def test_a_case_keeps_its_boxes(tmp_path):
    case = rectangle_case("2DBox_US_0", 0, volume=False)
    case.save(tmp_path / "case.npz")
    assert np.array_equal(open_image(tmp_path / "case.npz")[0].boxes, case.boxes)


def test_what_was_noticed_is_told(tmp_path):
    values = cube_values().astype(np.float32)
    values[:, 0, :] = np.nan
    assert any("NaN" in note for note in open_image(write_image(tmp_path / "mr.nii.gz", values), "MR")[1])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "no path was given"),
        ("gone.png", "gone.png: there is no such file or folder where the notebook runs"),
        ("text.txt", "text.txt: is no case; expected .npz"),
        ("broken.png", "broken.png: "),
        ("empty", "holds 0 images .none.; expected one"),
        ("two", "holds 2 images .a.png, b.png.; expected one, name its file"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path, name, told):
    for folder in ("empty", "two"):
        (tmp_path / folder).mkdir()
    for file in ("text.txt", "broken.png"):
        (tmp_path / file).write_text("text")
    for file in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "two" / file), np.zeros((9, 9), np.uint8))
    with pytest.raises(CaseError, match=told):
        open_image(tmp_path / name if name else name)


def test_what_was_sent_is_named_without_the_folder_that_nobody_knows(tmp_path):
    files = [{"name": name, "content": b"text"} for name in ("text.txt", "broken.png")]
    with pytest.raises(CaseError) as one:
        open_sent(files[1:])
    assert str(one.value).startswith("broken.png: ") and "qmsam-" not in str(one.value)
    with pytest.raises(CaseError, match="^the files sent: holds 2 images") as both:
        open_sent(files)
    assert "qmsam-" not in str(both.value)
