"""Cases: an image or volume with its boxes and labels, in the npz format of the CVPR 2024 challenge.

The challenge is "MedSAM on Laptop". Its files hold these arrays:

- 2-D case: `imgs` (H,W,3) uint8; `boxes` (N,4) as x_min, y_min, x_max, y_max.
- 3-D case: `imgs` (D,H,W) uint8; `boxes` (N,6) as x_min, y_min, z_min, x_max, y_max, z_max; `spacing` (3,)
  in mm as (x, y, z).
- `gts` holds labels 1..N where they are known; 0 is background. Training files have `gts` and no boxes.
- A prediction is an npz file of the same name. It holds `segs`, with label i+1 for box i.
- Cases made by `data.importers` also hold `names` (N,), the name of each box's object, and `source`, the text
  of `data.source.Source`: where they come from, and the way back. The challenge's tools ignore both.

**Box convention, everywhere in this package:** a box names the outermost pixels it covers, so its maxima are
*inclusive*. A box around one pixel has x_min == x_max, and 0 <= x_min <= x_max <= width - 1.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .archive import ArrayHeader, CaseArchive, CaseError, write_archive
from .source import Source, read_source

MAX_LABEL = 65535
"""Largest label id accepted: the uint16 maximum, far above the challenge's 255 boxes per case."""

SEGMENTATION_LEVEL = 1
"""zlib level of predictions, several times faster than the default. Label maps are small at any level."""


@dataclass(frozen=True)
class CaseLayout:
    """Layout of a case file as its headers declare it. `height` and `width` are in pixels."""

    is_volume: bool
    n_slices: int
    height: int
    width: int
    has_labels: bool
    has_boxes: bool


def case_layout(archive: CaseArchive) -> CaseLayout:
    """Validate the headers of an open case file without reading an array.

    A three-dimensional `imgs` is an RGB image or a volume. The number of axes of `gts` decides, two or three.
    Without `gts` the file's name decides (`2DBox_`, `3DBox_`). Else a last axis of length 3 means an image.

    Raises:
        CaseError: `imgs` is missing, not uint8, empty or of an unknown shape; `gts` is not integer or of
            another shape.
    """
    images = archive.header("imgs")
    if images.dtype != np.uint8:
        raise CaseError(
            archive.path,
            f"'imgs' is {images.dtype}; expected uint8 0..255 (window or rescale the image first)",
        )
    labels = archive.header("gts") if "gts" in archive else None
    is_volume = _is_volume(archive.path, images.shape, labels)
    slices, height, width = images.shape if is_volume else (1, *images.shape[:2])
    if 0 in (slices, height, width):
        raise CaseError(archive.path, f"'imgs' of shape {images.shape} is empty")
    if labels is not None:
        _check_labels(archive.path, labels, (slices, height, width) if is_volume else (height, width))
    return CaseLayout(is_volume, slices, height, width, labels is not None, "boxes" in archive)


def _is_volume(path: Path, shape: tuple[int, ...], labels: ArrayHeader | None) -> bool:
    if len(shape) == 2:
        return False
    if len(shape) != 3:
        raise CaseError(
            path, f"'imgs' has shape {shape}; expected (H,W,3) or (H,W) for an image, (D,H,W) for a volume"
        )
    if labels is not None and len(labels.shape) in (2, 3):
        volume = len(labels.shape) == 3
    elif path.name.startswith(("2DBox", "3DBox")):
        volume = path.name.startswith("3DBox")
    else:
        volume = shape[-1] != 3
    if not volume and shape[-1] != 3:
        raise CaseError(path, f"'imgs' has shape {shape}; expected 3 colour channels last for a 2-D image")
    return volume


def _check_labels(path: Path, labels: ArrayHeader, expected: tuple[int, ...]) -> None:
    if labels.dtype.kind not in "uib":
        raise CaseError(
            path, f"'gts' is {labels.dtype}; expected integer labels 0..{MAX_LABEL} (round and cast it first)"
        )
    if labels.shape != expected:
        raise CaseError(
            path,
            f"'gts' has shape {labels.shape}, 'imgs' needs {expected}: image and mask do not belong together",
        )


