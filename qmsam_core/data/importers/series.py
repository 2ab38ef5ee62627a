"""List the series and masks of a DICOM folder, and the files in it that are damaged."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from qmsam_core.data.archive import CaseError

from .notes import listed
from .walk import files_below

MODALITIES = {"CT": "CT", "MR": "MR", "PT": "PET"}
"""DICOM modality -> the study's name. Only modalities that come as volumes."""

_HEADER = [
    "Modality", "SeriesInstanceUID", "SeriesDescription", "SOPInstanceUID", "FrameOfReferenceUID",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence",
]  # fmt: skip


@dataclass
class DicomFolder:
    """Contents of a DICOM folder: the headers of image series and of masks.

    Attributes:
        path: the folder.
        series: SeriesInstanceUID -> headers of its files. Each header has a `filename`.
        masks: headers of SEG and RTSTRUCT files.
        damaged: errors of files that look like DICOM and cannot be read, and of links that lead nowhere.
        others: files that are no DICOM images or masks.
        loops: links to folders that they lie in, which are not followed.
    """

    path: Path
    series: dict[str, list[pydicom.Dataset]] = field(default_factory=dict)
    masks: list[pydicom.Dataset] = field(default_factory=list)
    damaged: list[CaseError] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)

    @classmethod
    def scan(cls, folder: str | os.PathLike) -> DicomFolder:
        """Read the headers of all DICOM files in and below `folder`. Links are followed."""
        found, below = cls(Path(folder)), files_below(folder)
        found.damaged += below.errors
        found.loops += below.loops
        for path in below.files:
            try:
                header = _header(path)
            except CaseError as error:
                found.damaged.append(error)
                continue
            if header is None:
                found.others.append(path)
            elif header.get("Modality") in ("SEG", "RTSTRUCT"):
                found.masks.append(header)
            elif "Rows" in header:
                found.series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(header)
            elif path.name.upper() != "DICOMDIR":
                found.others.append(path)
        found._judge_others()
        return found

    def _judge_others(self) -> None:
        """A file that is no DICOM file but looks like one, by its ending and bytes, is a damaged slice."""
        endings = {Path(h.filename).suffix.lower() for s in self.series.values() for h in s} | {".dcm"}
        broken = [p for p in self.others if p.suffix.lower() in endings and _looks_cut(p)]
        self.others = [path for path in self.others if path not in broken]
        self.damaged += [CaseError(path, f"is no readable DICOM file ({_bytes(path)})") for path in broken]

    def notes(self, chosen: list[pydicom.Dataset]) -> list[str]:
        """Name what is not part of the series `chosen`: other series, and files that are no DICOM images."""
        own = str(chosen[0].get("SeriesInstanceUID", ""))
        found = [f"series {kind} is not imported" for uid, kind in self._kinds().items() if uid != own]
        taken = {str(header.filename) for header in chosen}
        copies = [Path(h.filename).name for h in self.series[own] if str(h.filename) not in taken]
        if copies:
            found.append(f"{listed(copies)} repeat slices that other files hold; each slice counts once")
        found += [f"{path} leads to a folder above it and is not followed" for path in self.loops]
        if self.others:
            names = listed([path.name for path in self.others])
            found.append(f"{len(self.others)} files are no DICOM images: {names}")
        return found

    def _kinds(self) -> dict[str, str]:
        """Modality, description and number of files of each series."""
        return {
            uid: f"{h[0].get('Modality')} {h[0].get('SeriesDescription', '') or uid}, {len(h)} files"
            for uid, h in self.series.items()
        }

    @staticmethod
    def read_mask(path: Path) -> pydicom.Dataset | None:
        """Header of a SEG or RTSTRUCT file. None for anything else."""
        header = _header(path) if path.is_file() else None
        return header if header is not None and header.get("Modality") in ("SEG", "RTSTRUCT") else None

    def mask(self) -> pydicom.Dataset:
        """Header of the only SEG or RTSTRUCT file. Raises `CaseError` if there is none or more than one."""
        if not self.masks:
            raise CaseError(
                self.path,
                "holds no mask; expected one SEG or RTSTRUCT file with the series, "
                "or a mask as second argument (predict: --boxes-from)",
            )
        if len(self.masks) > 1:
            names = ", ".join(Path(m.filename).name for m in self.masks[:4])
            raise CaseError(
                self.path,
                f"holds {len(self.masks)} masks ({names}); "
                "give the one to use: as second argument, or to predict with --boxes-from",
            )
        return self.masks[0]

    def modality(self, drawn: pydicom.Dataset | None = None, given: str | None = None) -> str:
        """The study's name of the image series' modality, or the `given` one where the series has none.

        Raises:
            CaseError: see `image_series`; or the two differ, or neither tells.
        """
        stated = MODALITIES.get(str(self.image_series(drawn)[0].get("Modality", "")))
        if stated and given and stated != given:
            raise CaseError(self.path, f"is a {stated} series; --modality says {given}")
        if not (stated or given):
            raise CaseError(self.path, "does not tell its modality, CT, MR or PET; give --modality")
        return stated or given

    def image_series(self, mask: pydicom.Dataset | None = None) -> list[pydicom.Dataset]:
        """Headers of the image series: the only one, or the one that `mask` refers to.

        Raises:
            CaseError: there is no image series, or several and `mask` does not select one. A file is damaged,
                so that a slice may be missing.
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
        chosen = self.series
        if len(chosen) > 1 and mask is not None:
            wanted = _referenced_series(mask)
            chosen = {uid: headers for uid, headers in self.series.items() if uid in wanted}
        if len(chosen) != 1:
            kinds = "; ".join(self._kinds().values())
            raise CaseError(
                self.path,
                f"mixes {len(self.series)} image series ({kinds}); "
                "expected one, or a mask that refers to one of them",
            )
        return without_copies(next(iter(chosen.values())))


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
    pixels = [pydicom.dcmread(header.filename).get("PixelData") for header in (one, other)]
    return pixels[0] is not None and pixels[0] == pixels[1]


def holds_dicom(folder: Path) -> bool:
    """Whether a DICOM image or mask lies directly in the folder. A DICOMDIR does not count."""
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            header = _header(path)
        except CaseError:  # named when the folder is scanned
            continue
        if header is not None and (header.get("Modality") in ("SEG", "RTSTRUCT") or "Rows" in header):
            return True
    return False


def _header(path: Path) -> pydicom.Dataset | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_HEADER)
    except pydicom.errors.InvalidDicomError:
        return None
    except EOFError as error:
        raise CaseError(path, f"is a damaged DICOM file ({_bytes(path)})") from error
    except Exception as error:  # skipping a damaged file in silence would leave out a slice
        raise CaseError(path, f"is a damaged DICOM file ({' '.join(str(error).split())})") from error


def _looks_cut(path: Path) -> bool:
    """Whether a file is empty or holds bytes that no text has."""
    with path.open("rb") as stream:
        start = stream.read(512)
    return not start or b"\0" in start


def _bytes(path: Path) -> str:
    size = path.stat().st_size
    return f"{size:,} bytes" if size else "empty"


def _referenced_series(mask: pydicom.Dataset) -> set[str]:
    """Series UIDs that a SEG names directly, or an RTSTRUCT by frame of reference, study and series."""
    found = {str(item.get("SeriesInstanceUID", "")) for item in mask.get("ReferencedSeriesSequence", [])}
    for frame in mask.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            found |= {
                str(item.get("SeriesInstanceUID", "")) for item in study.get("RTReferencedSeriesSequence", [])
            }
    return found
