"""Make one case from one image and its mask: a volume file, a DICOM series or a 2-D image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom

from qmsam_core.data.archive import CaseError
from qmsam_core.data.cases import Case

from . import contours, segments
from .endings import IMAGE_SUFFIXES, VOLUME_SUFFIXES
from .grids import on_grid, read_volume
from .labels import LabelOptions, Objects, finished, label_map, stacked
from .notes import Drawn
from .options import ImportOptions
from .pairing import masks_in, named_masks, stem
from .pictures import Picture, planar_image, series_image, volume_image
from .planar import read_mask
from .series import DicomFolder
from .series_masks import Masks

MaskPaths = str | os.PathLike | Sequence[str | os.PathLike]


def nifti_case(
    name: str, image: str | os.PathLike, mask: MaskPaths, modality: str, options: ImportOptions
) -> tuple[Case, list[str]]:
    """Make a case from a NIfTI, MHA or NRRD image and its mask.

    Args:
        name: name of the case.
        image: file of the volume, or of a 2-D image.
        mask: label map on the same grid, or binary masks named by object: a folder of them or several files.
        modality: "CT" selects the window, any other name the percentiles.
        options: window, percentiles, plane and label options.

    Returns:
        The case with boxes, names and source, and notes on overlaps and the like.

    Raises:
        CaseError: the image or mask cannot be used. The message starts with its file.
    """
    picture = volume_image(image, modality, options)
    masks = _paths(mask)
    return _case(name, picture, _volume_objects(masks, picture, options.labels), masks, options)


def dicom_case(
    name: str, folder: DicomFolder, mask: Masks | None, modality: str, options: ImportOptions
) -> tuple[Case, list[str]]:
    """Make a volume case from a DICOM series and its mask. Returns and raises as `nifti_case` does.

    Args:
        name: name of the case.
        folder: headers of the series and its masks.
        mask: SEG (or several), RTSTRUCT, or a mask as in `nifti_case`. None uses those in `folder`.
        modality: as in `nifti_case`.
        options: as in `nifti_case`.
    """
    drawn = folder.drawn() if mask is None else _dicom_masks(mask)
    picture = series_image(folder, modality, options)
    if drawn:
        mask = tuple(Path(header.filename) for header in drawn)
        objects = _drawn_objects(drawn, picture, options.labels)
    else:
        objects = _volume_objects(mask, picture, options.labels)
    return _case(name, picture, objects, mask, options)


def planar_case(
    name: str, image: str | os.PathLike, mask: MaskPaths, options: ImportOptions
) -> tuple[Case, list[str]]:
    """Make a 2-D case from an image and its mask. Returns and raises as `nifti_case` does.

    The mask is a file of the same size (labels, colours or one binary object), or several binary masks as in
    `nifti_case`.
    """
    picture, mask = planar_image(image, options), _paths(mask)
    if picture.grid is not None:
        objects = _volume_objects(mask, picture, options.labels)
    else:
        objects = _planar_objects(mask, picture, options.labels)
    return _case(name, picture, objects, mask, options)


def _paths(mask: MaskPaths) -> Masks:
    return Path(mask) if isinstance(mask, str | os.PathLike) else tuple(map(Path, mask))


def _case(
    name: str, picture: Picture, objects: Objects, mask: Masks, options: ImportOptions
) -> tuple[Case, list[str]]:
    done = finished(objects, options.labels, mask if isinstance(mask, Path) else mask[0])
    boxes = np.array([done.boxes[k] for k in done.names], np.int64) if done.boxes else None
    case = picture.case(name, done.labels, tuple(done.names.values()), boxes)
    return case, [*picture.notes, *done.notes]


def _planar_objects(mask: Masks, picture: Picture, options: LabelOptions) -> Objects:
    return _one_or_many(mask, IMAGE_SUFFIXES, picture, options, lambda path, how: _planar(path, picture, how))


def _one_or_many(
    mask: Masks,
    suffixes: tuple[str, ...],
    picture: Picture,
    options: LabelOptions,
    read: Callable[[Path, LabelOptions], Objects],
) -> Objects:
    """Objects of one mask file, or of several (a folder or a sequence of files), one an object."""
    if isinstance(mask, Path) and not mask.is_dir():
        return read(mask, options)
    found = masks_in(mask, suffixes) if isinstance(mask, Path) else named_masks(mask, suffixes)
    found = [(_object_name(name, picture), path) for name, path in found]
    single, notes = replace(options, objects=()), []

    def binary() -> Iterator[tuple[str, np.ndarray]]:
        for name, path in found:
            if options.wants(name):
                one = read(path, single)
                notes.extend(one.notes)
                yield name, one.labels > 0

    stack = stacked(binary(), picture.shape, options.keep_covered)
    missing = options.unmatched(name for name, _ in found)
    return replace(stack, notes=(*notes, *missing, *stack.notes))


def _object_name(mask: str, picture: Picture) -> str:
    """Name of the object in a mask file: the file's name, without that of the image in front of it."""
    image = Path(picture.source.path)
    rest = mask.removeprefix(stem(image, (*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)) or image.name)
    if rest[:1].isalnum():  # `ctv` beside `ct` is a name of its own
        return mask
    return rest.strip(" _.-") or mask


