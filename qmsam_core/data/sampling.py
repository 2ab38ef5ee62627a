"""Which slices an epoch trains on: as many from each modality, empty slices left out, divided among the ranks.

Source: paper section 3.1 (random sampling of Ns slices a modality in each epoch) and section 4.4 (both equations).
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
    """Number of slices an epoch draws from each modality.

    Args:
        counts: slices available, N_m, by modality.
        strategy: "min": N_s(m) = min_i N_m(i), the paper's method. A whole number: that many of each (paper Table 3: 900),
            repeating where a modality has fewer. A share f between 0 and 1: max(f N_m(m), `least`), rounded down; 0.1 is the
            paper's ablation. "all": N_m(m).
        least: of a share; None takes min_i N_m(i), as the paper does.

    Raises:
        ValueError: unknown strategy, a number below 1, or a modality without slices.
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
        f"strategy {strategy!r}: expected 'min', 'all', a whole number of at least 1 or a share between 0 and 1"
    )


class ModalityBalancedSampler(Sampler[int]):
    """Slice numbers of one epoch for one rank: drawn anew each epoch, only slices that hold an object, all modalities mixed.

    Every rank draws the same epoch from the seed and takes every `world_size`-th of it, so ranks partition it exactly; their
    lengths differ by at most one.

    Args:
        index: slices, built with their labels. Modalities without any object are left out.
        strategy, least: see `samples_per_modality`.
        seed: of the draw; the epoch is added to it.
        rank, world_size: this process among those that train together.
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
        """Choose the epoch whose draw the next iteration gives."""
        self._epoch = epoch

    def epoch_slices(self) -> np.ndarray:
        """Slice numbers of the whole epoch, all ranks, in order; int64."""
        rng = np.random.default_rng((self.seed, self._epoch))
        drawn = [_draw(rows, self.samples[name], rng) for name, rows in self._slices.items()]
        return rng.permutation(np.concatenate(drawn))

    def __iter__(self) -> Iterator[int]:
        return iter(self.epoch_slices()[self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        total = sum(self.samples.values())
        return (total - self.rank + self.world_size - 1) // self.world_size


def _draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of `rows` without replacement; where there are fewer, whole rounds first, so no slice comes twice more than another."""
    rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate(rounds)[:count]
