"""The float networks: keys and shapes of public checkpoints, outputs of the original code, bad files."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from wave_pattern import wave_image

from qmsam_core.models import (
    CheckpointError,
    build_model,
    count_parameters,
    load_checkpoint,
    same_weights,
    save_checkpoint,
)
from qmsam_core.models.efficientvit import LinearAttention
from qmsam_core.models.layers import GridResize, window_merge, window_partition
from qmsam_core.models.tiny_vit import WindowAttention, relative_offsets

REFERENCE = Path(__file__).parent / "reference"
PUBLIC = {
    "litemedsam": "litemedsam",
    "medsam": "medsam_vit_b",
    **{name: name for name in ("mobilesam", "efficientvit_sam_l0", "efficientvit_sam_l1")},
}


def fill(model):
    """Fill a model's weights by the reference's rule: random numbers seeded with the CRC of each key."""
    state = model.state_dict()
    for key, value in state.items():
        if not value.is_floating_point():
            value.zero_()
            continue
        z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(value.shape))
        if value.ndim >= 2:
            z = z / np.sqrt(np.prod(value.shape[1:]))
        elif key.endswith(("weight", "running_var")):
            z = 1 + 0.1 * abs(z)
        else:
            z = 0.02 * z
        value.copy_(torch.from_numpy(np.asarray(z)))


def wave_input(size):
    return torch.from_numpy(wave_image(size, size).transpose(2, 0, 1).copy()).float()[None]


@pytest.mark.parametrize("name", PUBLIC)
def test_keys_and_shapes_are_those_of_the_public_checkpoint(name):
    expected = json.loads((REFERENCE / f"{PUBLIC[name]}_state_dict.json").read_text())
    assert {k: list(v.shape) for k, v in build_model(name).state_dict().items()} == expected


@pytest.mark.parametrize(
    "name, encoder",
    [
        ("litemedsam", 5_726_740),
        ("medsam", 89_670_912),
        ("mobilesam", 6_065_532),
        ("efficientvit_sam_l0", 30_728_224),
        ("efficientvit_sam_l1", 43_585_568),
    ],
)
def test_parameter_counts_are_those_published(name, encoder):
    model = build_model(name)
    parts = ("image_encoder", "prompt_encoder", "mask_decoder")
    assert [count_parameters(getattr(model, part)) for part in parts] == [encoder, 6_220, 4_058_340]


def outputs(model, boxes):
    """Return the model's embedding, prompt tokens, low-res masks and predicted IoU for the wave image."""
    with torch.no_grad():
        embedding = model.image_encoder(wave_input(model.image_size))
        decoded = [model.decode(embedding, box[None]) for box in boxes]
        masks, iou = (torch.cat(parts) for parts in zip(*decoded))
        return {
            "embedding_sample": embedding[0, ::16, ::8, ::8],
            "sparse": model.prompt_encoder(boxes),
            "low_res_masks_sample": masks[:, 0, ::8, ::8],
            "iou": iou[:, 0],
        }


