"""Phantoms: valid, deterministic cases whose objects are no ellipses. Correct files are not made again."""

import json

import numpy as np
import pytest

from qmsam_core.data import Case, SliceIndex, tight_boxes
from qmsam_core.data.phantoms import MODALITIES, case_counts, collection, make_case, write_phantoms
from qmsam_core.data.phantoms.canvas import Canvas, label_map
from qmsam_core.evaluate.metrics import inscribed_ellipse, score_case

VOLUMES = ("CT", "MR", "PET")


@pytest.mark.parametrize("modality", MODALITIES)
def test_case_is_deterministic_and_survives_its_file(modality, tmp_path):
    case, again = make_case(modality, 4, size=64), make_case(modality, 4, size=64)
    np.testing.assert_array_equal(case.images, again.images)
    np.testing.assert_array_equal(case.labels, again.labels)
    assert not np.array_equal(case.images, make_case(modality, 5, size=64).images)
    case.save(tmp_path / f"{case.name}.npz")
    loaded = Case.load(tmp_path / f"{case.name}.npz")
    np.testing.assert_array_equal(loaded.images, case.images)
    np.testing.assert_array_equal(loaded.boxes, case.boxes)
    np.testing.assert_array_equal(loaded.spacing, case.spacing)


@pytest.mark.parametrize("modality", MODALITIES)
def test_case_has_the_layout_of_the_challenge(modality):
    case = make_case(modality, 7, size=64)
    assert case.images.dtype == case.labels.dtype == np.uint8 and max(case.plane_shape) == 64
    if modality in VOLUMES:
        assert case.name == f"3DBox_{modality}_000007" and case.images.shape == case.labels.shape
        assert 6 <= len(case.images) <= 8 and (case.spacing > 1).all()
    else:
        assert case.name == f"2DBox_{modality}_000007" and case.images.shape == (*case.labels.shape, 3)
        assert (case.spacing == 1).all()
    ids, boxes = tight_boxes(case.labels)
    np.testing.assert_array_equal(ids, np.arange(1, len(boxes) + 1))
    np.testing.assert_array_equal(boxes, case.boxes)


@pytest.mark.parametrize("modality", MODALITIES)
def test_case_is_worth_looking_at(modality):
    """The image has contrast. Every case has objects, and some cases have several."""
    cases = [make_case(modality, seed, size) for seed in range(4) for size in (48, 80)]
    objects = [len(case.boxes) for case in cases]
    low, high = (10, 30) if modality == "Microscopy" else (1, 8)
    assert low <= min(objects) and max(objects) <= high and max(objects) > 1
    assert all(case.images.std() > 10 and len(np.unique(case.images)) > 50 for case in cases)


@pytest.mark.parametrize("modality", VOLUMES)
def test_objects_change_from_slice_to_slice(modality):
    areas = (make_case(modality, 0, size=64).labels == 1).sum(axis=(1, 2))
    assert np.count_nonzero(areas) > 2 and len(np.unique(areas)) > 2


def test_objects_are_no_ellipses():
    cases = [make_case(modality, seed) for modality in MODALITIES for seed in (0, 1)]
    scores = [score_case(case.labels, inscribed_ellipse(case)).dsc for case in cases]
    assert 0.72 <= np.mean(scores) <= 0.88


@pytest.mark.parametrize("arguments", [("Photo", 0), ("CT", -1), ("CT", 0, 16), ("CT", 0, 0)])
def test_impossible_requests_are_named(arguments):
    with pytest.raises(ValueError, match="expected"):
        make_case(*arguments)


def slices(counts):
    """Return the slices of each modality, without those of the three cases that every modality gets."""
    return {m: (n - 3) * (7 if m in VOLUMES else 1) for m, n in counts.items()}


def test_counts_keep_the_order_of_table_2():
    values = [slices(case_counts(400))[m] for m in MODALITIES]
    assert all(a >= b - 7 for a, b in zip(values, values[1:])) and values[0] > 15 * values[-1]


@pytest.mark.parametrize(("n_cases", "total"), [(5, 33), (33, 33), (34, 34), (400, 400)])
def test_counts_add_up_and_only_grow(n_cases, total):
    counts, more = case_counts(n_cases), case_counts(n_cases + 1)
    assert sum(counts.values()) == total and min(counts.values()) >= 3
    assert all(counts[m] <= more[m] for m in MODALITIES)


def test_counts_follow_the_roots_of_table_2():
    found = slices(case_counts(20_000))
    assert found["CT"] / found["MR"] == pytest.approx((1218411 / 236804) ** 0.5, rel=0.01)
    assert found["CT"] / found["Microscopy"] == pytest.approx((1218411 / 1000) ** 0.5, rel=0.01)


@pytest.fixture
def made(monkeypatch):
    """A list of modality and seed of each case drawn. One small case stands for all cases of a modality."""
    cases, drawn = {m: make_case(m, 0, size=48) for m in MODALITIES}, []
    monkeypatch.setattr(collection, "make_case", lambda m, seed: drawn.append((m, seed)) or cases[m])
    return drawn


def phantoms_of(root):
    return {path: path.read_bytes() for path in root.rglob("*Box*.npz")}