def _planar(mask: Path, picture: Picture, options: LabelOptions) -> Objects:
    found = read_mask(mask, options)
    if found.labels.shape != picture.shape:
        sizes = [f"{width}x{height}" for height, width in (found.labels.shape, picture.shape)]
        turned = found.labels.shape == picture.source.shape
        why = (
            "it fits the image before its EXIF orientation; save the mask as a viewer shows the image"
            if turned
            else "mask and image do not belong together"
        )
        raise CaseError(mask, f"is {sizes[0]} pixels, its image {sizes[1]}: {why}")
    return found


def _dicom_masks(mask: Masks) -> list[pydicom.Dataset]:
    """Headers of DICOM mask files: the file itself, or those in a folder. An empty list for volume files."""
    given = mask if isinstance(mask, tuple) else (sorted(mask.iterdir()) if mask.is_dir() else [mask])
    files = [path for path in given if path.is_file() and stem(path, VOLUME_SUFFIXES) is None]
    found = [header for path in files if (header := DicomFolder.read_mask(path)) is not None]
    if files == [mask] and not found:
        raise CaseError(
            mask,
            f"is no mask; expected DICOM SEG or RTSTRUCT, {', '.join(VOLUME_SUFFIXES)}, "
            "or a folder of those, one an object",
        )
    return found


def _drawn_objects(drawn: list[pydicom.Dataset], picture: Picture, options: LabelOptions) -> Objects:
    """Objects of an RTSTRUCT, or of one SEG or several, on the axes of the case."""
    notes, names = [], {}

    def binary() -> Iterator[tuple[str, np.ndarray]]:
        for header in drawn:
            for one in _drawn_in(header, picture, options, names):
                notes.extend(one.notes)
                if one.mask is not None and (one.mask.any() or not one.notes):
                    yield one.name, picture.source.to_case(one.mask)

    stack = stacked(binary(), picture.shape, options.keep_covered)
    return replace(stack, notes=(*notes, *options.unmatched(names), *stack.notes))


def _drawn_in(
    header: pydicom.Dataset, picture: Picture, options: LabelOptions, names: dict[str, Path]
) -> Iterator[Drawn]:
    """Wanted objects of one file. `names` collects the names, wanted or not, and the file of each."""
    path = Path(header.filename)

    def wanted(name: str) -> bool:
        other = names.setdefault(name, path)
        if other != path:
            raise CaseError(path, f"has a segment {name!r} as {other.name} has; give the mask to use by name")
        return options.wants(name)

    where = (path, picture.grid, picture.frame, wanted)
    if header.Modality == "SEG":
        return segments.segments(*where, rounding=picture.rounding)
    return contours.structures(*where, rounding=picture.rounding, interpolate=options.interpolate)


def _volume_objects(mask: Masks, picture: Picture, options: LabelOptions) -> Objects:
    """Objects of a mask file, or of several, on the axes of the case."""
    return _one_or_many(
        mask, VOLUME_SUFFIXES, picture, options, lambda path, how: _on_grid(path, picture, how)
    )


def _on_grid(mask: Path, picture: Picture, options: LabelOptions) -> Objects:
    """Labels of a mask file on the axes of the case."""
    read, notes = read_volume(mask)
    values, more = on_grid(read, picture.grid, mask, picture.rounding, options.image_geometry)
    found = label_map(picture.source.to_case(values), options, mask)
    return replace(found, notes=(*(f"{mask.name}: {note}" for note in notes), *more, *found.notes))
