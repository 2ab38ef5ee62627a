"""The mask decoder alone, on kept embeddings: what a step is given, and what it trains."""

import numpy as np
import pytest
import torch
from small_data import write_data

from qmsam_core.data.parts import make_parts
from qmsam_core.data.prompts import PromptDataset
from qmsam_core.models import build_model
from qmsam_core.params import Params
from qmsam_core.train.cells import CellSample, decode_cells, masks_of_cells
from qmsam_core.train.float_stage import float_sources
from qmsam_core.train.kept import ON_NOTHING, Decoding, KeptEmbeddings, inscribed


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_parts(write_data(root / "cases", 4), root / "prepared", 0.25, 0)
    sources = float_sources(Params.check({"image_size": 64, "threads": 1}, "test"), root / "prepared")
    return PromptDataset(sources, 64, 64, 3, 0)


def test_kept_are_the_embeddings_boxes_and_masks_of_the_samples_in_turn(samples):
    model = build_model("nano", 64).train()
    kept = KeptEmbeddings(model, samples, 10, seed=1, start=5)
    assert model.training and kept.embeddings.shape == (10, 256, 64) and kept.embeddings.dtype == torch.float16
    model.eval()
    for row in (0, 9):
        sample = samples[5 + row]
        with torch.no_grad():
            embedding = model.image_encoder(sample["image"][None])[0]
        assert torch.allclose(kept.embeddings[row].float(), embedding.flatten(1).T, atol=2e-3)
        assert torch.equal(kept.boxes[row], sample["boxes"]) and torch.equal(kept.masks[row].byte(), sample["masks"])
        assert kept.names[row] == sample["name"]


def test_a_batch_depends_on_its_number_alone_and_processes_share_them(samples):
    kept = KeptEmbeddings(build_model("nano", 64), samples, 4, seed=1)
    stream = kept.batches(10, 0)
    batches = [next(stream) for _ in range(6)]
    assert torch.equal(next(kept.batches(10, 4))["boxes"], batches[4]["boxes"])
    second = kept.batches(10, 1, stride=2, first=1)
    for number in (3, 5):
        taken = next(second)
        assert torch.equal(taken["boxes"], batches[number]["boxes"]) and taken["name"] == batches[number]["name"]
    assert not torch.equal(batches[0]["boxes"], batches[1]["boxes"])
    assert batches[0]["name"].count("nothing") == 10 // ON_NOTHING
    for name, shape in (("cells", (10, 192, 64)), ("boxes", (10, 4)), ("masks", (10, 192, 16)), ("weights", (10, 192))):
        assert batches[0][name].shape == shape and batches[0][name].dtype == torch.float32


def test_boxes_go_with_the_cells_and_masks_of_their_objects(samples):
    kept = KeptEmbeddings(build_model("nano", 64), samples, 4, seed=1)
    asked = {tuple(box.tolist()): (row, mask) for row in range(4) for box, mask in zip(kept.boxes[row], kept.masks[row])}
    batch = kept.batch(10, 0)
    for n, (box, name) in enumerate(zip(batch["boxes"], batch["name"])):
        if name == "nothing":
            continue
        row, mask = asked[tuple(box.tolist())]
        assert torch.equal(batch["masks"][n], masks_of_cells(mask[None].float(), batch["index"][n : n + 1])[0])
        assert torch.equal(batch["cells"][n], kept.embeddings[row, batch["index"][n]].float())
    assert (batch["weights"].sum(1) - 256).abs().max() < 1e-3 and batch["near"].any(1).all()


@pytest.mark.parametrize("size,mask_size", [(64, 64), (256, 64)])
def test_ellipses_lie_inside_the_pixels_of_their_boxes_and_reach_their_sides(size, mask_size):
    boxes, masks = inscribed(200, size, mask_size, np.random.default_rng(0))
    edges = (torch.arange(mask_size) + 0.5) * size / mask_size - 0.5  # middles of the mask's pixels, in the image's
    assert boxes.min() >= 0 and boxes.max() <= size - 1
    for box, mask in zip(boxes, masks[:, 0]):
        sides = box[2:] - box[:2] + 1
        if sides.min() < 6 * size / mask_size:
            continue
        rows, columns = mask.nonzero().T
        found = torch.stack([edges[columns.min()], edges[rows.min()], edges[columns.max()], edges[rows.max()]])
        assert (found - box).abs().max() <= max(1.0, sides.max() / 16) * size / mask_size
        assert mask.sum() * (size / mask_size) ** 2 == pytest.approx(float(np.pi / 4 * sides.prod()), rel=0.15)


@pytest.mark.parametrize("size,mask_size", [(112, 112), (256, 256), (256, 64)])
def test_boxes_of_a_few_pixels_of_the_mask_are_asked_about_at_any_size(size, mask_size):
    boxes, _ = inscribed(500, size, mask_size, np.random.default_rng(0))
    shorter = (boxes[:, 2:] - boxes[:, :2] + 1).min(1).values * mask_size / size
    assert shorter.min() >= 3 - 1e-3 and (shorter < 6).float().mean() > 0.15


def test_the_decoder_alone_has_all_parameters_behind_the_encoder():
    model = build_model("nano", 64)
    alone, names = Decoding(model), {id(p) for p in model.image_encoder.parameters()}
    assert {id(p) for p in alone.parameters()} == {id(p) for p in model.parameters()} - names
    boxes = torch.tensor([[10.0, 20, 40, 50], [0, 0, 9, 9]])
    sample = CellSample.draw(boxes, 64, 16, torch.Generator().manual_seed(0), 100, 70)
    cells = torch.rand(2, 100, 64)
    assert torch.equal(alone(cells, boxes, sample)[0], decode_cells(model, cells, boxes, sample)[0])
