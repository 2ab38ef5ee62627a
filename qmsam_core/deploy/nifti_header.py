"""Copy the geometry from one NIfTI-1 header to another, bit by bit.

ITK reads a NIfTI geometry as origin, spacing and cosines, and writes it anew from these. That changes the
last digits, and drops one of the two transforms that a header may hold. A mask with the very numbers of its
image lies where the image lies, in every viewer.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

HEADER_BYTES = 348
_FIELDS = {76: "4f", 123: "B", 252: "2h", 256: "6f", 280: "12f"}
"""Byte offsets of pixdim[0..3], xyzt_units, the two codes, the quaternion form and the affine form."""
_INTENT, _LABELS = 68, 1002  # NIFTI_INTENT_LABEL: values are labels


def copy_geometry(image: Path, mask: Path) -> bool:
    """Copy pixdim, units, quaternion and affine form of an image's header to a mask's, and mark it as labels.

    Args:
        image: .nii or .nii.gz.
        mask: uncompressed .nii, changed in place.

    Returns:
        False if one of the two is no NIfTI-1 file, or the image is gone. The mask then stays as it is.
    """
    theirs = _header(image)
    own = _header(mask)
    if theirs is None or own is None:
        return False
    with mask.open("r+b") as file:
        for offset, code in _FIELDS.items():
            values = struct.unpack_from(_order(theirs) + code, theirs, offset)
            file.seek(offset)
            file.write(struct.pack(_order(own) + code, *values))
        file.seek(_INTENT)
        file.write(struct.pack(_order(own) + "h", _LABELS))
    return True


def _header(path: Path) -> bytes | None:
    """First bytes of a NIfTI-1 file; None for anything else."""
    if not path.is_file():
        return None
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            found = file.read(HEADER_BYTES)
    except OSError:
        return None
    return found if len(found) == HEADER_BYTES and _order(found) else None


def _order(header: bytes) -> str:
    """Byte order as `struct` names it; "" if it is no NIfTI-1 header."""
    return next((order for order in "<>" if struct.unpack_from(order + "i", header)[0] == HEADER_BYTES), "")
