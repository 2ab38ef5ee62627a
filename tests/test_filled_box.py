"""A mask decoder that begins with the filled box: what it answers, what it leaves alone, and where it cannot begin."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from qmsam_core.models import build_model, filled_box
from qmsam_core.models.filled_box import begin_with_filled_boxes, rotate_heads, sharpen

SIZE = 64


@pytest.fixture(scope="module")
def images():
    """Bright blobs on noise, (12, 3, 64, 64)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    pictures = []
    for _ in range(12):
        cx, cy, r = rng.uniform(16, 48, 2).tolist() + [rng.uniform(4, 16)]
        pictures.append(np.clip(0.3 + 0.4 * (np.hypot(x - cx, y - cy) < r) + 0.1 * rng.normal(0, 1, (3, SIZE, SIZE)), 0, 1))
    return torch.from_numpy(np.stack(pictures)).float()


@pytest.fixture(scope="module")
def begun(images):
    model = build_model("litemedsam", SIZE, "open")
    begin_with_filled_boxes(model, images)
    return model


def answers(model, image, boxes):
    """Overlap (Dice) of each answer with the box itself, both at the size of the low-res mask."""
    model.set_image_size(image.shape[-1])
    with torch.no_grad():
        masks = model.decode(model.image_encoder(image[None]), boxes)[0][:, 0] > 0
    x = torch.arange(image.shape[-1])
    across = (x >= boxes[:, :1]) & (x <= boxes[:, 2:3])
    down = (x >= boxes[:, 1:2]) & (x <= boxes[:, 3:])
    filled = down[:, :, None] & across[:, None, :]
    return 2 * (masks & filled).sum((1, 2)) / (masks.sum((1, 2)) + filled.sum((1, 2)))


@pytest.mark.parametrize("row", [0, 7])
def test_it_answers_with_the_box_filled(begun, images, row):
    boxes = torch.tensor([[2, 2, 61, 61], [8, 20, 39, 43], [30, 4, 43, 57], [50, 50, 59, 61], [12, 44, 19, 51], [1, 30, 6, 36]]).float()
    dice = answers(begun, images[row], boxes)
    assert (dice > torch.tensor([0.95, 0.95, 0.95, 0.8, 0.8, 0.8])).all(), dice


def test_it_does_so_at_another_size_once_its_heads_are_as_sharp_as_the_cells(images):
    model = build_model("litemedsam", SIZE, "open")
    begin_with_filled_boxes(model, images)
    image = torch.nn.functional.interpolate(images[:1], (2 * SIZE, 2 * SIZE), mode="bilinear")[0]
    boxes = torch.tensor([[20, 30, 71, 60], [60, 60, 75, 71], [100, 20, 107, 29]]).float()
    blunt = answers(model, image, boxes)
    sharpen(model, 2.0)
    sharp = answers(model, image, boxes)
    assert (sharp > torch.tensor([0.95, 0.9, 0.8])).all() and sharp[1:].mean() > blunt[1:].mean(), (sharp, blunt)


def test_the_encoder_stays_and_the_rest_depends_on_it_and_the_seed_alone(begun, images):
    old = build_model("litemedsam", SIZE, "open")
    again = build_model("litemedsam", SIZE, "open")
    torch.nn.init.normal_(again.mask_decoder.transformer.layers[1].norm4.weight)
    again.train()
    begin_with_filled_boxes(again, images)
    assert again.training and again.image_size == SIZE
    for name, value in begun.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert not name.startswith("image_encoder") or torch.equal(value, old.state_dict()[name]), name


def test_a_decoder_of_few_heads_is_refused_and_left_as_it_was(images):
    model = build_model("nano", SIZE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="nano: a decoder of 4 heads; expected 8"):
        begin_with_filled_boxes(model, images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_embeddings_that_use_every_direction_are_refused_and_the_model_left_as_it_was(images, monkeypatch):
    model = build_model("litemedsam", SIZE, "open")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(filled_box, "embed", lambda *_: [torch.randn(2, 256, 16, 16)])
    with pytest.raises(ValueError, match="let the encoder learn first"):
        begin_with_filled_boxes(model, images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_rotated_heads_answer_as_before_and_none_of_their_channels_stands_out(begun, images):
    rotated = deepcopy(begun)
    attention = rotated.mask_decoder.transformer.layers[0].cross_attn_image_to_token
    rotate_heads(attention)
    spread = attention.q_proj.weight.norm(dim=1).reshape(attention.heads, -1)
    assert (spread.amax(1) < 3 * spread.amin(1)).all(), spread
    boxes = torch.tensor([[8, 20, 39, 43], [50, 50, 59, 61]]).float()
    with torch.no_grad():
        embedding = begun.image_encoder(images[:1])
        torch.testing.assert_close(rotated.decode(embedding, boxes)[0], begun.decode(embedding, boxes)[0], rtol=1e-3, atol=1e-2)
