"""Turn low-res logits into a slice's label map, enlarging only what can be positive.

Where masks overlap, the object with the smaller box lies on top, as in the importers. So a tumour survives in
its organ, in whatever order their boxes are given.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from ..data.transforms import Geometry

LEAST = 2  # OpenCV computes a single row or column in another way, and rounds differently


@dataclass
class MasksApart:
    """Masks that may overlap, one a box. Only the part around each mask is held, slice by slice.

    Attributes:
        shape: (H, W) or (D, H, W) of every mask.
    """

    shape: tuple[int, ...]
    _parts: list[list[tuple[int, int, int, np.ndarray]]] = field(repr=False)

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, i: int, z: int, positive: np.ndarray, top: int, left: int) -> None:
        """Add to mask `i` its part on slice `z`, given as `MaskPainter.enlarge` returns it."""
        self._parts[i].append((z, top, left, positive > 0))

    def __getitem__(self, i: int) -> np.ndarray:
        """Mask of box `i`, uint8 0 or 1."""
        mask = np.zeros(self.shape, np.uint8)
        planes = mask if mask.ndim == 3 else mask[None]
        for z, top, left, part in self._parts[i]:
            planes[z, top : top + part.shape[0], left : left + part.shape[1]] |= part
        return mask


@dataclass
class MaskPainter:
    """Writes masks into the label map of a slice.

    The pixels equal those of `Geometry.mask_to_image` over the whole slice, bit for bit. Linear interpolation
    is separable, and resizing by 1 changes nothing. So only the mask's rows with a positive value are widened
    to the slice's width. Of the result, only the columns that can be positive are lengthened to its height.
    The weights of every pixel are then those of the whole mask, unlike those of a resized cut-out. A box of a
    twentieth of the slice's width costs about a tenth of the whole.

    Attributes:
        geometry: geometry of the slice.
    """

    geometry: Geometry
    _scratch: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def paint(self, logits: np.ndarray, rank: int, segs: np.ndarray) -> tuple[np.ndarray, int, int] | None:
        """Write `rank` into `segs` where a mask is positive and no larger rank is.

        So the mask of the larger rank lies on top, in whatever order masks are painted.

        Args:
            logits: float32 (M, M), low-res mask of one box.
            rank: 1..255, or up to 65535 if `segs` is uint16.
            segs: uint8 or uint16 (H, W), changed in place.

        Returns:
            The mask of the part that was enlarged, uint8 and not 0 inside, valid until the next call, and its
            top and left. None if no logit is positive.
        """
        painted = self.enlarge(logits)
        if painted is None:
            return None
        positive, top, left = painted
        window = segs[top : top + positive.shape[0], left : left + positive.shape[1]]
        if segs.dtype == np.uint8:
            np.maximum(window, np.minimum(positive, rank, out=positive), out=window)
        else:
            np.maximum(window, segs.dtype.type(rank), out=window, where=positive > 0)
        return painted

    def enlarge(self, logits: np.ndarray) -> tuple[np.ndarray, int, int] | None:
        """Enlarge a mask without writing it anywhere. Returns what `paint` does."""
        content = self.geometry.content(np.asarray(logits, dtype=np.float32))
        region = positive_region(content)
        if region is None:
            return None
        (top, bottom), (left, right) = (
            reached(first, last, small, large)
            for (first, last), small, large in zip(
                region, content.shape, (self.geometry.height, self.geometry.width)
            )
        )
        return self._enlarged(content, region[0], (left, right))[top:bottom], top, left

    def _enlarged(self, content: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """Return the columns at full height, uint8 255 where positive and 0 beyond the reach of `rows`."""
        (first, last), (left, right) = rows, columns
        # the neighbouring rows take part in the interpolation
        first, last = max(first - 1, 0), min(last + 2, len(content))
        if min(*content.shape, self.geometry.width, self.geometry.height) < LEAST:
            whole = cv2.resize(
                content, (self.geometry.width, self.geometry.height), interpolation=cv2.INTER_LINEAR
            )
            return np.where(whole[:, left:right] > 0, np.uint8(255), np.uint8(0))
        first = min(first, len(content) - LEAST)
        last = max(last, first + LEAST)
        wide = cv2.resize(
            content[first:last], (self.geometry.width, last - first), interpolation=cv2.INTER_LINEAR
        )
        start = min(left, self.geometry.width - LEAST)
        stop = max(right, start + LEAST)
        strip = np.full((len(content), stop - start), -1, np.float32)
        strip[first:last] = wide[:, start:stop]
        high = self._buffer("high", (self.geometry.height, stop - start), np.float32)
        cv2.resize(strip, (stop - start, self.geometry.height), dst=high, interpolation=cv2.INTER_LINEAR)
        positive = cv2.compare(high, 0, cv2.CMP_GT, dst=self._buffer("positive", high.shape, np.uint8))
        return positive[:, left - start : right - start]

    def _buffer(self, name: str, shape: tuple[int, int], dtype: type) -> np.ndarray:
        """Return memory kept from mask to mask. Fresh pages for each cost more than the arithmetic."""
        size = shape[0] * shape[1]
        if name not in self._scratch or self._scratch[name].size < size:
            self._scratch[name] = np.empty(size, dtype)
        return self._scratch[name][:size].reshape(shape)


def positive_region(content: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the first and last row and the first and last column with a positive value, or None."""
    positive = content > 0
    rows, columns = np.flatnonzero(positive.any(axis=1)), np.flatnonzero(positive.any(axis=0))
    if not len(rows):
        return None
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


def reached(first: int, last: int, small: int, large: int) -> tuple[int, int]:
    """Return start and stop of the output pixels that linear interpolation can make positive.

    Args:
        first: first input pixel with a positive value.
        last: last input pixel with a positive value.
        small: number of input pixels.
        large: number of output pixels.
    """
    scale = large / small
    return max(0, int((first - 0.5) * scale) - 1), min(large, int((last + 1.5) * scale) + 2)


def tight(positive: np.ndarray, top: int, left: int) -> np.ndarray | None:
    """Return the tight box of a mask, int64 (4,) x_min, y_min, x_max, y_max; None if the mask is empty.

    Args:
        positive: uint8, part of the image.
        top: row of the image where the part begins.
        left: column of the image where the part begins.
    """
    x, y, width, height = cv2.boundingRect(positive)
    if not width:
        return None
    return np.array([left + x, top + y, left + x + width - 1, top + y + height - 1])


def ranks(boxes: np.ndarray) -> np.ndarray:
    """Return the rank of each box, int64 (N,) 1..N: the smaller the box, the higher it lies.

    Of boxes of one size the later lies on top.

    Args:
        boxes: (N, 4) or (N, 6), maxima inclusive.
    """
    dimensions = boxes.shape[1] // 2
    sizes = np.prod(boxes[:, dimensions:] - boxes[:, :dimensions] + 1, axis=1)
    order = np.argsort(-sizes, kind="stable")
    found = np.empty(len(boxes), np.int64)
    found[order] = np.arange(1, len(boxes) + 1)
    return found


def relabel(segs: np.ndarray, found: np.ndarray) -> None:
    """Turn painted ranks into labels in place, slice by slice: the rank of box i becomes i + 1.

    Args:
        segs: uint8 or uint16 (D, H, W).
        found: what `ranks` returned.
    """
    if np.array_equal(found, np.arange(1, len(found) + 1)):
        return
    table = np.zeros(len(found) + 1, segs.dtype)
    table[found] = np.arange(1, len(found) + 1)
    for plane in segs:
        plane[:] = table[plane]
