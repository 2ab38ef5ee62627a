"""The parts of a data set: training, evaluation, validation and testing."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_data import rectangle_case, write_data

from qmsam_core.data import SliceIndex
from qmsam_core.data.index import DataFolderError
from qmsam_core.data.split import make_parts


def names(part):
    return set(part.cases["path"])


def test_parts_are_saved_disjoint_and_complete(tmp_path):
    index, parts = make_parts(write_data(tmp_path / "cases", 10), tmp_path / "out", 0.25, 0)
    assert list(parts) == ["train", "evaluation", "validation", "testing"]
    # In each of two modalities, testing takes 2 of 10 cases, then evaluation 2 of 8.
    assert {len(parts[name].cases) for name in ("testing", "evaluation")} == {4}
    assert set().union(*(names(part) for part in parts.values())) == names(index)
    assert sum(len(part.cases) for name, part in parts.items() if name != "validation") == len(index.cases)
    assert names(parts["validation"]) == names(parts["evaluation"])
    for name, part in parts.items():
        pd.testing.assert_frame_equal(
            SliceIndex.load(tmp_path / "out" / f"index_{name}.npz").cases, part.cases
        )


def test_the_seed_changes_the_evaluation_part_and_never_the_testing_part(tmp_path):
    data = write_data(tmp_path / "cases", 10)
    made = [make_parts(data, tmp_path / str(seed), 0.25, seed)[1] for seed in range(4)]
    assert len({frozenset(names(parts["testing"])) for parts in made}) == 1
    assert len({frozenset(names(parts["evaluation"])) for parts in made}) > 1


def test_small_parts_on_request(tmp_path):
    _, parts = make_parts(write_data(tmp_path / "cases", 10), tmp_path / "out", 0.25, 0, eval_cases=1)
    assert (
        len(parts["testing"].cases) == len(parts["evaluation"].cases) == 2 and len(parts["train"].cases) == 12
    )


def test_small_parts_are_drawn_from_all_data_sets_and_by_no_seed(tmp_path):
    data = tmp_path / "cases"
    for k in range(60):
        rectangle_case(name := f"2DBox_US_{k:02d}", k, False).save(
            data / "US" / "ABC"[k // 20] / f"{name}.npz"
        )
    made = [make_parts(data, tmp_path / str(seed), 0.5, seed, eval_cases=4)[1] for seed in range(3)]
    for parts in made:
        for name in ("evaluation", "testing"):
            cases = parts[name].cases
            assert (
                len(cases) == 4 and cases["dataset"].nunique() > 1 and cases["path"].is_monotonic_increasing
            )
    assert len({frozenset(names(parts["testing"])) for parts in made}) == 1
    everything = make_parts(data, tmp_path / "all", 0.5, 0)[1]
    moved = make_parts(data.rename(tmp_path / "elsewhere"), tmp_path / "moved", 0.5, 0, eval_cases=4)[1]
    for name in ("evaluation", "testing"):
        assert names(made[0][name]) < names(everything[name])
        assert {Path(path).name for path in names(moved[name])} == {
            Path(path).name for path in names(made[0][name])
        }


def test_what_a_part_says_does_not_depend_on_when_the_data_were_copied(tmp_path):
    data, out = write_data(tmp_path / "cases", 5), tmp_path / "out"
    made = []
    for seconds in (1_000_000_000, 1_700_000_000):
        for path in data.rglob("*.npz"):
            os.utime(path, (seconds, seconds))
        parts = make_parts(data, out, 0.25, 0)[1]
        made.append([(out / f"index_{name}.npz").read_bytes() for name in parts])
    assert made[0] == made[1]


def own_folder(root, first=100, cases=3):
    """Write a folder of cases that no other folder of these tests has, and one case without labels."""
    for k in range(first, first + cases):
        rectangle_case(name := f"2DBox_US_{k}", k, False).save(root / "US" / f"{name}.npz")
    np.savez(
        root / "US" / "2DBox_US_bare.npz", imgs=np.zeros((8, 8, 3), np.uint8), boxes=np.array([[1, 1, 4, 4]])
    )
    return root


def test_parts_from_folders_of_their_own(tmp_path):
    data, seen = write_data(tmp_path / "cases", 10), own_folder(tmp_path / "seen")
    index, parts = make_parts(
        data,
        tmp_path / "out",
        0.25,
        0,
        validation_root=seen,
        testing_root=own_folder(tmp_path / "hidden", 200, 2),
    )
    # All cases of the data folder are learned from or evaluated on. None is held out for testing.
    assert len(parts["train"].cases) + len(parts["evaluation"].cases) == len(index.cases)
    for name, folder, numbers in (("validation", "seen", (100, 101, 102)), ("testing", "hidden", (200, 201))):
        assert names(parts[name]) == {str(tmp_path / folder / "US" / f"2DBox_US_{k}.npz") for k in numbers}
        assert parts[name].problems == [
            (tmp_path / folder / "US" / "2DBox_US_bare.npz", "has no labels ('gts')")
        ]
        pd.testing.assert_frame_equal(
            SliceIndex.load(tmp_path / "out" / f"index_{name}.npz").cases, parts[name].cases
        )
    _, fewer = make_parts(data, tmp_path / "fewer", 0.25, 0, 1, seen)
    assert (
        len(fewer["validation"].cases) == 1
        and fewer["validation"].problems
        and len(fewer["testing"].cases) == 2
    )


def test_cases_that_are_learned_from_are_refused_as_validation(tmp_path):
    data = write_data(tmp_path / "cases", 10)
    other = own_folder(tmp_path / "seen")
    _, parts = make_parts(data, tmp_path / "out", 0.25, 0)
    for name, refused in (("train", True), ("evaluation", True), ("testing", False)):
        source = Path(parts[name].cases["path"].iloc[0])
        copy = other / source.parent.name / "copied" / source.name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(source.read_bytes())
        if refused:
            with pytest.raises(ValueError, match=f"1 of its cases are also among those of .*{source.name}"):
                make_parts(data, tmp_path / name, 0.25, 0, validation_root=other)
        else:
            assert str(copy) in names(
                make_parts(data, tmp_path / name, 0.25, 0, validation_root=other)[1]["validation"]
            )
        copy.unlink()
        copy.parent.rmdir()


def test_cases_without_labels_are_in_no_part(tmp_path):
    data = own_folder(tmp_path / "cases", cases=6)
    index, parts = make_parts(data, tmp_path / "out", 0.25, 0)
    assert len(index.cases) == 7 and not any(
        "bare" in name for part in parts.values() for name in names(part)
    )
    for path in data.rglob("2DBox_US_1*.npz"):
        path.unlink()
    with pytest.raises(DataFolderError, match="none of its 1 cases has labels"):
        make_parts(data, tmp_path / "out", 0.25, 0)
