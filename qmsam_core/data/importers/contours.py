"""Rasterise RTSTRUCT contours to voxels.

A voxel belongs to a structure if its centre lies inside an odd number of the structure's contours on that
slice. This rule gets holes and separate parts right.

The contours are rasterised here because no library with sound arithmetic installs beside the study's pinned
versions. rt-utils brings a second OpenCV. platipy and pydicom-seg need an older pandas, pydicom or numpy.
dicomrttool and dcmrtstruct2nii round the vertices to whole pixels and fill the border pixels too, which
dilates small objects. OpenCV's fillPoly also fills the border. matplotlib's point-in-polygon test gives the
same voxels but takes a hundred times as long; a test compares the two.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pydicom
import SimpleITK as sitk

from qmsam_core.data.archive import CaseError

PLANE_TOLERANCE = 0.25
"""Largest distance of a contour from its slice's middle, in slices. Beyond, it belongs to another series."""

_AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def structures(
    path: str | os.PathLike, image: sitk.Image, frame_of_reference: str = "", wanted=lambda name: True
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each structure that has areas, in the file's order.

    Args:
        path: RTSTRUCT file.
        image: series on which the contours were drawn, with its slices along the z axis.
        frame_of_reference: UID of the series' coordinate system. "" skips the check.
        wanted: selects structures by name.

    Yields:
        The structure's name and its bool mask (z,y,x) on the grid of `image`.

    Raises:
        CaseError: no RTSTRUCT, another coordinate system, or a contour between, beyond or across the slices.
    """
    data = _read(path)
    _check_frame(path, data, frame_of_reference)
    for name, contours in _structures(data):
        areas = [
            np.asarray(c.ContourData, dtype=float).reshape(-1, 3)
            for c in contours
            if c.ContourGeometricType in _AREAS
        ]
        if areas and wanted(name):
            yield name, _rasterised([_in_voxels(image, points) for points in areas], image, name, path)


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


def _rasterised(contours: list[np.ndarray], image: sitk.Image, name: str, path) -> np.ndarray:
    width, height, depth = image.GetSize()
    mask = np.zeros((depth, height, width), dtype=bool)
    for points in contours:
        z = round(float(np.mean(points[:, 2])))
        off = float(np.abs(points[:, 2] - z).max())
        if off > PLANE_TOLERANCE:
            raise CaseError(
                path,
                f"structure {name!r} has a contour {off:.2f} slices off the middle of slice {z}: "
                "it was drawn on another series",
            )
        if not 0 <= z < depth:
            raise CaseError(
                path,
                f"structure {name!r} has a contour on slice {z}, the series has slices 0..{depth - 1}: "
                "slices are missing",
            )
        invert_inside(mask[z], points[:, :2])
    return mask


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
