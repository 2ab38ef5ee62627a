"""Read 2-D images and masks with OpenCV: PNG, JPEG, TIFF and BMP, grey or colour, 8 or 16 bits."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from qmsam_core.data.archive import CaseError
from qmsam_core.data.source import Source

from .endings import IMAGE_SUFFIXES
from .intensity import outside_note, outside_view, stretched
from .labels import LabelOptions, Objects, chosen, label_map
from .plausibility import has_soft_edge
from .stored import stored_indices
from .walk import check_name

_LOSSY_VALUES = 256  # a mask with more distinct colours is taken for a photograph


Image.MAX_IMAGE_PIXELS = None  # OpenCV, which reads the pixels, has its own limit
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # errors are reported on one line here
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


def read_image(path: str | os.PathLike, percentiles: tuple[float, float]) -> tuple[np.ndarray, list[str]]:
    """Read an image as stored, (H,W,3) uint8 RGB, and notes. A grey image is copied to three channels.

    8-bit values stay as they are. Others are stretched between the percentiles (0..100). NaN connected to the
    border of the image becomes the darkest value.

    Raises:
        CaseError: unreadable, several pages, NaN inside, or constant where it has to be stretched.
    """
    pixels = _decoded(path)
    if pixels.ndim == 3:
        pixels = pixels[..., 2::-1]  # BGR or BGRA; transparency says nothing about the object
    outside = outside_view(pixels if pixels.ndim == 2 else pixels.mean(axis=2), path)
    if outside is None:
        return three_channels(
            pixels if pixels.dtype == np.uint8 else stretched(pixels, percentiles, path)
        ), []
    pixels = pixels.copy()
    pixels[outside] = 0
    pixels = stretched(pixels, percentiles, path)
    pixels[outside] = 0
    return three_channels(pixels), [outside_note(outside)]


def three_channels(pixels: np.ndarray) -> np.ndarray:
    """Copy a grey image (H,W) to (H,W,3). A colour image stays as it is."""
    return np.ascontiguousarray(np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels)


def read_mask(path: str | os.PathLike, options: LabelOptions) -> Objects:
    """Read a mask as labels (H,W), turned upright as its own EXIF orientation says.

    The labels are the values that the file stores: palette indices, bits, or grey values. In a colour-coded
    mask every colour but black is an object, named by its RGB value, such as `ff0000`.

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
    pixels = stored_indices(path)
    if pixels is None:
        pixels = _decoded(path)
    if pixels.ndim == 3 and pixels.shape[2] == 4 and np.ptp(pixels[..., :3]) == 0 < np.ptp(pixels[..., 3]):
        raise CaseError(path, "draws its objects in transparency, in one colour; save it in grey")
    upright = Source(os.fspath(path), "image", pixels.shape[:2], upright_axes(path))
    pixels = upright.to_case(pixels)
    if pixels.ndim == 3 and (options.threshold is not None or (pixels[..., :3] == pixels[..., :1]).all()):
        pixels = pixels[..., :3].max(axis=2)
    return (
        label_map(pixels, options, path) if pixels.ndim == 2 else _by_colour(pixels[..., :3], options, path)
    )


def _decoded(path: str | os.PathLike) -> np.ndarray:
    """Pixels as read, (H,W) or (H,W,3 or 4) in OpenCV's order: blue, green, red.

    The EXIF orientation is applied by the decoders of TIFF, and by no others.
    """
    check_name(path)
    name = os.fspath(path)
    if _is_tiff(path) and orientation(path) > 4:  # OpenCV fails on these, and Pillow garbles some
        raise CaseError(path, "is a TIFF file turned by 90 degrees in its orientation tag; save it upright")
    _check_whole(path)
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


def _check_whole(path: str | os.PathLike) -> None:
    """Refuse a JPEG that is cut off. OpenCV fills what is missing with grey, Pillow tells."""
    try:
        with Image.open(path) as file:
            if file.format in ("JPEG", "MPO"):
                file.load()
    except OSError as error:
        if "truncated" in str(error):
            raise CaseError(path, f"is damaged or cut off ({error}); copy or download it again") from error
    except Exception:  # other faults are judged by the reader of the pixels
        return


def _is_tiff(path: str | os.PathLike) -> bool:
    return Path(path).suffix.lower() in (".tif", ".tiff")


def _soft_colour(grey: np.ndarray, codes: np.ndarray, path: str | os.PathLike) -> Objects:
    """Make a mask of one colour binary, whose edge is mixed with the background's black."""
    full = np.unique(codes[grey == grey.max()])
    if len(full) > 1:
        raise CaseError(
            path,
            f"has {len(full)} colours with edges that blend into others; save it without smoothing, "
            "or give --threshold for one object",
        )
    note = f"{Path(path).name} is one object with a soft edge: values above {grey.max() / 2:g} are the object"
    return Objects((grey > grey.max() / 2).astype(np.int32), {1: f"{full[0]:06x}"}, (note,))


def _by_colour(pixels: np.ndarray, options: LabelOptions, path: str | os.PathLike) -> Objects:
    if pixels.dtype != np.uint8:
        raise CaseError(
            path, f"is a colour mask of {pixels.dtype}; expected 8 bits a channel, or labels in one channel"
        )
    codes = pixels.astype(np.int32) @ np.array([1, 256, 65536], dtype=np.int32)
    colours = np.union1d([0], codes)
    if len(colours) > _LOSSY_VALUES:
        raise CaseError(
            path,
            f"has {len(colours):,} colours; expected one an object "
            "(is it the mask? for one object give --threshold)",
        )
    names = {k: f"{code:06x}" for k, code in enumerate(colours) if k}
    grey = pixels.max(axis=2).astype(np.int32)
    if has_soft_edge(grey):
        return _soft_colour(grey, codes, path)
    return chosen(np.searchsorted(colours, codes).astype(np.int32), names, options, path)
