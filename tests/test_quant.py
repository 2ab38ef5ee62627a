"""Quantisation: replaced layers, arithmetic of the quantisers, recipes, calibration and storage."""

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from brevitas import nn as qnn
from brevitas.core.quant import IntQuant
from brevitas.core.stats import AbsPercentile
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from torch import nn

from qmsam_core.models import CheckpointError, MatMul, build_model, save_checkpoint
from qmsam_core.models.borrowed import settle
from qmsam_core.quant import (
    RECIPES,
    QuantMatMul,
    calibrate,
    describe_model,
    fake_quant,
    fold_batch_norm,
    load_model,
    quantize,
    save_model,
    scale_parameters,
)
from qmsam_core.quant.fake_quant import FusedIntQuant
from qmsam_core.quant.recipes import Recipe, TopPercentile

QUANTISED = (qnn.QuantLinear, qnn.QuantConv2d, qnn.QuantConvTranspose2d, QuantMatMul)
BOXES = torch.tensor([[4.0, 4, 50, 40], [10, 20, 30, 60]])


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def run(model, images):
    with torch.no_grad():
        return model(images, BOXES)[0]


def quantised(images, recipe="paper", **options):
    model = quantize(build_model("narrow"), recipe, **options)
    calibrate(model, run, [images])
    return model


def warmed_up():
    """A narrow model whose batch-norm statistics differ from their initial values."""
    model = build_model("narrow").train()
    for _ in range(3):
        model(torch.rand(4, 3, 64, 64), BOXES.repeat(2, 1))
    return model.eval()


def test_every_matrix_multiplication_of_encoder_and_decoder_is_quantised_and_nothing_else():
    model = quantize(build_model("litemedsam"), "paper")
    left = [
        n for n, m in model.named_modules() if type(m) in (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, MatMul)
    ]
    assert all(n.startswith("prompt_encoder.") or "iou_prediction_head" in n for n in left)
    encoder = [m for m in model.image_encoder.modules() if isinstance(m, QUANTISED)]
    decoder = [m for m in model.mask_decoder.modules() if isinstance(m, QUANTISED)]
    # encoder: 69 layers with weights, and two products in each of 10 attentions
    assert len(encoder) == 69 + 20
    # decoder: 28 + 4 linears, 2 transposed convolutions, 12 hypernetwork linears, 7 x 2 products in
    # attentions, the mask product
    assert len(decoder) == 32 + 2 + 12 + 14 + 1
    assert all(
        m.bias is None or type(m.bias) is nn.Parameter for m in encoder if not isinstance(m, QuantMatMul)
    )


@pytest.mark.parametrize(
    "parts, touched",
    [
        (("encoder",), {"image_encoder"}),
        (("decoder",), {"mask_decoder"}),
        (("encoder", "decoder"), {"image_encoder", "mask_decoder"}),
    ],
)
def test_only_the_named_parts_change_and_the_original_never(parts, touched):
    model = build_model("narrow")
    other = quantize(model, "paper", parts)
    changed = {n.split(".")[0] for n, m in other.named_modules() if isinstance(m, QUANTISED)}
    assert changed == touched and other.quantised_parts == tuple(sorted(parts))
    assert not any(isinstance(m, QUANTISED) for m in model.modules())


@pytest.mark.parametrize("recipe", ["paper", RECIPES["deploy"].with_cures(), "released"])
def test_quantisers_lie_where_the_model_does(recipe):
    # Brevitas creates quantisers on the CPU; left there, they would make calibration on a GPU fail. It cannot
    # make the stored scales of fitted weights on this device, which stands for a GPU.
    model = quantize(build_model("narrow").to("meta"), recipe)
    tensors = {name: t for name, t in (*model.named_parameters(), *model.named_buffers())}
    tensors |= {
        f"{name}.{key}": t
        for name, module in model.named_modules()
        for key, t in vars(module).items()
        if isinstance(t, torch.Tensor)
    }
    assert not [name for name, tensor in tensors.items() if tensor.device.type != "meta"]


def test_stage_two_quantises_the_decoder_behind_the_quantised_encoder(images):
    model = quantised(images, parts=("encoder",))
    scales = {n: p.clone() for n, p in scale_parameters(model).items()}
    both = quantize(model, "paper", ("decoder",))
    calibrate(both, run, [images])
    assert all(torch.equal(scale_parameters(both)[n], p) for n, p in scales.items())
    assert both.quantised_parts == ("decoder", "encoder")


