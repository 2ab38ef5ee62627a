"""The way from a source's grid to a case and back."""

import itertools

import numpy as np
import pytest

from qmsam_core.data import Case, CaseError
from qmsam_core.data.archive import write_archive
from qmsam_core.data.source import Source

WAYS = [
    tuple(sign * axis for sign, axis in zip(signs, order))
    for order in itertools.permutations((1, 2, 3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize("axes", WAYS)
def test_every_order_and_direction_leads_back(axes):
    stored = np.arange(24).reshape(2, 3, 4)
    source = Source("ct.nii.gz", "volume", stored.shape, axes)
    turned = source.to_case(stored)
    assert turned.shape == tuple(stored.shape[abs(axis) - 1] for axis in axes)
    np.testing.assert_array_equal(source.to_source(turned), stored)


def test_turned_by_hand():
    stored = np.array([[1, 2, 3], [4, 5, 6]])  # turned to the right by 90 degrees, as EXIF orientation 6 asks
    source = Source("a.jpg", "image", (2, 3), (2, -1))
    np.testing.assert_array_equal(source.to_case(stored), [[4, 1], [5, 2], [6, 3]])
    colour = np.stack([stored] * 3, axis=-1)
    np.testing.assert_array_equal(source.to_case(colour)[..., 1], [[4, 1], [5, 2], [6, 3]])


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"a\.nii: has a case of shape \(3, 2\), found \(2, 3\)"):
        Source("a.nii", "image", (2, 3), (2, 1)).to_source(np.zeros((2, 3)))


@pytest.mark.parametrize("axes", [(1, 1), (1,), (0, 1), (1, 3)])
def test_axes_must_be_complete(axes):
    with pytest.raises(ValueError, match="each of 1..2 once"):
        Source("a.png", "image", (2, 3), axes)


def test_a_case_keeps_its_source_and_names(tmp_path):
    source = Source(
        "a.nii", "volume", (2, 3, 4), (1, -2, 3), (1.0, 1.0, 3.0), (-5.5, 0.1, 2.0), tuple(np.eye(3).ravel())
    )
    case = Case(
        "a",
        np.zeros((2, 3, 4), np.uint8),
        np.array([[0, 0, 0, 1, 1, 1]]),
        None,
        np.ones(3),
        ("Niere links",),
        source,
    )
    case.save(tmp_path / "a.npz")
    found = Case.load(tmp_path / "a.npz")
    assert found.names == ("Niere links",)
    assert found.source == source


def test_names_that_do_not_fit_the_boxes(tmp_path):
    arrays = {
        "imgs": np.zeros((2, 3, 3), np.uint8),
        "boxes": np.array([[0, 0, 1, 1]]),
        "names": np.array(["a", "b"]),
    }
    write_archive(tmp_path / "a.npz", arrays)
    with pytest.raises(CaseError, match="expected a text for each box"):
        Case.load(tmp_path / "a.npz")


def test_a_source_of_something_else(tmp_path):
    write_archive(
        tmp_path / "a.npz", {"imgs": np.zeros((2, 3, 3), np.uint8), "source": np.array('{"file": 1}')}
    )
    with pytest.raises(CaseError, match="'source' .*import the case again"):
        Case.load(tmp_path / "a.npz")
