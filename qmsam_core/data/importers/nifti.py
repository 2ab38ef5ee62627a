"""Check a NIfTI file before ITK reads it. ITK neither notices a damaged file nor tells what it changes.

ITK fills what a cut file lacks with whatever memory held, ignores the checksum of compressed files, and turns
NaN into 0. The header's layout is that of nifti1.h and nifti2.h (https://nifti.nimh.nih.gov).
"""

from __future__ import annotations

import gzip
import itertools
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from qmsam_core.data.archive import CaseError

_BYTES = {2: 1, 256: 1, 4: 2, 512: 2, 8: 4, 768: 4, 16: 4, 32: 8, 64: 8, 1024: 8, 1280: 8, 128: 3, 2304: 4}
"""Data type code -> bytes a voxel. Other types are rare; their size is not checked."""
_FLOATS = {16: "f4", 64: "f8"}
_CHUNK = 1 << 20
_DIFFERENT = 0.1  # voxels between the corners that qform and sform give
SHEAR_TOLERANCE = 0.1
"""Largest distance in voxels that a corner may be moved to make the axes right-angled."""


@dataclass(frozen=True)
class NiftiHeader:
    """The fields that matter here.

    Attributes:
        order: "<" or ">".
        dims: voxels along each axis.
        kind: data type code.
        bits: bits a voxel, as stated beside the type.
        pixdim: mm along x, y and z, and what follows.
        offset: first byte of the voxels.
        codes: of the qform and the sform; 0 means unset.
        quaternion: b, c, d, x, y, z, and the sign of z.
        rows: the sform, (3,4).
    """

    order: str
    dims: tuple[int, ...]
    kind: int
    bits: int
    pixdim: tuple[float, ...]
    offset: int
    codes: tuple[int, int]
    quaternion: tuple[float, ...]
    rows: np.ndarray

    @classmethod
    def parse(cls, data: bytes) -> NiftiHeader | None:
        """Read the first bytes of a file, at least 540 where there are so many. None if it is no NIfTI."""
        for order, size in itertools.product("<>", (348, 540)):
            if len(data) >= size and struct.unpack_from(order + "i", data)[0] == size:
                return _first(data, order) if size == 348 else _second(data, order)
        return None

    def problems(self) -> list[str]:
        """Contradictions in the header, one line each."""
        used = self.pixdim[1 : 1 + min(self.dims_used, 3)]
        bad = ["xyz"[k] for k, step in enumerate(used) if not (np.isfinite(step) and step > 0)]
        found = []
        if bad:
            found.append(
                f"the header's pixdim along {', '.join(bad)} is no length; the spacing comes from elsewhere "
                "or is taken as 1 mm: check it"
            )
        if self.kind in _BYTES and self.bits != 8 * _BYTES[self.kind]:
            found.append(
                f"the header states {self.bits} bits a voxel, its data type has {8 * _BYTES[self.kind]}"
            )
        if min(self.codes) > 0 and not bad:
            apart = self._corners_apart(self._qform(), self.rows)
            if apart > _DIFFERENT * min(used):
                found.append(
                    f"the header's qform and sform differ by up to {apart:.3g} mm: check the overlay"
                )
        return found

    @property
    def dims_used(self) -> int:
        """Number of axes."""
        return len(self.dims)

    def shear(self) -> float:
        """Largest distance in mm from the sform's corners to those of its nearest right-angled axes."""
        axes = self.rows[:, :3]
        lengths = np.linalg.norm(axes, axis=0)
        if not (np.isfinite(axes).all() and (lengths > 0).all()):
            return np.inf
        u, _, vt = np.linalg.svd(axes / lengths)
        straight = np.column_stack([(u @ vt) * lengths, self.rows[:, 3]])
        return self._corners_apart(straight, self.rows)

    def _corners_apart(self, one: np.ndarray, other: np.ndarray) -> float:
        sides = [(0, max(side - 1, 0)) for side in (*self.dims, 1, 1)[:3]]
        corners = np.array([(*corner, 1) for corner in itertools.product(*sides)], dtype=float)
        return float(np.linalg.norm(corners @ (one - other).T, axis=1).max())

    def _qform(self) -> np.ndarray:
        b, c, d, *place, sign = self.quaternion
        a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
        turn = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        steps = np.array(self.pixdim[1:4]) * (1, 1, -1 if sign < 0 else 1)
        return np.column_stack([turn * steps, place])


