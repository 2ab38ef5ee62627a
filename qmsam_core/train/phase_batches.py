"""What a phase of float training trains, and on which batches: images never seen before, or boxes on kept embeddings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler

from ..data.prompts import PromptDataset
from ..models import Sam
from ..phases import Phase
from .fixed_stem import BehindStem, with_cells
from .kept import Decoding, KeptEmbeddings
from .loading import loader_options
from .processes import rank, world_size

PROMPTS, CHEAP_PROMPTS = 4, 8
"""Boxes an image: for the whole network, and where the decoder is shown a sample of cells, so that a box costs next to nothing."""
KEPT_FROM = 2**40  # numbers of the samples that are kept, so many for each phase: none that the whole network is trained on


def phase_seed(seed: int, number: int) -> int:
    """Seed, 32 bits, of what phase `number` of a training draws besides its samples."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


class Stream(Sampler[int]):
    """Numbers of samples from `start` on, without end: this process's own among all that train together."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        number = self.start + rank()
        while True:
            yield number
            number += world_size()


def fresh_batches(
    model: Sam, phase: Phase, seed: int, samples: Callable[[int, int], PromptDataset], seen: int, batch: int, device: str
) -> tuple[nn.Module, Iterable[dict]]:
    """Samples never seen before, for the whole network, or for all of it but a fixed stem.

    Args:
        model: at the phase's size; all its parameters, or all but the stem's, are told that they need a gradient.
        seed: of the cells that are drawn, see `phase_seed`. samples: see `Pretraining`. seen: samples of all phases so far.
        batch: images a step, this process's.

    Returns:
        The module that stands for the model, and batches without end.
    """
    dataset = samples(phase.size, CHEAP_PROMPTS if phase.fixed_stem else PROMPTS)
    loader = DataLoader(dataset, batch, sampler=Stream(seen), **loader_options(device))
    if not phase.fixed_stem:
        return wrap(model.requires_grad_(True)), loader
    return wrap(BehindStem(model, device)), with_cells(loader, phase.size, model.embedding_size, seed)


def kept_batches(
    model: Sam, phase: Phase, number: int, seed: int, samples: Callable[[int, int], PromptDataset], step: int, boxes: int, device: str,
    log: Callable[[str], None],
) -> tuple[nn.Module, Iterable[dict]]:
    """Boxes on kept embeddings, from `step` on, for the decoder alone; `number` is the phase's, 0 the first, other arguments as of `fresh_batches`.

    The images of a phase are the same whether or not it was interrupted.
    """
    begun = time.perf_counter()
    kept = KeptEmbeddings(model, samples(phase.size, CHEAP_PROMPTS), phase.kept, seed, device, KEPT_FROM * (1 + number))
    log(f"{phase.size} px: kept the embeddings of {phase.kept} images in {time.perf_counter() - begun:.0f} s")
    return wrap(Decoding(model)), kept.batches(boxes, step, world_size(), rank())


def wrap(module: nn.Module) -> nn.Module:
    """A module whose gradients are averaged over all processes that train together, if there are several."""
    return DistributedDataParallel(module, find_unused_parameters=True) if dist.is_initialized() else module
