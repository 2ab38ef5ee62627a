"""Read volumes with SimpleITK, and check that image and mask share a grid."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from qmsam_core.data.archive import CaseError

from .planes import order_of

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
"""Endings of files with a geometry that SimpleITK reads. The sub-command `nifti` takes them all."""

GRID_TOLERANCE = 0.1
"""Largest distance between corners of image and mask, in voxels. It allows for rounded headers. A mask of
another scan is farther off."""

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK warns on stderr about every rounded header


def read_volume(path: str | os.PathLike, dimension: int | None = None) -> sitk.Image:
    """Read a 3-D or 2-D image of one channel, as stored.

    Args:
        path: file to read.
        dimension: 2 or 3 if the image has to have so many axes.

    Raises:
        CaseError: unreadable, not one 3-D volume or 2-D image, several channels, or directions not at right
            angles.
    """
    path = Path(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(path))
    try:
        reader.ReadImageInformation()
        size, channels = reader.GetSize(), reader.GetNumberOfComponents()
        if len(size) == 4 and size[3] == 1:
            reader.SetExtractSize([*size[:3], 0])
            size = size[:3]
        if len(size) not in ((2, 3) if dimension is None else (dimension,)):
            raise CaseError(path, _wrong_dimension(size, dimension))
        if channels != 1:
            raise CaseError(path, f"has {channels} channels a voxel; expected one grey value or label")
        return reader.Execute()
    except RuntimeError as error:
        raise CaseError(path, f"cannot be read ({reason(error)})") from error


def is_flat(path: str | os.PathLike) -> bool:
    """Whether a file holds a 2-D image, by its header. False for a file that cannot be read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    return reader.GetDimension() == 2


def _wrong_dimension(size: tuple[int, ...], wanted: int | None) -> str:
    if len(size) > 3:
        advice = "split it into 3-D volumes"
    else:
        advice = f"use the sub-command '{'nifti' if len(size) == 3 else 'images'}'"
    expected = "a 2-D image" if wanted == 2 else "a 3-D volume"
    return f"is {len(size)}-D of size {'x'.join(map(str, size))}; expected {expected} ({advice})"


def reason(error: RuntimeError) -> str:
    """Return ITK's error on one line, without the source file and address that ITK adds."""
    last = [line for line in str(error).splitlines() if line.strip()][-1].strip()
    return re.sub(r"^(?:sitk::|itk::)?(?:ITK )?ERROR:\s*(?:\w+\(0x[0-9a-f]+\):\s*)?", "", last)


def turned_like(mask: sitk.Image, image: sitk.Image) -> sitk.Image:
    """Permute and flip the axes of a mask, so that they run roughly in the directions of the image's axes."""
    if mask.GetDimension() != 3 or image.GetDimension() != 3:
        return mask
    return sitk.DICOMOrient(mask, order_of(image.GetDirection()))


def check_same_grid(image: sitk.Image, mask: sitk.Image, path: str | os.PathLike) -> None:
    """Raise `CaseError`, naming `path`, unless image and mask have one shape and their corners coincide."""
    if image.GetSize() != mask.GetSize():
        raise CaseError(
            path,
            f"has {_size(mask)} voxels, its image {_size(image)} (x,y,z, along the image's axes): "
            "mask and image do not belong together",
        )
    ends = [(0, side - 1) for side in image.GetSize()]
    apart = [
        np.subtract(image.TransformIndexToPhysicalPoint(c), mask.TransformIndexToPhysicalPoint(c))
        for c in itertools.product(*ends)
    ]
    furthest = max(float(np.linalg.norm(step)) for step in apart)
    if furthest > GRID_TOLERANCE * min(image.GetSpacing()):
        found = f"spacing {_numbers(mask.GetSpacing())}, origin {_numbers(mask.GetOrigin())}"
        expected = f"spacing {_numbers(image.GetSpacing())}, origin {_numbers(image.GetOrigin())}"
        raise CaseError(
            path,
            f"lies up to {furthest:.3g} mm off its image ({found}; the image has {expected}): "
            "resample the mask to the image first",
        )


def _size(image: sitk.Image) -> str:
    return "x".join(map(str, image.GetSize()))


def _numbers(values) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"