@dataclass(frozen=True, eq=False)
class Case:
    """One image or volume.

    Attributes:
        name: the file's stem, e.g. `3DBox_CT_0566`.
        images: uint8 0..255, (H,W,3) or (D,H,W).
        boxes: int64 (N,4) or (N,6) in pixels, maxima inclusive; None if the file has none.
        labels: integers 0..65535, (H,W) or (D,H,W), 0 is background; None if unknown. Box i has label i+1.
        spacing: float64 (3,) in mm as (x, y, z); ones for images.
        names: name of the object of each box, as its source calls it; () if unknown.
        source: file that the case was imported from; None if unknown.
    """

    name: str
    images: np.ndarray
    boxes: np.ndarray | None
    labels: np.ndarray | None
    spacing: np.ndarray
    names: tuple[str, ...] = ()
    source: Source | None = None

    @classmethod
    def load(cls, path: str | os.PathLike) -> Case:
        """Read and validate a case file. A grey (H,W) image becomes three equal channels.

        Raises:
            CaseError: the file is no readable npz; keys, types or shapes are wrong; an array holds objects; a
                box leaves the image; there are more labels than boxes.
        """
        path = Path(path)
        with CaseArchive(path) as archive:
            layout = case_layout(archive)
            images = archive.array("imgs")
            labels = _load_labels(archive) if layout.has_labels else None
            boxes = read_boxes(archive, layout) if layout.has_boxes else None
            spacing = _load_spacing(archive, layout.is_volume)
            names, source = _load_names(archive, boxes), read_source(archive)
        if labels is not None and boxes is not None:
            check_box_count(path, int(labels.max()), len(boxes))
        if images.ndim == 2:
            images = np.repeat(images[..., None], 3, axis=2)
        return cls(path.stem, np.ascontiguousarray(images), boxes, labels, spacing, names, source)

    def save(self, path: str | os.PathLike) -> None:
        """Write the case under the challenge's keys, compressed and atomically, without absent arrays."""
        arrays = {"imgs": self.images}
        if self.labels is not None:
            arrays["gts"] = self.labels
        if self.boxes is not None:
            arrays["boxes"] = self.boxes
        if self.is_volume:
            arrays["spacing"] = self.spacing
        if self.names:
            arrays["names"] = np.array(self.names)
        if self.source is not None:
            arrays["source"] = np.array(self.source.to_json())
        write_archive(path, arrays)

    @property
    def is_volume(self) -> bool:
        """Whether `images` is (D,H,W). Labels or boxes decide first, since a volume may be 3 pixels wide."""
        if self.labels is not None:
            return self.labels.ndim == 3
        if self.boxes is not None:
            return self.boxes.shape[1] == 6
        return self.images.shape[-1] != 3

    @property
    def n_slices(self) -> int:
        """Number of slices; 1 for a 2-D image."""
        return len(self.images) if self.is_volume else 1

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width of a slice in pixels."""
        return self.images.shape[1:] if self.is_volume else self.images.shape[:2]

    def slice_image(self, z: int = 0) -> np.ndarray:
        """Slice `z` as (H,W,3) uint8. A grey slice is copied to three channels (paper section 2.1)."""
        if not 0 <= z < self.n_slices:
            raise IndexError(f"{self.name}: slice {z} of {self.n_slices}")
        return np.repeat(self.images[z][..., None], 3, axis=2) if self.is_volume else self.images

    def with_boxes(self) -> Case:
        """Return the case with boxes: its own, or tight boxes derived from the labels.

        Derived boxes follow the ascending label ids. The ids are then renumbered 1..N without gaps, so that
        box i belongs to label i+1.
        """
        if self.boxes is not None:
            return self
        if self.labels is None:
            raise CaseError(
                self.name,
                "has neither 'boxes' nor 'gts'; boxes can be read or derived from labels, not guessed",
            )
        ids, boxes = tight_boxes(self.labels)
        return replace(self, boxes=boxes, labels=renumbered(self.labels, ids))


def tight_boxes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the label ids present and the tight box of each.

    Args:
        labels: integers >= 0, (H,W) or (D,H,W).

    Returns:
        ids: int64 (N,), ascending, without 0.
        boxes: int64, maxima inclusive; (N,4) as x_min, y_min, x_max, y_max, or (N,6) with z after each y.
    """
    from scipy import ndimage  # takes long to load, and a case that has its boxes does not need it

    labels = np.asarray(labels)
    found = ndimage.find_objects(labels.astype(np.int32, copy=False))
    present = [(number, where) for number, where in enumerate(found, start=1) if where is not None]
    ids = np.array([number for number, _ in present], dtype=np.int64)
    boxes = [
        [s.start for s in reversed(where)] + [s.stop - 1 for s in reversed(where)] for _, where in present
    ]
    return ids, np.array(boxes, dtype=np.int64).reshape(len(present), 2 * labels.ndim)


