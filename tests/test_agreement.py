"""Agreement of two models' masks, on cases with a known answer."""

import numpy as np
import pytest

from qmsam_core.evaluate.agreement import agreement, agreement_by_arm


def square(left, label=1, shape=(20, 20)):
    labels = np.zeros(shape, np.uint8)
    labels[5:15, left : left + 10] = label
    return labels


@pytest.mark.parametrize("shift, dice", [(0, 1.0), (5, 0.5), (10, 0.0)])
def test_a_shifted_square(shift, dice):
    assert agreement(square(0), square(shift), 1) == pytest.approx(dice)


def test_objects_count_alike_and_one_that_is_empty_in_both_agrees():
    reference = square(0)
    reference[0, :] = 2
    assert agreement(reference, square(0), 1) == 1.0
    assert agreement(reference, square(0), 2) == pytest.approx(1 / 2)  # object 2 is in the reference only
    assert agreement(reference, square(0), 3) == pytest.approx(2 / 3)  # object 3 is in neither: agreement 1


def test_volumes_and_wide_labels():
    reference, segs = (np.stack([square(0), square(shift)]).astype(np.uint16) * 300 for shift in (0, 10))
    assert agreement(reference, segs, 300) == pytest.approx((299 + 0.5) / 300)


def test_no_object_has_nothing_to_agree_on_and_shapes_must_fit():
    assert np.isnan(agreement(square(0), square(0), 0))
    with pytest.raises(ValueError, match=r"found shape \(4, 4\)"):
        agreement(square(0), np.zeros((4, 4), np.uint8), 1)


def test_every_arm_against_one():
    masks = {"float": [square(0), square(3)], "int8": [square(5), square(3)]}
    assert agreement_by_arm(masks, "float", [1, 1]) == {"float": [1.0, 1.0], "int8": [0.5, 1.0]}
