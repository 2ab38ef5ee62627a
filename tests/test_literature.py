"""Methods of the literature: each by hand on a small case, then as recipes of a whole model, and compared."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from small_data import write_data
from torch import nn

from qmsam_core.deploy import open_engine
from qmsam_core.deploy.export import export_model
from qmsam_core.models import build_model
from qmsam_core.quant import RECIPES, calibrate, load_model, quantize, save_model
from qmsam_core.quant.fitting import Seen, find_noise, fit_layer, fit_product
from qmsam_core.quant.matrix_form import MatrixForm, product
from qmsam_core.quant.ranges import Range
from qmsam_core.quant.recipes import CURES
from qmsam_core.quant.rounding import follow_path, learned, nearest, second_moments
from qmsam_core.quant.scale_choices import correlation, lsq_range, lsq_weight_scale
from qmsam_core.quant.scales import inactive_quantisers, switched_off
from qmsam_core.quant.sign_folding import change_signs, fold_signs, two_peaks
from qmsam_core.quant.variants import METHODS, START, at_width, variants
from qmsam_core.study import literature

BOXES = torch.tensor([[4.0, 4, 50, 40], [10, 20, 30, 60]])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batches():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return [{"image": images, "box": BOXES}]


def run(model, batch):
    return model(batch["image"], batch["box"])[0]


def outputs(model, brighter=0.0):
    """Masks of the images, or of images that are brighter by this part of themselves."""
    (batch,) = batches()
    with torch.no_grad():
        return run(model, {**batch, "image": batch["image"] * (1 + brighter)})


def relative_error(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def calibrated(recipe, model=None):
    made = quantize(model or build_model("narrow").eval(), recipe)
    calibrate(made, run, batches())
    return made.eval()


def layer_and_inputs(outputs=24, inputs=16, seed=0):
    """A linear layer and 600 correlated input vectors of it."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(random(outputs, inputs, seed=seed))
        layer.bias.zero_()
    x = random(600, 4, seed=1) @ random(4, inputs, seed=2) + 0.1 * random(600, inputs, seed=3)
    return MatrixForm(layer), Seen(x.amin(0), x.amax(0), [x[:, None]])


def with_bits(bits, **fields):
    return replace(START, name="test", weight_bits=bits, activation_bits=bits, **fields)


# Each method by hand ----------------------------------------------------------------------------------------


def test_gpfq_makes_up_in_the_next_column():
    # columns (1, 0) and (1, 1): 0.4 becomes 0, u is (0.8, 0.4) then, and 1.2 / 2 becomes 1
    x = torch.tensor([[[1.0, 1.0]], [[0.0, 1.0]]])
    matrix, scale = torch.tensor([[[0.4, 0.4]]]), torch.ones(1, 1, 1)
    assert follow_path(matrix, second_moments(x), second_moments(x), scale, 8).tolist() == [[[0, 1]]]
    assert nearest(matrix, scale, 8).tolist() == [[[0, 0]]]


def test_gpfq_follows_the_float_inputs():
    # float inputs are twice the quantised ones, so the weight has to be twice as large, within its range
    quantised = torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]]])
    matrix, scale = torch.tensor([[[0.4, 0.7]]]), torch.ones(1, 1, 1)
    moments, cross = second_moments(quantised), second_moments(quantised, 2 * quantised)
    assert follow_path(matrix, moments, cross, scale, 8).tolist() == [[[1, 1]]]  # the second is never used
    assert follow_path(10 * matrix, moments, cross, scale, 3).tolist() == [[[3, 3]]]


def test_adaquant_rounds_up_the_weight_that_is_nearer_to_the_next_integer():
    # both inputs are always equal: 0.3 + 0.45 is nearer to 1 than to the 0 of rounding each alone
    matrix, scale = torch.tensor([[[0.3, 0.45]]]), torch.ones(1, 1, 1)
    together = torch.ones(1, 2, 2, dtype=torch.float64)
    assert learned(matrix, together, together, scale, 8).tolist() == [[[0, 1]]]


@pytest.mark.parametrize("rounding", ["adaquant", "gpfq"])
def test_rounding_with_the_inputs_in_view_lowers_the_error(rounding):
    form, seen = layer_and_inputs()
    errors = {
        name: fit_layer(form, seen, with_bits(4, rounding=name, bias_correction=True)).error
        for name in ("nearest", rounding)
    }
    assert errors[rounding] < errors["nearest"]


