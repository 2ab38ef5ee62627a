"""Cases: reading, validating and writing the challenge's files."""

import io
import zipfile

import numpy as np
import pytest

from qmsam_core.data import Case, CaseError, archive, read_segmentation, tight_boxes, write_segmentation
from qmsam_core.data.archive import CaseArchive, read_slice, write_archive

IMAGE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
MASK = np.zeros((6, 8), dtype=np.uint8)
MASK[1:3, 2:6] = 1
MASK[4:6, 0:1] = 2
VOLUME = np.arange(4 * 6 * 8, dtype=np.uint8).reshape(4, 6, 8)
VOLUME_MASK = np.zeros((4, 6, 8), dtype=np.uint8)
VOLUME_MASK[1:3, 2:5, 3:8] = 1


def write(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_image_round_trip(tmp_path):
    case = Case("2DBox_X_1", IMAGE, np.array([[2, 1, 5, 2], [0, 4, 0, 5]]), MASK, np.ones(3))
    case.save(tmp_path / "2DBox_X_1.npz")
    again = Case.load(tmp_path / "2DBox_X_1.npz")
    assert (again.name, again.is_volume, again.n_slices, again.plane_shape) == ("2DBox_X_1", False, 1, (6, 8))
    np.testing.assert_array_equal(again.slice_image(), IMAGE)
    np.testing.assert_array_equal(again.labels, MASK)
    np.testing.assert_array_equal(again.boxes, case.boxes)


def test_volume_round_trip(tmp_path):
    Case("v", VOLUME, None, VOLUME_MASK, np.array([0.7, 0.8, 5.0])).save(tmp_path / "3DBox_v.npz")
    case = Case.load(tmp_path / "3DBox_v.npz").with_boxes()
    assert case.is_volume and case.n_slices == 4
    np.testing.assert_array_equal(case.spacing, [0.7, 0.8, 5.0])
    np.testing.assert_array_equal(case.boxes, [[3, 2, 1, 7, 4, 2]])
    np.testing.assert_array_equal(case.slice_image(2), np.repeat(VOLUME[2][..., None], 3, axis=2))
    with pytest.raises(IndexError, match="slice 4 of 4"):
        case.slice_image(4)


def test_gray_image_becomes_three_channels(tmp_path):
    case = Case.load(write(tmp_path / "2DBox_g.npz", imgs=IMAGE[..., 0], gts=MASK))
    np.testing.assert_array_equal(case.images, np.repeat(IMAGE[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    "name, arrays, is_volume",
    [
        ("2DBox_a.npz", {"imgs": np.zeros((5, 7, 3), np.uint8)}, False),
        ("3DBox_a.npz", {"imgs": np.zeros((5, 7, 9), np.uint8)}, True),
        ("plain.npz", {"imgs": np.zeros((5, 7, 9), np.uint8)}, True),
        ("plain.npz", {"imgs": np.zeros((5, 7, 3), np.uint8)}, False),
        ("thin.npz", {"imgs": np.zeros((5, 7, 3), np.uint8), "gts": np.zeros((5, 7, 3), np.uint8)}, True),
        ("gray.npz", {"imgs": np.zeros((5, 7), np.uint8)}, False),
    ],
)
def test_image_or_volume(tmp_path, name, arrays, is_volume):
    case = Case.load(write(tmp_path / name, **arrays))
    assert case.is_volume is is_volume


def test_saving_twice_gives_the_same_bytes(tmp_path):
    case = Case("c", IMAGE, None, MASK, np.ones(3))
    case.save(tmp_path / "a.npz")
    case.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_failed_write_leaves_the_old_file(tmp_path):
    Case("c", IMAGE, None, MASK, np.ones(3)).save(tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(ValueError):
        write_archive(tmp_path / "a.npz", {"imgs": IMAGE, "bad": np.array([object()])})
    assert (tmp_path / "a.npz").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_tight_boxes_are_inclusive_and_skip_absent_labels():
    ids, boxes = tight_boxes(np.where(MASK == 2, 5, MASK))
    np.testing.assert_array_equal(ids, [1, 5])
    np.testing.assert_array_equal(boxes, [[2, 1, 5, 2], [0, 4, 0, 5]])
    ids, boxes = tight_boxes(np.zeros((3, 4, 5), np.uint8))
    assert ids.shape == (0,) and boxes.shape == (0, 6)


def test_derived_boxes_renumber_labels_with_gaps():
    case = Case("c", IMAGE, None, np.where(MASK == 2, 9, MASK), np.ones(3)).with_boxes()
    assert np.unique(case.labels).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(tight_boxes(case.labels)[1], case.boxes)


def test_maximum_equal_to_the_side_is_clipped(tmp_path):
    case = Case.load(write(tmp_path / "2DBox_c.npz", imgs=IMAGE, boxes=np.array([[0, 0, 8, 6]])))
    np.testing.assert_array_equal(case.boxes, [[0, 0, 7, 5]])


def test_a_box_on_one_pixel_is_a_box(tmp_path):
    """Box maxima are inclusive, so a box with equal ends covers one pixel."""
    case = Case.load(write(tmp_path / "2DBox_c.npz", imgs=IMAGE, boxes=np.array([[3, 2, 3, 2]])))
    np.testing.assert_array_equal(case.boxes, [[3, 2, 3, 2]])


def test_a_file_that_cannot_be_opened(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    for path, message in (
        (tmp_path / "folder.npz", "IsADirectoryError"),
        (tmp_path / "bad\0name.npz", "ValueError"),
    ):
        with pytest.raises(CaseError, match=f"cannot be opened .{message}"):
            Case.load(path)


BAD = {
    "no imgs": (dict(images=IMAGE), "holds no array 'imgs' .*images"),
    "float images": (dict(imgs=IMAGE.astype(np.float32)), "'imgs' is float32; expected uint8"),
    "NaN images": (dict(imgs=np.full((4, 4, 3), np.nan)), "'imgs' is float64; expected uint8"),
    "16-bit images": (dict(imgs=IMAGE.astype(np.uint16)), "'imgs' is uint16; expected uint8"),
    "object images": (dict(imgs=np.array([{"a": 1}, None], dtype=object)), "never unpickled"),
    "four channels": (
        dict(imgs=np.zeros((4, 4, 4), np.uint8), gts=np.zeros((4, 4), np.uint8)),
        "expected 3 colour channels",
    ),
    "one axis": (dict(imgs=np.zeros(4, np.uint8)), r"shape \(4,\)"),
    "empty": (dict(imgs=np.zeros((0, 4, 3), np.uint8)), "is empty"),
    "other shape": (
        dict(imgs=IMAGE, gts=np.zeros((8, 6), np.uint8)),
        r"'gts' has shape \(8, 6\), 'imgs' needs \(6, 8\)",
    ),
    "float labels": (dict(imgs=IMAGE, gts=MASK.astype(float)), "'gts' is float64; expected integer"),
    "negative labels": (dict(imgs=IMAGE, gts=MASK.astype(np.int16) - 1), r"labels -1..1; expected 0..65535"),
    "huge labels": (dict(imgs=IMAGE, gts=MASK.astype(np.int64) * 10**6), "expected 0..65535"),
    "three columns": (
        dict(imgs=IMAGE, boxes=np.zeros((2, 3))),
        r"shape \(2, 3\); expected numbers of shape \(N,4\)",
    ),
    "object boxes": (dict(imgs=IMAGE, boxes=np.array([None, {}], dtype=object)), "never unpickled"),
    "NaN box": (dict(imgs=IMAGE, boxes=np.array([[0, 0, np.nan, 1]])), "NaN"),
    "min above max": (
        dict(imgs=IMAGE, boxes=np.array([[5, 0, 4, 1]])),
        r"box 0 \[5, 0, 4, 1\] has a minimum above its maximum",
    ),
    "box outside": (
        dict(imgs=IMAGE, boxes=np.array([[0, 0, 1, 1], [0, 0, 9, 1]])),
        r"box 1 \[0, 0, 9, 1\] leaves the image",
    ),
    "negative box": (dict(imgs=IMAGE, boxes=np.array([[-1, 0, 4, 1]])), "leaves the image"),
    "box beyond the last pixel": (dict(imgs=IMAGE, boxes=np.array([[8, 0, 8, 1]])), "leaves the image"),
    "infinite box": (dict(imgs=IMAGE, boxes=np.array([[0, 0, np.inf, 1]])), "infinite"),
    "fewer boxes than labels": (
        dict(imgs=IMAGE, gts=MASK, boxes=np.array([[0, 0, 1, 1]])),
        "up to label 2 but there are 1 boxes",
    ),
}


@pytest.mark.parametrize("arrays, message", BAD.values(), ids=BAD.keys())
def test_bad_content_is_refused(tmp_path, arrays, message):
    path = write(tmp_path / "2DBox_bad.npz", **arrays)
    with pytest.raises(CaseError, match=message) as error:
        Case.load(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("spacing", [[1.0, 1.0], [0.0, 1.0, 1.0], [np.nan, 1.0, 1.0]])
def test_bad_spacing_is_refused(tmp_path, spacing):
    with pytest.raises(CaseError, match="'spacing' is .*three positive numbers"):
        Case.load(write(tmp_path / "3DBox_bad.npz", imgs=VOLUME, spacing=np.array(spacing)))


def test_unreadable_files_are_refused(tmp_path):
    whole = write(
        tmp_path / "a.npz", imgs=np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    ).read_bytes()
    damaged = bytearray(whole)
    damaged[200:240] = bytes(40)
    for name, content in {
        "truncated": whole[: len(whole) // 2],
        "text": b"no zip at all",
        "empty": b"",
        "damaged": bytes(damaged),
    }.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(CaseError) as error:
            Case.load(path)
        assert str(error.value).startswith(str(path)), name
    with pytest.raises(CaseError, match="cannot be opened"):
        Case.load(tmp_path / "absent.npz")


def lying_archive(path, shape, payload):
    """Write an npz whose header declares uint8 data of `shape` but whose data are `payload`."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("imgs.npy", header.getvalue() + payload)
    return path


def test_a_header_that_declares_too_much_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    with pytest.raises(CaseError, match="declares .* the limit is"):
        Case.load(lying_archive(tmp_path / "big.npz", (10**6, 10**6, 10**6), b""))
    with pytest.raises(CaseError, match="declares 4,000 bytes .* but the file holds 10"):
        Case.load(lying_archive(tmp_path / "short.npz", (10, 20, 20), bytes(10)))
    monkeypatch.setattr(archive, "MAX_ARRAY_BYTES", 100)
    with pytest.raises(CaseError, match="the limit is 100"):
        Case.load(write(tmp_path / "2DBox.npz", imgs=IMAGE))


def test_no_pickle_is_ever_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    with pytest.raises(CaseError, match="never unpickled"):
        Case.load(write(tmp_path / "trap.npz", imgs=np.array([Trap()], dtype=object)))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_slice_of_a_member_equals_numpy_load(tmp_path, save, order):
    volume = np.asarray(np.random.default_rng(1).integers(0, 9, (7, 33, 41), dtype=np.uint8), order=order)
    save(tmp_path / "v.npz", imgs=volume)
    expected = np.load(tmp_path / "v.npz")["imgs"]
    for z in range(7):
        np.testing.assert_array_equal(read_slice(tmp_path / "v.npz", "imgs", z), expected[z])
    with CaseArchive(tmp_path / "v.npz") as archive:
        np.testing.assert_array_equal(np.stack(list(archive.slices("imgs"))), expected)
    for z in (-1, 7):
        with pytest.raises(CaseError, match="has no slice"):
            read_slice(tmp_path / "v.npz", "imgs", z)


@pytest.mark.parametrize("top, kind", [(3, np.uint8), (255, np.uint8), (300, np.uint16)])
def test_segmentation_round_trip(tmp_path, top, kind):
    segs = np.zeros((5, 6), dtype=np.int64)
    segs[2, 3] = top
    write_segmentation(tmp_path / "s.npz", segs)
    again = read_segmentation(tmp_path / "s.npz")
    assert again.dtype == kind
    np.testing.assert_array_equal(again, segs)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npz")["segs"], segs)


def test_segmentation_of_floats_is_refused(tmp_path):
    with pytest.raises(CaseError, match="expected integer labels"):
        write_segmentation(tmp_path / "s.npz", np.zeros((2, 2)))
