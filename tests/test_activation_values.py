"""What comes to quantisers: shares clipped, codes used, and the float model's values on the same scale."""

import numpy as np
import pandas as pd
import pytest
import torch

from qmsam_core.models import build_model
from qmsam_core.quant import calibrate, quantize
from qmsam_core.quant.activation_values import activation_values, inputs_of, ranges, telling
from qmsam_core.quant.scales import activation_quantisers, range_of, set_scale

BATCH = {
    "image": torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
    "box": torch.tensor([[5.0, 6.0, 40.0, 50.0]]),
}


@pytest.fixture(scope="module", params=["paper", "deploy"])
def models(request):
    """A float model and its quantised copy, by both kinds of quantisers."""
    torch.manual_seed(0)
    floating = build_model("narrow", 64).eval()
    quantised = quantize(floating, request.param)
    calibrate(quantised, lambda m, b: m(b["image"], b["box"]), [BATCH])
    return floating, quantised.eval()


def test_each_quantiser_s_row_is_what_brevitas_does(models):
    _, quantised = models
    table = activation_values(quantised, BATCH).set_index("quantiser")
    proxies = activation_quantisers(quantised)
    seen = {}

    def keep(name):
        def hook(_, inputs, output):
            seen.setdefault(name, (inputs[0], output))

        return hook

    hooks = [proxy.register_forward_hook(keep(name)) for name, proxy in proxies.items()]
    quantised(BATCH["image"], BATCH["box"])
    for hook in hooks:
        hook.remove()
    assert list(table.index) == [name for name in proxies if name in seen]  # in the model's order
    for name in list(table.index)[:: len(table) // 6]:
        x, y = (t.detach().float() if torch.is_tensor(t) else t.value.detach() for t in seen[name])
        row = table.loc[name]
        assert row["values"] == x.numel() and row["codes"] == len(y.unique())
        inside = (x >= row["low"] - 1e-6) & (x <= row["high"] + 1e-6)
        step = (row["high"] - row["low"]) / (row["codes in all"] - 1)
        assert float((~inside).float().mean()) >= row["clipped"] - 1e-6
        assert float((y - x)[inside].abs().max()) <= 0.5001 * step
    assert set(table["part"]) == {"encoder", "decoder"} and table["clipped"].between(0, 1).all()


def test_a_range_half_as_wide_clips_more_and_says_so(models):
    _, quantised = models
    name, proxy = next(
        (name, proxy)
        for name, proxy in activation_quantisers(quantised).items()
        if name.endswith("mlp.fc1") and name.startswith("image_encoder")
    )
    before, kept = activation_values(quantised, BATCH).set_index("quantiser").loc[name], range_of(proxy)
    zero = int(proxy.zero_point())
    set_scale(proxy, kept.scale / 4, zero)
    after = activation_values(quantised, BATCH).set_index("quantiser").loc[name]
    set_scale(proxy, kept.scale, zero)
    assert after["clipped"] > before["clipped"] + 0.01 and after["high"] == pytest.approx(before["high"] / 4)
    assert after["rounding db"] < before["rounding db"]


def test_float_values_are_on_the_quantiser_s_scale(models):
    floating, quantised = models
    names = list(activation_values(quantised, BATCH)["quantiser"])
    first = next(n for n in names if not n.endswith("_quant"))
    product = next(n for n in names if n.endswith("b_quant"))
    found = inputs_of(floating, quantised, [product, first], BATCH)
    assert list(found) == [product, first]
    for name, values in found.items():
        assert values.quantised.shape == values.floating.shape and values.quantised.dtype == np.float32
        assert np.corrcoef(values.quantised, values.floating)[0, 1] > 0.9, name
    if (
        getattr(quantised.get_submodule(first), "input_factor", None) is not None
    ):  # what comes first is float's
        np.testing.assert_allclose(found[first].floating, found[first].quantised, rtol=1e-3, atol=1e-4)


def test_ranges_are_those_of_the_codes(models):
    table, proxies = ranges(models[1]), activation_quantisers(models[1])
    assert list(table["quantiser"]) == list(proxies)
    codes = range_of(proxies[table.loc[0, "quantiser"]])
    assert table.loc[0, "low"] == codes.low * codes.scale and table.loc[0, "high"] == codes.high * codes.scale
    assert (table["largest magnitude"] >= table["high"]).all()


def test_the_four_quantisers_are_chosen_by_their_rules():
    table = pd.DataFrame(
        [
            ("image_encoder.a", "encoder", 0.20, 3.0, 40.0),
            ("image_encoder.b", "encoder", 0.01, 9.0, 10.0),
            ("image_encoder.p.a_quant", "encoder", 0.9, 99.0, 20.0),
            ("mask_decoder.p.b_quant", "decoder", 0.0, 1.0, 15.0),
            ("mask_decoder.c", "decoder", 0.0, 1.0, 30.0),
        ],
        columns=["quantiser", "part", "clipped", "range ratio", "rounding db"],
    )
    assert list(telling(table)) == [
        "image_encoder.a", "image_encoder.b", "mask_decoder.p.b_quant", "mask_decoder.c",
    ]  # fmt: skip
    assert list(telling(table[table["part"] == "encoder"])) == [
        "image_encoder.a", "image_encoder.b", "image_encoder.p.a_quant",
    ]  # fmt: skip
    assert list(telling(table.iloc[:1])) == ["image_encoder.a"]  # one layer serves one rule
