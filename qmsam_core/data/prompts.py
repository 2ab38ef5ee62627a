"""Samples for training a model from nothing: a slice with several boxes on it, one image embedding for all of them.

Encoding an image costs as much as ten to twenty boxes (LiteMedSAM), so every image asks about several objects at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from scipy import ndimage
from torch.utils.data import Dataset

from .cases import tight_boxes
from .index import SliceIndex
from .pictures import REPAINTED, scatter, vary
from .slices import read_labelled_slice
from .transforms import mask_box
from .views import View
from .volumes import DEFAULT_CACHE_BYTES, SliceReader

VOLUME_BOXES = 0.7
"""Share of a volume's upright views whose boxes are those of the whole volume, too large on most slices: what 3-D prompts are."""
LOOSE_BOXES = 0.1
"""Share of boxes that are not tight. With half of them masks keep a pixel or two away from the sides of tight boxes."""
REDRAWN = 0.15
"""Share of objects outlined a little wider, narrower or smoother than they are labelled, as another annotator might, with the box that goes with it."""
TRIES = 50
"""Slices looked at for one that shows an object before giving up."""
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
        least_pixels: objects cut down to fewer by the view are not asked about, where there are others.
    """

    def __init__(self, sources: Sequence[SliceIndex], size: int, mask_size: int, prompts: int = 4, seed: int = 0, least_pixels: int = 6) -> None:
        self.sources, self.size, self.mask_size, self.prompts, self.seed, self.least_pixels = list(sources), size, mask_size, prompts, seed, least_pixels
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
        """Sample `n`: image float32 (3,S,S) 0..1, boxes float32 (K,4) model pixels, masks uint8 (K,1,M,M) 0/1, modality, name.

        Raises:
            CaseError: unreadable file.
            ValueError: objects of the modality are too small to be seen at this size.
        """
        rng = np.random.default_rng((self.seed, n))
        modality = self.modalities[n % len(self.modalities)]
        number, i, view, (seen, seen_labels, content) = self._see(modality, rng)
        index = self.sources[number]
        repainted = rng.random() < REPAINTED
        if repainted and rng.random() < 0.6:
            seen_labels = scatter(seen_labels, content, rng)
        around = self._volume_boxes(number, i) if view.upright and rng.random() < VOLUME_BOXES else {}
        boxes, masks = self._ask(seen_labels, view, around, CONTAINS_PARTS.get(modality, 0.0), rng)
        picture = vary(seen, seen_labels, content, lambda: self._another(rng), repainted, rng)
        ref = index[i]
        return {
            "image": torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), dtype=np.float32)),
            "boxes": torch.from_numpy(boxes),
            "masks": torch.from_numpy(masks),
            "modality": modality,
            "name": f"{ref.path.stem}:{ref.z}",
        }

    def _draw(self, modality: str, rng: np.random.Generator) -> tuple[int, int]:
        """Number of a source, and of one of its slices of a modality."""
        pools = self._pools[modality]
        number, rows = pools[rng.integers(len(pools))]
        return number, int(rng.choice(rows))

    def _see(self, modality: str, rng: np.random.Generator) -> tuple[int, int, View, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Number of a source, of one of its slices of a modality, a view of it that shows an object, and what is seen, see `View.of`.

        A view may turn or cut every object away; then the whole slice is shown. If its objects are lost even there, being smaller than a pixel of so small
        a view, another slice is.
        """
        for _ in range(TRIES):
            number, i = self._draw(modality, rng)
            image, labels = read_labelled_slice(self.sources[number], i, self._reader)
            for options in ({}, {"whole": 1.0, "plain": True}):
                view = View.draw(labels, self.size, rng, **options)
                seen = view.of(image, labels)
                if seen[1].any():
                    return number, i, view, seen
        raise ValueError(f"{modality}: no object is visible at {self.size} px in {TRIES} slices drawn; expected a larger input size")

    def _another(self, rng: np.random.Generator) -> np.ndarray:
        """The picture of some other sample, uint8 (S,S,3)."""
        number, i = self._draw(self.modalities[rng.integers(len(self.modalities))], rng)
        image, labels = read_labelled_slice(self.sources[number], i, self._reader)
        return View.draw(labels, self.size, rng).of(image, labels)[0]

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

    def _ask(self, labels: np.ndarray, view: View, around: dict[int, np.ndarray], with_parts: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (K,4) and masks (K,1,M,M) of objects drawn from a view; each object once before any comes twice.

        `around` holds boxes on the slice that are to be used instead of an object's own. `with_parts` is the share of questions that want an object
        without the holes that other objects make in it.
        """
        sizes = np.bincount(labels.ravel())
        ids = np.flatnonzero(sizes[1:]) + 1
        chosen = ids[sizes[ids] >= self.least_pixels] if (sizes[ids] >= self.least_pixels).any() else ids
        rounds = [rng.permutation(chosen) for _ in range(-(-self.prompts // len(chosen)))]
        boxes, masks = [], []
        for label in np.concatenate(rounds)[: self.prompts]:
            mask = labels == label
            if with_parts and rng.random() < with_parts:
                mask = ndimage.binary_fill_holes(mask)
            if int(label) in around:
                box = view.box(around[int(label)])
            else:
                mask = redraw(mask, rng) if rng.random() < REDRAWN else mask
                box = mask_box(mask).astype(np.float64)
            box[2:] = np.maximum(box[2:] - view.overhang, box[:2])
            boxes.append(box if int(label) in around else loosen_box(box, self.size, rng))
            masks.append(self._at_mask_size(mask.astype(np.uint8))[None])
        return np.stack(boxes).astype(np.float32), np.stack(masks)

    def _at_mask_size(self, mask: np.ndarray) -> np.ndarray:
        """Mask uint8 (S,S) as the network gives it, (M,M); an object too small for that keeps every pixel it touches."""
        if self.mask_size == self.size:
            return mask
        small = cv2.resize(mask, (self.mask_size, self.mask_size), interpolation=cv2.INTER_NEAREST_EXACT)
        return small if small.any() else (cv2.resize(mask * np.uint8(255), small.shape[::-1], interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)


def redraw(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask (S,S) wider, narrower or smoother by up to a tenth or so of its size; as it is where nothing would be left."""
    sigma = rng.uniform(0.03, 0.1) * np.sqrt(mask.sum())
    if sigma < 0.5:
        return mask
    drawn = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) > rng.uniform(0.3, 0.7)
    return drawn if drawn.any() else mask


def loosen_box(box: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Box (4,), or in some draws (`LOOSE_BOXES`) one that a hand might draw: each side moved by up to a tenth of the box, or 1/50 of the view if that is less.

    Sides move outwards three times as far as inwards. Kept inside a view of `size` pixels.
    """
    if rng.random() >= LOOSE_BOXES:
        return box
    x_min, y_min, x_max, y_max = box
    reach = np.minimum(size / 50, 0.1 * np.array([x_max - x_min + 1, y_max - y_min + 1] * 2))
    return np.clip(box + rng.uniform(-1 / 3, 1, 4) * reach * (-1, -1, 1, 1), 0, size - 1)
