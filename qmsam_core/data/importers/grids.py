"""Read volumes with SimpleITK, and put masks on the grid of their image."""

from __future__ import annotations

import itertools
import os
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Header

from qmsam_core.data.archive import CaseError

from .nifti import SHEAR_TOLERANCE, check_nifti, readable_by_itk, shear
from .notes import listed
from .packed import check_packed
from .planes import order_of
from .walk import check_name, is_utf8

GRID_TOLERANCE = 0.1
"""Largest distance between corners of image and mask, in voxels. It allows for rounded headers. A mask of
another scan is farther off."""

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK warns on stderr about every rounded header


def read_volume(path: str | os.PathLike, dimension: int | None = None) -> tuple[sitk.Image, list[str]]:
    """Read a 3-D or 2-D image of one channel, as stored. The whole file is checked first.

    Args:
        path: file to read.
        dimension: 2 or 3 if the image has to have so many axes.

    Returns:
        The image, and notes on what its header contradicts.

    Raises:
        CaseError: unreadable, damaged, not one 3-D volume or 2-D image, several channels, or directions that
            are not at right angles up to rounding.
    """
    path = Path(path)
    check_name(path)
    header, unfinished, found = None, None, []
    if path.name.lower().endswith((".nii", ".nii.gz")):
        header, unfinished, found = check_nifti(path)
    else:
        check_packed(path)
    with readable_by_itk(path, header) as file:
        try:
            image, notes = _read(file, path, dimension), []
        except RuntimeError as error:
            if header is None or "orthonormal" not in str(error):
                raise CaseError(path, f"cannot be read ({reason(error)})") from error
            image, notes = _straightened(file, path, header, dimension)
    if unfinished is not None:
        image = _with_unfinished(image, unfinished)
    return image, [*notes, *found]


def _read(file: Path, path: Path, dimension: int | None) -> sitk.Image:
    """Read a file, which messages call `path`."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(file))
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


def _straightened(
    file: Path, path: Path, header: Nifti1Header, dimension: int | None
) -> tuple[sitk.Image, list[str]]:
    """Read a NIfTI file whose axes are at right angles only up to rounding."""
    moved = shear(header)
    if moved > SHEAR_TOLERANCE * voxel_sizes(header.get_sform()).min():
        raise CaseError(
            path,
            f"has sheared axes: a corner lies {moved:.3g} mm off right-angled axes; "
            "resample the image to a straight grid first",
        )
    try:
        with _permissive():
            image = _read(file, path, dimension)
    except RuntimeError as error:
        raise CaseError(path, f"cannot be read ({reason(error)})") from error
    return image, [f"the axes are sheared by up to {moved:.2g} mm, which is taken for rounding"]


@contextmanager
def _permissive():
    """Let ITK take the nearest right-angled axes. It offers this by an environment variable alone."""
    key = "ITK_NIFTI_SFORM_PERMISSIVE"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        os.environ.pop(key) if before is None else os.environ.__setitem__(key, before)


def _with_unfinished(image: sitk.Image, stored: np.ndarray) -> sitk.Image:
    """Put NaN and infinite values back, which ITK's reader of NIfTI turned into 0."""
    values = sitk.GetArrayFromImage(image)
    stored = stored.reshape(values.shape)
    bad = ~np.isfinite(stored)
    values[bad] = stored[bad]
    result = sitk.GetImageFromArray(values)
    result.CopyInformation(image)
    return result


def is_flat(path: str | os.PathLike) -> bool:
    """Whether a file holds a 2-D image, by its header. False for a file that cannot be read."""
    if not is_utf8(path):
        return False
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
    return f"is {len(size)}-D of size {_size(size)}; expected {expected} ({advice})"


def reason(error: RuntimeError) -> str:
    """Return ITK's error on one line, without the source file and address that ITK adds."""
    last = [line for line in str(error).splitlines() if line.strip()][-1].strip()
    return re.sub(r"^(?:sitk::|itk::)?(?:ITK )?ERROR:\s*(?:\w+\(0x[0-9a-f]+\):\s*)?", "", last)


