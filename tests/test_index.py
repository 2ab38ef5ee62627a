"""The slice index: look-up, cache, split, and faulty folders."""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_data import rectangle_case
from test_cases import BAD

from qmsam_core.data import Case, CaseError, DataFolderError, SliceIndex, archive
from qmsam_core.data.index import build
from qmsam_core.data.index.scan import FileRecord, scan_file
from qmsam_core.data.index.table import load_table, save_table


def add_volume(root, name, labels):
    """Write a volume whose slice k holds the label ids `labels[k]`."""
    mask = np.zeros((len(labels), 6, 8), np.uint8)
    for z, ids in enumerate(labels):
        mask[z, 0, : len(ids)] = ids
    Case(name, np.zeros_like(mask), None, mask, np.ones(3)).save(root / f"{name}.npz")


def add_image(root, name, ids=(1,)):
    mask = np.zeros((6, 8), np.uint8)
    mask[0, : len(ids)] = ids
    Case(name, np.zeros((6, 8, 3), np.uint8), None, mask, np.ones(3)).save(root / f"{name}.npz")


@pytest.fixture
def folder(tmp_path):
    add_volume(tmp_path / "CT/A", "3DBox_CT_1", [(), (1,), (1, 2), ()])
    add_volume(tmp_path / "CT/B/deep", "3DBox_CT_2", [(3,), (1, 2)])
    add_image(tmp_path / "US", "2DBox_US_1", (1, 2, 4))
    add_image(tmp_path / "US/C", "2DBox_US_2", ())
    return tmp_path


def test_contents(folder):
    index = SliceIndex.build(folder)
    assert len(index) == 8 and index.modalities == ["CT", "US"] and index.problems == []
    assert index.counts().to_dict() == {"CT": 6, "US": 2}
    assert index.counts(with_objects=True).to_dict() == {"CT": 4, "US": 1}
    assert [index.labels_on(i) for i in range(8)] == [(), (1,), (1, 2), (), (3,), (1, 2), (1, 2, 4), ()]
    cases = index.cases
    assert cases.dataset.tolist() == ["A", "B", "", "C"] and cases.n_objects.tolist() == [2, 3, 3, 0]
    assert cases.is_volume.tolist() == [True, True, False, False] and cases.n_slices.tolist() == [4, 2, 1, 1]
    assert (cases.height.unique(), cases.width.unique()) == ([6], [8]) and (cases.bytes > 0).all()
    ref = index[5]
    assert (ref.path.name, ref.z, ref.modality, ref.case) == ("3DBox_CT_2.npz", 1, "CT", 1)
    assert dict((p.name, m.split(":")[0]) for p, m in index.remarks).keys() == {
        "2DBox_US_1.npz",
        "2DBox_US_2.npz",
    }
    for i in (8, -9):
        with pytest.raises(IndexError):
            index[i]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_bisection_agrees_with_brute_force(depths):
    records = [FileRecord(f"CT/{k}.npz", 1, 1, n_slices=depth) for k, depth in enumerate(depths)]
    index = SliceIndex("root", records)
    brute = [(case, z) for case, depth in enumerate(depths) for z in range(depth)]
    assert [index.locate(i) for i in range(len(index))] == brute
    assert index.locate(-1) == brute[-1]


def test_cache_rescans_only_what_changed(folder, tmp_path, monkeypatch):
    cache = tmp_path / "index.npz"
    first = SliceIndex.build(folder, cache)
    scanned = []
    monkeypatch.setattr(
        build, "scan_file", lambda root, name, **k: scanned.append(name) or scan_file(root, name, **k)
    )
    again = SliceIndex.build(folder, cache)
    assert scanned == [] and len(again) == len(first)
    pd.testing.assert_frame_equal(first.cases, again.cases)
    add_image(folder / "US", "2DBox_US_3")
    add_volume(folder / "CT/A", "3DBox_CT_1", [(1,)])
    (folder / "CT/B/deep/3DBox_CT_2.npz").unlink()
    changed = SliceIndex.build(folder, cache)
    assert sorted(scanned) == ["CT/A/3DBox_CT_1.npz", "US/2DBox_US_3.npz"]
    assert changed.counts().to_dict() == {"CT": 1, "US": 3}
    scanned.clear()
    SliceIndex.build(folder, cache)
    assert scanned == []


