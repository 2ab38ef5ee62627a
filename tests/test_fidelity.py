"""How faithful a quantised model is to its float model: ellipses and models whose losses are known."""

import math

import pytest
import torch

from qmsam_core.models import build_model
from qmsam_core.quant import calibrate, quantize
from qmsam_core.quant.fidelity import ellipse_masks, fidelity
from qmsam_core.quant.scales import ACTIVATIONS, switched_off
from qmsam_core.quant.sensitivity import embedding_noise, followed, sensitivity

BOXES = torch.tensor([[4.0, 4, 50, 40], [10, 20, 30, 60], [0, 0, 63, 63]])
BATCH = {
    "image": torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
    "box": BOXES,
    "modality": ["US", "CT", "US"],
}


@pytest.fixture(scope="module")
def models():
    model = build_model("narrow")
    quantised = quantize(model, "paper")
    calibrate(quantised, lambda m, batch: m(batch["image"], batch["box"]), [BATCH])
    return model, quantised.eval()


def test_an_ellipse_has_its_area_and_its_box():
    masks = ellipse_masks(torch.tensor([[16.0, 32, 80, 48]]), 128, 128)
    assert masks.shape == (1, 1, 128, 128)
    assert int(masks.sum()) == pytest.approx(math.pi * 32 * 8, rel=0.02)
    rows, columns = masks[0, 0].any(1).nonzero(), masks[0, 0].any(0).nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 47, 16, 79)


def test_ellipses_are_drawn_at_the_size_of_the_mask_and_a_small_one_may_be_empty():
    fine, coarse = (ellipse_masks(BOXES[:1], 64, size) for size in (64, 16))
    assert int(fine.sum()) == pytest.approx(16 * int(coarse.sum()), rel=0.1)
    assert not ellipse_masks(torch.tensor([[4.0, 4, 5, 5]]), 64, 8).any()
    assert not ellipse_masks(torch.tensor([[3.0, 3, 3, 3]]), 64, 8).any()


def test_a_model_is_faithful_to_itself(models):
    table = fidelity(models[0], models[0], [BATCH], "same")
    assert (table["same agreement"] == 1).all() and (table["same embedding db"] == float("inf")).all()
    assert (table["same ellipse agreement"] == table["float ellipse agreement"]).all()


def test_fidelity_is_told_by_modality_and_averaged_over_modalities(models):
    table = fidelity(*models, [BATCH]).set_index("modality")
    assert table["slices"].to_dict() == {"US": 2, "CT": 1, "Average": 3}
    assert table.drop(columns="slices").loc["Average"].to_list() == pytest.approx(
        ((table.loc["US"] + table.loc["CT"]) / 2).drop("slices").to_list()
    )
    assert table["int8 agreement"].lt(1).any() and table["int8 embedding db"].between(5, 60).all()


def test_following_the_blocks_is_a_column_of_sensitivity(models):
    table, whole = followed(*models, [BATCH]), sensitivity(*models, [BATCH])
    assert table["so far db"].between(5, 80).all()
    assert table.equals(whole[["part", "block", "so far db"]])


def test_the_noise_of_the_weights_is_what_stays_without_that_of_the_activations(models):
    whole, weights = embedding_noise(*models, [BATCH])
    assert 5 < whole < weights < 80
    proxies = [m for m in models[1].modules() if isinstance(m, ACTIVATIONS)]
    assert proxies and not any(proxy.disable_quant for proxy in proxies)  # as before
    with switched_off([models[1]]):  # weights, too
        exact, _ = embedding_noise(*models, [BATCH])
    assert exact > 80