def is_reproduced(model, reference, tolerances):
    expected = np.load(REFERENCE / reference)
    found = outputs(model, torch.from_numpy(expected["boxes"]).float().reshape(-1, 4))
    for name, value in found.items():
        tolerance = tolerances.get(name, tolerances["rest"])
        np.testing.assert_allclose(
            value.ravel(), expected[name].ravel(), rtol=0, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("name", PUBLIC)
def test_outputs_are_those_of_the_original_implementation(name):
    model = build_model(name)
    fill(model)
    is_reproduced(model, f"{PUBLIC[name]}_parity.npz", {"rest": 1e-4 if name == "medsam" else 2e-5})


def test_efficientvit_sam_takes_other_sizes_and_frames():
    """256 px with boxes in 256 px, as the challenge entry DAFT has it."""
    model = build_model("efficientvit_sam_l0", image_size=256, frame=256)
    fill(model)
    is_reproduced(model, "efficientvit_sam_l0_256_parity.npz", {"rest": 2e-5})


def test_a_wrong_epsilon_is_seen_at_this_tolerance():
    model = build_model("efficientvit_sam_l0")
    fill(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-5
    with pytest.raises(AssertionError):
        is_reproduced(model, "efficientvit_sam_l0_parity.npz", {"rest": 2e-5})


@pytest.mark.parametrize("side, out", [(16, 64), (32, 64), (10, 64), (64, 64), (2, 64), (80, 64)])
def test_the_fixed_linear_map_is_bicubic_interpolation(side, out):
    x = torch.randn(2, 3, side, side)
    expected = torch.nn.functional.interpolate(x, (out, out), mode="bicubic", align_corners=False)
    torch.testing.assert_close(GridResize(out)(x), expected, atol=1e-5, rtol=1e-5)


def test_linear_attention_is_its_definition():
    """Written out: weights relu(q) . relu(k), over their sum. A query without a positive value gives 0."""
    q, k, v = torch.randn(3, 1, 2, 4, 6)
    q[..., 1] = -1
    q, k = q.relu(), k.relu()
    weights = torch.einsum("bhem,bhen->bhmn", q, k)
    expected = torch.einsum("bhmn,bhcn->bhcm", weights / (weights.sum(-1, keepdim=True) + 1e-15), v)
    found = LinearAttention(8, 4, 5).attend(q, k, v)
    torch.testing.assert_close(found, expected)
    assert not found[..., 1].any()


@pytest.mark.parametrize("wrapped", [False, True])
def test_both_nestings_of_a_published_checkpoint_are_read(tmp_path, wrapped):
    model, path = build_model("narrow_efficientvit", seed=3), tmp_path / "l0.pt"
    torch.save({"state_dict": model.state_dict()} if wrapped else model.state_dict(), path)
    assert same_weights(build_model("narrow_efficientvit", checkpoint=path), model)


@pytest.mark.weights
def test_the_public_weights_give_the_original_implementation_s_outputs():
    model = build_model("litemedsam", checkpoint="public")
    is_reproduced(model, "litemedsam_public_parity.npz", {"embedding_sample": 1e-5, "rest": 5e-4})


def test_attention_bias_is_shared_by_equal_offsets_and_reaches_the_output():
    index, count = relative_offsets(3)
    assert count == 9
    assert index[0, 0] == index[4, 4] == 0  # zero offset
    assert index[0, 1] == index[1, 0] == index[4, 5]  # an offset of one column, to either side
    assert index[0, 3] != index[0, 1]  # an offset of one row is not one of one column
    attention = WindowAttention(8, 2, 3).eval()
    x = torch.randn(1, 9, 8)
    before = attention(x)
    attention.attention_biases.data[:, 0] = 5.0  # every cell attends mostly to itself
    after = attention(x)
    assert not torch.allclose(before, after)
    v = attention.qkv(attention.norm(x)).view(1, 9, 2, 3, 4)[..., 2, :].reshape(1, 9, 8)
    attention.attention_biases.data[:, 0] = 1e4  # every cell attends only to itself
    torch.testing.assert_close(attention(x), attention.proj(v))


@pytest.mark.parametrize("height, width, window", [(14, 14, 7), (9, 16, 7), (5, 3, 7), (16, 16, 14)])
def test_windows_go_there_and_back(height, width, window):
    x = torch.randn(2, height, width, 3)
    windows, padded = window_partition(x, window)
    assert windows.shape[1:3] == (window, window)
    assert torch.equal(window_merge(windows, window, padded, (height, width)), x)


@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_the_same_weights_serve_at_any_size(size):
    state = build_model("narrow").state_dict()
    model = build_model("narrow", image_size=size)
    model.load_state_dict(state)
    masks, embeddings, iou = model(
        torch.rand(2, 3, size, size), torch.tensor([[1.0, 1, 20, 20], [3, 4, 30, 31]])
    )
    assert masks.shape == (2, 1, size, size) and embeddings.shape[-1] == size // 4 and iou.shape == (2, 1)


def test_one_image_and_its_boxes_equal_one_image_a_box():
    model = build_model("narrow")
    boxes = torch.tensor([[1.0, 1, 20, 20], [3, 4, 30, 31], [10, 10, 60, 40]])
    with torch.no_grad():
        embedding = model.image_encoder(torch.rand(1, 3, 64, 64))
        together, _ = model.decode(embedding, boxes)
        apart = torch.cat([model.decode(embedding, box[None])[0] for box in boxes])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)


def test_building_is_seeded_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    a, b = build_model("narrow", seed=1), build_model("narrow", seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert not torch.equal(
        build_model("narrow", seed=2).image_encoder.neck[0].weight, a.image_encoder.neck[0].weight
    )


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_checkpoints_go_there_and_back(tmp_path, ending):
    model, path = build_model("narrow", seed=3), tmp_path / f"weights.{ending}"
    torch.save(model.state_dict(), path) if ending == "pth" else save_checkpoint(model, path)
    other = build_model("narrow", checkpoint=path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values()))


def truncated(path):
    save_checkpoint(build_model("narrow"), path)
    path.write_bytes(path.read_bytes()[:5000])


def foreign_keys(path):
    torch.save({"encoder.weight": torch.zeros(3)}, path)


def other_shapes(path):
    state = build_model("narrow").state_dict()
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 99)
    torch.save(state, path)


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_weights_are_found_within_a_training_checkpoint_and_what_else_is_there_is_named(
    tmp_path, caplog, wrapper
):
    model, path = build_model("narrow", seed=3), tmp_path / "weights.pth"
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3, "optimizer": {"state": {}}}, path)
    assert same_weights(build_model("narrow", checkpoint=path), model)
    assert caplog.messages == [
        f"{path}: weights taken from '{wrapper}'; epoch, optimizer beside it not used; "
        "'module.' taken off every key"
    ]


