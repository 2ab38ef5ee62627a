"""Read a table of boxes that people wrote: CSV or JSON, in voxels or in mm.

A table has one row a box, with these columns (upper and lower case are the same):

- `file`: the image's path below the input folder, its file name, or its name without ending; for a DICOM
  series its folder, its number and description where the folder holds several, or its UID. It may be left out
  where there is one image. `case` and `image` mean the same.
- `name`: of the object; may be left out.
- Corners `x_min, y_min, z_min, x_max, y_max, z_max`, both included, or corner and size
  `x, y, z, width, height, depth`. Images have no z.
- `frame`: `voxel` (default), `LPS` or `RAS`. Voxels are counted along the file's own axes, as viewers do. LPS
  and RAS are mm as DICOM and as 3D Slicer write them.
- `first`: number of the first voxel, 0 (default; 3D Slicer) or 1 (ITK-SNAP).

JSON is a list of such rows, or an object whose `boxes` is that list and whose other keys hold for all rows.
A `.mrk.json` with ROIs of 3D Slicer is read, too.

CSV may begin with blank lines, comments (`#`) and the line `sep=;` of Excel. It is UTF-8, or UTF-16 with a
byte order mark.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ...data.archive import CaseError
from ...data.importers.endings import IMAGE_SUFFIXES, VOLUME_SUFFIXES
from ...data.importers.notes import listed
from ...data.importers.pairing import stem
from ...data.source import Source
from .grid_boxes import Frame, boxes_to_case, voxels_inside
from .inputs import DICOM_SUFFIXES, Input
from .slicer_roi import slicer_rows

CORNERS = ("x_min", "y_min", "z_min", "x_max", "y_max", "z_max")
SIZES = ("x", "y", "z", "width", "height", "depth")
_SAME = {"case": "file", "image": "file", "object": "name", "label": "name"} | {
    name.replace("_", ""): name for name in CORNERS
}
_KNOWN = {"file", "name", "frame", "first", *CORNERS, *SIZES}


class BoxTableError(ValueError):
    """A table of boxes cannot be used at all. The message names the file and what was expected."""


@dataclass(frozen=True)
class BoxRow:
    """One row of a table.

    Attributes:
        where: the table and its row, for messages.
        cells: texts by column, without empty ones.
        folder: of the table, from which paths in it may start.
    """

    where: str
    cells: dict[str, str]
    folder: Path = Path()

    def on(self, source: Source, path: Path) -> tuple[np.ndarray, str]:
        """Return the box on the source's grid, int64 (4,) or (6,), maxima included, and a note or "".

        A box in mm that reaches past the image is clipped.

        Raises:
            CaseError: a number is missing or none, or the box leaves the image. The message names the row.
        """
        dimensions = len(source.shape)
        frame = self._frame(path)
        low, high = self._limits(dimensions, frame, path)
        try:
            if frame == "voxel":
                found = np.rint(np.concatenate([low, high]) - self._number("first", path, 0)).astype(np.int64)
            else:
                found = voxels_inside(source, low, high, frame)
        except ValueError as error:
            raise CaseError(path, f"{self.where}: the image {error}") from error
        sides, note = _sides(source), ""
        if frame != "voxel":
            found, note = self._clipped(found, sides)
        self._check(found, sides, path)
        return found, note

    def _clipped(self, box: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, str]:
        """Cut a box to the image. One wholly outside stays as it is."""
        half = len(sides)
        clipped = np.concatenate([np.maximum(box[:half], 0), np.minimum(box[half:], sides - 1)])
        if (clipped == box).all() or (clipped[:half] > clipped[half:]).any():
            return box, ""
        note = f"{self.where}: box {box.tolist()} reaches past the image and is cut to {clipped.tolist()}"
        return clipped, note

    def _frame(self, path: Path) -> Frame:
        frame = self.cells.get("frame", "voxel").lower()
        if frame not in ("voxel", "pixel", "lps", "ras"):
            raise CaseError(path, f"{self.where}: frame {frame!r}; expected voxel, LPS or RAS")
        return "voxel" if frame == "pixel" else frame

    def _limits(self, dimensions: int, frame: Frame, path: Path) -> tuple[np.ndarray, np.ndarray]:
        corners, half = any(name in self.cells for name in CORNERS), 3
        names = CORNERS if corners else SIZES
        wanted = [name for k, name in enumerate(names) if k % half < dimensions]
        missing = [name for name in wanted if name not in self.cells]
        if missing:
            raise CaseError(
                path,
                f"{self.where}: has no {', '.join(missing)}; expected {', '.join(wanted)} "
                f"for {'a volume' if dimensions == 3 else 'an image'}",
            )
        values = np.array([self._number(name, path) for name in wanted])
        low, high = values[:dimensions], values[dimensions:]
        if not corners:
            high = low + high - (1 if frame == "voxel" else 0)
        if (high < low).any():
            why = "is it x, y, width, height? name the columns so" if corners else "a size must be positive"
            raise CaseError(path, f"{self.where}: a maximum lies below its minimum ({why})")
        return low, high

    def _number(self, name: str, path: Path, default: float | None = None) -> float:
        text = self.cells.get(name, default)
        try:
            value = float(str(text).replace(",", "."))  # spreadsheets of many countries write 1,5
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise CaseError(path, f"{self.where}: {name} is {text!r}; expected a number")
        return value

    def _check(self, box: np.ndarray, sides: np.ndarray, path: Path) -> None:
        half = len(sides)
        if (box[:half] < 0).any() or (box[half:] >= sides).any():
            raise CaseError(
                path,
                f"{self.where}: box {box.tolist()} (voxels from 0, maxima included) leaves the image of "
                f"{'x'.join(map(str, sides))}; check `frame` and `first`, or that corners are no sizes",
            )


def _sides(source: Source) -> np.ndarray:
    """Size as (x, y) or (x, y, z) of the grid that boxes are given on: for images, as viewers show them."""
    shape = source.to_case(np.empty(source.shape, bool)).shape if source.kind == "image" else source.shape
    return np.array(shape[::-1])


def read_box_table(path: Path) -> list[BoxRow]:
    """Read a CSV (comma, semicolon or tab) or JSON table, or ROIs of 3D Slicer.

    Raises:
        BoxTableError: it cannot be read, has no rows, has no columns of boxes, or a row has more fields than
            the header.
    """
    try:
        rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BoxTableError(f"{path}: is no table of boxes ({reason}); expected CSV or JSON") from error
    found = [BoxRow(f"{path.name} row {number}", _cells(row), path.parent) for number, row in rows]
    found = [row for row in found if row.cells]
    columns = {name for row in found for name in row.cells}
    if not ({"x_min", "y_min", "x_max", "y_max"} <= columns or {"x", "y", "width", "height"} <= columns):
        there = list(dict.fromkeys(str(key) for _, row in rows for key in row if str(key).strip()))
        raise BoxTableError(
            f"{path}: has {len(found)} rows with columns {listed(there, 20) or 'none'}; "
            f"expected {', '.join(CORNERS)}, or {', '.join(SIZES)}, and file, name, frame, first where needed"
        )
    return found


def _cells(row: dict) -> dict[str, str]:
    cells = {}
    for key, value in row.items():
        name = str(key).strip().lower().replace(" ", "_")
        name = _SAME.get(name, name)
        if name in _KNOWN and value is not None and str(value).strip():
            cells[name] = str(value).strip()
    return cells


def _text(path: Path) -> str:
    """Text of a table. Raises `ValueError` if its encoding is not clear."""
    content = path.read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no UTF-8; save it as 'CSV UTF-8'") from error
    if "\0" in text:
        raise ValueError("it holds zero bytes; save it as 'CSV UTF-8'")
    return text


def _csv_rows(path: Path) -> list[tuple[int, dict]]:
    """Rows by the number of their line in the file."""
    lines = io.StringIO(_text(path), newline=None).readlines()  # any line ends, old Macs' too
    start, separator = 0, None
    while start < len(lines) and _is_preface(lines[start]):
        stated = lines[start].strip().lower()
        if stated.startswith("sep="):
            separator = stated[len("sep=") :] or "\t"  # a tab is stripped
        start += 1
    if start == len(lines):
        raise ValueError("it is empty")
    separator = separator or max(",;\t", key=lines[start].count)
    reader = csv.reader(lines[start:], delimiter=separator, skipinitialspace=True)
    header, rows, line = None, [], start + 1
    try:
        for fields in reader:
            if header is None:
                header = fields
            elif any(map(str.strip, fields)):
                rows.append((line, _row(header, fields, line)))
            line = start + reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"row {line}: {error}") from error
    return rows


def _is_preface(line: str) -> bool:
    text = line.strip(" \t\r\n,;").lower()
    return not text or text.startswith(("#", "sep="))


def _row(header: list[str], fields: list[str], line: int) -> dict[str, str]:
    if any(field.strip() for field in fields[len(header) :]):
        raise ValueError(
            f"row {line} has {len(fields)} fields, the header {len(header)}; "
            'a text with the separator in it needs quotes, as in "kidney, left"'
        )
    return dict(zip(header, fields))


def _json_rows(path: Path) -> list[tuple[int, dict]]:
    content = json.loads(_text(path))
    shared = {}
    if isinstance(content, dict) and "markups" in content:
        content = list(slicer_rows(content, path))
    elif isinstance(content, dict):
        shared = {key: value for key, value in content.items() if key != "boxes"}
        content = content["boxes"] if "boxes" in content else [{}]
    return [(number, {**shared, **row}) for number, row in enumerate(content, 1)]


def rows_by_input(rows: Sequence[BoxRow], inputs: Sequence[Input]) -> tuple[dict[str, list[BoxRow]], list]:
    """Find the rows of each input. The path below the input folder counts before the mere file name.

    Returns:
        Rows by the input's name, and a `CaseError` for each row that fits no input, or several.
    """
    by_key: list[dict[str, set[str]]] = [{}, {}, {}, {}]
    for one in inputs:
        for keys, there in zip(_keys(one), by_key):
            for key in keys:
                there.setdefault(key, set()).add(one.name)
    found, errors = {}, []
    for row in rows:
        file = PurePosixPath(row.cells.get("file", "").replace("\\", "/")).as_posix()
        names = {inputs[0].name} if file == "." and len(inputs) == 1 else _called(file, row.folder, by_key)
        if len(names) == 1:
            found.setdefault(next(iter(names)), []).append(row)
            continue
        there = listed(sorted(names or {one.name for one in inputs}))
        what = "fits several inputs" if names else f"fits none of {len(inputs)} inputs"
        errors.append(
            CaseError(row.where, f"file {'' if file == '.' else file!r} {what}; expected one of {there}")
        )
    return found, errors


def _called(file: str, folder: Path, by_key: Sequence[dict[str, set[str]]]) -> set[str]:
    """Names of the inputs that a row may mean, of the most exact kind that fits any."""
    if file == ".":
        return set()
    places = {os.path.realpath(start / file) for start in (Path(), folder)}
    asked = ({file}, places, {file}, {file})  # in the order of `_keys`
    found = (set().union(*(there.get(key, ()) for key in keys)) for keys, there in zip(asked, by_key))
    return next(filter(None, found), set())


def _keys(one: Input) -> tuple[set[str], ...]:
    """Texts by which a row may call an input: its path, real place, path without ending, or file name."""
    path = PurePosixPath(one.name)
    endings = (".npz", *VOLUME_SUFFIXES, *IMAGE_SUFFIXES, *DICOM_SUFFIXES)
    bare = stem(Path(path.name), endings) or path.name
    return (
        {one.name, one.series} - {""},
        {os.path.realpath(one.path)},
        {(path.parent / bare).as_posix()},
        {path.name, bare},
    )


def boxes_of(
    rows: Sequence[BoxRow], source: Source, path: Path
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Return boxes on the axes of the case, int64 (N, 4) or (N, 6), the objects' names, and notes.

    There are no names if no row has one. Else those of other rows are "".

    Raises:
        CaseError: see `BoxRow.on`.
    """
    boxes, notes = zip(*(row.on(source, path) for row in rows))
    names = tuple(row.cells.get("name", "") for row in rows)
    return boxes_to_case(source, np.array(boxes)), names if any(names) else (), list(filter(None, notes))
