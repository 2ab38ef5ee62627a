"""Make one case from one image and its mask: a volume file, a DICOM series or a 2-D image."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from qmsam_core.data.archive import CaseError
from qmsam_core.data.cases import Case

from . import contours, segments
from .grids import VOLUME_SUFFIXES, axial, check_same_grid, labels_on, read_volume
from .intensity import DEFAULT_PERCENTILES, DEFAULT_WINDOW, WINDOWS, check_finite, stretched, windowed
from .labels import LabelOptions, finished, label_map, stacked
from .pairing import masks_in, stem
from .planar import IMAGE_SUFFIXES, read_image, read_mask
from .series import DicomFolder, read_series


@dataclass(frozen=True)
class ImportOptions:
    """How cases are made.

    Attributes:
        window: level and width in HU, for CT volumes.
        percentiles: low and high, 0..100. They become 0 and 255, except in CT volumes and 8-bit 2-D images.
        labels: how masks become labels.
    """

    window: tuple[float, float] = WINDOWS[DEFAULT_WINDOW]
    percentiles: tuple[float, float] = DEFAULT_PERCENTILES
    labels: LabelOptions = field(default_factory=LabelOptions)


def nifti_case(
    name: str, image: str | os.PathLike, mask: str | os.PathLike, modality: str, options: ImportOptions
) -> tuple[Case, list[str]]:
    """Make a volume case from a NIfTI, MHA or NRRD image and its mask.

    Args:
        name: name of the case.
        image: file of the volume.
        mask: label map on the same grid, or folder of binary masks named by object.
        modality: "CT" selects the window, any other name the percentiles.
        options: window, percentiles and label options.

    Returns:
        The case with boxes, and notes on overlaps.

    Raises:
        CaseError: the image or mask cannot be used. The message starts with its file.
    """
    image, mask = Path(image), Path(mask)
    grid = axial(read_volume(image))
    labels, notes = _volume_labels(mask, grid, options.labels)
    return _volume_case(name, image, mask, grid, labels, modality, options), notes


def dicom_case(
    name: str, folder: DicomFolder, mask: Path | None, modality: str, options: ImportOptions
) -> tuple[Case, list[str]]:
    """Make a volume case from a DICOM series and its mask. Returns and raises as `nifti_case` does.

    Args:
        name: name of the case.
        folder: scanned folder with the series.
        mask: SEG, RTSTRUCT or a mask as in `nifti_case`. None uses the SEG or RTSTRUCT in the folder.
        modality: as in `nifti_case`.
        options: as in `nifti_case`.
    """
    drawn = folder.mask() if mask is None else _dicom_mask(mask)
    headers = folder.image_series(drawn)
    series = read_series(headers, folder.path)
    if drawn is None:
        grid = axial(series)
        labels, notes = _volume_labels(mask, grid, options.labels)
    else:
        mask = Path(drawn.filename)
        reader = segments.segments if drawn.Modality == "SEG" else contours.structures
        found = reader(mask, series, str(headers[0].get("FrameOfReferenceUID", "")), options.labels.wants)
        labels, notes = stacked(found, series.GetSize()[::-1])
        grid, labels = axial(series), sitk.GetArrayFromImage(axial(labels_on(series, labels)))
    return _volume_case(name, folder.path, mask, grid, labels, modality, options), notes


def planar_case(
    name: str, image: str | os.PathLike, mask: str | os.PathLike, options: ImportOptions
) -> tuple[Case, list[str]]:
    """Make a 2-D case from an image and its mask. Returns and raises as `nifti_case` does.

    The mask is a file of the same size (labels, colours or one binary object), or a folder of binary masks.
    """
    image, mask = Path(image), Path(mask)
    pixels = read_image(image, options.percentiles)
    if mask.is_dir():
        read = [(key, path) for key, path in masks_in(mask, IMAGE_SUFFIXES) if options.labels.wants(key)]
        binary = (
            (key, _planar(path, pixels, LabelOptions(threshold=options.labels.threshold)) > 0)
            for key, path in read
        )
        labels, notes = stacked(binary, pixels.shape[:2])
    else:
        labels, notes = _planar(mask, pixels, options.labels), []
    return Case(name, pixels, None, finished(labels, options.labels, mask), np.ones(3)).with_boxes(), notes


def _planar(mask: Path, pixels: np.ndarray, options: LabelOptions) -> np.ndarray:
    labels = read_mask(mask, options)
    if labels.shape != pixels.shape[:2]:
        sizes = [f"{width}x{height}" for height, width in (labels.shape, pixels.shape[:2])]
        raise CaseError(
            mask, f"is {sizes[0]} pixels, its image {sizes[1]}: mask and image do not belong together"
        )
    return labels


def _dicom_mask(mask: Path):
    """Header of a DICOM mask file. None for a volume file or a folder."""
    if mask.is_dir() or stem(mask, VOLUME_SUFFIXES) is not None:
        return None
    found = DicomFolder.read_mask(mask)
    if found is None:
        raise CaseError(
            mask,
            f"is no mask; expected DICOM SEG or RTSTRUCT, {', '.join(VOLUME_SUFFIXES)}, "
            "or a folder of those, one an object",
        )
    return found


def _volume_labels(mask: Path, grid: sitk.Image, options: LabelOptions) -> tuple[np.ndarray, list[str]]:
    if not mask.is_dir():
        return _on_grid(mask, grid, options), []
    read = [(key, path) for key, path in masks_in(mask, VOLUME_SUFFIXES) if options.wants(key)]
    binary = (
        (key, _on_grid(path, grid, LabelOptions(threshold=options.threshold)) > 0) for key, path in read
    )
    return stacked(binary, grid.GetSize()[::-1])


def _on_grid(mask: Path, grid: sitk.Image, options: LabelOptions) -> np.ndarray:
    found = axial(read_volume(mask))
    check_same_grid(grid, found, mask)
    return label_map(sitk.GetArrayFromImage(found), options, mask)


def _volume_case(
    name: str,
    image: Path,
    mask: Path,
    grid: sitk.Image,
    labels: np.ndarray,
    modality: str,
    options: ImportOptions,
) -> Case:
    labels = finished(labels, options.labels, mask)
    values = sitk.GetArrayFromImage(grid)
    check_finite(values, image)
    pixels = (
        windowed(values, *options.window)
        if modality == "CT"
        else stretched(values, options.percentiles, image)
    )
    return Case(name, pixels, None, labels, np.array(grid.GetSpacing())).with_boxes()
