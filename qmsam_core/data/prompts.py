"""Samples for training a model from nothing: a slice with several boxes on it, one image embedding for all of them.

Encoding an image costs as much as about twenty boxes (LiteMedSAM), so every image asks about several objects at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch.utils.data import Dataset

from .augment import Intensities, View, loosen_box, present_labels
from .cases import tight_boxes
from .index import SliceIndex
from .slices import read_labelled_slice
from .transforms import BASELINE_JITTER, EvalTransform, mask_box
from .volumes import DEFAULT_CACHE_BYTES, SliceReader

VOLUME_BOXES = 0.3
"""Share of a volume's samples whose boxes are those of the whole volume, too large on most slices: what 3-D prompts are."""
CONTAINS_PARTS = {"Fundus": 0.8}
"""By modality: the share of questions about an object that want it with the labelled parts inside it. The cup is a part of the optic disc, which most data sets
outline as a whole, while a label map, with one label a pixel, leaves a ring of it."""


class PromptDataset(Dataset):
    """An endless, numbered stream of samples: modalities in turn, within a modality each source equally often, slices and all else at random.

    Sample `n` depends on the seed and on `n` only, so training that resumes at a step sees what it would have seen.

    Args:
        sources: indices built with their labels, for example of real cases and of phantoms.
        size: side of the network's input, pixels. mask_size: side of its masks.
        prompts: boxes a sample, K; an object may be asked about more than once, with another box.
        seed: of all draws.
        whole: share of samples that show the whole slice, see `View.draw`.
        least_pixels: objects cut down to fewer by the view are not asked about, where there are others.
    """

    def __init__(
        self, sources: Sequence[SliceIndex], size: int, mask_size: int, prompts: int = 4, seed: int = 0, whole: float = 0.45, least_pixels: int = 6
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
        self._around: dict[tuple[int, int], dict[int, np.ndarray]] = {}

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
        image, labels = read_labelled_slice(index, i, self._reader)
        view = View.draw(labels, rng, self.whole)
        image, labels = view.of(image, labels)
        around = self._volume_boxes(number, i) if rng.random() < VOLUME_BOXES else {}
        around = {label: view.box(box, labels.shape) for label, box in around.items()}
        boxes, masks = self._ask(labels, around, CONTAINS_PARTS.get(modality, 0.0), rng)
        ref = index[i]
        return {
            "image": self._picture(image, rng),
            "boxes": torch.from_numpy(boxes),
            "masks": torch.from_numpy(masks),
            "modality": modality,
            "name": f"{ref.path.stem}:{ref.z}",
        }

    def _volume_boxes(self, number: int, i: int) -> dict[int, np.ndarray]:
        """For slice `i` of a volume the box of each label over all slices, as a 3-D prompt gives it (paper section 2.3); nothing for an image."""
        index = self.sources[number]
        case, _ = index.locate(i)
        if not index.is_volume(case):
            return {}
        if (number, case) not in self._around:
            around: dict[int, np.ndarray] = {}
            first = i - index[i].z
            for other in range(first, first + int(index.cases["n_slices"].iloc[case])):
                plane = self._reader.read(index[other].path, "gts", other - first) if index.labels_on(other) else np.zeros((1, 1), int)
                for label, box in zip(*tight_boxes(plane)):
                    known = around.get(label, box)
                    around[int(label)] = np.concatenate([np.minimum(known[:2], box[:2]), np.maximum(known[2:], box[2:])])
            self._around[number, case] = around
        return self._around[number, case]

    def _ask(self, labels: np.ndarray, around: dict[int, np.ndarray], with_parts: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (K,4) and masks (K,1,M,M) of objects drawn from a view; each object once before any comes twice.

        `around` holds boxes, in the view's pixels, that are to be used as they are instead of an object's own on the slice. `with_parts` is the
        share of questions that want an object without the holes that other objects make in it.
        """
        geometry = self.transform.geometry(labels)
        small = geometry.mask(labels, self.transform.size)
        ids = present_labels(small)
        sizes = np.bincount(small.ravel(), minlength=int(ids.max(initial=0)) + 1)[ids]
        chosen = ids[sizes >= self.least_pixels] if (sizes >= self.least_pixels).any() else (ids if len(ids) else present_labels(labels))
        rounds = [rng.permutation(chosen) for _ in range(-(-self.prompts // len(chosen)))]
        boxes, masks = [], []
        for label in np.concatenate(rounds)[: self.prompts]:
            wanted = labels == label
            if with_parts and rng.random() < with_parts:
                wanted = ndimage.binary_fill_holes(wanted)
            full = geometry.kept_mask(wanted, self.transform.size)
            mask = full if self.transform.mask_size == self.transform.size else geometry.kept_mask(wanted, self.transform.mask_size)
            most = BASELINE_JITTER * self.transform.size
            if label in around:
                boxes.append(geometry.boxes(around[label])[0])
            else:
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
