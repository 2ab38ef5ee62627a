"""Rasterise RTSTRUCT contours to voxels.

A voxel is inside a contour if its centre is, by the even-odd rule, so that keyholes stay open. The contours
of a slice are united, and a contour inside another is a hole (`regions`). A structure that does not fit the
series is left out by name, the others are kept.

The contours are rasterised here because no library with sound arithmetic installs beside the study's pinned
versions. rt-utils brings a second OpenCV. platipy and pydicom-seg need an older pandas, pydicom or numpy.
dicomrttool and dcmrtstruct2nii round the vertices to whole pixels and fill the border pixels too, which
dilates small objects. OpenCV's fillPoly also fills the border. matplotlib's point-in-polygon test gives the
same voxels but takes a hundred times as long; a test compares the two.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pydicom
import SimpleITK as sitk

from qmsam_core.data.archive import CaseError

from .notes import Drawn, Loss, listed
from .regions import Region, between, combined, without_twins

PLANE_TOLERANCE = 0.25
"""Largest distance of a contour from its slice's middle, in slices. Beyond, it belongs to another series."""

MOST_TOLERANCE = 0.45
"""The same where the positions of the series are rounded coarsely."""

_AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def structures(
    path: str | os.PathLike,
    image: sitk.Image,
    frame_of_reference: str = "",
    wanted=lambda name: True,
    interpolate: bool = False,
    rounding: float = 0.0,
) -> Iterator[Drawn]:
    """Yield each wanted structure, in the file's order.

    Args:
        path: RTSTRUCT file.
        image: series on which the contours were drawn, with its slices along the z axis.
        frame_of_reference: UID of the series' coordinate system. "" skips the check.
        wanted: selects structures by name.
        interpolate: fill slices without a contour between two that have one.
        rounding: mm by which the series' positions may be rounded.

    Raises:
        CaseError: no RTSTRUCT, or another coordinate system.
    """
    data = _read(path)
    _check_frame(path, data, frame_of_reference)
    tolerance = min(max(PLANE_TOLERANCE, rounding / image.GetSpacing()[2]), MOST_TOLERANCE)
    for name, contours in _structures(data):
        if not wanted(name):
            continue
        areas = [c for c in contours if c.get("ContourGeometricType") in _AREAS and c.get("ContourData")]
        if areas:
            yield _rasterised(areas, image, name, interpolate, tolerance)
        else:
            kinds = sorted({str(c.get("ContourGeometricType", "none")) for c in contours})
            drawn = f"{len(contours)} contours of type {listed(kinds)}" if contours else "no contour"
            note = f"structure {name!r} has {drawn}, so no area"
            yield Drawn(name, None, (Loss(note) if contours else note,))  # an empty one loses nothing


def _read(path: str | os.PathLike) -> pydicom.Dataset:
    try:
        data = pydicom.dcmread(path)
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise CaseError(path, f"is no readable DICOM file ({error})") from error
    if data.get("Modality") != "RTSTRUCT":
        raise CaseError(path, f"has modality {data.get('Modality')!r}; expected RTSTRUCT")
    return data


def _structures(data: pydicom.Dataset) -> list[tuple[str, list]]:
    names = {
        int(roi.ROINumber): str(roi.get("ROIName", "")) or f"ROI {roi.ROINumber}"
        for roi in data.get("StructureSetROISequence", [])
    }
    drawn = data.get("ROIContourSequence", [])
    return [
        (
            names.get(int(roi.ReferencedROINumber), f"ROI {roi.ReferencedROINumber}"),
            list(roi.get("ContourSequence", [])),
        )
        for roi in drawn
    ]


def _check_frame(path, data: pydicom.Dataset, expected: str) -> None:
    rois = data.get("StructureSetROISequence", [])
    found = {str(roi.ReferencedFrameOfReferenceUID) for roi in rois if "ReferencedFrameOfReferenceUID" in roi}
    if expected and found and expected not in found:
        raise CaseError(
            path,
            f"is drawn in coordinate system {sorted(found)[0]}, the series has {expected}: "
            "it belongs to another scan",
        )