def test_folder_is_an_index_of_all_modalities_and_made_once(tmp_path, made):
    root = write_phantoms(tmp_path / "phantoms", 33, seed=1)
    assert len(made) == 33 and (root / "CT/PhantomCT/3DBox_CT_1000000.npz").is_file()
    index = SliceIndex.build(root)
    assert sorted(index.modalities) == sorted(MODALITIES) and index.problems == []
    before = phantoms_of(root)
    write_phantoms(root, 33, seed=1)
    assert len(made) == 33 and phantoms_of(root) == before


def test_damaged_and_missing_files_are_made_again(tmp_path, made):
    write_phantoms(tmp_path, 33, seed=0)
    before = phantoms_of(tmp_path)
    damaged, missing, *_ = before
    damaged.write_bytes(b"damaged")
    missing.unlink()
    made.clear()
    write_phantoms(tmp_path, 33, seed=0)
    assert len(made) == 2 and phantoms_of(tmp_path) == before


def test_files_of_other_code_are_made_again(tmp_path, made, monkeypatch):
    write_phantoms(tmp_path / "phantoms", 33, seed=0)
    (tmp_path / "changed.py").write_text("")
    monkeypatch.setattr(collection, "__file__", str(tmp_path / "changed.py"))
    write_phantoms(tmp_path / "phantoms", 33, seed=0)
    assert len(made) == 66


def test_leftovers_go_and_foreign_files_stay(tmp_path, made):
    write_phantoms(tmp_path, 40, seed=0)
    own = tmp_path / "CT/own.npz"
    own.write_bytes(b"mine")
    write_phantoms(tmp_path, 33, seed=0)
    assert len(made) == 40 and len(phantoms_of(tmp_path)) == 33
    before = phantoms_of(tmp_path)
    write_phantoms(tmp_path, 33, seed=2)
    assert len(phantoms_of(tmp_path)) == 33 and not before.keys() & phantoms_of(tmp_path).keys()
    assert own.read_bytes() == b"mine" and not list(tmp_path.rglob(".*"))


def test_call_that_was_broken_off_leaves_no_strays(tmp_path, made, monkeypatch):
    draw = collection.make_case
    broken = lambda modality, seed: draw(modality, seed) if len(made) < 9 else 1 / 0  # noqa: E731
    monkeypatch.setattr(collection, "make_case", broken)
    with pytest.raises(ZeroDivisionError):
        write_phantoms(tmp_path, 33, seed=0)
    assert len(phantoms_of(tmp_path)) == 9
    monkeypatch.setattr(collection, "make_case", draw)
    write_phantoms(tmp_path, 33, seed=1)
    assert len(phantoms_of(tmp_path)) == 33


@pytest.mark.parametrize("text", ["", "[]", '{"files": 3}', '{"files": {"../kept.npz": "", "kept.txt": ""}}'])
def test_manifest_is_not_trusted(tmp_path, made, text):
    root = tmp_path / "phantoms"
    root.mkdir()
    for kept in (tmp_path / "kept.npz", root / "kept.txt"):
        kept.write_bytes(b"kept")
    (root / "phantoms.json").write_text(text)
    write_phantoms(root, 33, seed=0)
    assert len(json.loads((root / "phantoms.json").read_text())["files"]) == len(made) == 33
    assert (tmp_path / "kept.npz").exists() and (root / "kept.txt").exists()


@pytest.mark.parametrize("shape", [(64, 64), (100, 200)])
def test_blob_without_wobble_has_the_area_of_an_ellipse(shape):
    mask = Canvas(shape, (0, 0), 0.0, 0).blob((0, 0), (0.6, 0.4), wobble=0.0, angle=0.5)
    unit = min(shape) / 2
    assert mask.shape == shape and mask.sum() == pytest.approx(np.pi * 0.6 * 0.4 * unit**2, rel=0.08)


@pytest.mark.parametrize(("z", "found"), [(-0.9, False), (0.0, True), (0.3, True), (0.9, False)])
def test_blob_ends_above_and_below(z, found):
    assert Canvas((64, 64), (0, 0), z, 0).blob((0, 0), (0.5, 0.5), depth=(0.2, 0.6)).any() == found


def test_slices_share_shapes_but_not_noise():
    first, second = (Canvas((64, 64), (3, 1), 0.0, number) for number in (0, 1))
    np.testing.assert_array_equal(first.lobed((0, 0), 0.5), second.lobed((0, 0), 0.5))
    assert not np.array_equal(first.texture(0.2), second.texture(0.2))


@pytest.mark.parametrize("scale", [0.01, 0.1, 0.3])
def test_texture_is_normalised(scale):
    noise = Canvas((200, 220), (0, 0), 0.0, 0).texture(scale)
    assert noise.shape == (200, 220) and noise.dtype == np.float32
    assert noise.std() == pytest.approx(1, abs=0.3) and abs(noise.mean()) < 0.4


def test_label_map_drops_fragments_and_numbers_without_gaps():
    a, b, c = (np.zeros((20, 20), bool) for _ in range(3))
    a[2:8, 2:8], a[15, 15], b[0, 0], c[5:18, 5:18] = True, True, True, True
    labels = label_map([a, b, c])
    assert labels.dtype == np.uint8 and np.unique(labels).tolist() == [0, 1, 2]
    assert (labels[15, 15], labels[3, 3], labels[0, 0]) == (2, 1, 0)
