"""A data folder of tiny cases, made in milliseconds: bright rectangles on noise, as images and volumes."""

from pathlib import Path

import numpy as np

from qmsam_core.data import Case, SliceIndex


def rectangle_case(name: str, seed: int, volume: bool) -> Case:
    """Return a case of two bright rectangles on noise. A volume has 4 slices, the first without labels."""
    rng = np.random.default_rng(seed)
    height, width = 40, 56
    labels = np.zeros((height, width), np.uint8)
    labels[5 : 15 + seed % 5, 4:20] = 1
    labels[20:36, 25 : 45 + seed % 7] = 2
    image = np.clip(rng.normal(60, 12, labels.shape) + 90 * (labels > 0), 0, 255).astype(np.uint8)
    if not volume:
        return Case(name, np.repeat(image[..., None], 3, 2), None, labels, np.ones(3)).with_boxes()
    stack = np.stack([np.zeros_like(labels), labels, labels, labels])
    return Case(name, np.stack([image] * 4), None, stack, np.array([0.8, 0.8, 3.0])).with_boxes()


def write_data(root: Path, cases: int = 4) -> Path:
    """Write `cases` images to `root/US` and `cases` volumes to `root/CT`. Returns `root`."""
    for k in range(cases):
        for modality, volume in (("US", False), ("CT", True)):
            name = f"{'3D' if volume else '2D'}Box_{modality}_{k}"
            rectangle_case(name, k, volume).save(root / modality / f"{name}.npz")
    return root


def write_indices(data: Path, folder: Path) -> Path:
    """Write `index_train.npz` and `index_evaluation.npz` as notebook 00 does. Returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    train, evaluation = SliceIndex.build(data).split(0.25, 0)
    train.save(folder / "index_train.npz")
    evaluation.save(folder / "index_evaluation.npz")
    return folder
