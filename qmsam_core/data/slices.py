"""Training and evaluation samples: one object on one slice, with its box.

Source: paper sections 2.1 (volumes are read slice by slice, on demand) and 3.1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from .cases import CaseError
from .index import SliceIndex
from .transforms import EvalTransform
from .volumes import SliceReader


class SliceDataset(Dataset):
    """One sample per slice: a random object among those on the slice, as in training.

    The draw of object, flips and jitter depends only on the seed, the epoch and the slice's number. It is the
    same in every worker and on every rank.

    Args:
        index: slices, built with their labels.
        transform: `TrainTransform` or `EvalTransform`.
        rng_seed: seed of all draws.
    """

    def __init__(self, index: SliceIndex, transform: EvalTransform, rng_seed: int = 0):
        self.index, self.transform, self.rng_seed = index, transform, rng_seed
        self._epoch = torch.tensor(0).share_memory_()  # so that persistent workers see `set_epoch`
        self._reader = SliceReader()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of all later draws, also in worker processes that already run."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> dict:
        """Make the sample of slice `i`.

        Returns:
            image: float32 (3,S,S), 0..1.
            box: float32 (4,), model pixels.
            mask: float32 (1,M,M), 0 or 1.
            modality: the modality's name.
            name: "case:z:label".

        Raises:
            CaseError: the file is unreadable, or the slice holds no object.
        """
        rng = np.random.default_rng((self.rng_seed, int(self._epoch), int(i)))
        image, labels = read_labelled_slice(self.index, i, self._reader)
        ref = self.index[i]
        ids = self.index.labels_on(i)
        if not ids:
            raise CaseError(
                ref.path,
                f"slice {ref.z} holds no object; "
                "sample with ModalityBalancedSampler, which leaves such slices out",
            )
        label = _choose_label(ids, labels, self.transform, rng)
        image, box, mask = self.transform(image, labels == label, rng)
        return {
            "image": torch.from_numpy(image),
            "box": torch.from_numpy(box),
            "mask": torch.from_numpy(mask[None].astype(np.float32)),
            "modality": ref.modality,
            "name": f"{ref.path.stem}:{ref.z}:{label}",
        }


def read_labelled_slice(index: SliceIndex, i: int, reader: SliceReader) -> tuple[np.ndarray, np.ndarray]:
    """Read slice `i`: image (H,W,3) uint8, with grey repeated, and labels (H,W). Raises `CaseError`."""
    ref = index[i]
    if index.is_volume(ref.case):
        image, labels = reader.read(ref.path, "imgs", ref.z), reader.read(ref.path, "gts", ref.z)
    else:
        image, labels = reader.read_whole(ref.path, "imgs"), reader.read_whole(ref.path, "gts")
    return (np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image), labels


def _choose_label(
    ids: tuple[int, ...], labels: np.ndarray, transform: EvalTransform, rng: np.random.Generator
) -> int:
    """Draw a label among those that survive at the mask size, else take the label with most pixels."""
    small = transform.geometry(labels).mask(labels, transform.mask_size)
    surviving = [label for label in np.unique(small).tolist() if label]
    if surviving:
        return surviving[rng.integers(len(surviving))]
    return max(ids, key=lambda label: np.count_nonzero(labels == label))
