"""Read a DICOM series as a volume, but refuse a distorted or incomplete one."""

from __future__ import annotations

import os
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk

from qmsam_core.data.archive import CaseError

from .grids import reason

_SPACING_TOLERANCE = 0.02  # fraction of the slice distance
_MOST_ROUNDING = 0.45  # fraction of the slice distance: coarser positions could hide a missing slice
_EXACT = 1 + 1e-6  # decimals are no exact binary numbers
_DRIFT_TOLERANCE = 0.1  # fraction of the slice distance, sideways: more means a tilted gantry
_SAME_DIRECTION = 1e-3


def rounding(headers: list[pydicom.Dataset]) -> float:
    """Largest error in mm that rounding to the digits written gives a distance between two slices.

    It is one unit of the last decimal, half a unit at either end, of the coordinate with the fewest decimals.
    Coordinates that are the same in all slices do not count, and those with an exponent are exact.
    """
    units = [0.0]
    for written in zip(*([_text(v) for v in h.get("ImagePositionPatient") or []] for h in headers)):
        if len(set(written)) > 1 and not any("e" in text.lower() for text in written):
            units.append(10.0 ** -max(len(text.partition(".")[2]) for text in written))
    return max(units)


def read_series(headers: list[pydicom.Dataset], folder: Path) -> sitk.Image:
    """Read a series as a float32 volume with its slices sorted along their normal.

    CT values are in HU: the rescale is applied slice by slice.

    Raises:
        CaseError: colour, no positions, slices of different size or direction, missing or repeated slices, a
            tilted gantry, or unreadable pixels.
    """
    first = headers[0]
    if int(first.get("SamplesPerPixel", 1)) != 1:
        raise CaseError(
            folder,
            f"holds {first.get('PhotometricInterpretation')} images, which are in colour; "
            "export the slices as PNG and give these (to the importers with the sub-command 'images')",
        )
    if first.get("PhotometricInterpretation") == "MONOCHROME1":
        raise CaseError(
            folder,
            "holds MONOCHROME1 images, whose large values are dark; convert the series to NIfTI (dcm2niix), "
            "invert it if bright tissue has low values, and give that file",
        )
    if is_multi_frame(first):
        return _multi_frame(headers, folder)
    ordered, step = _ordered(headers, folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([os.fspath(h.filename) for h in ordered])
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(ordered, folder, error) from error
    rows, columns = _directions(ordered[0])
    row_spacing, column_spacing = (float(v) for v in ordered[0].PixelSpacing)
    image.SetSpacing((column_spacing, row_spacing, step))
    image.SetOrigin([float(v) for v in ordered[0].ImagePositionPatient])
    image.SetDirection(np.column_stack([rows, columns, np.cross(rows, columns)]).ravel().tolist())
    return image


def is_multi_frame(header: pydicom.Dataset) -> bool:
    """Whether a file holds a volume of frames that have their own positions, if only a single one."""
    frames = int(header.get("NumberOfFrames", 0) or 0)
    return frames > 1 or (frames == 1 and header.get("ImagePositionPatient") is None)


def _unreadable(headers: list[pydicom.Dataset], folder: Path, error: RuntimeError) -> CaseError:
    """Error for a series that ITK cannot read. It names the first slice that fails alone."""
    for header in headers:
        try:
            sitk.ReadImage(os.fspath(header.filename))
        except RuntimeError as alone:
            problem = (
                f"is a slice that cannot be read ({reason(alone)}): the series is incomplete; copy it again"
            )
            return CaseError(header.filename, problem)
    return CaseError(folder, f"has slices that cannot be read together ({reason(error)})")


def _text(value: object) -> str:
    return str(getattr(value, "original_string", None) or value).strip()


def _directions(header: pydicom.Dataset) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(header.ImageOrientationPatient, dtype=float)
    return values[:3], values[3:]


def _ordered(headers: list[pydicom.Dataset], folder: Path) -> tuple[list[pydicom.Dataset], float]:
    """Sort the headers along the slices' normal. Also return the distance between slices in mm."""
    for header in headers:
        if any(
            header.get(key) is None
            for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        ):
            raise CaseError(
                header.filename,
                "has no position, orientation or pixel spacing; expected slices of a CT, MR or PET volume",
            )
        if not all(float(step) > 0 for step in header.PixelSpacing):
            raise CaseError(header.filename, f"has pixel spacing {header.PixelSpacing}; expected mm above 0")
    _check_alike(headers, folder)
    rows, columns = _directions(headers[0])
    normal = np.cross(rows, columns)
    places = np.array([h.ImagePositionPatient for h in headers], dtype=float)
    order = np.argsort(places @ normal, kind="stable")
    ordered = [headers[k] for k in order]
    if len(ordered) == 1:
        return ordered, float(
            headers[0].get("SpacingBetweenSlices") or headers[0].get("SliceThickness") or 1.0
        )
    return ordered, _slice_distance(places[order], normal, ordered, folder)


def _check_alike(headers: list[pydicom.Dataset], folder: Path) -> None:
    first = headers[0]
    for header in headers[1:]:
        if (header.Rows, header.Columns) != (first.Rows, first.Columns):
            raise CaseError(
                folder,
                f"has slices of {first.Columns}x{first.Rows} and of {header.Columns}x{header.Rows} pixels "
                "in one series",
            )
        for key in ("ImageOrientationPatient", "PixelSpacing"):
            if not np.allclose(
                np.array(header[key].value, float), np.array(first[key].value, float), atol=_SAME_DIRECTION
            ):
                raise CaseError(
                    folder,
                    f"has slices of different {key} in one series ({Path(header.filename).name}); "
                    "take out the localizer",
                )


def _slice_distance(
    places: np.ndarray, normal: np.ndarray, ordered: list[pydicom.Dataset], folder: Path
) -> float:
    steps = np.diff(places @ normal)
    usual = float(np.median(steps))
    repeated = np.flatnonzero(steps < 1e-3)
    if len(repeated):
        names = " and ".join(Path(ordered[repeated[0] + k].filename).name for k in (0, 1))
        raise CaseError(
            folder,
            f"has several slices at one position ({names}): a 4-D or repeated series; split it into volumes",
        )
    loose = min(rounding(ordered), _MOST_ROUNDING * usual)
    odd = np.flatnonzero(np.abs(steps - usual) > max(_SPACING_TOLERANCE * usual, loose * _EXACT))
    if len(odd):
        raise CaseError(
            folder,
            f"misses slices: {steps[odd[0]]:.3g} mm from slice {odd[0]} to the next "
            f"where {usual:.3g} mm is usual",
        )
    drift = np.linalg.norm(np.diff(places, axis=0) - steps[:, None] * normal, axis=1).max()
    if drift > max(_DRIFT_TOLERANCE * usual, loose * _EXACT):
        raise CaseError(
            folder,
            f"has slices shifted sideways by {drift:.3g} mm each (tilted gantry); "
            "resample the series to a straight grid first",
        )
    return float((places @ normal)[[0, -1]] @ [-1, 1]) / len(steps)


def _multi_frame(headers: list[pydicom.Dataset], folder: Path) -> sitk.Image:
    """Read an enhanced (multi-frame) file. highdicom sorts the frames and checks their even spacing.

    Its volumes have their axes as (slice, row, column). ITK's have them as (column, row, slice), and the
    slices of a series are sorted along their normal.
    """
    if len(headers) > 1:
        raise CaseError(folder, f"has {len(headers)} multi-frame files in one series; expected one")
    try:
        volume = hd.imread(headers[0].filename).get_volume(dtype=np.float32).permute_spatial_axes([2, 1, 0])
        sorted_volume = volume.ensure_handedness(hd.AxisHandedness.RIGHT_HANDED, flip_axis=2)
        return sitk.Cast(sorted_volume.to_simpleitk(), sitk.sitkFloat32)
    except Exception as error:
        # Frames without positions, gaps or an unknown compression can raise anything inside highdicom.
        raise CaseError(
            headers[0].filename,
            f"is a multi-frame file that is no regular volume ({' '.join(str(error).split())})",
        ) from error
