"""Open one's own image without boxes, for notebook 11: a typed path, or files that a browser sent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from ..data import Case
from ..data.archive import CaseError
from ..deploy.files.inputs import find_inputs, name_of
from ..deploy.files.reading import Reading


def open_image(path: str | Path, modality: str | None = None) -> tuple[Case, list[str]]:
    """Read an image as `predict` reads it: npz, NIfTI, NRRD, MetaImage, PNG, JPEG, TIFF, BMP or DICOM.

    Args:
        path: file, or folder that holds one image, such as a DICOM series.
        modality: CT for the window in Hounsfield units, any other name for percentiles. Files that hold 2-D
            pictures do without, DICOM series tell their own.

    Returns:
        The case, with boxes only if the file is an npz that holds them, and notes on what was noticed.

    Raises:
        CaseError: there is no such file, it is no image, it does not tell its modality, or the folder
            holds none or several.
    """
    if not str(path).strip():
        raise CaseError(path, "no path was given; type that of an image file or of a DICOM folder")
    path = Path(str(path).strip()).expanduser()
    if not path.exists():
        raise CaseError(path, "there is no such file or folder where the notebook runs; type another path")
    found = find_inputs(path)
    if len(found) != 1:
        names = ", ".join(name_of(one) for one in found[:3]) or "none"
        raise CaseError(path, f"holds {len(found)} images ({names}); expected one, name its file")
    (one,) = found
    if isinstance(one, CaseError):
        raise one
    if one.kind == "volume" and modality is None:
        raise CaseError(path, "does not tell its modality; choose it: CT has a window of its own")
    return Reading(modality).image(one)


def open_sent(files: Iterable[Mapping[str, Any]], modality: str | None = None) -> tuple[Case, list[str]]:
    """Read an image that a browser sent, see `open_image`.

    Args:
        files: one file, or those of a DICOM series; `name` and `content` (bytes) of each, as the value of
            `ipywidgets.FileUpload` has them.
        modality: see `open_image`.

    Raises:
        CaseError: as `open_image`.
    """
    with TemporaryDirectory(prefix="qmsam-") as folder:
        paths = [Path(folder, PurePath(file["name"]).name) for file in files]
        for path, file in zip(paths, files):
            path.write_bytes(file["content"])
        try:
            return open_image(paths[0] if len(paths) == 1 else folder, modality)
        except CaseError as error:
            # the sender has never seen the folder
            name = "the files sent" if error.path == Path(folder) else error.path.name
            raise CaseError(name, error.message.replace(f"{folder}{os.sep}", "")) from None
