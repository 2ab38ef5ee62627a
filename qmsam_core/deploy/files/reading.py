"""Make the case of an input: its image as the importers read it, and boxes from a table or from masks.

The readers of the hospital's formats are imported where they are used. Their libraries take longer to load
than an npz case takes to segment, and need not be installed for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...data.archive import CaseArchive, CaseError
from ...data.cases import Case, tight_boxes
from ...data.importers.options import ImportOptions
from ...data.importers.series import DicomFolder
from ...data.source import Source, read_source
from .box_table import BoxRow, boxes_of
from .inputs import Input

if TYPE_CHECKING:
    from ...data.importers.pictures import Picture
    from ...data.importers.series_masks import Masks

NO_BOXES = "has no boxes; give --boxes TABLE, or --boxes-from MASKS"


@dataclass(frozen=True)
class Reading:
    """How inputs become cases with boxes.

    Attributes:
        modality: of the files that do not tell it; None if the user gave none.
        options: window, percentiles and plane.
        rows: rows of the table of boxes, by the input's name.
        masks: files or folders of masks to take boxes from, by the input's name.
        to_source: whether the masks of a case that was imported go back to the format it came from.
    """

    modality: str | None = None
    options: ImportOptions = field(default_factory=ImportOptions)
    rows: Mapping[str, Sequence[BoxRow]] = field(default_factory=dict)
    masks: Mapping[str, Masks] = field(default_factory=dict)
    to_source: bool = False

    def origin(self, one: Input) -> str:
        """Describe what an input's masks are made from: its files, its boxes, and the options that count.

        Raises `OSError` if a file is gone.
        """
        facts = [one.state()]
        if self.to_source:
            facts.append("to its source")
        if rows := self.rows.get(one.name):
            facts.append(_digest([row.cells for row in rows]))
        if mask := self.masks.get(one.name):
            facts.append(_digest([[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in _files(mask)]))
        if one.kind != "npz":
            facts.append(_digest([self.modality, repr(self.options)]))
        return ", ".join(facts)

    def case(self, one: Input) -> tuple[Case, list[str]]:
        """Read an input with its boxes.

        Returns:
            The case without labels, and notes on what was noticed. A `Loss` among them is left out.

        Raises:
            CaseError: it cannot be read, has no boxes, or does not tell its modality, or is a series whose
                masks could not be written.
        """
        case, notes = self._case(one)
        source = self.source(one) if one.kind == "npz" else case.source
        if source is not None and source.kind == "dicom":
            from .dicom_seg import check_series, label_notes

            check_series(source)
            notes = [*notes, *label_notes(case.names)]
        return case, notes

    def image(self, one: Input) -> tuple[Case, list[str]]:
        """Read an input's image alone: without boxes, unless it is an npz that holds them.

        Returns the case, and notes on what was noticed. Raises `CaseError` if it cannot be read or does not
        tell its modality.
        """
        if one.kind == "npz":
            return Case.load(one.path), []
        picture = self._picture(one)
        return picture.case(one.name), list(picture.notes)

    def _case(self, one: Input) -> tuple[Case, list[str]]:
        rows, mask = self.rows.get(one.name), self.masks.get(one.name)
        if one.kind == "npz":
            if mask is not None:
                raise CaseError(
                    one.path, "is an npz, which has boxes or labels of its own; leave out --boxes-from"
                )
            return self._boxed_case(one, rows)
        if rows:
            picture = self._picture(one)
            boxes, names, notes = boxes_of(rows, picture.source, one.path)
            return replace(picture.case(one.name), boxes=boxes, names=names), [*picture.notes, *notes]
        case, notes = self._case_with_mask(one, mask)
        return replace(case, labels=None), notes  # only its boxes are asked for

    def modality_of(self, one: Input) -> str | None:
        """Return the modality that a DICOM series states; else the one given, None if none was.

        Raises:
            CaseError: a series cannot be read, or neither tells, or they differ.
        """
        if one.kind == "dicom":
            return self._modality(one, DicomFolder.of(one.path, one.files))
        return self.modality

    def source(self, one: Input) -> Source | None:
        """Return the source of an imported case, if its masks go back there.

        Raises:
            CaseError: the case does not say where it comes from.
        """
        if one.kind != "npz" or not self.to_source:
            return None
        with CaseArchive(one.path) as archive:
            source = read_source(archive)
        if source is None:
            raise CaseError(
                one.path, "has no 'source' to go back to; import it again, or leave out --to-source"
            )
        return source

    def _boxed_case(self, one: Input, rows: Sequence[BoxRow] | None) -> tuple[Case, list[str]]:
        case = Case.load(one.path)
        if rows:
            shape = case.images.shape if case.is_volume else case.plane_shape
            own = Source(str(one.path), "volume", shape, tuple(range(1, len(shape) + 1)))
            boxes, names, notes = boxes_of(rows, own, one.path)
            return replace(case, boxes=boxes, names=names, labels=None), notes
        if case.boxes is not None:
            check_not_sizes(case)
        return case.with_boxes(), []

    def _picture(self, one: Input) -> Picture:
        from ...data.importers.pictures import planar_image, series_image, volume_image

        if one.kind == "image":
            return planar_image(one.path, self.options)
        if one.kind == "volume":
            return volume_image(one.path, self._modality(one), self.options)
        found = DicomFolder.of(one.path, one.files)
        return series_image(found, self._modality(one, found), self.options)

    def _case_with_mask(self, one: Input, mask: Masks | None) -> tuple[Case, list[str]]:
        from ...data.importers.assemble import dicom_case, nifti_case, planar_case

        options = replace(self.options, labels=replace(self.options.labels, keep_covered=True))
        if one.kind == "dicom":
            found = DicomFolder.of(one.path, one.files)
            if mask is None and not found.masks:
                raise CaseError(one.path, NO_BOXES)
            return dicom_case(one.name, found, mask, self._modality(one, found), options)
        if mask is None:
            raise CaseError(one.path, NO_BOXES)
        if one.kind == "image":
            return planar_case(one.name, one.path, mask, options)
        return nifti_case(one.name, one.path, mask, self._modality(one), options)

    def _modality(self, one: Input, found: DicomFolder | None = None) -> str:
        if found is not None:
            return found.modality(self.modality)
        if self.modality is None:
            raise CaseError(
                one.path, "does not tell its modality; give --modality CT (Hounsfield window), MR or another"
            )
        return self.modality


def check_not_sizes(case: Case) -> None:
    """Raise `CaseError` if a case's boxes fit its labels only when read as corner and size."""
    if case.labels is None or not len(case.boxes):
        return
    ids, tight = tight_boxes(case.labels)
    boxes = case.boxes[ids - 1]
    half = boxes.shape[1] // 2
    sized = np.concatenate([boxes[:, :half], boxes[:, :half] + boxes[:, half:] - 1], axis=1)
    if len(ids) and (overlap(sized, tight) > 0.9).all() and (overlap(boxes, tight) < 0.8).any():
        raise CaseError(
            case.name,
            f"box 0 {case.boxes[0].tolist()} fits its label as corner and size (x, y, width, height); "
            "expected corners, x_min, y_min, x_max, y_max with the maxima included",
        )


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4) or (N, 6) with others, one by one. Maxima included."""
    half = boxes.shape[1] // 2
    low, high = np.maximum(boxes, others)[:, :half], np.minimum(boxes, others)[:, half:]
    shared = np.prod(np.clip(high - low + 1, 0, None), axis=1)
    sizes = [np.prod(b[:, half:] - b[:, :half] + 1, axis=1) for b in (boxes, others)]
    return shared / np.maximum(sizes[0] + sizes[1] - shared, 1)


def _files(mask: Masks) -> list[Path]:
    if isinstance(mask, tuple):
        return list(mask)
    return sorted(p for p in mask.rglob("*") if p.is_file()) if mask.is_dir() else [mask]


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]