@pytest.mark.parametrize("seed", range(3))
def test_adaquant_is_never_worse_than_the_nearest(seed):
    x, matrix = random(200, 1, 8, seed=seed), random(1, 5, 8, seed=seed + 10)
    scale = matrix.abs().amax(2, keepdim=True) / 3
    moments = second_moments(x)
    found = {"learned": learned(matrix, moments, moments, scale, 3), "nearest": nearest(matrix, scale, 3)}
    errors = {k: (product(x, v * scale) - product(x, matrix)).square().mean((0, 1)) for k, v in found.items()}
    assert (errors["learned"] <= errors["nearest"] * (1 + 1e-5)).all()


def test_correlation_and_error_choose_differently():
    # one bit, codes 0 and s: the error asks for s between 0.45 and 1 with both rounded up, which blurs them
    values = torch.tensor([0.0, 0.0, 0.45, 1.0])
    seen = Seen(values.min(), values.max(), [values])
    recipe = replace(START, name="test", activation_bits=1)
    by_error = fit_product(seen, replace(recipe, clip=True), signed=False)
    by_correlation = fit_product(seen, replace(recipe, choice="correlation"), signed=False)
    assert by_error.apply(values).count_nonzero() == 2 and by_correlation.apply(values).count_nonzero() == 1
    assert by_correlation.scale == pytest.approx(1.0)


def test_correlation_of_known_values():
    x = torch.tensor([1.0, 2, 3])
    assert float(correlation(x, 5 * x + 2, (0,))) == pytest.approx(1)
    assert float(correlation(x, -x, (0,))) == pytest.approx(-1)
    assert float(correlation(x, torch.ones(3), (0,))) == 0


@pytest.mark.parametrize("per_channel", [True, False])
def test_scales_by_correlation_raise_it(per_channel):
    form, seen = layer_and_inputs()
    x, matrix = seen.samples[0], form.matrix(form.layer.weight.detach())
    scores = []
    for choice in ("error", "correlation"):
        fitted = fit_layer(form, seen, with_bits(4, choice=choice, per_channel=per_channel))
        found = product(fitted.codes.apply(x), fitted.integers * form.by_row(fitted.scale))
        scores.append(float(correlation(found, product(x, matrix), (0, 1, 2))))
    assert scores[1] > scores[0]


def test_lsq_starts_at_twice_the_mean_magnitude_over_the_root_of_the_largest_code():
    codes = lsq_range(torch.tensor([-3.0, 1.0]), Range.symmetric(-3, 1, 8))
    assert codes.scale == pytest.approx(4 / 127**0.5) and (codes.low, codes.high) == (-128, 127)
    form = MatrixForm(nn.Linear(2, 2))
    scale = lsq_weight_scale(form, torch.tensor([[[1.0, -3.0], [0.0, 1.0]]]), with_bits(4))
    assert torch.allclose(scale, torch.tensor([4.0, 1.0]) / 7**0.5)


def test_noise_frees_values_that_all_round_the_same_way():
    # 64 inputs of 0.4 steps are all rounded to 0; with noise about 4 in 10 are rounded to 1
    few, matrix, rows = torch.full((3, 1, 64), 0.4), torch.ones(1, 1, 64), torch.ones(1, 1, 1)
    codes = Range(1.0, -128, 127)
    noise = find_noise(few, matrix, rows, codes, with_bits(8))
    sums = product(codes.apply(few + noise) - noise, matrix)
    assert noise.abs().max() > 0 and ((sums - 25.6).abs() < 5).all()


def test_noise_is_taken_back_from_the_bias():
    form, seen = layer_and_inputs()
    fitted = fit_layer(form, seen, with_bits(4, noise=True))
    weights = (fitted.integers * form.by_row(fitted.scale))[0]
    assert fitted.noise.abs().max() > 0 and torch.allclose(fitted.shift, -weights @ fitted.noise, atol=1e-5)
    assert fitted.error < fit_layer(form, seen, with_bits(4)).error


@pytest.mark.parametrize(
    "layer, takes",
    [
        (nn.Linear(6, 4), True),
        (nn.Conv2d(6, 4, 1), True),
        (nn.Conv2d(6, 4, 1, bias=False), False),
        (nn.Conv2d(6, 4, 3, padding=1), False),
        (nn.Conv2d(6, 6, 1, groups=6), False),
        (nn.ConvTranspose2d(6, 4, 2, 2), False),
    ],
)
def test_layers_that_take_noise(layer, takes):
    assert MatrixForm(layer).takes_noise == takes


