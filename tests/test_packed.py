"""The packed form of a quantised model: int8 codes that give the same output, and faulty files."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from qmsam_core.deploy.export import FROM_NOISE, export_model
from qmsam_core.models import CheckpointError, build_model, weights_hash
from qmsam_core.quant import RECIPES, calibrate, describe_model, load_model, quantize, save_model, save_packed
from qmsam_core.quant.packed import halved
from qmsam_core.quant.scales import finish_statistics

BOXES = torch.tensor([[4.0, 4, 50, 40], [10, 20, 30, 60]])
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
VARIANTS = {
    "paper": RECIPES["paper"],
    "deploy": "deploy",
    "largest a channel": replace(RECIPES["paper"], name="largest a channel", per_channel=True),
    "4 bits": replace(RECIPES["deploy"], name="4 bits", weight_bits=4, in_float=()),
}


def run(model):
    with torch.no_grad():
        return model(IMAGES, BOXES)[0]


@cache
def fitted(recipe, parts):
    model = quantize(build_model("narrow"), recipe, parts)
    calibrate(model, lambda m, images: m(images, BOXES), [IMAGES])
    return model.eval()


def quantised(recipe="deploy", parts=("encoder", "decoder")):
    return deepcopy(fitted(recipe, parts))


def trained(model):
    """The model after a step that moves every weight off its code."""
    model(IMAGES, BOXES)[0].square().mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                step = 1e-3 * parameter.abs().mean() / (parameter.grad.abs().mean() + 1e-12)
                parameter -= step * parameter.grad
    model.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "model.safetensors"
    save_packed(quantised(), path, origin="one batch")
    return path


@pytest.mark.parametrize("further", [False, True], ids=["calibrated", "trained"])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_output_is_the_same_bit_for_bit(tmp_path, name, further):
    model = trained(quantised(VARIANTS[name])) if further else quantised(VARIANTS[name])
    save_packed(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.recipe == model.recipe and torch.equal(run(again), run(model))
    save_packed(again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_one_part_alone_is_packed(tmp_path):
    model = quantised("paper", ("encoder",))
    save_packed(model, tmp_path / "model.safetensors")
    assert torch.equal(run(load_model(tmp_path / "model.safetensors")), run(model))


def test_weights_are_int8_codes_with_their_scales_and_all_else_keeps_its_values(packed):
    model, stored = quantised(), load_file(packed)
    for name, layer in model.named_modules():
        if getattr(layer, "weight_quant", None) is not None:
            codes, scale = stored.pop(f"{name}.weight"), stored.pop(f"{name}.weight_scale")
            assert codes.dtype == torch.int8 and scale.dtype == torch.float32
            assert torch.equal(codes * scale, layer.quant_weight().value)
    state = model.state_dict()
    assert all(torch.equal(value.float(), state[key]) for key, value in stored.items())
    assert {value.dtype for value in stored.values()} <= {torch.float32, torch.float16}


def test_the_description_is_that_of_save_model_with_the_mark(packed):
    facts = describe_model(packed)
    assert facts["packed"] == 1 and facts["recipe_fields"]["name"] == "deploy"
    assert (facts["model"], facts["parts"], facts["origin"]) == (
        "narrow",
        ["decoder", "encoder"],
        "one batch",
    )


def test_only_what_float16_holds_exactly_is_stored_so():
    assert halved(torch.tensor([1.0, -0.5, 0.0])).dtype == torch.float16
    assert halved(torch.tensor([1.0, 0.1])).dtype == torch.float32
    assert halved(torch.tensor([1e6])).dtype == torch.float32
    assert halved(torch.tensor([3])).dtype == torch.int64


def test_exports_of_both_files_compute_the_same(packed, tmp_path):
    save_model(quantised(), tmp_path / "model.safetensors")
    exports = [
        export_model(load_model(path), tmp_path / name)
        for name, path in (("whole", tmp_path / "model.safetensors"), ("packed", packed))
    ]
    assert exports[0]["files"]["encoder.onnx"]["bytes"] == exports[1]["files"]["encoder.onnx"]["bytes"]
    assert (
        exports[1]["weights"] == weights_hash(load_model(packed)) and FROM_NOISE not in exports[1]["origin"]
    )


def test_float_models_and_wide_codes_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="the model is float; expected a quantised one"):
        save_packed(build_model("narrow"), tmp_path / "model.safetensors")
    wide = quantised(replace(RECIPES["paper"], name="wide", weight_bits=16, activation_bits=16))
    with pytest.raises(CheckpointError, match="weights of 16 bits; expected at most 8"):
        save_packed(wide, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def altered(packed, path, change, mark='"packed": 1'):
    """A copy of the file whose tensors `change` has changed."""
    tensors = load_file(packed)
    change(tensors)
    with safe_open(packed, "pt") as file:
        told = file.metadata()["qmsam"].replace('"packed": 1', mark)
    save_file(tensors, path, {"qmsam": told})
    return path


KEY = "image_encoder.layers.0.blocks.0.conv2.c.weight"
FAULTS = {
    "no scale": (lambda t: t.pop(f"{KEY}_scale"), "conv2.c.weight: codes without a scale"),
    "foreign scale": (lambda t: t.update({f"{KEY}_scale": torch.ones(3)}), "scale of shape"),
    "no number": (lambda t: t[f"{KEY}_scale"].fill_(float("nan")), "expected one finite value"),
    "no codes": (lambda t: t.pop(KEY), "1 missing: .*conv2.c.weight; 1 not of this model"),
    "other codes": (lambda t: t.update({KEY: t[KEY][:, :, :1].clone()}), "1 wrong shape"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_codes_and_scales_that_do_not_go_together_are_one_line(packed, tmp_path, fault):
    change, words = FAULTS[fault]
    path = altered(packed, tmp_path / "model.safetensors", change)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_model(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_other_versions_and_cut_files_are_one_line(packed, tmp_path):
    path = altered(packed, tmp_path / "model.safetensors", lambda tensors: None, '"packed": 2')
    with pytest.raises(CheckpointError, match="packed in version 2, expected 1"):
        load_model(path)
    path.write_bytes(packed.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="model.safetensors: ") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_litemedsam_takes_at_most_12_mb(tmp_path):
    model = quantize(build_model("litemedsam"), "deploy")
    finish_statistics(model)
    save_packed(model, tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size < 12e6


@pytest.mark.parametrize("save", [save_model, save_packed])
def test_at_another_size_weights_and_scales_stay_and_the_grid_follows(tmp_path, save):
    model = quantised()
    save(model, tmp_path / "model.safetensors")
    smaller = load_model(tmp_path / "model.safetensors", 32)
    assert (smaller.image_size, smaller.frame, smaller.mask_size) == (32, 32, 32)
    assert weights_hash(smaller) == weights_hash(load_model(tmp_path / "model.safetensors"))
    model.set_image_size(32)
    with torch.no_grad():
        masks = [one(IMAGES[..., :32, :32], BOXES / 2)[0] for one in (smaller, model)]
    assert masks[0].shape == (2, 1, 32, 32) and torch.equal(*masks)


def test_a_size_that_the_network_cannot_have_is_told(packed):
    with pytest.raises(ValueError, match="image_size = 40; expected a multiple of 16, at least 32 px"):
        load_model(packed, 40)
