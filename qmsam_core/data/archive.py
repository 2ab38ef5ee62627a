"""Read and write the arrays of an npz case file: headers, whole arrays or single slices, never a pickle.

An npz file is a zip archive. Its members `<key>.npy` start with a small header (shape, dtype, memory order).
The header alone tells how many slices a volume has. To read a slice, its member is inflated only up to that
slice. Paper section 2.1 asks for this instead of unpacking the data set. `numpy.load` can do neither, so both
are built here on `zipfile` and `numpy.lib.format`.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from ..provenance.files import atomic_file

MAX_ARRAY_BYTES = 8 * 1024**3
"""Limit on an array's declared bytes: 2000 x 2048 x 2048 uint8 fits, a corrupt header does not."""

_SKIP_BYTES = 1 << 20  # bytes inflated at a time while skipping forward; bounds memory, not speed
_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class CaseError(ValueError):
    """A case file cannot be used. The message names the file, what was found and what was expected."""

    def __init__(self, path: str | os.PathLike, message: str):
        super().__init__(f"{path}: {message}")
        self.path = Path(path)
        self.message = message

    def __reduce__(self):  # worker processes pickle exceptions to send them back
        return type(self), (self.path, self.message)


@dataclass(frozen=True)
class ArrayHeader:
    """The shape, dtype and memory order that the header of a `.npy` member declares."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes. The integers are exact, so a hostile header cannot make it overflow."""
        count = 1
        for side in self.shape:
            count *= int(side)
        return count * self.dtype.itemsize


