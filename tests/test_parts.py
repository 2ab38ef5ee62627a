"""The three parts of a data set."""

import os
from pathlib import Path

import pandas as pd
from small_data import rectangle_case, write_data

from qmsam_core.data import SliceIndex
from qmsam_core.data.parts import PARTS, make_parts


def names(part):
    return set(part.cases["path"])


def test_parts_are_saved_disjoint_and_complete(tmp_path):
    index, parts = make_parts(write_data(tmp_path / "cases", 10), tmp_path / "out", 0.25, 0)
    assert tuple(parts) == PARTS
    assert {len(parts[name].cases) for name in ("testing", "evaluation")} == {4}  # 2 of 10, then 2 of 8, in both modalities
    assert set().union(*(names(part) for part in parts.values())) == names(index)
    assert sum(len(part.cases) for part in parts.values()) == len(index.cases)
    for name, part in parts.items():
        pd.testing.assert_frame_equal(SliceIndex.load(tmp_path / "out" / f"index_{name}.npz").cases, part.cases)


def test_the_seed_changes_the_evaluation_part_and_never_the_testing_part(tmp_path):
    data = write_data(tmp_path / "cases", 10)
    made = [make_parts(data, tmp_path / str(seed), 0.25, seed)[1] for seed in range(4)]
    assert len({frozenset(names(parts["testing"])) for parts in made}) == 1
    assert len({frozenset(names(parts["evaluation"])) for parts in made}) > 1


def test_small_parts_on_request(tmp_path):
    _, parts = make_parts(write_data(tmp_path / "cases", 10), tmp_path / "out", 0.25, 0, eval_cases=1)
    assert len(parts["testing"].cases) == len(parts["evaluation"].cases) == 2 and len(parts["train"].cases) == 12


def test_small_parts_are_drawn_from_all_data_sets_and_by_no_seed(tmp_path):
    data = tmp_path / "cases"
    for k in range(60):
        rectangle_case(name := f"2DBox_US_{k:02d}", k, False).save(data / "US" / "ABC"[k // 20] / f"{name}.npz")
    made = [make_parts(data, tmp_path / str(seed), 0.5, seed, eval_cases=4)[1] for seed in range(3)]
    for parts in made:
        for name in ("evaluation", "testing"):
            cases = parts[name].cases
            assert len(cases) == 4 and cases["dataset"].nunique() > 1 and cases["path"].is_monotonic_increasing
    assert len({frozenset(names(parts["testing"])) for parts in made}) == 1
    everything = make_parts(data, tmp_path / "all", 0.5, 0)[1]
    moved = make_parts(data.rename(tmp_path / "elsewhere"), tmp_path / "moved", 0.5, 0, eval_cases=4)[1]
    for name in ("evaluation", "testing"):
        assert names(made[0][name]) < names(everything[name])
        assert {Path(path).name for path in names(moved[name])} == {Path(path).name for path in names(made[0][name])}


def test_what_a_part_says_does_not_depend_on_when_the_data_were_copied(tmp_path):
    data, out = write_data(tmp_path / "cases", 5), tmp_path / "out"
    made = []
    for seconds in (1_000_000_000, 1_700_000_000):
        for path in data.rglob("*.npz"):
            os.utime(path, (seconds, seconds))
        make_parts(data, out, 0.25, 0)
        made.append([(out / f"index_{name}.npz").read_bytes() for name in PARTS])
    assert made[0] == made[1]
    part = SliceIndex.load(out / "index_train.npz")
    assert part.stale() == []
    part[0].path.write_bytes(b"another size")
    assert part.stale() == [part[0].path]
