"""Pictures of two masks on one image: what is counted, what is written, and that they are drawn."""

import numpy as np
import pandas as pd
import pytest

from qmsam_core.data import Case
from qmsam_core.evaluate.mask_pairs import MaskPair, outlines_figure, pairs_of, parting_figure


def volume():
    """A volume with one object on slices 1 and 2. It is largest on slice 1."""
    labels = np.zeros((4, 60, 80), np.uint8)
    labels[1, 10:30, 10:30] = 1
    labels[2, 10:20, 10:20] = 1
    return Case("3DBox_CT_1", labels * 90, np.array([[10, 10, 1, 29, 29, 2]]), labels, np.ones(3))


def row(modality="CT", place="best"):
    scores = {"agreement": 0.876, "dsc float": 0.912, "dsc": 0.834, "number": 0}
    return {"modality": modality, "place": place, **scores}


def pair(modality="CT", place="best", missing=slice(0)):
    case = volume()
    second = case.labels.copy()
    second[2][missing] = 0
    return MaskPair.of(case, case.labels, second, row(modality, place), parting=bool(missing.stop))


def test_a_volume_shows_its_fullest_slice_or_that_where_masks_part():
    assert np.count_nonzero(pair().first) == 400
    parting = pair(missing=slice(0, 12))
    assert np.count_nonzero(parting.first) == 100 and np.count_nonzero(parting.second) == 80
    assert parting.apart == (20, 0)


def test_panels_say_agreement_and_both_dscs():
    figure = outlines_figure([pair("CT", "best"), pair("CT", "worst"), pair("US", "only case")])
    grid = np.array(figure.axes).reshape(2, 3)
    assert [axes.get_title() for axes in grid[0]] == ["best", "median", "worst"]
    assert grid[0, 0].get_xlabel() == "agreement 87.6 %\nDSC float 91.2, int8 83.4 %"
    assert grid[1, 1].get_xlabel().startswith("only case: ")
    assert not grid[0, 1].images and not grid[1, 0].images
    assert [text.get_text() for text in figure.legends[0].get_texts()][::2] == ["float mask", "box"]


def test_single_cases_follow_each_other():
    figure = outlines_figure([pair(name, "only case") for name in ("CT", "MR", "PET", "US", "OCT")])
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["CT", "MR", "PET", "US", "OCT"]


def test_the_map_counts_pixels_and_names_its_colours(tmp_path):
    figure = parting_figure([pair(missing=slice(0, 12)), pair("US")])
    assert figure.axes[0].get_xlabel() == "only float 20 px\nonly int8 0 px\nagreement 87.6 %"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["both", "only float", "only int8"]
    figure.savefig(tmp_path / "map.png")


def test_another_object_is_another_colour():
    case = volume()
    figure = parting_figure([MaskPair.of(case, case.labels, case.labels * 2, row())])
    assert "both, but another object" in [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("parting", [False, True])
def test_pairs_are_of_the_cases_that_were_chosen(parting):
    case = volume()
    chosen = pd.DataFrame([row()]).assign(number=1)
    (found,) = pairs_of(chosen, [None, case], [None, case.labels], [None, case.labels], parting)
    assert found.modality == "CT" and found.dsc == (0.912, 0.834)
