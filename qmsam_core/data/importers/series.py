"""Read the headers of DICOM files: a series, the masks drawn on it, and what is damaged beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qmsam_core.data.archive import CaseError

from .notes import listed

if TYPE_CHECKING:
    import pydicom  # takes long to load; the functions that read files import it

MASKS = ("SEG", "RTSTRUCT")
"""DICOM modalities of masks."""
MODALITIES = {"CT": "CT", "MR": "MR", "PT": "PET"}
"""DICOM modality -> the study's name. Only modalities that come as volumes."""

NO_IMAGES = ("SR", "PR", "KO", "REG", "RTPLAN", "RTDOSE", "RTRECORD", "DOC", "RWV")
"""Modalities of files that may have rows and columns, and are no image to segment."""
OWN_MODEL = "qmsam_core"
"""What `predict` writes as the maker of its SEG files."""

_HEADER = [
    "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "SOPInstanceUID", "FrameOfReferenceUID", "InstanceNumber", "ManufacturerModelName",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence",
    "StructureSetROISequence",
]  # fmt: skip


@dataclass
class DicomFolder:
    """Headers of DICOM files. To make a case they are those of one series and its masks.

    Attributes:
        path: their folder, for messages.
        series: SeriesInstanceUID -> headers of its files. Each header has a `filename`.
        masks: headers of SEG and RTSTRUCT files.
        damaged: errors of files that look like DICOM and cannot be read, and of links that lead nowhere.
        others: files that are no DICOM images or masks.
    """

    path: Path
    series: dict[str, list[pydicom.Dataset]] = field(default_factory=dict)
    masks: list[pydicom.Dataset] = field(default_factory=list)
    damaged: list[CaseError] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, files: Iterable[Path]) -> DicomFolder:
        """Read the headers of some files. `folder` is named in messages."""
        found, rest = cls(folder), {}
        for path in files:
            try:
                header = read_header(path)
            except CaseError as error:
                found.damaged.append(error)
                continue
            if header is not None and header.get("Modality") in MASKS:
                found.masks.append(header)
            elif is_image(header):
                found.series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(header)
            elif path.name.upper() != "DICOMDIR":
                rest[path] = header
        endings = {Path(h.filename).suffix.lower() for s in found.series.values() for h in s}
        for path, header in rest.items():
            if is_cut(path, header, endings):
                found.damaged.append(CaseError(path, f"is no readable DICOM file ({_bytes(path)})"))
            else:
                found.others.append(path)
        return found

    def notes(self, chosen: list[pydicom.Dataset]) -> list[str]:
        """Name what is not part of `chosen`: files that repeat its slices, and files of no image."""
        found, taken = [], {str(header.filename) for header in chosen}
        (headers,) = self.series.values()
        if copies := [Path(h.filename).name for h in headers if str(h.filename) not in taken]:
            found.append(f"{listed(copies)} repeat slices that other files hold; each slice counts once")
        if self.others:
            names = listed([path.name for path in self.others])
            found.append(f"{len(self.others)} files are no DICOM images: {names}")
        return found

    @staticmethod
    def read_mask(path: Path) -> pydicom.Dataset | None:
        """Header of a SEG or RTSTRUCT file. None for anything else."""
        header = read_header(path) if path.is_file() else None
        return header if header is not None and header.get("Modality") in MASKS else None

    def drawn(self) -> list[pydicom.Dataset]:
        """Headers of the one SEG or RTSTRUCT file, or of several SEG, which may hold an object each.

        Raises:
            CaseError: there is none, or several of which some are RTSTRUCT.
        """
        if not self.masks:
            raise CaseError(
                self.path,
                "holds no mask; expected one SEG or RTSTRUCT file with the series, "
                "or a mask as second argument (predict: --boxes-from)",
            )
        if len(self.masks) > 1 and any(mask.Modality != "SEG" for mask in self.masks):
            names = ", ".join(Path(m.filename).name for m in self.masks[:4])
            raise CaseError(
                self.path,
                f"holds {len(self.masks)} masks ({names}); "
                "give the one to use: as second argument, or to predict with --boxes-from",
            )
        return self.masks

    def modality(self, given: str | None = None) -> str:
        """The study's name of the series' modality, or the `given` one where the series has none.

        Raises:
            CaseError: see `image_series`; or the two differ, or neither tells.
        """
        stated = MODALITIES.get(str(self.image_series()[0].get("Modality", "")))
        if stated and given and stated != given:
            raise CaseError(self.path, f"is a {stated} series; --modality says {given}")
        if not (stated or given):
            raise CaseError(self.path, "does not tell its modality, CT, MR or PET; give --modality")
        return stated or given

    def image_series(self) -> list[pydicom.Dataset]:
        """Headers of the one image series, each slice once.

        Raises:
            CaseError: there is none, or several. A file is damaged, so that a slice may be missing.
        """
        if self.damaged:
            first, more = self.damaged[0], len(self.damaged) - 1
            raise CaseError(
                first.path,
                f"{first.message}{f', so are {more} more files' if more else ''}: the series is incomplete; "
                "copy it again, or move the file away if it is no slice",
            )
        if not self.series:
            raise CaseError(self.path, "holds no DICOM image series")
        if len(self.series) > 1:
            raise CaseError(self.path, f"mixes {len(self.series)} image series; expected one")
        return without_copies(next(iter(self.series.values())))


