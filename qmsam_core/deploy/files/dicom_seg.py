"""Write masks of a DICOM series as a DICOM SEG file, with highdicom."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.sr.codedict import codes
from pydicom.valuerep import DA, TM

from ... import __version__
from ...data.archive import CaseError
from ...data.importers.series import OWN_MODEL
from ...data.source import Source

_POSITION = 0.01  # mm by which positions may be rounded
_LABEL = 64
"""Most characters that DICOM allows in a segment's label."""
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
)  # fmt: skip


def check_series(source: Source) -> None:
    """Raise `CaseError` if the masks of a series could not be written as SEG: it lacks a UID, or is gone."""
    _series(source)


def label_notes(names: tuple[str, ...]) -> list[str]:
    """Say which names a SEG cannot hold as they are."""
    return [
        f"name {name!r} becomes {segment_label(name)!r}: "
        f"DICOM allows {_LABEL} characters, no backslash and no line break"
        for name in names
        if segment_label(name) != name.strip()
    ]


def segment_label(name: str) -> str:
    """Make a name fit for a segment's label: one line without backslashes, of up to 64 characters."""
    words = "".join(c if c.isprintable() else " " for c in name.replace("\\", "/")).strip()
    return words[:_LABEL].rstrip()


def write_seg(path: Path, source: Source, labels: np.ndarray, names: tuple[str, ...]) -> None:
    """Write a binary SEG with a segment for each object, on the slices of its series.

    Args:
        path: file to write.
        source: the series.
        labels: label values (D,H,W), or one mask an object (D,H,W,N), on the grid of the source.
        names: segment labels; "object k" where there is none.

    Raises:
        CaseError: the series is gone or has changed.
    """
    count = labels.shape[3] if labels.ndim == 4 else max(len(names), int(labels.max(initial=0)))
    if not count:
        raise CaseError(source.path, "has no object; a DICOM SEG needs at least one box")
    volume = _volume(source, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom and pydicom warn of values that hospitals write
        file = hd.seg.Segmentation(
            _series(source),
            volume,
            hd.seg.SegmentationTypeValues.BINARY,
            [_described(k, names) for k in range(1, count + 1)],
            hd.UID(),
            100,
            hd.UID(),
            1,
            "QMedSAM, reimplemented",
            OWN_MODEL,
            __version__,
            "none",
            series_description="Segmentation from boxes",
            omit_empty_frames=bool(labels.any()),
            specific_character_set="ISO_IR 192",  # names may be in any script
        )
        file.save_as(path)


def _described(number: int, names: tuple[str, ...]) -> hd.seg.SegmentDescription:
    name = names[number - 1] if number <= len(names) else ""
    return hd.seg.SegmentDescription(
        number,
        segment_label(name) or f"object {number}",
        codes.SCT.Tissue,
        codes.SCT.Tissue,
        hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            "qmsam_core", codes.DCM.ArtificialIntelligence, __version__
        ),
    )


def _volume(source: Source, labels: np.ndarray) -> hd.Volume:
    """Labels with the source's geometry, slices first, so that frames lie on the series' slices."""
    image = sitk.Image(list(source.shape[::-1]), sitk.sitkUInt8)
    image.SetSpacing(source.spacing)
    image.SetOrigin(source.origin)
    image.SetDirection(source.direction)
    grid = hd.Volume.from_simpleitk(image).permute_spatial_axes([2, 1, 0]).get_geometry()
    if labels.ndim == 3:
        return grid.with_array(np.ascontiguousarray(labels))
    numbers = list(range(1, labels.shape[3] + 1))
    return grid.with_array(
        np.ascontiguousarray(labels), channels={hd.ChannelDescriptor("SegmentNumber"): numbers}
    )


def _series(source: Source) -> list[pydicom.Dataset]:
    """Read the headers of the series' files."""
    folder = Path(source.path)
    base = folder if folder.is_dir() else folder.parent
    if not source.files:
        raise CaseError(folder, "is of a case that does not name its slices; import it again")
    try:
        headers = [pydicom.dcmread(base / name, force=True, stop_before_pixels=True) for name in source.files]
    except FileNotFoundError as error:
        raise CaseError(error.filename, "is gone; a DICOM SEG needs the series that it belongs to") from error
    except OSError as error:
        raise CaseError(folder, f"cannot be read again ({error})") from error
    if not _fits(headers, source):
        raise CaseError(folder, "is no longer the series that the case was made from; import it again")
    for header in headers:
        _fill(header, source)
    return headers


def _fill(header: pydicom.Dataset, source: Source) -> None:
    """Give a header, in memory, the values that highdicom reads: empty where the standard allows that.

    Raises:
        CaseError: a UID is absent, which nothing can stand for.
    """
    if "SOPClassUID" not in header and "MediaStorageSOPClassUID" in header.file_meta:
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID
    if missing := [name for name in _NEEDED if not header.get(name)]:
        raise CaseError(
            header.filename,
            f"has no {', '.join(missing)}, so its masks cannot be written as DICOM SEG; "
            "convert the series to NIfTI (dcm2niix) and give that, or export it again",
        )
    header.decode()  # from its own character set, since the SEG has another
    for name in _MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    for name, read in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        if not _accepted(read, header.get(name)):
            setattr(header, name, "")
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = ""
    if not header.get("SliceThickness") and "NumberOfFrames" not in header:
        header.SliceThickness = source.spacing[2]


def _accepted(read: Callable, value) -> bool:
    try:
        read(value)
    except (ValueError, TypeError):
        return False
    return True


def _fits(headers: list[pydicom.Dataset], source: Source) -> bool:
    depth, height, width = source.shape
    frames = int(headers[0].get("NumberOfFrames", 1) or 1) if len(headers) == 1 else len(headers)
    if (frames, headers[0].Rows, headers[0].Columns) != (depth, height, width):
        return False
    places = [place for header in headers for place in _places(header)]
    return any(np.linalg.norm(np.array(place, float) - source.origin) < _POSITION for place in places)


def _places(header: pydicom.Dataset) -> list:
    """Positions of a file's frames."""
    if header.get("ImagePositionPatient") is not None:
        return [header.ImagePositionPatient]
    groups = [
        *header.get("SharedFunctionalGroupsSequence", []),
        *header.get("PerFrameFunctionalGroupsSequence", []),
    ]
    return [
        plane.ImagePositionPatient for group in groups for plane in group.get("PlanePositionSequence", [])
    ]
