"""Read the values that a mask stores where decoders give what viewers show: palettes, bits, inverted TIFF."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from qmsam_core.data.archive import CaseError

_PHOTOMETRIC = 262  # TIFF tag
_WHITE_IS_ZERO = 0
_WHITE = 250  # least value of a channel that passes for white


def stored_indices(path: str | os.PathLike) -> np.ndarray | None:
    """Return the stored values of a mask, uint8 (H,W), where they differ from the decoded ones.

    These are the indices of palette images, the 0 and 1 of 1-bit files (whichever is shown as white), grey
    PNG of 2 and 4 bits, and 8-bit TIFF with inverted greys. None for all other files, and unreadable ones.

    Raises:
        CaseError: damaged, several pages, or a palette that seems to hold the object at index 0.
    """
    try:
        file = Image.open(path)
    except Exception:  # a damaged header can raise anything; the reader of the pixels names the fault
        return None
    with file:
        if not (file.mode in ("P", "1") or _bits(path) in (2, 4) or _inverted(file)):
            return None
        if getattr(file, "n_frames", 1) > 1:
            raise CaseError(path, f"has {file.n_frames} pages; expected one image a file")
        inverted = _inverted(file)
        try:
            values = np.array(file)
        except Exception as error:
            raise CaseError(path, f"cannot be read ({' '.join(str(error).split())})") from error
        if file.mode == "P":
            _check_background(file, values, path)
            return values
        if file.mode == "1":
            return (values ^ inverted).astype(np.uint8)
        if inverted:
            return 255 - values
        return values // (255 // (2 ** _bits(path) - 1))


def _bits(path: str | os.PathLike) -> int | None:
    """Bits a pixel of a grey PNG file. None for other files."""
    with Path(path).open("rb") as stream:
        start = stream.read(26)
    grey = start[:8] == b"\x89PNG\r\n\x1a\n" and start[25:26] == b"\0"
    return start[24] if grey else None


def _inverted(file: Image.Image) -> bool:
    tags = getattr(file, "tag_v2", {}) if file.format == "TIFF" else {}
    return file.mode in ("1", "L") and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _check_background(file: Image.Image, values: np.ndarray, path: str | os.PathLike) -> None:
    """Index 0 is the background. Programs that shrink files may number white first, and then it is not."""
    colours = np.array(file.getpalette("RGB")).reshape(-1, 3)
    used = [k for k in np.unique(values) if k and k < len(colours)]
    if len(colours) and colours[0].min() >= _WHITE and any(colours[k].max() == 0 for k in used):
        raise CaseError(
            path,
            "has a palette with white at index 0 and black at another: labels are the indices, so white "
            "would be the background; save the mask in grey",
        )
