"""Copy the geometry from one NIfTI header to another, bit by bit.

ITK reads a NIfTI geometry as origin, spacing and cosines, and writes it anew from these. That changes the
last digits, and drops one of the two transforms that a header may hold. A mask with the very numbers of its
image lies where the image lies, in every viewer.
"""

from __future__ import annotations

from pathlib import Path

from ...data.importers.nifti import read_header

_FORMS = ("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_FIELDS = ("xyzt_units", *_FORMS, "sform_code", "srow_x", "srow_y", "srow_z")


def copy_geometry(image: Path, mask: Path) -> bool:
    """Copy pixdim, units, quaternion and affine form of an image's header to a mask's, and mark it as labels.

    Args:
        image: .nii or .nii.gz.
        mask: uncompressed .nii, changed in place.

    Returns:
        False if the image is gone or no NIfTI. The mask then stays as it is.
    """
    theirs, own = read_header(image), read_header(mask)
    if theirs is None or own is None:
        return False
    for field in _FIELDS:
        own[field] = theirs[field]
    own["pixdim"][:4] = theirs["pixdim"][:4]
    own.set_intent("label")
    with mask.open("r+b") as file:
        file.write(own.binaryblock)
    return True
