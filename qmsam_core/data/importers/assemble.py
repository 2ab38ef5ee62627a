"""Make one case from one image and its mask: a volume file, a DICOM series or a 2-D image."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from qmsam_core.data.archive import CaseError
from qmsam_core.data.cases import Case

from . import contours, segments
from .grids import VOLUME_SUFFIXES, check_same_grid, read_volume, turned_like
from .labels import LabelOptions, Objects, finished, label_map, stacked
from .options import ImportOptions
from .pairing import masks_in, stem
from .pictures import Picture, planar_image, series_image, volume_image
from .planar import IMAGE_SUFFIXES, read_mask
from .series import DicomFolder


def nifti_case(
    name: str, image: str | os.PathLike, mask: str | os.PathLike, modality: str, options: ImportOptions
) -> tuple[Case, list[str]]:
    """Make a case from a NIfTI, MHA or NRRD image and its mask.

    Args:
        name: name of the case.
        image: file of the volume, or of a 2-D image.
        mask: label map on the same grid, or folder of binary masks named by object.
        modality: "CT" selects the window, any other name the percentiles.
        options: window, percentiles, plane and label options.

    Returns:
        The case with boxes, names and source, and notes on overlaps and the like.

    Raises:
        CaseError: the image or mask cannot be used. The message starts with its file.
    """
    picture = volume_image(image, modality, options)
    return _case(name, picture, _volume_objects(Path(mask), picture, options.labels), Path(mask), options)


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
    picture = series_image(folder, drawn, modality, options)
    if drawn is None:
        objects = _volume_objects(mask, picture, options.labels)
    else:
        mask = Path(drawn.filename)
        objects = _drawn_objects(drawn, picture, options.labels)
    return _case(name, picture, objects, mask, options)


def planar_case(
    name: str, image: str | os.PathLike, mask: str | os.PathLike, options: ImportOptions
) -> tuple[Case, list[str]]:
    """Make a 2-D case from an image and its mask. Returns and raises as `nifti_case` does.

    The mask is a file of the same size (labels, colours or one binary object), or a folder of binary masks.
    """
    picture, mask = planar_image(image, options), Path(mask)
    if picture.grid is not None:
        objects = _volume_objects(mask, picture, options.labels)
    else:
        objects = _planar_objects(mask, picture, options.labels)
    return _case(name, picture, objects, mask, options)


def _case(
    name: str, picture: Picture, objects: Objects, mask: Path, options: ImportOptions
) -> tuple[Case, list[str]]:
    done = finished(objects, options.labels, mask)
    return picture.case(name, done.labels, tuple(done.names.values())), [*picture.notes, *done.notes]


def _planar_objects(mask: Path, picture: Picture, options: LabelOptions) -> Objects:
    if not mask.is_dir():
        return Objects(_planar(mask, picture, options))
    read = [(key, path) for key, path in masks_in(mask, IMAGE_SUFFIXES) if options.wants(key)]
    binary = (
        (key, _planar(path, picture, LabelOptions(threshold=options.threshold)) > 0) for key, path in read
    )
    return stacked(binary, picture.shape)


def _planar(mask: Path, picture: Picture, options: LabelOptions) -> np.ndarray:
    labels = read_mask(mask, options)
    if labels.shape != picture.shape:
        sizes = [f"{width}x{height}" for height, width in (labels.shape, picture.shape)]
        turned = labels.shape == picture.source.shape
        why = (
            "it fits the image before its EXIF orientation; save the mask as a viewer shows the image"
            if turned
            else "mask and image do not belong together"
        )
        raise CaseError(mask, f"is {sizes[0]} pixels, its image {sizes[1]}: {why}")
    return labels


def _dicom_mask(mask: Path) -> pydicom.Dataset | None:
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


def _drawn_objects(drawn: pydicom.Dataset, picture: Picture, options: LabelOptions) -> Objects:
    """Objects of a SEG or RTSTRUCT, on the axes of the case."""
    reader = segments.segments if drawn.Modality == "SEG" else contours.structures
    found = reader(drawn.filename, picture.grid, picture.frame, options.wants)
    return stacked(((name, picture.source.to_case(mask)) for name, mask in found), picture.shape)


def _volume_objects(mask: Path, picture: Picture, options: LabelOptions) -> Objects:
    """Objects of a mask file, or of a folder of them, on the axes of the case."""
    if not mask.is_dir():
        return Objects(picture.source.to_case(_on_grid(mask, picture.grid, options)))
    read = [(key, path) for key, path in masks_in(mask, VOLUME_SUFFIXES) if options.wants(key)]
    single = LabelOptions(threshold=options.threshold)
    binary = ((key, picture.source.to_case(_on_grid(path, picture.grid, single)) > 0) for key, path in read)
    return stacked(binary, picture.shape)


def _on_grid(mask: Path, grid: sitk.Image, options: LabelOptions) -> np.ndarray:
    """Labels of a mask file on the grid of the source."""
    found = turned_like(read_volume(mask), grid)
    check_same_grid(grid, found, mask)
    return label_map(sitk.GetArrayFromImage(found), options, mask)