def test_sixteen_bits_come_close_to_the_float_model(images):
    recipe = Recipe("wide", weight_bits=16, activation_bits=16)
    reference, outputs = run(build_model("narrow"), images), run(quantised(images, recipe), images)
    assert (outputs - reference).abs().max() < 2e-3 * reference.abs().max()


@pytest.mark.parametrize("recipe", ["paper", "deploy", "released"])
def test_eight_bits_stay_near_the_float_model(images, recipe):
    reference, outputs = run(build_model("narrow"), images), run(quantised(images, recipe), images)
    assert (outputs - reference).norm() < 0.2 * reference.norm()


def test_the_float_recipe_is_a_plain_copy(images):
    model = build_model("narrow")
    copy = quantize(model, "float")
    assert copy is not model and torch.equal(run(copy, images), run(model, images))


def test_folding_batch_norm_changes_no_output(images):
    model = warmed_up()
    before = run(model, images)
    fold_batch_norm(model.image_encoder)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    torch.testing.assert_close(run(model, images), before, atol=1e-5, rtol=1e-4)


def activation(bits=8, statistics=(1.27,)):
    """A quantiser whose scale is set from tensors with these largest magnitudes."""
    product = QuantMatMul(Recipe("test", activation_bits=bits, statistics_batches=len(statistics)))
    quantiser = product.a_quant.train()
    for largest in statistics:
        quantiser(torch.tensor([largest, -largest / 2]))
    for module in quantiser.modules():
        if hasattr(module, "init_scale"):
            module.init_scale()
    return quantiser


def test_the_scale_starts_at_the_mean_of_the_largest_magnitudes():
    values = [p for n, p in activation(statistics=(1.0, 2.0, 3.0)).named_parameters() if n.endswith("value")]
    assert values[0].item() == pytest.approx(2.0)


def test_values_are_rounded_to_the_grid_and_clipped_to_the_range():
    quantiser = activation(statistics=(1.28,))  # 128 negative steps of 0.01
    x = torch.tensor([0.0, 0.014, 0.016, -1.28, 5.0, -5.0])
    torch.testing.assert_close(quantiser(x), torch.tensor([0.0, 0.01, 0.02, -1.28, 1.27, -1.28]))


def test_gradients_pass_straight_through_inside_the_range_and_not_outside():
    x = torch.tensor([0.1, -0.7, 3.0, -9.0], requires_grad=True)
    activation(statistics=(1.28,))(x).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_scales_learn():
    quantiser = activation()
    (scale,) = [p for n, p in quantiser.named_parameters() if n.endswith("value")]
    quantiser(torch.tensor([0.333, 4.0])).square().sum().backward()
    assert scale.grad.abs() > 0


# The arithmetic of one quantiser, against Brevitas' ---------------------------------------------------------

LAYOUTS = {
    "plain": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(-2, -1),
    "a slice": lambda x: x[:, 1::2],
    "one value repeated": lambda x: x[:, :, :1, :1].expand(-1, -1, 5, 7),
}


