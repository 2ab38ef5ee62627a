"""Images a second of float training at each resolution, and what each measure brings: python tests/benchmarks/bench_pretrain.py [--csv pretrain.csv]

Full-size LiteMedSAM, random data, the steps of `qmsam_core.train.pretrain` with measures added one by one. Arms take turns step by step in one process; the malloc
settings are read at the start of a process, so a second process without them runs after the first.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from qmsam_core.allocator import MALLOC
from qmsam_core.models import build_model
from qmsam_core.train import segmentation_loss
from qmsam_core.train.cells import CellSample, cell_loss, masks_of_cells
from qmsam_core.train.fixed_stem import BehindStem
from qmsam_core.train.precision import autocast_for, channels_last

BATCH = {48: 16, 64: 16, 112: 8, 128: 8, 224: 2, 256: 2}
ARMS = {  # layout, bf16, fused optimiser, boxes an image, fixed stem
    "float32, one box an image": (False, False, False, 1, False),
    "+ channels last": (True, False, False, 1, False),
    "+ bf16 autocast": (True, True, False, 1, False),
    "+ fused AdamW, clipping": (True, True, True, 1, False),
    "+ four boxes an image": (True, True, True, 4, False),
    "+ fixed stem, a sample of cells": (True, True, True, 4, True),
}


class Arm:
    """A model, its optimiser, and one training step on fixed random data."""

    def __init__(self, size: int, last: bool, bf16: bool, fused: bool, boxes: int, behind_stem: bool) -> None:
        torch.manual_seed(0)
        self.model = build_model("litemedsam", size).train()
        self.images = torch.rand(BATCH[size], 3, size, size)
        if last:
            self.model, self.images = channels_last(self.model), channels_last(self.images)
        corner = torch.rand(BATCH[size], boxes, 2) * size / 2
        self.boxes = torch.cat([corner, corner + size / 3], -1)
        self.masks = (torch.rand(BATCH[size] * boxes, 1, size, size) > 0.5).float()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4, fused=fused)
        self.loss, self.bf16, self.fused = segmentation_loss(), bf16, fused
        self.behind_stem = BehindStem(self.model) if behind_stem else None

    def step(self) -> float:
        """Seconds of one step."""
        started = time.perf_counter()
        with autocast_for(self.model, "cpu") if self.bf16 else nullcontext():
            if self.behind_stem:
                boxes = self.boxes.flatten(0, 1)
                drawn = CellSample.draw(boxes, self.model.image_size, self.model.embedding_size, torch.Generator().manual_seed(0))
                rows = torch.arange(len(self.images)).repeat_interleave(self.boxes.shape[1])
                logits, guessed = self.behind_stem(self.images, rows, boxes, drawn)
                loss = cell_loss(logits.float(), masks_of_cells(self.masks, drawn.index), guessed.float(), drawn)
            else:
                logits, _, _ = self.model(self.images, self.boxes)
                loss = self.loss(logits.float(), self.masks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.fused:
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return time.perf_counter() - started


def measure(size: int, runs: int) -> pd.DataFrame:
    """Median seconds and images a second of every arm at one size, interleaved."""
    arms = {name: Arm(size, *options) for name, options in ARMS.items()}
    for arm in arms.values():
        arm.step()
    seconds = {name: [] for name in arms}
    for _ in range(runs):
        for name, arm in arms.items():
            seconds[name].append(arm.step())
    times = pd.DataFrame(seconds).agg(["median", "min", "max"]).T.reset_index(names="arm")
    times["images/s"] = BATCH[size] / times["median"]
    times["against plain"] = times["images/s"] / times["images/s"].iloc[0]
    return times.assign(px=size, malloc="kept" if all(n in os.environ for n in MALLOC) else "default")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(BATCH))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--csv", type=Path, help="write the table there too")
    parser.add_argument("--here", action="store_true", help="measure in this process, with the malloc settings it has")
    options = parser.parse_args()
    if options.here:
        torch.set_num_threads(options.threads)
        pd.concat([measure(size, options.runs) for size in options.sizes]).round(3).to_csv(options.csv or sys.stdout, index=False)
        return
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for name, settings in (("kept", MALLOC), ("default", {})):
            part = Path(folder, f"{name}.csv")
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--here", "--csv", str(part)], env={**os.environ, **settings}, check=True)
            parts.append(pd.read_csv(part))
            print(parts[-1].to_string(index=False), flush=True)
    if options.csv:
        pd.concat(parts).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
