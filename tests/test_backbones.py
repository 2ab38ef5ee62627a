"""The comparison of image encoders: what is built, its size and work, and its table and picture."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from qmsam_core.data.boxed_slices import BoxedSlice
from qmsam_core.evaluate.backbones_figure import backbones_figure
from qmsam_core.models import CONFIGS, build_model
from qmsam_core.models.borrowed import borrow, settle
from qmsam_core.timing import backbones
from qmsam_core.timing.backbones import (
    ARMS,
    BACKBONES,
    Backbone,
    backbones_table,
    build,
    describe,
    export,
    gmac,
    time_encoders,
)

RNG = np.random.default_rng(0)
SLICES = [
    BoxedSlice(f"{k}", "CT", RNG.integers(0, 256, (50, 64, 3), dtype=np.uint8), np.array([[5, 5, 30, 40]]))
    for k in range(2)
]
NARROW = (
    Backbone("Narrow", "narrow", 256, "random", "DSC 50.0 %", "nowhere"),
    Backbone("Patches", "narrow_patches", 512, "random", "", ""),
    Backbone("Linear", "narrow_efficientvit", 256, "random", "", "", frame=256),
)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("litemedsam", 37.47),
        ("mobilesam", 38.77),
        ("efficientvit_sam_l0", 34.77),
        ("efficientvit_sam_l1", 48.98),
    ],
)
def test_the_work_is_that_of_the_published_networks(name, expected):
    """Within 0.3 %: the resize of EfficientViT's neck is counted here, as it is two products."""
    assert gmac(build_model(name)) == pytest.approx(expected, rel=3e-3)


def test_networks_are_known_and_all_scaled_alike():
    assert {one.model for one in BACKBONES} == set(CONFIGS) - {name for name in CONFIGS if "narrow" in name}
    assert len({one.key for one in BACKBONES}) == len(BACKBONES)
    for one in BACKBONES:
        assert one.size(256) == one.image_size and one.size(64) % 16 == 0
        assert bool(one.published) == bool(one.source)


def test_a_borrowed_network_averages_and_then_does_as_its_donor():
    """On an image that is constant in patches of 4 px both see the same, away from the border."""
    donor, model = build_model("narrow", 64, seed=1), build_model("narrow_patches", 256, seed=2)
    own_head = model.image_encoder.head.weight.clone()
    borrow(model, donor)
    assert torch.equal(model.image_encoder.head.weight, own_head)
    assert torch.equal(model.mask_decoder.iou_token.weight, donor.mask_decoder.iou_token.weight)
    constant = torch.full((1, 3, 256, 256), 0.4)
    with torch.no_grad():
        found = model.image_encoder.patch_embed(constant)
        expected = donor.image_encoder.patch_embed(constant[..., :64, :64])
    assert found.shape == expected.shape
    torch.testing.assert_close(found[..., 1:, 1:], expected[..., 1:, 1:])  # the first row sees the padding


def test_settled_statistics_give_every_norm_inputs_of_unit_variance():
    model = build_model("narrow_efficientvit", seed=1)
    images = torch.rand(4, 3, 64, 64)
    settle(model, images)
    seen = {}
    for name, module in model.image_encoder.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert not module.training
            module.register_forward_hook(lambda m, i, o, name=name: seen.setdefault(name, o))
    with torch.no_grad():
        model.image_encoder(images)
    for name, output in seen.items():
        assert float(output.std()) == pytest.approx(1, abs=0.15), name


def test_from_networks_to_table_and_picture(tmp_path, monkeypatch):
    rows = []
    for one in NARROW:
        model = build(one, 64, SLICES)
        row = describe(one, model)
        row["MB int8"] = export(one, model, "deploy", SLICES, tmp_path / one.key)
        rows.append(row)
        assert row["MB int8"] < 0.5 * row["MB float"]
    described = pd.DataFrame(rows)
    timings = time_encoders({one.key: tmp_path / one.key for one in NARROW}, threads=1, runs=1)
    assert set(timings["key"]) == set(described["key"])
    table = backbones_table(described, timings)
    assert list(table["network"]) == ["Narrow", "Patches", "Linear"]
    np.testing.assert_allclose(table["int8 gain"], table["ms float, best"] / table["ms int8"])
    assert (table["ms float, best"] <= table["ms float, plain"]).all()
    assert isinstance(backbones_figure(table), Figure)


def test_a_cut_network_says_so():
    one = Backbone("Plain", "medsam", 1024, "random", "", "")
    assert describe(one, build(one, 64, SLICES, blocks=1))["network"] == "Plain, 1 of 12 blocks"


def test_the_fastest_arms_are_named():
    described = pd.DataFrame([{"key": "a", "network": "A", "GMAC": 2.0, "published": "", "source": ""}])
    ms = {
        ARMS[0].label: 40.0,
        ARMS[2].label: 30.0,
        ARMS[3].label: 10.0,
        ARMS[4].label: 8.0,
        ARMS[5].label: 5.0,
    }
    timings = pd.DataFrame([{"key": "a", "arm": arm, "median_ms": value} for arm, value in ms.items()])
    row = backbones_table(described, timings).iloc[0]
    assert (row["best float"], row["best int8"], row["int8 gain"]) == (ARMS[3].label, ARMS[5].label, 2)
    assert row["ms a GMAC, int8"] == 2.5 and row["ms a GMAC, float, best"] == 5


def test_only_what_changes_the_graph_is_fitted_for_speed(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(backbones, "export_if_stale", lambda model, *rest: asked.append(model))
    export(NARROW[0], build(NARROW[0], 64, SLICES), "deploy", SLICES, Path(tmp_path))
    recipe = asked[-1].recipe
    assert recipe.zero_point and recipe.channel_factors and recipe.rounding == "nearest" and not recipe.clip
