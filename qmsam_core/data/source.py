"""Where an imported case comes from, and the way of its masks back to the grid of that file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from .archive import CaseArchive, CaseError


@dataclass(frozen=True)
class Source:
    """The file or series that a case was made from, and how its axes lie in it.

    Attributes:
        path: the file or folder as it was given.
        kind: `volume` (NIfTI, NRRD, MetaImage), `dicom` (a series), or `image` (PNG, JPEG, TIFF, BMP).
        shape: the source's array as ITK or OpenCV read it, (D,H,W) or (H,W).
        axes: one number for each axis of the case: the axis of the source's array, counted from 1, negative
            if its direction was turned round.
        spacing: mm, (x,y,z) of the source's grid, (x,y) of a 2-D volume file; () for images.
        origin: mm, LPS, of the source's first voxel; () for images.
        direction: cosines of the source's axes, nine numbers (2-D: four) row by row as ITK gives them; ()
            for images.
        series: UID of a DICOM series; "" for other files.
        files: slices of a DICOM series, as paths below its folder; () for other files.
        left_out: what the importer left out of the case, one line each.
    """

    path: str
    kind: Literal["volume", "dicom", "image"]
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    spacing: tuple[float, ...] = ()
    origin: tuple[float, ...] = ()
    direction: tuple[float, ...] = ()
    series: str = ""
    files: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("shape", "axes", "spacing", "origin", "direction", "files", "left_out"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if sorted(map(abs, self.axes)) != list(range(1, len(self.shape) + 1)):
            raise ValueError(f"axes {self.axes}: expected each of 1..{len(self.shape)} once, with a sign")

    def to_case(self, values: np.ndarray) -> np.ndarray:
        """Turn an array on the source's grid to the axes of the case. A view; further axes stay last."""
        turned = values.transpose(*(abs(axis) - 1 for axis in self.axes), *range(len(self.axes), values.ndim))
        return np.flip(turned, self._flipped)

    def to_source(self, values: np.ndarray) -> np.ndarray:
        """Turn an array on the axes of the case, such as `segs`, back to the source's grid. A view.

        Raises:
            ValueError: the array has another shape than the case.
        """
        expected = tuple(self.shape[abs(axis) - 1] for axis in self.axes)
        if values.shape != expected:
            raise ValueError(f"{self.path}: has a case of shape {expected}, found {values.shape}")
        return np.flip(values, self._flipped).transpose(np.argsort(np.abs(self.axes)))

    @property
    def _flipped(self) -> tuple[int, ...]:
        return tuple(k for k, axis in enumerate(self.axes) if axis < 0)

    def to_json(self) -> str:
        """Return the text that a case file holds under `source`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Source:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is something else.
        """
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"is no source of a case ({error})") from error


def read_source(archive: CaseArchive) -> Source | None:
    """Read where an open case file was imported from; None if it does not say. Raises `CaseError`."""
    if "source" not in archive:
        return None
    try:
        return Source.from_json(str(archive.array("source")))
    except ValueError as error:
        raise CaseError(archive.path, f"'source' {error}; import the case again") from error
