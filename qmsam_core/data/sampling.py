"""Draw the slices of a training epoch per modality, without empty slices, and divide them among the ranks.

Source: paper section 3.1 (each epoch draws Ns random slices per modality) and section 4.4 (both equations).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from .index import SliceIndex

Strategy = Literal["min", "all"] | int | float


def samples_per_modality(
    counts: Mapping[str, int], strategy: Strategy = "min", least: int | None = None
) -> dict[str, int]:
    """Compute the number of slices that an epoch draws from each modality.

    Args:
        counts: number of slices available, N_m, by modality.
        strategy: "min": N_s(m) = min_i N_m(i), the paper's method.
            A whole number: that many of each (paper Table 3: 900). Slices repeat if a modality has fewer.
            A share f between 0 and 1: max(f N_m(m), `least`), rounded down. 0.1 is the paper's ablation.
            "all": N_m(m).
        least: lower bound used with a share. None means min_i N_m(i), as in the paper.

    Raises:
        ValueError: the strategy is unknown, a number is below 1, or a modality has no slices.
    """
    counts = {modality: int(count) for modality, count in counts.items()}
    empty = [modality for modality, count in counts.items() if count < 1]
    if empty or not counts:
        raise ValueError(
            f"no slices to sample from in {', '.join(empty) or 'an empty index'}; leave such modalities out"
        )
    smallest = min(counts.values())
    if strategy == "min":
        return dict.fromkeys(counts, smallest)
    if isinstance(strategy, float) and 0 < strategy < 1:
        return {modality: max(int(strategy * count), least or smallest) for modality, count in counts.items()}
    if strategy == "all":
        return counts
    if isinstance(strategy, int) and not isinstance(strategy, bool) and strategy >= 1:
        return dict.fromkeys(counts, strategy)
    raise ValueError(
        f"strategy {strategy!r}: expected 'min', 'all', a whole number of at least 1 "
        "or a share between 0 and 1"
    )


class ModalityBalancedSampler(Sampler[int]):
    """Sample the slice numbers of one epoch for one rank, balanced and mixed over the modalities.

    Each epoch is a new draw of slices that hold an object. Every rank draws the same epoch from the seed and
    takes every `world_size`-th slice of it. The ranks thus partition the epoch, and their lengths differ by
    at most one.

    Args:
        index: slices, built with their labels. Modalities without any object are left out.
        strategy: see `samples_per_modality`.
        seed: seed of the draw, combined with the epoch.
        rank: number of this process, from 0.
        world_size: number of processes that train together.
        least: see `samples_per_modality`.
    """

    def __init__(
        self,
        index: SliceIndex,
        strategy: Strategy = "min",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        least: int | None = None,
    ):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of world size {world_size}: expected 0 <= rank < world_size")
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self._epoch = 0
        codes, filled = index.modality_codes(), index.objects_on() > 0
        slices = {
            name: np.flatnonzero((codes == code) & filled) for code, name in enumerate(index.modalities)
        }
        self._slices = {name: rows for name, rows in slices.items() if len(rows)}
        self.samples = samples_per_modality(
            {name: len(rows) for name, rows in self._slices.items()}, strategy, least
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws."""
        self._epoch = epoch

    def epoch_slices(self) -> np.ndarray:
        """Slice numbers of the whole epoch for all ranks, in order; int64."""
        rng = np.random.default_rng((self.seed, self._epoch))
        drawn = [_draw(rows, self.samples[name], rng) for name, rows in self._slices.items()]
        return rng.permutation(np.concatenate(drawn))

    def __iter__(self) -> Iterator[int]:
        return iter(self.epoch_slices()[self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        total = sum(self.samples.values())
        return (total - self.rank + self.world_size - 1) // self.world_size


def _draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` of `rows`. A slice repeats only after all were drawn, so counts differ by at most 1."""
    rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate(rounds)[:count]