def boxes_on_slice(boxes: np.ndarray, z: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids (n,) and 2-D boxes (n, 4) of the 3-D boxes (N, 6) that cross slice `z`.

    Both z limits belong to a box.
    """
    ids = np.flatnonzero((boxes[:, 2] <= z) & (z <= boxes[:, 5]))
    return ids, boxes[ids][:, [0, 1, 3, 4]]


def write_segmentation(path: str | os.PathLike, segs: np.ndarray) -> None:
    """Write `segs` (H,W) or (D,H,W) atomically: uint8 as the challenge asks, uint16 if labels exceed 255."""
    segs = np.asarray(segs)
    top = int(segs.max(initial=0))
    if segs.dtype.kind not in "uib" or segs.min(initial=0) < 0 or top > MAX_LABEL:
        raise CaseError(path, f"'segs' is {segs.dtype} up to {top}; expected integer labels 0..{MAX_LABEL}")
    write_archive(
        path,
        {"segs": segs.astype(np.uint8 if top <= 255 else np.uint16, copy=False)},
        level=SEGMENTATION_LEVEL,
    )


def read_segmentation(path: str | os.PathLike) -> np.ndarray:
    """Read `segs` from a prediction file: unsigned integers, (H,W) or (D,H,W). Raises `CaseError`."""
    with CaseArchive(path) as archive:
        segs = archive.array("segs")
    if segs.dtype.kind not in "uib" or segs.ndim not in (2, 3):
        raise CaseError(
            path, f"'segs' is {segs.dtype} of shape {segs.shape}; expected integers (H,W) or (D,H,W)"
        )
    return segs


def renumbered(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Renumber the `ids` of `tight_boxes` to 1..N, so that box i has label i+1. No copy if they are 1..N."""
    if np.array_equal(ids, np.arange(1, len(ids) + 1)):
        return labels
    table = np.zeros(int(ids.max(initial=0)) + 1, dtype=labels.dtype)
    table[ids] = np.arange(1, len(ids) + 1)
    return table[labels]


def _load_labels(archive: CaseArchive) -> np.ndarray:
    labels = archive.array("gts")
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > MAX_LABEL:
        raise CaseError(archive.path, f"'gts' holds labels {low}..{high}; expected 0..{MAX_LABEL}")
    return np.ascontiguousarray(labels.astype(labels.dtype.newbyteorder("="), copy=False))


def read_boxes(archive: CaseArchive, layout: CaseLayout) -> np.ndarray:
    """Read the boxes of an open case file, int64 (N,4) or (N,6), and check them against the image.

    Some tools use exclusive maxima. A maximum equal to the image's side is thus clipped to the last pixel.

    Raises:
        CaseError: shape or type is wrong, a coordinate is NaN, infinite or fractional, a minimum exceeds its
            maximum, or a box leaves the image.
    """
    path, boxes = archive.path, archive.array("boxes")
    columns = 6 if layout.is_volume else 4
    if boxes.size == 0:
        boxes = np.zeros((0, columns))
    if boxes.dtype.kind not in "uif" or boxes.ndim != 2 or boxes.shape[1] != columns:
        raise CaseError(
            path, f"'boxes' is {boxes.dtype} of shape {boxes.shape}; expected numbers of shape (N,{columns})"
        )
    if not np.isfinite(boxes).all() or (boxes != np.round(boxes)).any():
        raise CaseError(path, "'boxes' holds NaN, infinite or fractional coordinates; expected whole pixels")
    sides = np.array([layout.width, layout.height, layout.n_slices][: columns // 2])
    boxes = boxes.astype(np.int64)
    low, high = boxes[:, : columns // 2], boxes[:, columns // 2 :]
    for number, (first, last) in enumerate(zip(low, high)):
        if (first > last).any():
            raise CaseError(path, f"box {number} {boxes[number].tolist()} has a minimum above its maximum")
        if (first < 0).any() or (first >= sides).any() or (last > sides).any():
            raise CaseError(
                path,
                f"box {number} {boxes[number].tolist()} leaves the image of (x,y,z) size {sides.tolist()}",
            )
    boxes[:, columns // 2 :] = np.minimum(high, sides - 1)
    return boxes


def check_box_count(path: str | os.PathLike, top_label: int, n_boxes: int) -> None:
    """Raise `CaseError` if labels exceed the number of boxes, since box i then cannot belong to label i+1."""
    if top_label > n_boxes:
        raise CaseError(
            path,
            f"'gts' goes up to label {top_label} but there are {n_boxes} boxes; expected box i for label i+1",
        )


def _load_names(archive: CaseArchive, boxes: np.ndarray | None) -> tuple[str, ...]:
    if "names" not in archive:
        return ()
    names = archive.array("names")
    if names.dtype.kind != "U" or names.ndim != 1 or (boxes is not None and len(names) != len(boxes)):
        raise CaseError(
            archive.path, f"'names' is {names.dtype} of shape {names.shape}; expected a text for each box"
        )
    return tuple(names.tolist())


def _load_spacing(archive: CaseArchive, is_volume: bool) -> np.ndarray:
    if not is_volume or "spacing" not in archive:
        return np.ones(3)
    spacing = archive.array("spacing")
    if (
        spacing.shape != (3,)
        or spacing.dtype.kind not in "uif"
        or not (np.isfinite(spacing).all() and (spacing > 0).all())
    ):
        raise CaseError(
            archive.path, f"'spacing' is {spacing.tolist()}; expected three positive numbers, mm as (x,y,z)"
        )
    return spacing.astype(np.float64)