def test_two_peaks():
    assert two_peaks(torch.cat([random(500) - 4, random(500, seed=1) + 4]))
    assert not two_peaks(random(1000)) and not two_peaks(random(1000) + 4) and not two_peaks(torch.zeros(5))


def quantised_with_two_peaks():
    """A narrow model, quantised and not calibrated. The keys of one attention lie around -4 and 4."""
    model = build_model("narrow").eval()
    attention = model.image_encoder.layers[2].blocks[0].attn
    width = attention.proj.in_features // attention.heads
    with torch.no_grad():
        keys = attention.qkv.bias.view(attention.heads, 3, width)[:, 1]
        keys.copy_(torch.where(torch.arange(width) % 2 == 0, 4.0, -4.0).expand_as(keys))
    return quantize(model, METHODS["ptq4sam"])


def test_signs_are_folded_where_keys_have_two_peaks_and_change_no_output():
    model = quantised_with_two_peaks()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with switched_off([model]):
        wanted = outputs(model)
    folded = fold_signs(model, run, batches())
    with switched_off([model]):
        assert relative_error(outputs(model), wanted) < 1e-5
    name = "image_encoder.layers.2.blocks.0.attn"
    assert name in folded
    keys = model.get_submodule(name).qkv.bias.view(2, 3, -1)[:, 1]
    assert (keys > 0).all()
    same = [k for k, v in model.state_dict().items() if torch.equal(v, before[k])]
    assert all(k in same or k.startswith(tuple(folded)) for k in before)
    assert "image_encoder.layers.1.blocks.0.attn" not in folded


def test_signs_of_the_decoders_attention_change_no_output():
    model = build_model("narrow").eval()
    wanted = outputs(model)
    attention = model.mask_decoder.transformer.layers[0].self_attn
    width = attention.q_proj.out_features // attention.heads
    change_signs(attention, random(attention.heads, width).sign())
    assert relative_error(outputs(model), wanted) < 1e-5


# As recipes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_without_rounding_the_function_is_that_of_the_float_model(name):
    wide = calibrated(at_width(METHODS[name], "W16A16"))
    # LSQ's start covers some 360 times the mean magnitude, so its steps are the coarsest
    assert relative_error(outputs(wide), outputs(build_model("narrow"))) < (2e-2 if name == "qvit" else 2e-3)


@pytest.mark.parametrize("name", METHODS)
def test_a_model_is_stored_and_exported_as_it_computes(name, tmp_path):
    model = (
        quantised_with_two_peaks() if name == "ptq4sam" else quantize(build_model("narrow"), METHODS[name])
    )
    calibrate(model, run, batches())
    assert not inactive_quantisers(model)
    wanted = outputs(model.eval())
    save_model(model, tmp_path / "saved.safetensors")
    assert torch.equal(outputs(load_model(tmp_path / "saved.safetensors")), wanted)
    export_model(model, tmp_path)
    engine, batch = open_engine("onnxruntime", tmp_path), batches()[0]
    masks = [
        engine.decode(engine.encode(image[None].numpy()), box[None].numpy())[0]
        for image, box in zip(batch["image"], batch["box"])
    ]
    # An engine sums in another order, so one value in 100,000 is rounded to the other side. How much that
    # changes in a random network depends on the method. What so small a change of the images does tells it.
    own = max(relative_error(outputs(model, change), wanted) for change in (3e-5, 1e-4, 3e-4))
    assert own < 0.2
    assert relative_error(torch.from_numpy(np.stack(masks)), wanted[:, 0]) < max(0.03, 1.5 * own)


def test_noise_survives_windows_that_are_padded(tmp_path):
    """SAM's plain ViT pads behind the norm, so that the padding gets noise too."""
    model = quantize(build_model("narrow_vit"), at_width(METHODS["noisyquant"], "W8A4"), ("encoder",))
    images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    calibrate(model, lambda m, x: m.image_encoder(x), [images])
    export_model(model.eval(), tmp_path)
    with torch.no_grad():
        wanted = model.image_encoder(images)
    found = torch.from_numpy(open_engine("onnxruntime", tmp_path).encode(images.numpy()))
    assert relative_error(found.view_as(wanted), wanted) < 0.05


@pytest.mark.parametrize("fields", [{"zero_point": True}, {"channel_factors": (0.5,)}])
def test_choices_that_exclude_each_other_are_told(fields):
    with pytest.raises(ValueError, match="choice = 'lsq' with a zero point or channel factors"):
        with_bits(8, choice="lsq", **fields)
    with pytest.raises(ValueError, match="choice = 'best'; expected one of error"):
        with_bits(8, choice="best")


