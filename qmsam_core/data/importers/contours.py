"""RTSTRUCT contours to voxels.

A voxel belongs to a structure when its centre lies inside an odd number of the structure's contours on that slice, which makes holes and separate
parts come out right. Rasterised here because no library with sound arithmetic installs beside the study's pins: rt-utils brings a
second OpenCV, platipy and pydicom-seg need an older pandas, pydicom or numpy, and dicomrttool and dcmrtstruct2nii round the vertices to whole
pixels and colour the border pixels too, which dilates small objects; OpenCV's fillPoly colours the border as well. matplotlib's point-in-polygon
test gives the same voxels (a test holds the two against each other) and takes a hundred times as long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pydicom
import SimpleITK as sitk

from qmsam_core.data.archive import CaseError

PLANE_TOLERANCE = 0.25
"""How far from the middle of a slice a contour may lie, in slices; further off it was drawn on another series."""

_AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def structures(
    path: str | os.PathLike, image: sitk.Image, frame_of_reference: str = "", wanted=lambda name: True
) -> Iterator[tuple[str, np.ndarray]]:
    """Each structure with areas, in the file's order: name and bool mask (z,y,x) on the grid of `image`.

    Args:
        path: the RTSTRUCT file.
        image: the series it was drawn on, slices along its z axis.
        frame_of_reference: UID of the series' coordinate system; "" checks nothing.
        wanted: which structures to draw, by name.

    Raises:
        CaseError: no RTSTRUCT, another coordinate system, contours between or beyond the slices or across them.
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
            f"is drawn in coordinate system {sorted(found)[0]}, the series has {expected}: it belongs to another scan",
        )


def _in_voxels(image: sitk.Image, points: np.ndarray) -> np.ndarray:
    """Points (n,3) in mm as continuous (x,y,z) voxel positions; whole numbers are voxel centres."""
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
                f"structure {name!r} has a contour {off:.2f} slices off the middle of slice {z}: it was drawn on another series",
            )
        if not 0 <= z < depth:
            raise CaseError(
                path,
                f"structure {name!r} has a contour on slice {z}, the series has slices 0..{depth - 1}: slices are missing",
            )
        invert_inside(mask[z], points[:, :2])
    return mask


def invert_inside(plane: np.ndarray, polygon: np.ndarray) -> None:
    """Invert the pixels of the bool `plane` (H,W) whose centre lies in the closed polygon (n,2) of x, y positions, by the even-odd rule.

    Every edge marks, in each row of centres it crosses, the first pixel to its right; along a row the inside is where an odd number of
    marks has passed. A centre on a left or upper edge is inside, on a right or lower edge outside.
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
