"""Read 2-D images and masks with OpenCV: PNG, JPEG, TIFF and BMP, grey or colour, 8 or 16 bits."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from qmsam_core.data.archive import CaseError
from qmsam_core.data.source import Source

from .intensity import check_finite, stretched
from .labels import LabelOptions, label_map

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_LOSSY_VALUES = 256  # a mask with more distinct colours is taken for a photograph


_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {2: (1, -2), 3: (-1, -2), 4: (-1, 2), 5: (2, 1), 6: (2, -1), 7: (-2, -1), 8: (-2, 1)}
"""EXIF orientation -> axes of the upright image in the stored one, as in `Source.axes`."""


def orientation(path: str | os.PathLike) -> int:
    """EXIF orientation of an image, 1..8. 1 is upright, also for files that say nothing."""
    try:
        with Image.open(path) as file:
            found = file.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged header can raise anything; the pixels' reader judges the file
        return 1
    return found if found in _UPRIGHT else 1


def upright_axes(path: str | os.PathLike) -> tuple[int, ...]:
    """Axes that turn an image as read upright as its EXIF orientation says, as in `Source.axes`.

    The decoders of TIFF files turn them, so theirs are (1, 2).
    """
    return (1, 2) if _is_tiff(path) else _UPRIGHT.get(orientation(path), (1, 2))


def read_image(path: str | os.PathLike, percentiles: tuple[float, float]) -> np.ndarray:
    """Read an image as stored, (H,W,3) uint8 RGB. A grey image is copied to three channels.

    8-bit values stay as they are. Others are stretched between the percentiles (0..100).

    Raises:
        CaseError: unreadable, several pages, NaN, or constant where it has to be stretched.
    """
    pixels = _decoded(path)
    if pixels.ndim == 3:
        pixels = pixels[..., 2::-1]  # BGR or BGRA; transparency says nothing about the object
    check_finite(pixels, path)
    if pixels.dtype != np.uint8:
        pixels = stretched(pixels, percentiles, path)
    return three_channels(pixels)


def three_channels(pixels: np.ndarray) -> np.ndarray:
    """Copy a grey image (H,W) to (H,W,3). A colour image stays as it is."""
    return np.ascontiguousarray(np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels)


def read_mask(path: str | os.PathLike, options: LabelOptions) -> np.ndarray:
    """Read a mask as label ids, int32 (H,W), turned upright as its own EXIF orientation says.

    In a colour-coded mask every colour but black is an object. Objects are numbered by RGB value.

    Raises:
        CaseError: unreadable, lossy (JPEG) without a threshold, fractions, or a photograph instead of a mask.
    """
    lossy = Path(path).suffix.lower() in (".jpg", ".jpeg")
    if lossy and options.threshold is None:
        raise CaseError(
            path,
            "is a JPEG mask, whose compression blurs labels; expected PNG or TIFF "
            "(for one object give --threshold 127)",
        )
    pixels = _decoded(path)
    if pixels.ndim == 3:
        pixels = _without_colour(pixels[..., :3], path, options.threshold is not None)
    upright = Source(os.fspath(path), "image", pixels.shape, upright_axes(path))
    return label_map(upright.to_case(pixels), options, path)


def _decoded(path: str | os.PathLike) -> np.ndarray:
    """Pixels as read, (H,W) or (H,W,3 or 4) in OpenCV's order: blue, green, red.

    The EXIF orientation is applied by the decoders of TIFF, and by no others.
    """
    name = os.fspath(path)
    if _is_tiff(path) and orientation(path) > 4:  # OpenCV fails on these, and Pillow garbles some
        raise CaseError(path, "is a TIFF file turned by 90 degrees in its orientation tag; save it upright")
    try:
        pages = cv2.imcount(name, cv2.IMREAD_UNCHANGED)
        pixels = cv2.imread(name, cv2.IMREAD_UNCHANGED) if pages == 1 else None
    except cv2.error as error:
        raise CaseError(path, f"cannot be read ({' '.join(str(error).split())})") from error
    if pages > 1:
        raise CaseError(path, f"has {pages} pages; expected one image a file")
    if pixels is None:
        raise CaseError(path, f"cannot be read as an image (damaged, or none of {', '.join(IMAGE_SUFFIXES)})")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] not in (3, 4):
        raise CaseError(path, f"has {pixels.shape[2]} channels; expected gray, RGB or RGBA")
    return pixels


def _is_tiff(path: str | os.PathLike) -> bool:
    return Path(path).suffix.lower() in (".tif", ".tiff")


def _without_colour(pixels: np.ndarray, path: str | os.PathLike, to_threshold: bool) -> np.ndarray:
    if to_threshold:
        return pixels.max(axis=2)
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    if pixels.dtype != np.uint8:
        raise CaseError(
            path, f"is a colour mask of {pixels.dtype}; expected 8 bits a channel, or labels in one channel"
        )
    codes = pixels.astype(np.int32) @ np.array([1, 256, 65536], dtype=np.int32)
    colours = np.unique(codes)
    if len(colours) > _LOSSY_VALUES:
        raise CaseError(
            path,
            f"has {len(colours):,} colours; expected one an object "
            "(is it the mask? for one object give --threshold)",
        )
    return np.searchsorted(np.union1d([0], colours), codes).astype(np.int32)
