"""Read a table of boxes that people wrote: CSV or JSON, in voxels or in mm.

A table has one row a box, with these columns (upper and lower case are the same):

- `file`: the image's path below the input folder, its file name, or its name without ending. It may be left
  out where there is one image. `case` and `image` mean the same.
- `name`: of the object; may be left out.
- Corners `x_min, y_min, z_min, x_max, y_max, z_max`, both included, or corner and size
  `x, y, z, width, height, depth`. Images have no z.
- `frame`: `voxel` (default), `LPS` or `RAS`. Voxels are counted along the file's own axes, as viewers do. LPS
  and RAS are mm as DICOM and as 3D Slicer write them.
- `first`: number of the first voxel, 0 (default; 3D Slicer) or 1 (ITK-SNAP).

JSON is a list of such rows, or an object whose `boxes` is that list and whose other keys hold for all rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ...data.archive import CaseError
from ...data.importers.grids import VOLUME_SUFFIXES
from ...data.importers.pairing import stem
from ...data.importers.planar import IMAGE_SUFFIXES
from ...data.source import Source
from .grid_boxes import Frame, boxes_to_case, voxels_inside
from .inputs import DICOM_SUFFIXES, Input

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
    """

    where: str
    cells: dict[str, str]

    def on(self, source: Source, path: Path) -> np.ndarray:
        """Return the box on the source's grid, int64 (4,) or (6,), maxima included.

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
        self._check(found, _sides(source), path)
        return found

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
    """Read a CSV (comma, semicolon or tab) or JSON table.

    Raises:
        BoxTableError: it cannot be read, has no rows, or has no columns of boxes.
    """
    try:
        rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise BoxTableError(f"{path}: is no table of boxes ({reason}); expected CSV or JSON") from error
    found = [BoxRow(f"{path.name} row {number}", _cells(row)) for number, row in rows]
    found = [row for row in found if row.cells]
    columns = {name for row in found for name in row.cells}
    if not ({"x_min", "y_min", "x_max", "y_max"} <= columns or {"x", "y", "width", "height"} <= columns):
        raise BoxTableError(
            f"{path}: has columns {', '.join(sorted(columns)) or 'none'}; expected {', '.join(CORNERS)}, "
            f"or {', '.join(SIZES)}, and file, name, frame, first where needed"
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


def _csv_rows(path: Path) -> list[tuple[int, dict]]:
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    separator = max(",;\t", key=header.count)
    table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    return [(line, row) for line, row in enumerate(table.to_dict("records"), 2)]  # line 1 is the header


def _json_rows(path: Path) -> list[tuple[int, dict]]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    shared = {}
    if isinstance(content, dict):
        shared = {key: value for key, value in content.items() if key != "boxes"}
        content = content["boxes"] if "boxes" in content else [{}]
    return [(number, {**shared, **row}) for number, row in enumerate(content, 1)]


def rows_by_input(rows: Sequence[BoxRow], inputs: Sequence[Input]) -> tuple[dict[str, list[BoxRow]], list]:
    """Find the rows of each input.

    Returns:
        Rows by the input's name, and a `CaseError` for each row that fits no input, or several.
    """
    by_key: dict[str, set[str]] = {}
    for one in inputs:
        for key in _keys(one.name):
            by_key.setdefault(key, set()).add(one.name)
    found, errors = {}, []
    for row in rows:
        file = PurePosixPath(row.cells.get("file", "").replace("\\", "/")).as_posix()
        names = {inputs[0].name} if file == "." and len(inputs) == 1 else by_key.get(file, set())
        if len(names) == 1:
            found.setdefault(next(iter(names)), []).append(row)
            continue
        what = f"fits several inputs ({', '.join(sorted(names))})" if names else "fits no input"
        file = "" if file == "." else file
        errors.append(CaseError(row.where, f"file {file!r} {what}; expected its path below the input folder"))
    return found, errors


def _keys(name: str) -> set[str]:
    """Texts by which a row may call an input: path or file name, with or without ending."""
    path = PurePosixPath(name)
    endings = (".npz", *VOLUME_SUFFIXES, *IMAGE_SUFFIXES, *DICOM_SUFFIXES)
    bare = stem(Path(path.name), endings) or path.name
    return {name, path.name, bare, (path.parent / bare).as_posix()}


def boxes_of(rows: Sequence[BoxRow], source: Source, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return boxes on the axes of the case, int64 (N, 4) or (N, 6), and the objects' names, "" without one.

    Raises:
        CaseError: see `BoxRow.on`.
    """
    boxes = np.array([row.on(source, path) for row in rows])
    return boxes_to_case(source, boxes), tuple(row.cells.get("name", "") for row in rows)
