"""Fitting a recipe to data: layers as matrices, ranges, factors, rounding, and what engines make of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from brevitas.core.quant import IntQuant
from torch import nn

from qmsam_core.deploy import open_engine
from qmsam_core.deploy.engines import OpenVinoEngine
from qmsam_core.deploy.export import export_model
from qmsam_core.deploy.exported import ExportError
from qmsam_core.models import build_model
from qmsam_core.quant import RECIPES, calibrate, load_model, quantize, save_model, scale_parameters
from qmsam_core.quant.fake_quant import FusedIntQuant
from qmsam_core.quant.fitting import Range, Seen, channel_factors, fit_layer, ranges, switched_off
from qmsam_core.quant.matrix_form import MatrixForm, product
from qmsam_core.quant.rounding import round_in_turn
from qmsam_core.quant.scales import inactive_quantisers
from qmsam_core.quant.sensitivity import blocks_of, mask_agreement, sensitivity, signal_to_noise

BOXES = torch.tensor([[4.0, 4, 50, 40], [10, 20, 30, 60]])
FITTED = replace(RECIPES["deploy"], name="test", in_float=())
CURES = {
    "zero_point": True,
    "clip": True,
    "channel_factors": (0.5, 1.0),
    "weight_scales_by_error": True,
    "rounding": "gptq",
    "bias_correction": True,
}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batches():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return [{"image": images, "box": BOXES}]


def run(model, batch):
    return model(batch["image"], batch["box"])[0]


def uneven(seed=0):
    """A narrow model whose depthwise inputs differ from channel to channel, as those of LiteMedSAM do."""
    model = build_model("narrow").eval()
    for name, module in model.image_encoder.named_modules():
        if name.endswith("conv1.bn"):
            with torch.no_grad():
                module.weight.mul_(torch.exp(1.5 * random(len(module.weight), seed=seed)))
    return model


def outputs(model):
    with torch.no_grad():
        return run(model, batches()[0])


def relative_error(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


LAYERS = {
    "linear": (nn.Linear(6, 4), (1, 6)),
    "pointwise": (nn.Conv2d(6, 4, 1), (1, 6, 1, 1)),
    "strided": (nn.Conv2d(6, 4, 3, stride=2, padding=1), (1, 6, 2, 2)),
    "depthwise": (nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6), (1, 6, 2, 2)),
    "transposed": (nn.ConvTranspose2d(6, 4, 2, 2), (1, 6, 1, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_a_product_of_sampled_vectors_and_its_matrix(name):
    # with an output of a single cell, every sample is that cell's input
    layer, shape = LAYERS[name]
    form, x = MatrixForm(layer), random(*shape)
    matrix = form.matrix(layer.weight.detach())
    found = product(form.vectors(x, 3, torch.Generator().manual_seed(0)), matrix).flatten(1)
    layer_output = (layer(x) - layer(torch.zeros_like(x))).detach().flatten()
    assert torch.allclose(found, layer_output.expand_as(found), atol=1e-5)
    assert torch.equal(form.weight(matrix), layer.weight)


@pytest.mark.parametrize(
    "low, high, expected",
    [(-1.0, 254.0, (1.0, -1, 254)), (0.0, 510.0, (2.0, 0, 255)), (5.0, 255.0, (1.0, 0, 255))],
)
def test_a_shifted_range_covers_its_ends_and_holds_zero(low, high, expected):
    codes = Range.shifted(low, high, 8)
    assert (codes.scale, codes.low, codes.high) == expected
    assert codes.apply(torch.tensor([0.0, high, 2 * high])).tolist() == [0, high, high]


def test_the_quantiser_with_a_zero_point_computes_as_brevitas_does():
    x, arguments = 3 * random(1000), (torch.tensor(0.02), torch.tensor(37.0), torch.tensor(8.0))
    own, theirs = (
        kind(narrow_range=False, signed=False, input_view_impl=nn.Identity())
        for kind in (FusedIntQuant, IntQuant)
    )
    assert torch.allclose(own(*arguments, x), theirs(*arguments, x), atol=1e-6)


def test_rounding_in_turn_makes_up_in_later_columns():
    # both inputs are always equal: 0.4 + 0.4 is nearer to 1 than to the 0 of rounding each alone
    matrix, scale = torch.tensor([[[0.4, 0.4]]]), torch.ones(1, 1, 1)
    together = torch.ones(1, 2, 2, dtype=torch.float64)
    assert round_in_turn(matrix, together, scale, 8).sum() == 1
    independent = torch.eye(2, dtype=torch.float64)[None]
    assert round_in_turn(matrix, independent, scale, 8).sum() == 0


def test_factors_even_out_channels_and_depthwise_layers_take_them_whole():
    seen = Seen(torch.tensor([-1.0, -8.0]), torch.tensor([2.0, 4.0]))
    depthwise = MatrixForm(nn.Conv2d(2, 2, 3, groups=2))
    (factor,) = channel_factors(depthwise, seen, depthwise.matrix(depthwise.layer.weight.detach()), FITTED)
    assert torch.allclose(factor * torch.tensor([2.0, 8.0]), torch.tensor([8.0, 8.0]))
    linear = MatrixForm(nn.Linear(2, 3))
    matrix = linear.matrix(linear.layer.weight.detach())
    recipe = replace(FITTED, channel_factors=(0.0, 1.0))
    none, columns, inputs = channel_factors(linear, seen, matrix, recipe)
    assert none.tolist() == [1, 1] and torch.allclose(inputs * torch.tensor([2.0, 8.0]), torch.tensor(8.0))
    largest = matrix.abs().amax((0, 1)) / columns
    assert torch.allclose(largest[0], largest[1])


@pytest.mark.parametrize("cure", [*CURES, "all"])
def test_each_cure_lowers_the_error_of_a_layer(cure):
    # channels differ twentyfold and are correlated, nothing is below -0.2, and few weights are large
    layer = nn.Linear(16, 64)
    with torch.no_grad():
        layer.weight.copy_(random(64, 16, seed=2) ** 3)
        layer.bias.zero_()
    x = nn.functional.gelu(random(2400, 4) @ random(4, 16, seed=1) * torch.linspace(0.3, 6, 16))
    seen = Seen(x.amin(0), x.amax(0), [x[:, None]])
    plain = replace(RECIPES["deploy"].with_cures(), name="plain", weight_bits=5, activation_bits=5)
    cured = replace(plain, **(CURES if cure == "all" else {cure: CURES[cure]}))
    before, after = (fit_layer(MatrixForm(layer), seen, recipe).error for recipe in (plain, cured))
    assert after < before and (cure != "all" or after < 0.5 * before)


@pytest.mark.parametrize("cure", [*CURES, "all"])
def test_without_rounding_the_function_is_that_of_the_float_model(cure):
    # at 16 bits next to nothing is rounded, so that only a fault in factors, zero points or shifts would show
    changes = CURES if cure == "all" else {cure: CURES[cure]}
    changes = {k: v for k, v in changes.items() if k != "clip"}
    plain = replace(FITTED.with_cures(), name="wide", weight_bits=16, activation_bits=16)
    recipe = replace(plain, **changes)
    model = uneven()
    wide = quantize(model, recipe)
    calibrate(wide, run, batches())
    assert relative_error(outputs(wide), outputs(model)) < 2e-3


def test_a_recipe_is_fitted_if_it_has_any_cure():
    assert RECIPES["deploy"].fitted and RECIPES["deploy"].with_cures(*CURES) == RECIPES["deploy"]
    assert not any(RECIPES[name].fitted for name in ("float", "paper", "released"))
    assert not FITTED.with_cures().fitted and all(FITTED.with_cures(cure).fitted for cure in CURES)


def test_fitting_loses_less_than_statistics_alone():
    model, errors = uneven(), {}
    for name, recipe in (("statistics", FITTED.with_cures()), ("fitted", FITTED)):
        quantised = quantize(model, recipe)
        calibrate(quantised, run, batches())
        errors[name] = relative_error(outputs(quantised), outputs(model))
    assert errors["fitted"] < 0.5 * errors["statistics"]


def test_layers_are_fitted_in_float32_where_training_takes_bf16():
    model, errors = uneven(), {}
    for mixed in (False, True):
        quantised = quantize(model, FITTED)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            # what is seen is the same, so that only the fitting could differ
            calibrate(quantised, run_float32, batches())
        errors[mixed] = relative_error(outputs(quantised), outputs(model))
    assert errors[True] == pytest.approx(errors[False], rel=1e-3)


def run_float32(model, batch):
    with torch.autocast("cpu", enabled=False):
        return run(model, batch)


def test_a_scale_a_tensor_can_be_fitted_too():
    quantised = quantize(uneven(), replace(FITTED, per_channel=False))
    calibrate(quantised, run, batches())
    assert relative_error(outputs(quantised), outputs(uneven())) < 0.5


def test_signed_ranges_stand_beside_those_with_a_zero_point():
    # symmetric values fill signed codes; 0..255 alone would cut the negative half
    tried = ranges(-1.0, 1.0, replace(FITTED, clip=False), signed=False)
    assert [(codes.low, codes.high) for codes in tried] == [(-128, 127), (-128, 127)]


def test_a_fitted_model_is_stored_whole(tmp_path):
    model = quantize(uneven(), FITTED)
    calibrate(model, run, batches())
    save_model(model.eval(), tmp_path / "model.safetensors")
    assert torch.equal(outputs(load_model(tmp_path / "model.safetensors")), outputs(model))


def test_stage_two_fits_the_decoder_alone():
    model = quantize(uneven(), FITTED, ("encoder",))
    calibrate(model, run, batches())
    before = {k: v.clone() for k, v in model.image_encoder.state_dict().items()}
    both = quantize(model, FITTED, ("decoder",))
    calibrate(both, run, batches())
    assert all(torch.equal(before[k], v) for k, v in both.image_encoder.state_dict().items())
    assert not inactive_quantisers(both)


def test_quantisers_that_are_off_or_unset_are_named():
    model = quantize(build_model("narrow"), FITTED)
    assert "image_encoder.neck.0.input_quant" in inactive_quantisers(model)
    assert all(scale.ndim == 0 for scale in scale_parameters(model).values())  # of activations alone
    calibrate(model, run, batches())
    with switched_off([model.image_encoder.neck]):
        assert inactive_quantisers(model) == [
            f"image_encoder.neck.{k}.{kind}_quant" for k in (0, 2) for kind in ("input", "weight")
        ]
    assert not inactive_quantisers(model)


def test_a_model_without_scales_is_not_exported(tmp_path):
    with pytest.raises(ExportError, match="have no scale yet, image_encoder"):
        export_model(quantize(build_model("narrow"), FITTED), tmp_path)
    assert not list(tmp_path.iterdir())


def test_engines_run_a_fitted_model_in_integers_and_agree_with_fake_quantisation(tmp_path):
    model = quantize(uneven(), FITTED)
    calibrate(model, run, batches())
    export_model(model.eval(), tmp_path)
    batch, wanted = batches()[0], outputs(model)
    for kind in ("openvino", "onnxruntime"):
        engine = open_engine(kind, tmp_path)
        masks = [
            engine.decode(engine.encode(image[None].numpy()), box[None].numpy())[0]
            for image, box in zip(batch["image"], batch["box"])
        ]
        # roundings that fall on the other side of a half add up to a per cent or two in a random network
        assert relative_error(torch.from_numpy(np.stack(masks)), wanted[:, 0]) < 0.03
    profiled = OpenVinoEngine(tmp_path, profiling=True)
    profiled.encode(batch["image"][:1].numpy())
    layers = profiled.layer_times("encoder")
    heavy = layers[layers["operation"].isin(["Convolution", "FullyConnected", "MatMul"])]
    assert len(heavy) and (heavy["precision"] == "int8").all()


def test_a_model_loses_nothing_against_itself():
    model = build_model("narrow").eval()
    table = sensitivity(model, model, batches())
    assert list(table["block"])[:2] == ["patch_embed", "layers.0.blocks.0"]
    assert (table["alone db"] == float("inf")).all() and (table["alone agreement"] == 1).all()
    assert len(table) == len(list(blocks_of(model)))


def test_the_block_with_fewest_bits_loses_most():
    model = uneven()
    quantised = quantize(model, FITTED)
    calibrate(quantised, run, batches())
    with torch.no_grad():
        quantised.image_encoder.layers[1].blocks[0].mlp.fc1.weight.mul_(0.7)
    table = sensitivity(model, quantised, batches()).set_index("block")
    encoder = table[table["part"] == "encoder"]
    assert encoder["alone db"].idxmin() == "layers.1.blocks.0"


def test_signal_to_noise_and_agreement_of_known_arrays():
    assert signal_to_noise(torch.tensor([10.0, 0]), torch.tensor([10.0, 1])) == pytest.approx(20)
    masks = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]]]).bool()
    other = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]]]).bool()
    assert mask_agreement(masks, other).tolist() == [0.5, 1]