def check_nifti(path: str | os.PathLike) -> tuple[NiftiHeader | None, np.ndarray | None, list[str]]:
    """Read a file to its end, and compare checksum and length with what it states.

    Returns:
        The header; None if the file is no NIfTI.
        Flat array of the stored values, where some are NaN or infinite; None otherwise.
        What the header contradicts, one line each.

    Raises:
        CaseError: the file ends too early, or its compressed data are damaged.
    """
    path = Path(path)
    try:
        with _opened(path) as stream:
            start = stream.read(_CHUNK)
            header = NiftiHeader.parse(start)
            keep = header is not None and header.kind in _FLOATS
            parts, length = [start] if keep else [], len(start)
            while part := stream.read(_CHUNK):
                length += len(part)
                if keep:
                    parts.append(part)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CaseError(
            path, f"is damaged or cut off ({' '.join(str(error).split())}); copy or download it again"
        ) from error
    except OSError as error:
        raise CaseError(path, f"cannot be read ({error.strerror or error})") from error
    if header is None:
        _explain(path, length)
        return None, None, []
    if path.suffix.lower() == ".nii" and _is_packed(path):
        raise CaseError(path, "holds compressed data; name it .nii.gz")
    notes = [*header.problems(), *_check_length(path, header, length)]
    return header, _unfinished(header, b"".join(parts)) if keep else None, notes


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


def _check_length(path: Path, header: NiftiHeader, length: int) -> list[str]:
    if header.kind not in _BYTES:
        return []
    expected = header.offset + int(np.prod(header.dims, dtype=object)) * _BYTES[header.kind]
    if length < expected:
        raise CaseError(
            path,
            f"holds {length:,} bytes, its header promises {expected:,}: the file is cut off; "
            "copy or download it again",
        )
    if length > expected:
        return [f"the file holds {length - expected:,} bytes more than its header promises"]
    return []


def _unfinished(header: NiftiHeader, data: bytes) -> np.ndarray | None:
    count = int(np.prod(header.dims, dtype=object))
    values = np.frombuffer(data, header.order + _FLOATS[header.kind], count, header.offset)
    return None if np.isfinite(values).all() else values


def _first(data: bytes, order: str) -> NiftiHeader:
    dims = struct.unpack_from(order + "8h", data, 40)
    kind, bits = struct.unpack_from(order + "2h", data, 70)
    pixdim = struct.unpack_from(order + "8f", data, 76)
    (offset,) = struct.unpack_from(order + "f", data, 108)
    codes = struct.unpack_from(order + "2h", data, 252)
    quaternion = struct.unpack_from(order + "6f", data, 256)
    rows = np.array(struct.unpack_from(order + "12f", data, 280), dtype=float).reshape(3, 4)
    return NiftiHeader(
        order, _dims(dims), kind, bits, pixdim, max(int(offset), 348), codes, (*quaternion, pixdim[0]), rows
    )


def _second(data: bytes, order: str) -> NiftiHeader:
    kind, bits = struct.unpack_from(order + "2h", data, 12)
    dims = struct.unpack_from(order + "8q", data, 16)
    pixdim = struct.unpack_from(order + "8d", data, 104)
    (offset,) = struct.unpack_from(order + "q", data, 168)
    codes = struct.unpack_from(order + "2i", data, 344)
    quaternion = struct.unpack_from(order + "6d", data, 352)
    rows = np.array(struct.unpack_from(order + "12d", data, 400), dtype=float).reshape(3, 4)
    return NiftiHeader(order, _dims(dims), kind, bits, pixdim, offset, codes, (*quaternion, pixdim[0]), rows)


def _dims(stated: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(side, 0) for side in stated[1 : 1 + min(max(stated[0], 0), 7)])
