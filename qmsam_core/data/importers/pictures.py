"""Read one image without a mask, as a case holds it: a volume file, a DICOM series or a 2-D image."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from qmsam_core.data.cases import Case
from qmsam_core.data.source import Source

from .endings import VOLUME_SUFFIXES
from .grids import read_volume
from .intensity import check_hounsfield, outside_note, outside_view, shown_already, stretched, windowed
from .options import ImportOptions
from .pairing import stem
from .planar import orientation, read_image, three_channels, upright_axes
from .planes import ACQUIRED, acquired_plane, along, axes_to
from .series import DicomFolder
from .stack import read_series, rounding


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as a case holds it, and what is needed to put masks on it.

    Attributes:
        pixels: uint8, (D,H,W) or (H,W,3), on the axes of the case.
        spacing: float64 (3,) in mm as (x, y, z) of the case; ones for images.
        source: the file or series, and the way from its array to the case and back.
        grid: the image as read, on the source's own grid; None for PNG, JPEG, TIFF and BMP.
        frame: UID of a DICOM series' coordinate system; "" for other files.
        rounding: mm by which the positions in a DICOM series may be rounded; 0 for other files.
        notes: what was noticed, one line each.
    """

    pixels: np.ndarray
    spacing: np.ndarray
    source: Source
    grid: sitk.Image | None = None
    frame: str = ""
    rounding: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the case's labels, (D,H,W) or (H,W)."""
        return self.pixels.shape[: len(self.source.axes)]

    def case(
        self,
        name: str,
        labels: np.ndarray | None = None,
        names: tuple[str, ...] = (),
        boxes: np.ndarray | None = None,
    ) -> Case:
        """Make the case of this image. With labels (as `shape`) and no boxes, these are tight around them."""
        case = Case(name, self.pixels, boxes, labels, self.spacing, names, self.source)
        return case if labels is None else case.with_boxes()


def volume_image(path: str | os.PathLike, modality: str, options: ImportOptions) -> Picture:
    """Read a NIfTI, MHA or NRRD image. A 2-D file gives a 2-D picture.

    Args:
        path: file of the image.
        modality: "CT" selects the window for volumes, any other name the percentiles.
        options: window, percentiles and plane.

    Raises:
        CaseError: the image cannot be used. The message starts with its file.
    """
    path = Path(path)
    image, notes = read_volume(path)
    if image.GetDimension() == 2:
        return _flat(image, path, notes, modality, options)
    return _picture(image, path, "volume", notes, modality, options)


def series_image(folder: DicomFolder, modality: str, options: ImportOptions) -> Picture:
    """Read a DICOM series.

    Other arguments and errors are those of `volume_image`.
    """
    headers = folder.image_series()
    frame = str(headers[0].get("FrameOfReferenceUID", ""))
    image = read_series(headers, folder.path)
    picture = _picture(image, folder.path, "dicom", folder.notes(headers), modality, options)
    base = folder.path if folder.path.is_dir() else folder.path.parent
    files = tuple(os.path.relpath(header.filename, base) for header in headers)
    source = replace(picture.source, series=str(headers[0].get("SeriesInstanceUID", "")), files=files)
    return replace(picture, source=source, frame=frame, rounding=rounding(headers))


def planar_image(path: str | os.PathLike, options: ImportOptions) -> Picture:
    """Read a PNG, JPEG, TIFF or BMP image, turned as its EXIF orientation says, or a 2-D volume file.

    Raises:
        CaseError: the image cannot be used. The message starts with its file.
    """
    path = Path(path)
    if stem(path, VOLUME_SUFFIXES) is not None:
        image, notes = read_volume(path, dimension=2)
        return _flat(image, path, notes, "", options)
    pixels, notes = read_image(path, options.percentiles)
    source = Source(os.fspath(path), "image", pixels.shape[:2], upright_axes(path))
    if orientation(path) > 1:
        notes.append("turned upright as its EXIF orientation says")
    return Picture(np.ascontiguousarray(source.to_case(pixels)), np.ones(3), source, notes=tuple(notes))


def _source(image: sitk.Image, path: Path, kind: str, axes: tuple[int, ...]) -> Source:
    return Source(
        os.fspath(path),
        kind,
        image.GetSize()[::-1],
        axes,
        image.GetSpacing(),
        image.GetOrigin(),
        image.GetDirection(),
    )


def _flat(image: sitk.Image, path: Path, notes: list[str], modality: str, options: ImportOptions) -> Picture:
    """A 2-D file keeps its rows and columns, and its values if they have 8 bits."""
    values = sitk.GetArrayFromImage(image)
    pixels, more = (values, []) if values.dtype == np.uint8 else _grey(values, path, modality, options)
    source = _source(image, path, "volume", (1, 2))
    return Picture(three_channels(pixels), np.ones(3), source, image, notes=(*notes, *more))


def _picture(
    image: sitk.Image, path: Path, kind: str, notes: list[str], modality: str, options: ImportOptions
) -> Picture:
    size, spacing, direction = image.GetSize(), image.GetSpacing(), image.GetDirection()
    plane = acquired_plane(size, spacing, direction) if options.plane == ACQUIRED else options.plane
    source = _source(image, path, kind, axes_to(plane, direction))
    pixels, more = _grey(source.to_case(sitk.GetArrayViewFromImage(image)), path, modality, options)
    pixels = np.ascontiguousarray(pixels)
    return Picture(pixels, along(source.axes, spacing), source, image, notes=(*notes, *more))


def _grey(
    values: np.ndarray, path: Path, modality: str, options: ImportOptions
) -> tuple[np.ndarray, list[str]]:
    """Convert values to uint8 of the same shape. NaN outside the field of view becomes 0, with a note."""
    outside, notes = outside_view(values, path), []
    if outside is not None:
        values = np.where(outside, values[~outside].min(), values)
        notes = [outside_note(outside)]
    if options.windowed:
        pixels = shown_already(values, path)
    elif modality == "CT":
        notes += check_hounsfield(values, path)
        pixels = windowed(values, *options.window)
    else:
        pixels = stretched(
            values if outside is None else np.where(outside, 0, values), options.percentiles, path
        )
    if outside is not None:
        pixels[outside] = 0
    return pixels, notes