def through(kind, x, scale, bits=8, signed=True, narrow=False):
    """Return the output of an integer quantiser of class `kind`, and the gradients of its input and scale.

    The output's gradient is random and depends only on the shape.
    """
    x, scale = x.detach().requires_grad_(), scale.clone().requires_grad_()
    y = kind(narrow, signed, nn.Identity())(scale, torch.tensor(0.0), torch.tensor(float(bits)), x)
    incoming = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return y, *torch.autograd.grad(y, (x, scale), incoming)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_values_and_gradients_are_brevitas_own_in_any_memory_layout(layout, per_channel, monkeypatch):
    monkeypatch.setattr(fake_quant, "CACHE_BLOCK", 100)  # several blocks, the last one shorter
    x = LAYOUTS[layout](2 * torch.randn(3, 8, 9, 7, generator=torch.Generator().manual_seed(0)))
    scale = torch.linspace(0.01, 0.03, x.shape[1]).view(-1, 1, 1) if per_channel else torch.tensor(0.0123)
    for ours, theirs in zip(through(FusedIntQuant, x, scale), through(IntQuant, x, scale)):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=2e-4)  # the order of summation differs


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("signed, narrow", [(True, False), (True, True), (False, False)])
def test_values_and_gradients_are_brevitas_own_at_any_bit_width(bits, signed, narrow):
    x, scale = torch.linspace(-3, 3, 4001), torch.tensor(2.0 / 2**bits)
    for ours, theirs in zip(
        through(FusedIntQuant, x, scale, bits, signed, narrow),
        through(IntQuant, x, scale, bits, signed, narrow),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


# Brevitas adds a zero point before it rounds, so that a value halfway between two codes may fall otherwise
NO_ZERO_POINT = RECIPES["deploy"].with_cures("channel_factors", "weight_scales_by_error", "rounding")


@pytest.mark.parametrize("recipe", ["paper", NO_ZERO_POINT])
def test_a_whole_model_learns_the_same_with_brevitas_own_arithmetic(images, recipe, monkeypatch):
    def gradients():
        model = quantised(images, recipe).train()
        model(images, BOXES)[0].square().mean().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    ours = gradients()
    monkeypatch.setattr(FusedIntQuant, "forward", IntQuant.forward)
    theirs = gradients()
    assert ours.keys() == theirs.keys() and any("scaling_impl" in name for name in ours)
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-7, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("signed", [True, False])
def test_under_autocast_no_code_changes(dtype, signed):
    """Rounding code times scale to bf16 changes no 8-bit code, whatever the dtype of the input."""
    x, scale = torch.linspace(-4, 4, 30001).to(dtype), torch.tensor(0.0217)
    expected = through(IntQuant, x.float(), scale, signed=signed)
    with torch.autocast("cpu", torch.bfloat16):
        x.requires_grad_()
        y = FusedIntQuant(False, signed, nn.Identity())(scale, torch.tensor(0.0), torch.tensor(8.0), x)
    assert y.dtype == torch.bfloat16
    assert torch.equal((y.float() / scale).round(), (expected[0] / scale).round())
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert gradient.dtype == dtype and torch.equal(gradient != 0, expected[1] != 0)


def test_quantisers_switched_off_leave_the_float_model(images):
    model, made = build_model("narrow"), quantised(images)
    for module in made.modules():
        if isinstance(module, QuantProxyFromInjector):
            module.disable_quant = True
    torch.testing.assert_close(run(made, images), run(model, images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [3, 1000, 200_003])
def test_the_percentile_is_the_one_that_sorting_gives(count):
    x = torch.randn(count, generator=torch.Generator().manual_seed(count))
    assert TopPercentile(99.9, None)(x) == AbsPercentile(99.9, None)(x)


# Recipes ----------------------------------------------------------------------------------------------------


def test_unsigned_codes_are_used_where_inputs_cannot_be_negative_and_nowhere_else(images):
    model = quantised(images, replace(RECIPES["paper"], name="unsigned", unsigned=True))
    smallest = {}
    for name, module in model.named_modules():
        if name.endswith(("input_quant", "act_quant")) and module.is_quant_enabled:
            module.register_forward_pre_hook(
                lambda m, inputs, name=name: smallest.__setitem__(name, (inputs[0].min().item(), m.is_signed))
            )
    run(model, images)
    unsigned = {name for name, (_, signed) in smallest.items() if not signed}
    assert all(smallest[name][0] >= 0 for name in unsigned)
    # a product in each of 4 + 7 attentions, an MLP in each of 2 blocks, 2 layers of the used hypernetwork
    assert len(unsigned) == 4 + 7 + 2 + 2


COMBINATIONS = {
    "channels": dict(per_channel=True),
    "unsigned": dict(unsigned=True),
    "folded, unsigned, channels": dict(fold_batch_norm=True, unsigned=True, per_channel=True),
    "4 bits": dict(weight_bits=4, activation_bits=4),
    "6 bits, channels": dict(weight_bits=6, activation_bits=6, per_channel=True),
    "percentile": dict(percentile=99.999),
}


@pytest.mark.parametrize("name", COMBINATIONS)
@pytest.mark.parametrize("parts", [("encoder",), ("decoder",)])
def test_any_recipe_on_any_part_learns_and_is_saved_whole(tmp_path, images, name, parts):
    recipe = replace(RECIPES["paper"], name=name, **COMBINATIONS[name])
    model = quantised(images, recipe, parts=parts).train()
    model(images, BOXES)[0].square().mean().backward()
    touched = [p.grad for n, p in scale_parameters(model).items() if p.grad is not None]
    assert touched and all(g.isfinite().all() for g in touched)
    save_model(model.eval(), tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.recipe == recipe and torch.equal(run(again, images), run(model, images))


@pytest.mark.parametrize("bits, largest", [(8, 0.2), (6, 0.5), (4, 2.0)])
def test_fewer_bits_stray_further(images, bits, largest):
    recipe = replace(RECIPES["deploy"], name="narrow", weight_bits=bits, activation_bits=bits)
    reference, outputs = run(build_model("narrow"), images), run(quantised(images, recipe), images)
    assert largest / 20 < (outputs - reference).norm() / reference.norm() < largest


def test_a_new_process_loads_a_model_that_gives_the_identical_output(tmp_path, images):
    model = quantised(images, replace(RECIPES["deploy"], name="own", unsigned=True))
    save_model(model, tmp_path / "model.safetensors")
    torch.save({"images": images, "masks": run(model, images)}, tmp_path / "expected.pt")
    script = """
import sys, torch
sys.path.insert(0, sys.argv[3])
import narrow
from qmsam_core.quant import load_model
torch.set_num_threads(int(sys.argv[2]))
expected = torch.load(sys.argv[1] + "/expected.pt")
boxes = torch.tensor([[4.0, 4, 50, 40], [10, 20, 30, 60]])
with torch.no_grad():
    masks = load_model(sys.argv[1] + "/model.safetensors")(expected["images"], boxes)[0]
sys.exit(not torch.equal(masks, expected["masks"]))
"""
    assert (
        subprocess.run(
            [
                sys.executable,
                "-c",
                script,
                str(tmp_path),
                str(torch.get_num_threads()),
                str(Path(__file__).parent),
            ]
        ).returncode
        == 0
    )


# Layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [False, True])
def test_one_weight_scale_a_tensor_or_a_channel(per_channel):
    layer = nn.Sequential(nn.Linear(4, 3))
    layer[0].weight.data = torch.tensor([[1.0, 0.5, 0.2, 0.1], [100.0, 1, 1, 1], [0.01, 0.005, 0.002, 0.001]])
    from qmsam_core.quant.convert import replace_layers

    replace_layers(layer, Recipe("test", per_channel=per_channel))
    weight = layer[0].quant_weight().value
    # with one scale for both, a weight of 0.01 rounds to 0 beside one of 100
    assert (weight[2].abs().max() > 0.009) == per_channel


def test_attention_over_the_image_stays_in_float_in_our_recipe(images):
    decoder = quantised(images, "deploy").mask_decoder.transformer
    over_image = [
        *(block.cross_attn_token_to_image for block in decoder.layers),
        decoder.final_attn_token_to_image,
    ]
    others = [
        attention
        for block in decoder.layers
        for attention in (block.self_attn, block.cross_attn_image_to_token)
    ]
    assert {type(attention.av_product) for attention in over_image} == {MatMul}
    assert {type(attention.av_product) for attention in others} == {QuantMatMul}


def test_modules_stay_in_float_that_a_recipe_leaves_there(images, tmp_path):
    left = ("transformer.layers.0.cross_attn_image_to_token", "transformer.layers.1.mlp")
    recipe = replace(RECIPES["paper"], name="spared", in_float=left)
    model = quantised(images, recipe)
    inside = [layer for name in left for layer in model.mask_decoder.get_submodule(name).modules()]
    assert any(type(layer) is nn.Linear for layer in inside) and any(
        type(layer) is MatMul for layer in inside
    )
    fewer = {id(layer) for layer in model.modules() if isinstance(layer, QUANTISED)}
    all_of_them = {name for name, layer in quantised(images).named_modules() if isinstance(layer, QUANTISED)}
    assert not fewer & {id(layer) for layer in inside}
    assert {name for name, layer in model.named_modules() if id(layer) in fewer} == {
        n for n in all_of_them if not n.startswith(tuple(f"mask_decoder.{part}." for part in left))
    }
    save_model(model.eval(), tmp_path / "spared.safetensors")
    loaded = load_model(tmp_path / "spared.safetensors")
    assert loaded.recipe == recipe and torch.equal(run(loaded, images), run(model, images))
    with pytest.raises(ValueError, match="in_float = necks; expected names of modules"):
        quantize(build_model("narrow"), replace(recipe, in_float=("neck", "necks")))


def test_calibration_moves_nothing_but_the_scales(images):
    model = quantize(warmed_up(), "paper")
    before = {k: v.clone() for k, v in model.state_dict().items() if "scaling" not in k}
    used = calibrate(model, run, [images] * 20)
    assert used == model.recipe.statistics_batches
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if "scaling" not in k)
    never_run = {n for n, p in scale_parameters(model).items() if p.item() in (0.0, 1.0)}
    # only hypernetworks of masks that are not requested never ran
    assert all(".output_hypernetworks_mlps." in n and ".0." not in n.split("mlps")[1][:3] for n in never_run)


def test_calibration_without_a_batch_is_refused():
    with pytest.raises(ValueError, match="no batch"):
        calibrate(quantize(build_model("narrow"), "paper"), run, [])


@pytest.mark.parametrize(
    "recipe, parts", [("float", ()), ("paper", ("encoder",)), ("deploy", ("encoder", "decoder"))]
)
def test_saved_and_loaded_models_give_the_same_output(tmp_path, images, recipe, parts):
    model = quantize(build_model("narrow"), recipe, parts)
    if parts:
        calibrate(model, run, [images])
    save_model(model, tmp_path / "model.safetensors", stage=1)
    facts = describe_model(tmp_path / "model.safetensors")
    assert facts == {
        "model": "narrow",
        "image_size": 64,
        "recipe": recipe,
        "parts": sorted(parts),
        "stage": 1,
    }
    assert torch.equal(run(load_model(tmp_path / "model.safetensors"), images), run(model, images))


def test_another_frame_and_the_folded_norms_of_efficientvit_are_kept(tmp_path):
    model = build_model("narrow_efficientvit", frame=64, preprocessing="daft")
    image, boxes = torch.rand(1, 3, 64, 64), torch.tensor([[4.0, 4, 40, 40]])
    model = quantize(model, "deploy")
    assert not any("norm" in name for name, _ in model.image_encoder.backbone.named_modules())
    calibrate(model, lambda m, x: m(x, boxes), [image])
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert (loaded.frame, loaded.preprocessing) == (64, "daft")
    assert torch.equal(loaded(image, boxes)[0], model.eval()(image, boxes)[0])


def test_heads_that_nothing_uses_are_never_quantised():
    model = quantize(build_model("narrow_patches"), "deploy")
    assert type(model.image_encoder.head) is nn.Linear


def test_folding_norms_changes_nothing_in_any_network():
    for name in ("narrow", "narrow_patches", "narrow_efficientvit"):
        model = build_model(name)
        settle(model, torch.rand(2, 3, model.image_size, model.image_size))
        image = torch.rand(1, 3, model.image_size, model.image_size)
        with torch.no_grad():
            before = model.image_encoder(image)
            fold_batch_norm(model.image_encoder)
            torch.testing.assert_close(model.image_encoder(image), before, atol=2e-4, rtol=1e-3)


def test_a_file_without_a_description_is_refused(tmp_path):
    save_checkpoint(build_model("narrow"), tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="not a model saved by this study"):
        load_model(tmp_path / "plain.safetensors")


def test_weights_that_cannot_be_written_are_one_error_and_leave_what_was_there(tmp_path):
    path, most = tmp_path / "model.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    save_model(build_model("narrow"), path)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most[1]))  # simulates a full disk
    try:
        with pytest.raises(
            CheckpointError,
            match=r"model.safetensors: cannot be written \(.*expected a writable folder with space left",
        ):
            save_model(build_model("narrow", seed=1), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert [f.name for f in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_model(build_model("narrow"), path / "below" / "a_file.safetensors")


@pytest.mark.parametrize(
    "recipe, parts, words",
    [
        ("int8", ("encoder",), "expected one of float, released, paper, deploy"),
        ("paper", ("head",), "expected one of encoder, decoder"),
    ],
)
def test_unknown_names_are_refused(recipe, parts, words):
    with pytest.raises(ValueError, match=words):
        quantize(build_model("narrow"), recipe, parts)


def test_two_recipes_in_one_model_are_refused(images):
    with pytest.raises(ValueError, match="quantised by recipe 'paper' already"):
        quantize(quantised(images, parts=("encoder",)), "deploy", ("decoder",))


def test_recipes_say_where_they_come_from():
    assert all(recipe.origin for recipe in RECIPES.values())
