"""Samples for training a model from nothing: a slice with several boxes on it, one image embedding for all of them.

Encoding an image costs as much as about twenty boxes (LiteMedSAM), so every image asks about several objects at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from .augment import Intensities, loosen_box, present_labels, random_view
from .index import SliceIndex
from .slices import read_labelled_slice
from .transforms import BASELINE_JITTER, EvalTransform, mask_box
from .volumes import DEFAULT_CACHE_BYTES, SliceReader


class PromptDataset(Dataset):
    """An endless, numbered stream of samples: modalities in turn, within a modality each source equally often, slices and all else at random.

    Sample `n` depends on the seed and on `n` only, so training that resumes at a step sees what it would have seen.

    Args:
        sources: indices built with their labels, for example of real cases and of phantoms.
        size: side of the network's input, pixels. mask_size: side of its masks.
        prompts: boxes a sample, K; an object may be asked about more than once, with another box.
        seed: of all draws.
        whole: share of samples that show the whole slice, see `random_view`.
        least_pixels: objects cut down to fewer by the view are not asked about, where there are others.
    """

    def __init__(
        self, sources: Sequence[SliceIndex], size: int, mask_size: int, prompts: int = 4, seed: int = 0, whole: float = 0.5, least_pixels: int = 12
    ) -> None:
        self.sources, self.prompts, self.seed, self.whole, self.least_pixels = list(sources), prompts, seed, whole, least_pixels
        self.transform, self.intensities = EvalTransform(size, mask_size), Intensities()
        self._pools: dict[str, list[tuple[int, np.ndarray]]] = {}
        for number, index in enumerate(self.sources):
            codes, filled = index.modality_codes(), index.objects_on() > 0
            for code, modality in enumerate(index.modalities):
                rows = np.flatnonzero((codes == code) & filled)
                if len(rows):
                    self._pools.setdefault(modality, []).append((number, rows))
        if not self._pools:
            raise ValueError("no slice with an object in any source: nothing to train on")
        self.modalities = sorted(self._pools)
        self._reader = SliceReader(DEFAULT_CACHE_BYTES)

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, n: int) -> dict:
        """Sample `n`: image float32 (3,S,S) 0..1, boxes float32 (K,4) model pixels, masks float32 (K,1,M,M) 0/1, modality, name.

        Raises:
            CaseError: unreadable file.
        """
        rng = np.random.default_rng((self.seed, n))
        modality = self.modalities[n % len(self.modalities)]
        pools = self._pools[modality]
        number, rows = pools[rng.integers(len(pools))]
        i = int(rng.choice(rows))
        index = self.sources[number]
        image, labels = random_view(*read_labelled_slice(index, i, self._reader), rng, self.whole)
        boxes, masks = self._ask(labels, rng)
        ref = index[i]
        return {
            "image": self._picture(image, rng),
            "boxes": torch.from_numpy(boxes),
            "masks": torch.from_numpy(masks),
            "modality": modality,
            "name": f"{ref.path.stem}:{ref.z}",
        }

    def _ask(self, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (K,4) and masks (K,1,M,M) of objects drawn from a view; each object once before any comes twice."""
        geometry = self.transform.geometry(labels)
        small = geometry.mask(labels, self.transform.size)
        ids = present_labels(small)
        sizes = np.bincount(small.ravel(), minlength=int(ids.max(initial=0)) + 1)[ids]
        chosen = ids[sizes >= self.least_pixels] if (sizes >= self.least_pixels).any() else (ids if len(ids) else present_labels(labels))
        rounds = [rng.permutation(chosen) for _ in range(-(-self.prompts // len(chosen)))]
        boxes, masks = [], []
        for label in np.concatenate(rounds)[: self.prompts]:
            full = geometry.kept_mask(labels == label, self.transform.size)
            mask = full if self.transform.mask_size == self.transform.size else geometry.kept_mask(labels == label, self.transform.mask_size)
            most = BASELINE_JITTER * self.transform.size
            boxes.append(loosen_box(mask_box(full), geometry.new_width, geometry.new_height, most, rng))
            masks.append(mask[None].astype(np.float32))
        return np.stack(boxes), np.stack(masks)

    def _picture(self, image: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """The network's input of a view, its content's intensities changed, its padding black as in deployment."""
        geometry = self.transform.geometry(image)
        square = torch.from_numpy(geometry.image(image, self.transform.interpolation, self.transform.order))
        content = (slice(None), slice(geometry.new_height), slice(geometry.new_width))
        square[content] = self.intensities(square[content], rng)
        return square
