"""Recipes judged by their masks, with engines whose masks are known."""

import numpy as np
import pytest
import torch

from qmsam_core.study.recipes_judged import judged, slice_scores


class Square:
    """An engine whose mask is a square of 10 px, moved `shift` pixels to the right."""

    def __init__(self, shift):
        self.shift = shift

    def encode(self, image):
        return image

    def decode(self, embedding, boxes):
        logits = np.full((1, 20, 20), -1.0)
        logits[0, 5:15, self.shift : self.shift + 10] = 1
        return logits


@pytest.fixture
def batches():
    truth = torch.zeros(2, 1, 20, 20)
    truth[:, 0, 5:15, 0:10] = 1
    names = [["2DBox_US_1:0:1", "2DBox_US_2:0:1"], ["3DBox_CT_1:3:1", "3DBox_CT_1:4:1"]]
    return [
        {
            "image": torch.zeros(2, 3, 8, 8),
            "box": torch.zeros(2, 4),
            "mask": truth,
            "modality": [m] * 2,
            "name": name,
        }
        for m, name in zip(("US", "CT"), names)
    ]


def test_agreement_is_with_the_float_masks_and_dsc_with_the_truth(batches):
    scores = slice_scores({"float": Square(5), "int8": Square(10)}, batches)
    assert len(scores) == 8 and set(scores["group"]) == {"2DBox_US_1", "2DBox_US_2", "3DBox_CT_1"}
    means = scores.groupby("arm")[["dsc", "agreement"]].mean()
    assert means.loc["float"].tolist() == [0.5, 1.0] and means.loc["int8"].tolist() == [0.0, 0.5]


def test_one_row_an_arm_with_the_weakest_modality_and_an_interval(batches):
    scores = slice_scores({"float": Square(0), "int8": Square(5)}, batches)
    scores.loc[(scores["arm"] == "int8") & (scores["modality"] == "CT"), "agreement"] = 0.4
    table = judged(scores).set_index("name")
    assert table.loc["float", ["agreement", "dsc", "difference"]].tolist() == [1, 1, 0]
    assert table.loc["int8", "agreement"] == pytest.approx(0.45) and table.loc["int8", "weakest"] == "CT"
    assert table.loc["int8", ["difference", "difference low", "difference high"]].tolist() == pytest.approx(
        [-0.5] * 3
    )
