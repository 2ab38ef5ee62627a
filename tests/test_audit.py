"""The audit of a data folder: disk use, lost objects and reading times."""

import numpy as np
import pytest

from qmsam_core.data import Case, CaseError, SliceIndex
from qmsam_core.data.audit import disk_cost, lost_labels, reading_times


@pytest.fixture
def folder(tmp_path):
    mask = np.zeros((4, 64, 48), np.uint8)
    mask[1:3, 10:40, 10:40], mask[2, 61, 45] = 1, 2
    Case("v", np.zeros_like(mask), None, mask, np.ones(3)).save(tmp_path / "CT/3DBox_v.npz")
    Case("i", np.zeros((30, 30, 3), np.uint8), None, np.zeros((30, 30), np.uint8), np.ones(3)).save(
        tmp_path / "US/2DBox_i.npz"
    )
    (tmp_path / "US/bad.npz").write_bytes(b"")
    return tmp_path


def test_disk_cost(folder):
    table = disk_cost(SliceIndex.build(folder))
    assert table.loc["CT", "unpacked"] == 4 * 64 * 48 * 25 and table.loc["US", "slices"] == 1
    assert table["stored"].tolist() == [
        (folder / name).stat().st_size for name in ("CT/3DBox_v.npz", "US/2DBox_i.npz")
    ]


def test_lost_labels(folder):
    index = SliceIndex.build(folder)
    lost = lost_labels(index, 16)
    assert lost.values.tolist() == [["CT", 3, 1]]
    assert lost_labels(index, 64).empty


def test_reading_times(folder):
    table = reading_times(folder / "CT/3DBox_v.npz")
    assert len(table) == 10 and (table[["slice_seconds", "volume_seconds"]] > 0).all(axis=None)
    with pytest.raises(CaseError, match="is no volume"):
        reading_times(folder / "US/2DBox_i.npz")