def test_a_plain_checkpoint_is_read_without_a_word(tmp_path, caplog):
    torch.save(build_model("narrow").state_dict(), tmp_path / "weights.pth")
    build_model("narrow", checkpoint=tmp_path / "weights.pth")
    assert caplog.messages == []


class Trap:
    """An object whose unpickling creates a file, as a hostile checkpoint could."""

    def __reduce__(self):
        return (Path.touch, (Path("trap-was-sprung"),))


@pytest.mark.parametrize(
    "ending, make, words",
    [
        ("pth", lambda p: None, "no such file"),
        ("safetensors", truncated, "cannot be read"),
        ("pth", lambda p: p.write_text("hello"), "weights"),
        ("pth", foreign_keys, "not of this model: encoder.weight"),
        ("pth", other_shapes, r"iou_token.weight is \(1, 99\), expected \(1, 64\)"),
        ("pth", lambda p: torch.save({"model": Trap()}, p), "not a plain dict"),
        (
            "pth",
            lambda p: torch.save({"net": {}, "epoch": 1}, p),
            "holds a dict with net, epoch; expected tensors by key",
        ),
    ],
)
def test_bad_checkpoints_are_told_and_change_nothing(tmp_path, ending, make, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"weights.{ending}"
    make(path)
    model = build_model("narrow")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(model, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not Path("trap-was-sprung").exists()


@pytest.mark.parametrize(
    "name, size, words",
    [("sam", None, "expected one of litemedsam, medsam, mobilesam"), ("narrow", 70, "multiple of 16")],
)
def test_impossible_models_are_refused(name, size, words):
    with pytest.raises(ValueError, match=words):
        build_model(name, size)


def test_a_plain_vit_may_be_cut_in_depth(monkeypatch):
    whole, short = build_model("narrow_vit", seed=1), build_model("narrow_vit", seed=1, depth=2)
    assert len(short.image_encoder.blocks) == 2 < len(whole.image_encoder.blocks)
    assert same_weights(short.image_encoder.patch_embed, whole.image_encoder.patch_embed)
    for name, depth in (("narrow", 1), ("narrow_vit", 5), ("narrow_vit", 0)):
        with pytest.raises(ValueError, match=f"depth = {depth} of {name}"):
            build_model(name, depth=depth)


def test_same_weights_means_same_keys_and_bits():
    a, b = build_model("narrow", seed=1), build_model("narrow", seed=1)
    assert same_weights(a, b) and not same_weights(a, a.mask_decoder)
    b.mask_decoder.iou_token.weight.data[0, 0] += 1e-7
    assert not same_weights(a, b) and same_weights(a.image_encoder, b.image_encoder)
    next(buffer for name, buffer in b.image_encoder.named_buffers() if name.endswith("running_mean")).add_(
        1e-3
    )
    assert not same_weights(a.image_encoder, b.image_encoder) and same_weights(
        a.image_encoder, b.image_encoder, statistics=False
    )
