"""Check a NIfTI file before ITK reads it. ITK neither notices a damaged file nor tells what it changes.

ITK fills what a cut file lacks with whatever memory held, ignores the checksum of compressed files, and turns
NaN into 0. nibabel reads the header, without its own checks: they refuse headers that ITK and viewers read.
"""

from __future__ import annotations

import gzip
import itertools
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.quaternions import quat2mat

from qmsam_core.data.archive import CaseError

from .notes import naming_damage

_CHUNK = 1 << 20
_DIFFERENT = 0.1  # voxels between the corners that qform and sform give
SHEAR_TOLERANCE = 0.1
"""Largest distance in voxels that a corner may be moved to make the axes right-angled."""


def read_header(path: Path) -> Nifti1Header | None:
    """Read the header of a file; None if there is none that can be read."""
    try:
        with _opened(path) as stream:
            return header_in(stream.read(Nifti2Header.sizeof_hdr))
    except (OSError, EOFError, zlib.error):
        return None


def header_in(start: bytes) -> Nifti1Header | None:
    """Return the header in a file's first bytes; None if it is no NIfTI. NIfTI-2 gives a subclass.

    Args:
        start: at least 540 bytes where there are so many.
    """
    for kind, order in itertools.product((Nifti1Header, Nifti2Header), ("little", "big")):
        size = kind.sizeof_hdr
        if len(start) >= size and start[:4] == size.to_bytes(4, order):
            return kind(start[:size], order, check=False)
    return None


def size_of(header: Nifti1Header) -> tuple[int, ...]:
    """Voxels along each axis, as stored. nibabel's `get_data_shape` takes some for marks of FreeSurfer."""
    count, *sides = header["dim"].tolist()
    return tuple(max(side, 0) for side in sides[: max(count, 0)])


def shear(header: Nifti1Header) -> float:
    """Largest distance in mm from the sform's corners to those of its nearest right-angled axes."""
    affine = header.get_sform()
    lengths = voxel_sizes(affine)
    if not (np.isfinite(lengths).all() and lengths.all()):
        return np.inf
    u, _, vt = np.linalg.svd(affine[:3, :3] / lengths)
    return _corners_apart(header, from_matvec(u @ vt * lengths, affine[:3, 3]))


def _problems(header: Nifti1Header) -> list[str]:
    """Contradictions in the header, one line each."""
    used = header["pixdim"][1 : 1 + min(len(size_of(header)), 3)].tolist()
    bad = ["xyz"[k] for k, step in enumerate(used) if not (np.isfinite(step) and step > 0)]
    found = []
    if bad:
        found.append(
            f"the header's pixdim along {', '.join(bad)} is no length; the spacing comes from elsewhere "
            "or is taken as 1 mm: check it"
        )
    bits = 8 * _voxel_type(header).itemsize
    if bits and header["bitpix"] != bits:
        found.append(f"the header states {header['bitpix']} bits a voxel, its data type has {bits}")
    if used and not bad and min(header["qform_code"], header["sform_code"]) > 0:
        apart = _corners_apart(header, _qform(header))
        if apart > _DIFFERENT * min(used):
            found.append(f"the header's qform and sform differ by up to {apart:.3g} mm: check the overlay")
    return found


def _voxel_type(header: Nifti1Header) -> np.dtype:
    """Type of the stored values. Those that are unknown or no whole bytes have an itemsize of 0."""
    try:
        return header.get_data_dtype()
    except KeyError:
        return np.dtype("V")


def _qform(header: Nifti1Header) -> np.ndarray:
    """Return the quaternion form, (4,4). nibabel's own refuses a pixdim[0] of 0, which means 1."""
    b, c, d = (float(header[f"quatern_{k}"]) for k in "bcd")
    turn = quat2mat((np.sqrt(max(0.0, 1 - b * b - c * c - d * d)), b, c, d))
    steps = header["pixdim"][1:4] * (1, 1, -1 if header["pixdim"][0] < 0 else 1)
    return from_matvec(turn * steps, [float(header[f"qoffset_{k}"]) for k in "xyz"])