def without_copies(headers: list[pydicom.Dataset]) -> list[pydicom.Dataset]:
    """Leave out files that repeat a slice: the same SOPInstanceUID, position and pixels as an earlier one."""
    kept: dict[tuple[str, str], list[pydicom.Dataset]] = {}
    result = []
    for header in headers:
        key = str(header.get("SOPInstanceUID", "")), str(header.get("ImagePositionPatient"))
        earlier = kept.setdefault(key, [])
        if not (key[0] and any(_same_pixels(header, other) for other in earlier)):
            earlier.append(header)
            result.append(header)
    return result


def _same_pixels(one: pydicom.Dataset, other: pydicom.Dataset) -> bool:
    import pydicom

    pixels = [pydicom.dcmread(header.filename, force=True).get("PixelData") for header in (one, other)]
    return pixels[0] is not None and pixels[0] == pixels[1]


def read_header(path: Path) -> pydicom.Dataset | None:
    """Read what is needed of a DICOM file's header. None for a file that is no DICOM.

    Raises:
        CaseError: it looks like DICOM and is damaged.
    """
    import pydicom

    try:
        with path.open("rb") as stream:
            bare = _is_bare(stream.read(4))
        return pydicom.dcmread(path, force=bare, stop_before_pixels=True, specific_tags=_HEADER)
    except pydicom.errors.InvalidDicomError:
        return None
    except EOFError as error:
        raise CaseError(path, f"is a damaged DICOM file ({_bytes(path)})") from error
    except Exception as error:  # skipping a damaged file in silence would leave out a slice
        raise CaseError(path, f"is a damaged DICOM file ({' '.join(str(error).split())})") from error


def _is_bare(start: bytes) -> bool:
    """Whether a file begins with a data set, without preamble, as old archives wrote them."""
    return start[:2] == b"\x08\0" and start[3:4] == b"\0"  # a tag of group 8, low byte first


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, with or without preamble. False if it cannot be opened."""
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or _is_bare(start)


def is_image(header: pydicom.Dataset | None) -> bool:
    """Whether a header is that of a slice or of a file of several."""
    return header is not None and "Rows" in header and header.get("Modality") not in NO_IMAGES


def is_cut(path: Path, header: pydicom.Dataset | None, endings: Collection[str] = ()) -> bool:
    """Whether a file without image is what is left of a slice: a header that ends early, or bytes alone.

    Args:
        path: the file.
        header: as `read_header` gave it.
        endings: of the slices beside it, in lower case.
    """
    if header is not None:
        return not len(header) or header.get("Modality") in MODALITIES
    with path.open("rb") as stream:
        start = stream.read(512)
    return path.suffix.lower() in (".dcm", *endings) and (not start or b"\0" in start)


def is_own_mask(header: pydicom.Dataset) -> bool:
    """Whether a mask was made by `predict`, and not drawn."""
    return header.get("Modality") == "SEG" and header.get("ManufacturerModelName") == OWN_MODEL


def _bytes(path: Path) -> str:
    size = path.stat().st_size
    return f"{size:,} bytes" if size else "empty"


def referenced_series(mask: pydicom.Dataset) -> set[str]:
    """Return series UIDs that a SEG names directly, an RTSTRUCT by frame of reference, study and series."""
    found = {str(item.get("SeriesInstanceUID", "")) for item in mask.get("ReferencedSeriesSequence", [])}
    for frame in mask.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            found |= {
                str(item.get("SeriesInstanceUID", "")) for item in study.get("RTReferencedSeriesSequence", [])
            }
    return found


def referenced_frames(mask: pydicom.Dataset) -> set[str]:
    """Return the UIDs of the coordinate systems that a SEG or RTSTRUCT states."""
    found = [mask, *mask.get("ReferencedFrameOfReferenceSequence", [])]
    frames = {str(item.get("FrameOfReferenceUID", "")) for item in found}
    rois = mask.get("StructureSetROISequence", [])
    return (frames | {str(roi.get("ReferencedFrameOfReferenceUID", "")) for roi in rois}) - {""}
