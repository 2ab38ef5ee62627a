"""Slices of a folder of cases with the boxes that cross them, to calibrate a model and to judge it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .archive import CaseError
from .cases import Case, boxes_on_slice
from .transforms import Geometry, Network

CALIBRATION = 33
"""Slices that calibrate, and as many at most that judge: three of each of the challenge's 11 modalities."""


@dataclass(frozen=True)
class BoxedSlice:
    """A slice of a case with the boxes that cross it.

    Attributes:
        name: file of the case, relative to the folder, and the slice of a volume.
        group: the folder's subfolder that the case lies in, such as its modality.
        pixels: uint8 (H, W, 3).
        boxes: int64 (n, 4) in pixels of the slice, largest first.
        labels: integers (H, W), i + 1 on the object of box i; None if the case has no labels.
    """

    name: str
    group: str
    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray | None = None

    def inputs(self, network: Network) -> tuple[np.ndarray, np.ndarray, Geometry]:
        """Return a network's image (3, S, S), its boxes (n, 4) in px of the frame, and the geometry."""
        geometry = Geometry.within(network, *self.pixels.shape[:2])
        return geometry.image(self.pixels), geometry.boxes(self.boxes), geometry


def slices_of(folder: str | Path, count: int = 2 * CALIBRATION) -> tuple[list[BoxedSlice], list[str]]:
    """Read one slice of each of at most `count` cases, the same number of every group if there are enough.

    Which cases are taken depends on their names alone. A volume gives the slice that most boxes cross.

    Returns:
        The slices, the groups in turn, and one line for every case that could not be used.

    Raises:
        CaseError: the folder has no `.npz` file.
    """
    folder = Path(folder)
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.npz"), key=lambda f: hashlib.sha256(f.name.encode()).hexdigest()):
        place = path.relative_to(folder).parts
        files.setdefault(place[0] if len(place) > 1 else folder.name, []).append(path)
    if not files:
        raise CaseError(folder, "no .npz files; expected a folder of cases with boxes or labels")
    found, left_out = [], []
    while any(files.values()) and len(found) < count:
        for group in sorted(files):
            while files[group] and len(found) < count:
                path = files[group].pop(0)
                try:
                    taken = boxed_slice(path, str(path.relative_to(folder)), group)
                except CaseError as error:
                    left_out.append(str(error))
                    continue
                if taken is None:
                    left_out.append(f"{path}: has no box or object; expected at least one")
                    continue
                found.append(taken)
                break
    return found, left_out


def boxed_slice(path: Path, name: str, group: str) -> BoxedSlice | None:
    """Read the slice of a case that most boxes cross; None if the case has no box."""
    case = Case.load(path).with_boxes()
    if not len(case.boxes):
        return None
    z, ids, boxes = 0, np.arange(len(case.boxes)), case.boxes
    if case.is_volume:
        crossings = np.zeros(case.n_slices, int)
        for low, high in case.boxes[:, [2, 5]]:
            crossings[low : high + 1] += 1
        fullest = np.flatnonzero(crossings == crossings.max())
        z = int(fullest[len(fullest) // 2])
        (ids, boxes), name = boxes_on_slice(case.boxes, z), f"{name}, slice {z}"
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    order = np.argsort(-areas, kind="stable")
    labels = None
    if case.labels is not None:
        plane = case.labels[z] if case.is_volume else case.labels
        numbers = np.zeros(max(int(plane.max(initial=0)), len(case.boxes)) + 1, np.int32)
        numbers[ids[order] + 1] = np.arange(1, len(ids) + 1)
        labels = numbers[plane]
    return BoxedSlice(name, group, case.slice_image(z), boxes[order], labels)


def divide(slices: Sequence[BoxedSlice]) -> tuple[list[BoxedSlice], list[BoxedSlice]]:
    """Divide slices into those that calibrate and those that judge, every group evenly.

    Raises:
        ValueError: there are fewer than two slices.
    """
    if len(slices) < 2:
        raise ValueError(
            f"found {len(slices)} usable case; expected at least 2: one to calibrate on and another to judge"
        )
    seen: dict[str, int] = {}
    calibration, judging = [], []
    for one in slices:
        seen[one.group] = seen.get(one.group, 0) + 1
        (judging if seen[one.group] % 2 == 0 else calibration).append(one)
    if not judging:
        judging.append(calibration.pop())
    return calibration[:CALIBRATION], judging[:CALIBRATION]