def _corners_apart(header: Nifti1Header, affine: np.ndarray) -> float:
    """Largest distance in mm between the corners by an affine (4,4) and by the sform."""
    sides = [(0, max(side - 1, 0)) for side in (*size_of(header), 1, 1, 1)[:3]]
    moved = apply_affine(affine - header.get_sform(), list(itertools.product(*sides)))
    return float(np.linalg.norm(moved, axis=1).max())


def check_nifti(path: str | os.PathLike) -> tuple[Nifti1Header | None, np.ndarray | None, list[str]]:
    """Read a file to its end, and compare checksum and length with what it states.

    Returns:
        The header; None if the file is no NIfTI.
        Flat array of the stored values, where some are NaN or infinite; None otherwise.
        What the header contradicts, one line each.

    Raises:
        CaseError: the file ends too early, or its compressed data are damaged.
    """
    path = Path(path)
    with naming_damage(path), _opened(path) as stream:
        start = stream.read(_CHUNK)
        header = header_in(start)
        keep = header is not None and _voxel_type(header).kind == "f"
        parts, length = [start] if keep else [], len(start)
        while part := stream.read(_CHUNK):
            length += len(part)
            if keep:
                parts.append(part)
    if header is None:
        _explain(path, length)
        return None, None, []
    if path.suffix.lower() == ".nii" and _is_packed(path):
        raise CaseError(path, "holds compressed data; name it .nii.gz")
    notes = [*_problems(header), *_check_length(path, header, length)]
    return header, _unfinished(header, b"".join(parts)) if keep else None, notes


@contextmanager
def readable_by_itk(path: Path, header: Nifti1Header | None) -> Iterator[Path]:
    """Give a file that ITK can read: the file itself, or for NIfTI-2 a copy in NIfTI-1 within the block.

    Raises:
        CaseError: an axis is longer than NIfTI-1 can say.
    """
    if not isinstance(header, Nifti2Header):
        yield path
        return
    if max(size_of(header), default=0) > np.iinfo(np.int16).max:
        raise CaseError(
            path,
            f"is NIfTI-2 with {'x'.join(map(str, size_of(header)))} voxels; expected up to 32,767 an axis",
        )
    own = Nifti1Header(endianness=header.endianness)
    for field in set(own.keys()) & set(header.keys()) - {"sizeof_hdr", "magic", "vox_offset"}:
        own[field] = header[field]
    own["magic"], own["vox_offset"] = b"n+1", 352
    with tempfile.NamedTemporaryFile(suffix=".nii") as copy, _opened(path) as stream:
        stream.seek(_offset(header))
        copy.write(own.binaryblock + bytes(4))
        shutil.copyfileobj(stream, copy, _CHUNK)
        copy.flush()
        yield Path(copy.name)


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if _is_packed(path) else path.open("rb")


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _explain(path: Path, length: int) -> None:
    """Refuse a file that holds no header at all. ITK would only say that it knows no reader for it."""
    if length < 348:
        raise CaseError(
            path,
            f"holds {length:,} bytes, less than a NIfTI header; it is cut off: copy or download it again",
        )


def _check_length(path: Path, header: Nifti1Header, length: int) -> list[str]:
    voxel = _voxel_type(header).itemsize
    if not voxel:
        return []
    expected = _offset(header) + math.prod(size_of(header)) * voxel
    if length < expected:
        raise CaseError(
            path,
            f"holds {length:,} bytes, its header promises {expected:,}: the file is cut off; "
            "copy or download it again",
        )
    if length > expected:
        return [f"the file holds {length - expected:,} bytes more than its header promises"]
    return []


def _offset(header: Nifti1Header) -> int:
    """First byte of the voxels. NIfTI-1 states it as a float, which need not be a number."""
    return max(int(np.nan_to_num(header["vox_offset"])), header.sizeof_hdr)


def _unfinished(header: Nifti1Header, data: bytes) -> np.ndarray | None:
    count = math.prod(size_of(header))
    values = np.frombuffer(data, _voxel_type(header), count, _offset(header))
    return None if np.isfinite(values).all() else values