def test_widths():
    recipe = at_width(RECIPES["deploy"], "W4A8")
    assert (recipe.weight_bits, recipe.activation_bits, recipe.name) == (4, 8, "deploy, W4A8")
    assert at_width(RECIPES["deploy"], "W8A8") is RECIPES["deploy"]
    for width in ("4", "W4", "W1A8", "W8A32"):
        with pytest.raises(ValueError, match="expected such as W4A8"):
            at_width(START, width)


def test_methods_differ_from_their_start_in_their_own_fields_alone():
    for recipe in METHODS.values():
        fields = {k for k in vars(START) if getattr(recipe, k) != getattr(START, k)}
        assert fields - {"name", "origin"} <= {
            "choice",
            "rounding",
            "noise",
            "sign_folding",
            "bias_correction",
        }
        assert recipe.fitted == (recipe.name != "ptq4sam")
    assert [v.family for v in variants(0)][-len(METHODS) :] == ["literature"] * len(METHODS)


# The command ------------------------------------------------------------------------------------------------


def test_the_command_writes_a_table_and_takes_it_up_again(tmp_path, capsys):
    folder, table = write_data(tmp_path / "cases", cases=2), tmp_path / "table.csv"
    arguments = [str(folder), "--model", "narrow", "--slices", "2", "--widths", "W8A8", "-o", str(table)]
    assert literature.main([*arguments, "--methods", "start", "gpfq"]) == 0
    assert "2/2 gpfq W8A8: agreement" in capsys.readouterr().err
    first = pd.read_csv(table)
    assert list(first["method"]) == ["start", "gpfq"] and first["agreement"].between(0, 1).all()
    assert set(first["judged"]) == {"simulated"} and set(first["slices"]) == {2}
    assert literature.main([*arguments, "--methods", "start", "gpfq", "noisyquant"]) == 0
    assert "1 of 3 rows are missing" in capsys.readouterr().err
    second = pd.read_csv(table)
    pd.testing.assert_frame_equal(second.head(2), first)
    assert list(second["export"]) == ["int8", "int8", "int8, an Add a layer"]
    exports = ["--methods", "start", "--exports", str(tmp_path / "exports")]
    assert literature.main([*arguments, *exports]) == 0
    third = pd.read_csv(table)
    assert third.set_index("method")["encoder ms"].notna().to_dict() == {
        "gpfq": False, "noisyquant": False, "start": True,
    }  # fmt: skip
    assert literature.main([*arguments, *exports]) == 0
    assert "0 of 1 rows are missing" in capsys.readouterr().err


def test_cures_are_compared_in_their_place_and_alone(tmp_path, monkeypatch):
    asked = []
    row = {"method": "paper", "width": "W8A8", "db": 1.0, "seconds": 1.0, "slices": 2}
    row |= dict.fromkeys(("agreement", "lowest", "dsc lost", "most lost"), 0.5)
    monkeypatch.setattr(literature, "rows", lambda *args: iter([asked.extend(args[3]) or row]))
    folder = write_data(tmp_path / "cases", cases=2)
    arguments = [str(folder), "--model", "narrow", "--slices", "2", "-o", str(tmp_path / "table.csv")]
    assert literature.main([*arguments, "--cures", "--widths", "W8A8"]) == 0
    methods = [method for method, _ in asked]
    assert methods[:3] == ["paper", "deploy", "ours, no cure"]
    for cure in CURES:
        assert {f"ours without {cure}", f"ours, {cure} alone"} <= set(methods)


def test_what_the_command_cannot_do_is_told(tmp_path, capsys):
    folder, table = write_data(tmp_path / "cases", cases=2), tmp_path / "table.csv"
    arguments = [str(folder), "--model", "narrow", "-o", str(table)]
    assert literature.main([*arguments, "--widths", "int8"]) == 2
    assert "expected such as W4A8" in capsys.readouterr().err
    table.write_text("method,width,slices\nstart,W8A8,7\n")
    assert literature.main([*arguments, "--slices", "2"]) == 2
    assert "judged on 7 slices, now 2; give another output file" in capsys.readouterr().err


@pytest.mark.parametrize("bits, words", [(8, "int8, a zero point a layer, a Mul a layer"), (16, "no, more")])
def test_what_an_export_has(bits, words):
    assert literature.export_of(at_width(RECIPES["deploy"], f"W{bits}A{bits}")).startswith(words)
