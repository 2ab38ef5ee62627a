"""Boxes a second of training the mask decoder alone, on all cells of an image and on a sample of them: python tests/benchmarks/bench_kept.py

Full-size LiteMedSAM, random embeddings, the steps of `qmsam_core.train.pretrain` among kept images. Arms take turns step by step in one process.
"""

import argparse
import time

import numpy as np
import pandas as pd
import torch

from qmsam_core.models import build_model
from qmsam_core.train import segmentation_loss
from qmsam_core.train.cells import CellSample, cell_loss, decode_cells, masks_of_cells
from qmsam_core.train.kept import inscribed
from qmsam_core.train.losses import predicted_iou_loss
from qmsam_core.train.precision import autocast_for

ALL, SAMPLE = "all cells", "192 cells"
BOXES = {ALL: 20, SAMPLE: 64}  # a step, as many as pay


class Arm:
    """The decoder, its optimiser, and one training step on fixed data."""

    def __init__(self, size: int, name: str) -> None:
        self.model, self.name, number = build_model("litemedsam", size), name, BOXES[name]
        for parameter in self.model.image_encoder.parameters():
            parameter.requires_grad_(False)
        self.embeddings = torch.randn(number, self.model.embedding_size**2, 256)
        self.boxes, self.masks = inscribed(number, size, size, np.random.default_rng(0))
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer, self.loss, self.random = torch.optim.AdamW(trained, 1e-4, fused=True), segmentation_loss(), torch.Generator().manual_seed(0)

    def step(self) -> float:
        """Boxes a second of one step, from kept embeddings to new weights."""
        started, grid = time.perf_counter(), self.model.embedding_size
        with autocast_for(self.model, "cpu"):
            if self.name == ALL:
                logits, guessed = self.model.decode(self.embeddings.transpose(1, 2).unflatten(2, (grid, grid)), self.boxes)
                logits, guessed = logits.float(), guessed.float()
                loss = self.loss(logits, self.masks) + predicted_iou_loss(guessed, logits, self.masks)
            else:
                sample = CellSample.draw(self.boxes, self.model.image_size, grid, self.random)
                cells = self.embeddings.gather(1, sample.index[..., None].expand(-1, -1, 256))
                logits, guessed = decode_cells(self.model, cells, self.boxes, sample)
                loss = cell_loss(logits.float(), masks_of_cells(self.masks, sample.index), guessed.float(), sample)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return len(self.boxes) / (time.perf_counter() - started)


def measure(size: int, runs: int) -> pd.DataFrame:
    """Boxes a second of both arms at one input size, interleaved: median, least and most, and the ratio of the medians."""
    arms = {name: Arm(size, name) for name in BOXES}
    for arm in arms.values():
        arm.step()
    rates = pd.DataFrame([{name: arm.step() for name, arm in arms.items()} for _ in range(runs)])
    table = rates.agg(["median", "min", "max"]).T.reset_index(names="cells")
    return table.assign(px=size, ratio=table["median"] / table["median"].iloc[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 112, 224])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(2)
    print(pd.concat([measure(size, options.runs) for size in options.sizes]).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