def on_grid(
    mask: sitk.Image, image: sitk.Image, path: str | os.PathLike, rounding: float = 0.0, anyhow: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Put the values of a mask on the grid of its image: turned to its axes, padded if it was cropped.

    Args:
        mask: mask as read.
        image: the image as read.
        path: file of the mask, for messages.
        rounding: mm by which the image's positions may be rounded.
        anyhow: take the mask voxel by voxel, whatever geometry it states.

    Returns:
        The values on the array of `image`, and notes.

    Raises:
        CaseError: the mask lies elsewhere, or has another spacing or size.
    """
    if anyhow:
        if mask.GetSize() != image.GetSize():
            raise CaseError(
                path,
                f"has {_size(mask.GetSize())} voxels, its image {_size(image.GetSize())} (x,y,z, as stored); "
                "--image-geometry needs equal sizes",
            )
        return sitk.GetArrayFromImage(mask), []
    turned = _turned_like(mask, image)
    tolerance = max(GRID_TOLERANCE * min(image.GetSpacing()), rounding)
    if image.GetDimension() == turned.GetDimension() and image.GetSize() == turned.GetSize():
        furthest = _corners_apart(image, turned)
        if furthest > tolerance:
            raise CaseError(path, _elsewhere(image, turned, furthest, _bare(mask)))
        return sitk.GetArrayFromImage(turned), []
    return _padded(image, turned, path, tolerance)


def _turned_like(mask: sitk.Image, image: sitk.Image) -> sitk.Image:
    """Permute and flip the axes of a mask, so that they run roughly in the directions of the image's axes."""
    if mask.GetDimension() != 3 or image.GetDimension() != 3:
        return mask
    return sitk.DICOMOrient(mask, order_of(image.GetDirection()))


def _bare(mask: sitk.Image) -> bool:
    """Whether a mask has no geometry: unit spacing, no origin, axes as ITK or NIfTI have them by default."""
    axes = np.array(mask.GetDirection()).reshape(mask.GetDimension(), -1)
    return (
        set(mask.GetSpacing()) == {1.0}
        and not any(mask.GetOrigin())
        and np.array_equal(np.abs(axes), np.eye(len(axes)))
    )


def _elsewhere(image: sitk.Image, mask: sitk.Image, furthest: float, bare: bool) -> str:
    if bare:
        return (
            "carries no geometry (spacing 1, no origin, no direction), its image does: "
            "--image-geometry takes the image's, voxel by voxel as stored"
        )
    found = f"spacing {_numbers(mask.GetSpacing())}, origin {_numbers(mask.GetOrigin())}"
    expected = f"spacing {_numbers(image.GetSpacing())}, origin {_numbers(image.GetOrigin())}"
    return (
        f"lies up to {furthest:.3g} mm off its image ({found}; the image has {expected}): resample the mask "
        "to the image first, or give --image-geometry if the voxels match and only the mask's header is wrong"
    )


def _corners_apart(image: sitk.Image, mask: sitk.Image, start: tuple[int, ...] | None = None) -> float:
    """Largest distance in mm between corners of a mask and those of the image's part that starts there."""
    start = start or (0,) * mask.GetDimension()
    corners = itertools.product(*[(0, side - 1) for side in mask.GetSize()])
    return max(
        float(
            np.linalg.norm(
                np.subtract(
                    image.TransformContinuousIndexToPhysicalPoint([float(a + b) for a, b in zip(c, start)]),
                    mask.TransformIndexToPhysicalPoint(c),
                )
            )
        )
        for c in corners
    )


def _padded(
    image: sitk.Image, mask: sitk.Image, path: str | os.PathLike, tolerance: float
) -> tuple[np.ndarray, list[str]]:
    """Put a mask that covers another part of space on the image's grid. Nothing may lie outside."""
    sizes = (
        f"has {_size(mask.GetSize())} voxels, its image {_size(image.GetSize())} "
        "(x,y,z, along the image's axes)"
    )
    if mask.GetDimension() != image.GetDimension():
        raise CaseError(path, f"{sizes}: mask and image do not belong together")
    place = image.TransformPhysicalPointToContinuousIndex(mask.GetOrigin())
    start = tuple(round(v) for v in place)
    if _corners_apart(image, mask, start) > tolerance:
        raise CaseError(
            path, f"{sizes}, and lies on another grid: mask and image do not belong together, or resample it"
        )
    values = sitk.GetArrayFromImage(mask)
    result = np.zeros(image.GetSize()[::-1], values.dtype)
    inside, part = [], []
    for first, side, room in zip(start[::-1], values.shape, result.shape):
        inside.append(slice(max(first, 0), max(min(first + side, room), 0)))
        part.append(slice(max(-first, 0), max(min(side, room - first), 0)))
    kept = values[tuple(part)]
    if np.count_nonzero(kept) != np.count_nonzero(values):
        raise CaseError(path, f"{sizes}, and labels voxels outside it: mask and image do not belong together")
    result[tuple(inside)] = kept
    note = f"{Path(path).name} covers {_size(mask.GetSize())} of {_size(image.GetSize())} voxels from voxel "
    return result, [note + f"({listed(start)}) on; the rest is background"]


def _size(size) -> str:
    return "x".join(map(str, size))


def _numbers(values) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"