def _in_voxels(image: sitk.Image, points: np.ndarray) -> np.ndarray:
    """Convert points (n,3) in mm to continuous (x,y,z) voxel positions. Whole numbers are voxel centres."""
    axes = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    return np.linalg.solve(axes, (points - image.GetOrigin()).T).T


def _rasterised(
    areas: list[pydicom.Dataset], image: sitk.Image, name: str, interpolate: bool, tolerance: float
) -> Drawn:
    width, height, depth = image.GetSize()
    slices: dict[int, list[Region]] = {}
    for contour in areas:
        points = _in_voxels(image, np.asarray(contour.ContourData, dtype=float).reshape(-1, 3))
        z = round(float(np.mean(points[:, 2])))
        if problem := _misplaced(points, z, depth, tolerance):
            advice = "give --objects to choose others, or the series it was drawn on"
            return Drawn(name, None, (Loss(f"structure {name!r} {problem}; {advice}"),))
        plane = np.zeros((height, width), dtype=bool)
        invert_inside(plane, points[:, :2])
        toggles = contour.ContourGeometricType == "CLOSEDPLANAR_XOR"
        slices.setdefault(z, []).append(Region(plane, points[:, :2], toggles))
    mask, twins = np.zeros((depth, height, width), dtype=bool), 0
    for z, regions in slices.items():
        kept = without_twins(regions)
        twins += len(regions) - len(kept)
        mask[z] = combined(kept)
    notes = (
        [f"structure {name!r} has {twins} contours that repeat another; each counts once"] if twins else []
    )
    notes += _bridged(mask, sorted(slices), name, interpolate)
    if not mask.any():
        notes.append(Loss(f"structure {name!r} covers no voxel: it is smaller than the voxels"))
    return Drawn(name, mask, tuple(notes))


def _misplaced(points: np.ndarray, z: int, depth: int, tolerance: float) -> str:
    """Say why a contour does not fit the series. "" if it does."""
    off = float(np.abs(points[:, 2] - z).max())
    if off > tolerance:
        return (
            f"has a contour {off:.2f} slices off the middle of slice {z}, "
            "so it was drawn on another series and is left out"
        )
    if not 0 <= z < depth:
        return f"has a contour on slice {z}, the series has slices 0..{depth - 1}, so it is left out"
    return ""


def _bridged(mask: np.ndarray, drawn: list[int], name: str, interpolate: bool) -> list[str]:
    """Name the slices without a contour between the first and the last. Fill them in place if asked to."""
    missing = []
    for below, above in pairwise(drawn):
        for z in range(below + 1, above):
            missing.append(z)
            if interpolate:
                mask[z] = between(mask[below], mask[above], (z - below) / (above - below))
    if not missing:
        return []
    done = "filled by interpolation" if interpolate else "they stay empty (--interpolate fills them)"
    return [f"structure {name!r} has no contour on slices {listed(missing)} between its others: {done}"]


def invert_inside(plane: np.ndarray, polygon: np.ndarray) -> None:
    """Invert the pixels whose centre lies inside a polygon, by the even-odd rule.

    Each edge marks the first pixel to its right, in every row of centres that it crosses. A pixel is inside
    if its row has an odd number of marks up to it. A centre on a left or upper edge is inside. A centre on a
    right or lower edge is outside.

    Args:
        plane: bool (H,W), changed in place.
        polygon: (n,2) x, y positions in pixels. The last point is joined to the first.
    """
    height, width = plane.shape
    start, end = polygon, np.roll(polygon, -1, axis=0)
    rows = np.ceil(np.stack([start[:, 1], end[:, 1]])).clip(0, height).astype(int)
    first, count = rows.min(axis=0), np.abs(rows[1] - rows[0])
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    along = (row - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    column = np.ceil(start[edge, 0] + along * (end[edge, 0] - start[edge, 0])).clip(0, width).astype(int)
    marks = np.zeros((height, width + 1), dtype=np.int32)
    np.add.at(marks, (row, column), 1)
    plane ^= np.cumsum(marks[:, :width], axis=1) % 2 == 1
