"""Training behind a fixed stem: that the stem is what it was, and that what is trained sees what the whole model sees."""

import pytest
import torch

from qmsam_core.models import build_model
from qmsam_core.train.cells import CellSample, masks_of_cells
from qmsam_core.train.fixed_stem import BehindStem, fixed_stem, stem_parameters, with_cells

SIZE = 64
BOXES = torch.tensor([[[30.0, 20, 43, 36], [3, 5, 40, 25]], [[0, 0, 63, 63], [50, 50, 55, 63]]])
ROWS = torch.tensor([0, 0, 1, 1])


@pytest.fixture
def model():
    """A model whose batch norms have seen something."""
    torch.manual_seed(0)
    model = build_model("nano", SIZE)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3), module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def images():
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_a_fixed_stem_answers_as_the_encoders_own_without_its_norms(model):
    stem = fixed_stem(model.image_encoder, torch.float32)
    torch.testing.assert_close(stem(images()), model.image_encoder.stem(images()), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in stem.modules())
    assert not any(p.requires_grad for p in stem.parameters()) and all(p.requires_grad for p in stem_parameters(model.image_encoder))


def test_with_all_cells_it_is_the_whole_model(model):
    every = CellSample(torch.arange(256).expand(4, -1), torch.ones(4, 256), torch.ones(4, 256, dtype=torch.bool))
    logits, iou = BehindStem(model)(images(), ROWS, BOXES.flatten(0, 1), every)
    whole, _, whole_iou = model(images(), BOXES)
    torch.testing.assert_close(logits, masks_of_cells(whole, every.index), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(iou, whole_iou, rtol=1e-3, atol=1e-4)


def test_gradients_reach_all_but_the_stem(model):
    behind = BehindStem(model)
    drawn = CellSample.draw(BOXES.flatten(0, 1), SIZE, 16, torch.Generator().manual_seed(0), 100, 70)
    logits, iou = behind(images(), ROWS, BOXES.flatten(0, 1), drawn)
    (logits.square().mean() + iou.sum()).backward()
    stem = {id(p) for p in stem_parameters(model.image_encoder)}
    assert all((p.grad is None) == (id(p) in stem) for p in model.image_encoder.parameters())


def test_the_draw_depends_on_the_boxes_and_not_on_what_came_before():
    batches = [{"image": images(), "boxes": BOXES + k, "masks": torch.ones(2, 2, 1, SIZE, SIZE, dtype=torch.uint8), "name": ["a", "b"]} for k in range(2)]
    first, second = with_cells(batches, SIZE, 16, seed=3)
    (again,) = with_cells(batches[1:], SIZE, 16, seed=3)
    assert torch.equal(again["index"], second["index"]) and not torch.equal(first["index"], second["index"])
    assert torch.equal(again["image"], second["image"]) and torch.equal(again["boxes"], second["boxes"])


def test_half_of_the_boxes_lie_on_an_image_of_noise_with_ellipses_as_masks():
    (batch,) = with_cells([{"image": images(), "boxes": BOXES, "masks": torch.zeros(2, 2, 1, SIZE, SIZE, dtype=torch.uint8), "name": ["a", "b"]}], SIZE, 16, seed=3)
    assert batch["image"].shape == (3, 3, SIZE, SIZE) and batch["name"] == ["a", "b", "nothing"]
    assert batch["rows"].tolist() == [0, 0, 1, 1, 2, 2, 2, 2] and torch.equal(batch["boxes"][:4], BOXES.flatten(0, 1))
    assert batch["masks"].shape == (8, batch["index"].shape[1], 16)
    filled = (batch["masks"].mean(2) * batch["weights"]).sum(1) * 16
    areas = (batch["boxes"][:, 2:] - batch["boxes"][:, :2] + 1).prod(1)
    assert not filled[:4].any()
    torch.testing.assert_close(filled[4:] / areas[4:], torch.full((4,), torch.pi / 4), rtol=0.1, atol=0)


def test_a_model_without_such_a_stem_is_refused():
    with pytest.raises(ValueError, match="nano_vit.*fixed stem.*TinyViT"):
        BehindStem(build_model("nano_vit"))