class CaseArchive:
    """An open npz file, used as a context manager. Every failure raises a `CaseError` that names the file."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise self._error(
                f"is no complete npz (zip) archive ({error}); download or write it again"
            ) from error
        except (OSError, ValueError, NotImplementedError, RuntimeError) as error:
            raise self._error(f"cannot be opened ({error.__class__.__name__}: {error})") from error

    def __enter__(self) -> CaseArchive:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    @property
    def keys(self) -> list[str]:
        """Names of the arrays in the file."""
        return [name[:-4] for name in self._zip.namelist() if name.endswith(".npy")]

    def __contains__(self, key: str) -> bool:
        return f"{key}.npy" in self._zip.NameToInfo

    def header(self, key: str) -> ArrayHeader:
        """Read the shape, dtype and memory order of array `key`, but not the array."""
        with self._member(key) as stream:
            return self._read_header(stream, key)

    def array(self, key: str) -> np.ndarray:
        """Read the whole array `key`. Object arrays are refused, never unpickled."""
        with self._member(key) as stream:
            header = self._read_header(stream, key)
            flat = self._room_for(header, key)
            self._fill(stream, flat, key)
            self._expect_end(stream, key)
        return flat.reshape(header.shape, order="F" if header.fortran_order else "C")

    def slices(self, key: str) -> Iterator[np.ndarray]:
        """Yield the planes of array `key` one by one, in bounded memory unless it is Fortran-ordered."""
        header = self.header(key)
        if header.fortran_order and len(header.shape) > 1:
            yield from self.array(key)
            return
        with self.planes(key) as planes:
            for _ in range(header.shape[0]):
                plane = np.empty(header.shape[1:], dtype=header.dtype)
                planes.read_into(plane)
                yield plane
            planes.expect_end()

    def planes(self, key: str) -> PlaneStream:
        """Open a forward-only stream over the planes of the C-ordered array `key`."""
        stream = self._member(key)
        try:
            return PlaneStream(self, key, stream, self._read_header(stream, key))
        except BaseException:
            stream.close()
            raise

    def _member(self, key: str) -> BinaryIO:
        if key not in self:
            found = ", ".join(self.keys) or "none"
            raise self._error(f"holds no array '{key}' (arrays found: {found})")
        try:
            return self._zip.open(f"{key}.npy")
        except _READ_ERRORS as error:
            raise self._error(f"array '{key}' cannot be read ({error})") from error

    def _read_header(self, stream: BinaryIO, key: str) -> ArrayHeader:
        try:
            version = npy.read_magic(stream)
            reader = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, fortran_order, dtype = reader(stream)
            header = ArrayHeader(shape, dtype, fortran_order)
        except KeyError as error:
            raise self._error(f"array '{key}' has npy format {error}; expected 1.0 or 2.0") from error
        except _READ_ERRORS as error:
            raise self._error(f"array '{key}' has no readable npy header ({error})") from error
        if header.dtype.hasobject:
            raise self._error(
                f"array '{key}' holds Python objects (dtype {header.dtype}), which are never unpickled; "
                "expected numbers"
            )
        if header.nbytes > MAX_ARRAY_BYTES:
            raise self._error(
                f"array '{key}' declares {header.nbytes:,} bytes (shape {header.shape}, {header.dtype}); "
                f"the limit is {MAX_ARRAY_BYTES:,}"
            )
        self._check_size(header, stream, key)
        return header

    def _check_size(self, header: ArrayHeader, stream: BinaryIO, key: str) -> None:
        """Before memory is allocated, check the header's size against the member's size in the archive."""
        available = self._zip.getinfo(f"{key}.npy").file_size - stream.tell()
        if available != header.nbytes:
            raise self._error(
                f"array '{key}' declares {header.nbytes:,} bytes (shape {header.shape}, {header.dtype}) "
                f"but the file holds {available:,}"
            )

    def _room_for(self, header: ArrayHeader, key: str) -> np.ndarray:
        try:
            return np.empty(header.nbytes // max(header.dtype.itemsize, 1), dtype=header.dtype)
        except MemoryError as error:
            raise self._error(f"array '{key}' of {header.nbytes:,} bytes does not fit in memory") from error

    def _fill(self, stream: BinaryIO, target: np.ndarray, key: str) -> None:
        """Read exactly `target.nbytes` bytes into the contiguous array `target`."""
        view = memoryview(target.reshape(-1).view(np.uint8)) if target.size else memoryview(b"")
        done = 0
        try:
            while done < len(view):
                count = stream.readinto(view[done : done + _SKIP_BYTES])
                if not count:
                    raise EOFError(f"ends {len(view) - done:,} bytes too early")
                done += count
        except _READ_ERRORS as error:
            raise self._error(f"array '{key}' is damaged ({error})") from error

    def _expect_end(self, stream: BinaryIO, key: str) -> None:
        """Read past the last byte. Only then does zipfile compare the checksum."""
        try:
            stream.read(1)
        except _READ_ERRORS as error:
            raise self._error(f"array '{key}' is damaged ({error})") from error

    def _error(self, message: str) -> CaseError:
        return CaseError(self.path, message)


class PlaneStream:
    """Planes of one array along its first axis, each read or skipped once. Made by `CaseArchive.planes`."""

    def __init__(self, archive: CaseArchive, key: str, stream: BinaryIO, header: ArrayHeader):
        self.header = header
        self._archive, self._key, self._stream = archive, key, stream

    def __enter__(self) -> PlaneStream:
        return self

    def __exit__(self, *exception) -> None:
        self._stream.close()

    def read_into(self, target: np.ndarray) -> None:
        """Read the next planes into `target`, a C-contiguous array of any number of whole planes."""
        self._archive._fill(self._stream, target, self._key)

    def skip(self, planes: int) -> None:
        """Inflate the next `planes` planes and drop them."""
        left = planes * (self.header.nbytes // max(self.header.shape[0], 1))
        waste = np.empty(min(left, _SKIP_BYTES), dtype=np.uint8)
        while left:
            part = waste[: min(left, waste.size)]
            self.read_into(part)
            left -= part.size

    def expect_end(self) -> None:
        """Check the member's checksum after the last plane."""
        self._archive._expect_end(self._stream, self._key)


def read_slice(path: str | os.PathLike, key: str, z: int) -> np.ndarray:
    """Read plane `z` of array `key`. The member is inflated only up to that plane (paper section 2.1).

    On average over `z` this costs half of reading the array. It needs the memory of one plane.

    Raises:
        CaseError: the file is unreadable, or `z` lies outside the array.
    """
    with CaseArchive(path) as archive:
        header = archive.header(key)
        if not header.shape or not 0 <= z < header.shape[0]:
            raise CaseError(path, f"array '{key}' of shape {header.shape} has no slice {z}")
        if header.fortran_order and len(header.shape) > 1:
            return np.ascontiguousarray(archive.array(key)[z])
        plane = np.empty(header.shape[1:], dtype=header.dtype)
        with archive.planes(key) as planes:
            planes.skip(z)
            planes.read_into(plane)
    return plane


def write_archive(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], level: int = 6) -> None:
    """Write arrays to a compressed npz file, atomically. The same arrays always give the same bytes.

    `numpy.savez_compressed` stores the time of day, so the file's hash would change from run to run.
    `level` is the zlib level, from 1 (fast) to 9.
    """
    path = Path(path)
    with atomic_file(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            info = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info._compresslevel = level  # a level given to ZipFile applies only to members given by name
            with archive.open(info, "w", force_zip64=True) as member:
                npy.write_array(member, np.asarray(array), allow_pickle=False)
