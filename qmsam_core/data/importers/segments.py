"""Read the segments of a DICOM SEG file with highdicom.

Segments are placed on the series' grid by position, so the file may hold any subset of the slices.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.valuerep import format_number_as_ds

from qmsam_core.data.archive import CaseError

from .notes import Drawn, Loss

_GRID_TOLERANCE = 1e-3  # of the affine's entries in mm, and of the slice distance as a fraction


def segments(
    path: str | os.PathLike,
    image: sitk.Image,
    frame_of_reference: str = "",
    wanted=lambda name: True,
    rounding: float = 0.0,
) -> Iterator[Drawn]:
    """Yield each segment in the order of its number. Fractional segments are thresholded at 0.5.

    Args:
        path: SEG file, binary, fractional or label map.
        image: series that the segments belong to.
        frame_of_reference: UID of the series' coordinate system. "" skips the check.
        wanted: selects segments by label.
        rounding: mm by which the positions may be rounded.

    Yields:
        Each wanted segment, on the grid of `image`. A part outside that grid is left out, with a note.

    Raises:
        CaseError: the file is no SEG, or has another coordinate system or another grid than the series.
    """
    try:
        data = pydicom.dcmread(path)
        if rounding:
            _snap(data, image, rounding)
        file = hd.seg.Segmentation.from_dataset(data, copy=False)
    except Exception as error:  # a damaged or foreign file can raise anything inside highdicom
        raise CaseError(path, f"is no readable DICOM SEG file ({_line(error)})") from error
    found = str(file.get("FrameOfReferenceUID", ""))
    if frame_of_reference and found and found != frame_of_reference:
        raise CaseError(
            path,
            f"lies in coordinate system {found}, the series in {frame_of_reference}: "
            "it belongs to another scan",
        )
    grid = hd.Volume.from_simpleitk(image).get_geometry()
    for number in file.segment_numbers:
        name = str(file.get_segment_description(number).SegmentLabel)
        if wanted(name):
            yield _on_grid(file, number, grid, name, path)


def _snap(data: pydicom.Dataset, image: sitk.Image, rounding: float) -> None:
    """Move the frames, in place, to the slices of the series that they are off by rounding alone."""
    for frame in data.get("PerFrameFunctionalGroupsSequence", []):
        for plane in frame.get("PlanePositionSequence", []):
            place = [float(v) for v in plane.ImagePositionPatient]
            nearest = np.rint(image.TransformPhysicalPointToContinuousIndex(place))
            exact = image.TransformContinuousIndexToPhysicalPoint(nearest.tolist())
            if np.linalg.norm(np.subtract(exact, place)) <= rounding * np.sqrt(3):
                plane.ImagePositionPatient = [format_number_as_ds(v) for v in exact]


def _on_grid(file: hd.seg.Segmentation, number: int, grid: hd.VolumeGeometry, name: str, path) -> Drawn:
    try:
        volume = file.get_volume(segment_numbers=[number]).squeeze_channel()
        matched = volume.match_geometry(grid, tol=_GRID_TOLERANCE)
    except Exception as error:
        raise CaseError(
            path,
            f"segment {name!r} does not lie on the series' grid ({_line(error)}): "
            "resample it, or give its own series",
        ) from error
    outside = np.count_nonzero(volume.array >= 0.5) - np.count_nonzero(matched.array >= 0.5)
    lost = f"segment {name!r} has {outside:,} of its voxels outside the series: slices are missing"
    # highdicom orders a grid made from ITK as x, y, z.
    mask = np.ascontiguousarray(matched.array.transpose(2, 1, 0) >= 0.5)
    return Drawn(name, mask, (Loss(lost),) if outside > 0 else ())


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