def test_labels_are_scanned_when_asked_for_later(folder, tmp_path):
    cache = tmp_path / "index.npz"
    plain = SliceIndex.build(folder, cache, scan_labels=False)
    assert len(plain) == 8 and (plain.cases.n_objects == -1).all()
    with pytest.raises(ValueError, match="scan_labels=True"):
        plain.labels_on(0)
    assert SliceIndex.build(folder, cache).labels_on(2) == (1, 2)


def test_an_interrupted_scan_is_resumed(folder, tmp_path, monkeypatch):
    cache, calls = tmp_path / "index.npz", []

    def interrupted(root, name, **options):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return scan_file(root, name, **options)

    monkeypatch.setattr(build, "scan_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SliceIndex.build(folder, cache)
    assert len(load_table(cache)[0]) == 2
    assert len(SliceIndex.build(folder, cache)) == 8
    assert len(calls) == 3 + 2


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_a_damaged_or_foreign_cache_is_rebuilt(folder, tmp_path, content):
    cache = tmp_path / "index.npz"
    if content is None:
        np.savez(cache, about=np.frombuffer(b'["other", ""]', np.uint8))
    else:
        cache.write_bytes(content)
    assert len(SliceIndex.build(folder, cache)) == 8
    assert len(load_table(cache)[0]) == 4


def test_save_and_load(folder, tmp_path):
    index = SliceIndex.build(folder)
    index.save(tmp_path / "saved.npz")
    again = SliceIndex.load(tmp_path / "saved.npz")
    pd.testing.assert_frame_equal(index.cases, again.cases)
    assert [again.labels_on(i) for i in range(8)] == [index.labels_on(i) for i in range(8)]


@pytest.mark.parametrize("name", ["../CT/x.npz", "/etc/x.npz", "CT/../../x.npz", "x.npz"])
def test_a_saved_index_cannot_name_files_outside(tmp_path, name):
    save_table(tmp_path / "i.npz", [FileRecord(name, 1, 1, n_slices=1)])
    with pytest.raises(CaseError, match="not in <root>/<Modality>/"):
        SliceIndex.load(tmp_path / "i.npz")


def test_columns_that_do_not_fit_are_refused(tmp_path):
    counts = np.ones(2, np.uint16)
    save_table(
        tmp_path / "i.npz",
        [FileRecord("CT/a.npz", 1, 1, n_slices=3, scanned=True, label_counts=counts, label_ids=counts)],
    )
    with pytest.raises(CaseError, match="damaged"):
        load_table(tmp_path / "i.npz")


@pytest.mark.parametrize("fraction, sizes", [(0.1, (9, 1)), (0.25, (8, 2)), (0.5, (5, 5))])
def test_split_by_case(fraction, sizes):
    records = [FileRecord(f"{m}/{k}.npz", 1, 1, n_slices=3) for m in ("CT", "MR") for k in range(10)] + [
        FileRecord("US/0.npz", 1, 1, n_slices=1)
    ]
    index = SliceIndex("root", records)
    train, evaluation = index.split(fraction, seed=3)
    for modality in ("CT", "MR"):
        assert (
            (train.cases.modality == modality).sum(),
            (evaluation.cases.modality == modality).sum(),
        ) == sizes
    assert set(train.cases.path).isdisjoint(evaluation.cases.path) and len(train) + len(evaluation) == len(
        index
    )
    assert "US" in train.modalities and "US" not in evaluation.modalities
    assert index.split(fraction, 3)[1].cases.path.tolist() == evaluation.cases.path.tolist()
    alone = SliceIndex("root", records[10:20]).split(fraction, 3)[1]
    assert alone.cases.path.tolist() == evaluation.cases.path[evaluation.cases.modality == "MR"].tolist()


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_slices_of_a_volume_stay_on_one_side_of_the_split(fraction, seed):
    records = [
        FileRecord(f"MR/2DBox_MR_Heart2_{v}_{z}.npz", 1, 1, n_slices=1)
        for v in range(100, 108)
        for z in range(v % 5 + 2)
    ]
    records += [FileRecord(f"MR/3DBox_MR_Brain_{k:03d}.npz", 1, 1, n_slices=9) for k in range(4)]
    index = SliceIndex("root", records)
    train, evaluation = index.split(fraction, seed)
    sides = [{re.sub(r"(Heart2_\d+)_\d+", r"\1", p) for p in part.cases.path} for part in (train, evaluation)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 12
    assert abs(len(evaluation.cases) - fraction * len(records)) <= 3
    assert index.split(fraction, seed)[1].cases.path.tolist() == evaluation.cases.path.tolist()


def test_two_large_groups_give_one_to_each_side():
    records = [
        FileRecord(f"OCT/2DBox_OCT_Grid_{v}_{z}.npz", 1, 1, n_slices=1)
        for v, count in (("a1", 9), ("b2", 4))
        for z in range(count)
    ]
    train, evaluation = SliceIndex("root", records).split(0.1, 0)
    assert (len(train), len(evaluation)) == (9, 4)


def test_a_fifth_is_held_out_by_a_hash_of_the_group():
    records = [
        FileRecord(f"MR/2DBox_MR_Heart2_{v}_{z}.npz", 1, 1, n_slices=1)
        for v in range(100, 112)
        for z in range(v % 3 + 2)
    ]
    records += [FileRecord(f"US/2DBox_US_S_{k}x.npz", 1, 1, n_slices=1) for k in range(50)] + [
        FileRecord("CT/one.npz", 1, 1, n_slices=3)
    ]
    rest, held = SliceIndex("root", records).hold_out()
    assert set(rest.cases.path).isdisjoint(held.cases.path) and len(rest) + len(held) == 36 + 50 + 3
    assert held.cases.modality.value_counts().to_dict() == {"US": 10, "MR": pytest.approx(36 / 5, abs=2)}
    volumes = [
        {re.sub(r"_\d+\.npz", "", p) for p in part.cases.path if "Heart" in p} for part in (rest, held)
    ]
    assert not volumes[0] & volumes[1]
    # Neither the folder nor the order of the files matters.
    elsewhere = SliceIndex("another", records[::-1]).hold_out()[1]
    assert {Path(p).name for p in elsewhere.cases.path} == {Path(p).name for p in held.cases.path}


def test_split_refuses_impossible_fractions():
    with pytest.raises(ValueError, match="eval_fraction 0.6"):
        SliceIndex("root", [FileRecord("CT/a.npz", 1, 1, n_slices=1)]).split(0.6, 0)


def test_bad_files_are_named_and_the_rest_is_used(folder):
    bad = folder / "MR"
    bad.mkdir()
    good = (folder / "US/2DBox_US_1.npz").read_bytes()
    (bad / "truncated.npz").write_bytes(good[: len(good) // 2])
    (bad / "text.npz").write_bytes(b"hello")
    np.savez(bad / "objects.npz", imgs=np.array([None, {}], dtype=object))
    (bad / "2DBox_US_1.npz").write_bytes(good)
    (bad / "dangling.npz").symlink_to(folder / "nowhere.npz")
    (folder / "stray.npz").write_bytes(good)
    (bad / ".hidden.npz").write_bytes(b"")
    index = SliceIndex.build(folder)
    assert len(index) == 8
    problems = {path.relative_to(folder).as_posix(): message for path, message in index.problems}
    assert problems.keys() == {f"MR/{n}.npz" for n in ("truncated", "text", "objects", "dangling")} | {
        "US/2DBox_US_1.npz",
        "stray.npz",
    }
    assert "never unpickled" in problems["MR/objects.npz"] and "rename" in problems["US/2DBox_US_1.npz"]


@pytest.mark.parametrize("arrays, message", BAD.values(), ids=BAD.keys())
def test_what_a_case_refuses_the_index_reports(folder, arrays, message):
    np.savez_compressed(folder / "US/2DBox_bad.npz", **arrays)
    index = SliceIndex.build(folder)
    ((path, found),) = index.problems
    assert path.name == "2DBox_bad.npz" and re.search(message, f"{path}: {found}") and len(index) == 8


def test_label_gaps_and_empty_masks_are_remarked_and_used(folder):
    remarks = {path.name: message for path, message in SliceIndex.build(folder).remarks}
    assert (
        "1 of 1..4 are absent (3)" in remarks["2DBox_US_1.npz"] and "empty mask" in remarks["2DBox_US_2.npz"]
    )
    assert np.unique(Case.load(folder / "US/2DBox_US_1.npz").with_boxes().labels).tolist() == [0, 1, 2, 3]


def test_an_unreadable_file_is_a_problem_and_the_rest_is_used(folder, monkeypatch):
    closed, real = folder / "US/2DBox_US_1.npz", zipfile.ZipFile

    def open_zip(path, *args, **kwargs):
        if os.fspath(path) == os.fspath(closed):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(zipfile, "ZipFile", open_zip)
    index = SliceIndex.build(folder)
    assert len(index) == 7 and index.problems == [
        (closed, "cannot be opened (PermissionError: [Errno 13] Permission denied)")
    ]
    with pytest.raises(CaseError, match="2DBox_US_1.npz: cannot be opened"):
        Case.load(closed)


def test_links_that_leave_the_folder_are_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    add_image(outside, "2DBox_secret")
    (folder / "US/link.npz").symlink_to(outside / "2DBox_secret.npz")
    (folder / "PET").symlink_to(outside)
    index = SliceIndex.build(folder)
    assert len(index) == 8
    assert {p.name for p, m in index.problems if "leaves the data folder" in m} == {"link.npz", "PET"}


def test_a_file_that_changes_while_it_is_read(folder, monkeypatch):
    path, real = folder / "US/2DBox_US_1.npz", os.stat
    calls = {}

    def stat(target, *args, **kwargs):
        if os.fspath(target) == os.fspath(path):
            calls["n"] = calls.get("n", 0) + 1
            os.utime(path, ns=(calls["n"], calls["n"]))
        return real(target, *args, **kwargs)

    monkeypatch.setattr("qmsam_core.data.index.scan.os.stat", stat)
    assert "changed while" in scan_file(folder, "US/2DBox_US_1.npz").problem


def test_a_header_above_the_limit_is_a_problem(folder, monkeypatch):
    monkeypatch.setattr(archive, "MAX_ARRAY_BYTES", 6 * 8 * 3)
    index = SliceIndex.build(folder)
    assert {p.name for p, m in index.problems if "the limit is" in m} == {"3DBox_CT_1.npz"}


def test_folders_without_cases(tmp_path):
    with pytest.raises(DataFolderError, match="no such folder.*<Modality>"):
        SliceIndex.build(tmp_path / "absent")
    with pytest.raises(DataFolderError, match="holds no npz file.*<Modality>"):
        SliceIndex.build(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderError, match="is not a folder"):
        SliceIndex.build(tmp_path / "file")
    (tmp_path / "CT").mkdir()
    (tmp_path / "CT/a.npz").write_bytes(b"")
    with pytest.raises(DataFolderError, match="holds no usable case.*a.npz"):
        SliceIndex.build(tmp_path)


def test_files_without_labels_are_indexed_but_remarked(tmp_path):
    (tmp_path / "CT").mkdir()
    np.savez(tmp_path / "CT/a.npz", imgs=np.zeros((3, 4, 5), np.uint8), boxes=np.array([[0, 0, 0, 1, 1, 1]]))
    index = SliceIndex.build(tmp_path)
    assert len(index) == 3 and index.labels_on(1) == () and "no labels" in index.remarks[0][1]


def test_groups_are_those_of_the_whole_folder_in_every_part(tmp_path):
    """Slices of one volume alone look like separate cases by name. Beside another volume's they do not."""
    for volume in (100, 101):
        for z in range(3):
            rectangle_case(name := f"2DBox_MR_Heart2_{volume}_{z}", z, False).save(
                tmp_path / "data" / "MR" / f"{name}.npz"
            )
    index = SliceIndex.build(tmp_path / "data", cache=tmp_path / "cache.npz")
    assert index.cases["group"].tolist() == ["MR/Heart2_100"] * 3 + ["MR/Heart2_101"] * 3
    part = index.split(0.5, 0)[1]
    part.save(tmp_path / "part.npz")
    assert (
        set(SliceIndex.load(tmp_path / "part.npz").cases["group"]) == set(part.cases["group"])
        and part.cases["group"].nunique() == 1
    )
    for path in (tmp_path / "data").rglob("*_101_*.npz"):
        path.unlink()
    assert SliceIndex.build(tmp_path / "data", cache=tmp_path / "cache.npz").cases["group"].nunique() == 3
