"""The mask decoder on a sample of cells: that a sample stands for all of them."""

import pytest
import torch

from qmsam_core.models import build_model
from qmsam_core.models.mask_decoder import CrossAttention
from qmsam_core.train.cells import CellSample, cell_loss, cells_about, decode_cells, masks_of_cells

SIZE, GRID = 64, 16
BOXES = torch.tensor([[30.0, 20, 33, 26], [3, 5, 40, 25], [0, 0, 63, 63], [62, 62, 63, 63]])


def draw(boxes=BOXES, cells=100, near_cells=70, seed=0):
    return CellSample.draw(boxes, SIZE, GRID, torch.Generator().manual_seed(seed), cells, near_cells)


def test_cells_about_a_box_are_those_it_touches_and_their_neighbours():
    about = cells_about(torch.tensor([[20.0, 24, 23, 27]]), SIZE, GRID).unflatten(1, (GRID, GRID))[0]  # cell 5, 6, and a pixel of margin with 4 more
    rows, columns = about.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 8, 3, 7) and about.sum() == 25
    assert cells_about(torch.tensor([[0.0, 0, 63, 63]]), SIZE, GRID).all()


def test_a_sample_has_no_cell_twice_and_stands_for_all():
    sample, about = draw(), cells_about(BOXES, SIZE, GRID)
    assert all(len(set(row.tolist())) == 100 for row in sample.index)
    torch.testing.assert_close(sample.weights.sum(1), torch.full((4,), 256.0))
    assert torch.equal(sample.near, about.gather(1, sample.index))
    for row, number in enumerate(about.sum(1).tolist()):
        if number <= 70:
            assert sample.near[row].sum() == number and (sample.weights[row][sample.near[row]] == 1).all()
        else:
            assert sample.near[row].sum() >= 70
    assert about.sum(1).max() == 256 and about.sum(1).min() < 70  # both kinds are here
    assert torch.equal(draw().index, sample.index) and not torch.equal(draw(seed=1).index, sample.index)


def test_sums_over_a_sample_are_those_over_all_cells_on_average():
    values = torch.rand(4, GRID * GRID, generator=torch.Generator().manual_seed(5)) * (1 + 3 * cells_about(BOXES, SIZE, GRID))
    sums = torch.stack([(sample.weights * values.gather(1, sample.index)).sum(1) for sample in (draw(seed=n) for n in range(600))])
    spread = sums.std(0) / 600**0.5
    assert ((sums.mean(0) - values.sum(1)).abs() < 4 * spread + 1e-3).all() and (sums.std(0) > 0).all()


def test_a_sample_of_no_fewer_cells_than_there_are_is_all_of_them():
    sample = draw(cells=1000)
    assert torch.equal(sample.index.sort(1).values, torch.arange(256).expand(4, -1)) and (sample.weights == 1).all()


def test_a_key_with_a_weight_counts_as_often():
    torch.manual_seed(0)
    attention = CrossAttention(32, 4, 2)
    q, k, v = torch.randn(2, 3, 32), torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    weights = torch.tensor([[1.0, 3, 1, 2, 1]] * 2)
    repeated = torch.tensor([0, 1, 1, 1, 2, 3, 3, 4])
    torch.testing.assert_close(attention(q, k, v, weights), attention(q, k[:, repeated], v[:, repeated]))
    torch.testing.assert_close(attention(q, k, v, torch.ones(2, 5)), attention(q, k, v))


def test_decoding_all_cells_is_decoding_the_image():
    model = build_model("nano", SIZE, seed=3)
    embeddings, sample = torch.randn(4, 64, GRID, GRID), draw(cells=256)
    cells = embeddings.flatten(2).transpose(1, 2).gather(1, sample.index[..., None].expand(-1, -1, 64))
    with torch.no_grad():
        logits, iou = decode_cells(model, cells, BOXES, sample)
        whole, whole_iou = model.decode(embeddings, BOXES)
    torch.testing.assert_close(logits, masks_of_cells(whole, sample.index), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(iou, whole_iou, atol=1e-5, rtol=1e-4)


def test_pixels_of_a_cell_come_row_by_row():
    mask = torch.arange(64.0).view(1, 1, 8, 8)
    expected = torch.tensor([4.0, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31])
    assert torch.equal(masks_of_cells(mask, torch.tensor([[1, 0]]))[0, 0], expected)


def test_the_loss_of_all_cells_is_that_of_the_whole_masks():
    random = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(4, 1, SIZE, SIZE, generator=random), (torch.rand(4, 1, SIZE, SIZE, generator=random) < 0.3).float()
    sample, guessed = draw(cells=256), torch.full((4, 1), 0.25)
    found = cell_loss(masks_of_cells(logits, sample.index), masks_of_cells(masks, sample.index), guessed, sample)
    likely = logits.sigmoid()
    dice = 1 - (2 * (likely * masks).sum((1, 2, 3)) + 1) / (likely.sum((1, 2, 3)) + masks.sum((1, 2, 3)) + 1)
    errors = torch.nn.functional.softplus(logits) - logits * masks
    about = cells_about(BOXES, SIZE, GRID).view(4, 1, GRID, GRID).repeat_interleave(4, 2).repeat_interleave(4, 3)
    crosses = [errors[row][about[row]].mean() + (0.3 * errors[row][~about[row]].mean() if not about[row].all() else 0) for row in range(4)]
    hits, union = ((logits > 0) & (masks > 0)).sum((1, 2, 3)), ((logits > 0) | (masks > 0)).sum((1, 2, 3))
    torch.testing.assert_close(found, dice.mean() + torch.stack(crosses).mean() + ((hits / union - 0.25) ** 2).mean())


@pytest.mark.parametrize("right", [True, False])
def test_the_loss_tells_right_from_wrong(right):
    sample = draw()
    masks = (torch.rand(4, 100, 16, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    logits = (40 * masks - 20) * (1 if right else -1)
    loss = cell_loss(logits, masks, torch.full((4, 1), float(right)), sample)
    assert loss < 1e-3 if right else loss > 10
