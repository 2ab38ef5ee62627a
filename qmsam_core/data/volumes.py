"""Read slices of compressed volumes on demand. A volume is inflated only up to the wanted slice.

Training draws slices at random from thousands of volumes and rarely meets one twice. Evaluation reads each
volume in order. To serve both, the reader keeps the inflated part of recent volumes and the stream that can
continue from there, within a limit of bytes.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np

from .archive import CaseArchive, CaseError, PlaneStream, read_slice

DEFAULT_CACHE_BYTES = 256 * 1024**2
"""About two 512 x 512 x 200 volumes with their masks, in each worker process."""


class SliceReader:
    """Read planes of npz arrays and keep recently inflated volumes in a cache.

    Processes cannot share open streams. A copy or a forked child therefore starts with an empty cache.

    Args:
        cache_bytes: most bytes of volumes kept; 0 keeps nothing.
    """

    def __init__(self, cache_bytes: int = DEFAULT_CACHE_BYTES):
        self.cache_bytes = cache_bytes
        self._forget()

    def read(self, path: str | os.PathLike, key: str, z: int) -> np.ndarray:
        """Read plane `z` of the volume `key`. Copy the result before a change: it is a view into the cache.

        Raises:
            CaseError: the file is unreadable, or there is no such plane.
        """
        if self._process != os.getpid():
            self._forget()
        volume = self._volume(Path(path), key)
        return read_slice(path, key, z) if volume is None else volume.plane(z)

    def read_whole(self, path: str | os.PathLike, key: str) -> np.ndarray:
        """Read array `key` of a 2-D case. Copy the result before a change: it is a view into the cache."""
        if self._process != os.getpid():
            self._forget()
        path, stamp = Path(path), _stamp(path)
        held = self._recall((path, key), stamp)
        if held is None:
            with CaseArchive(path) as archive:
                held = _WholeImage(archive.array(key), stamp)
            if held.nbytes <= self.cache_bytes:
                self._hold((path, key), held)
        return held.array

    def _volume(self, path: Path, key: str) -> _PartialVolume | None:
        """The cached or newly opened volume; None if it is larger than the whole cache."""
        stamp = _stamp(path)
        volume = self._recall((path, key), stamp)
        if volume is not None or self.cache_bytes <= 0:
            return volume
        volume = _PartialVolume(path, key, stamp)
        if volume.nbytes > self.cache_bytes:
            volume.close()
            return None
        self._hold((path, key), volume)
        return volume

    def _recall(self, key: tuple[Path, str], stamp: tuple[int, int]) -> _PartialVolume | _WholeImage | None:
        """Return the cached entry and mark it as used last. Drop it if the file has changed since."""
        held = self._volumes.get(key)
        if held is not None and held.stamp != stamp:
            self._drop(key)
            return None
        if held is not None:
            self._volumes.move_to_end(key)
        return held

    def _hold(self, key: tuple[Path, str], volume: _PartialVolume | _WholeImage) -> None:
        """Cache a volume. Drop those unused for longest to stay within `cache_bytes`."""
        while self._volumes and self._held + volume.nbytes > self.cache_bytes:
            self._drop(next(iter(self._volumes)))
        self._volumes[key] = volume
        self._held += volume.nbytes

    def _drop(self, key: tuple[Path, str]) -> None:
        volume = self._volumes.pop(key)
        self._held -= volume.nbytes
        volume.close()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._volumes: OrderedDict[tuple[Path, str], _PartialVolume | _WholeImage] = OrderedDict()
        self._held = 0

    def __reduce__(self):
        return type(self), (self.cache_bytes,)


class _WholeImage:
    """A cached 2-D array."""

    def __init__(self, array: np.ndarray, stamp: tuple[int, int]):
        self.array, self.stamp, self.nbytes = array, stamp, array.nbytes

    def close(self) -> None:
        """Do nothing. Entries of the cache are closed when dropped, and an array has no stream."""


class _PartialVolume:
    """First planes of a volume and a stream of the rest. `numpy.empty` takes memory only as planes arrive."""

    def __init__(self, path: Path, key: str, stamp: tuple[int, int]):
        self.path, self.stamp = path, stamp
        self._filled = 0
        self._archive: CaseArchive | None = CaseArchive(path)
        try:
            header = self._archive.header(key)
            self.nbytes = header.nbytes
            if header.fortran_order and len(header.shape) > 1:
                self._planes = self._archive.array(key)
                self._filled = header.shape[0]
            else:
                self._planes = np.empty(header.shape, dtype=header.dtype)
                self._stream: PlaneStream | None = self._archive.planes(key)
        except BaseException:
            self.close()
            raise

    def plane(self, z: int) -> np.ndarray:
        if not 0 <= z < len(self._planes):
            raise CaseError(self.path, f"has no slice {z}; the volume has {len(self._planes)}")
        if z >= self._filled:
            self._stream.read_into(self._planes[self._filled : z + 1])
            self._filled = z + 1
            if self._filled == len(self._planes):
                self._stream.expect_end()
                self.close()
        return self._planes[z]

    def close(self) -> None:
        if self._archive is not None:
            self._archive.close()
            self._archive = None


def _stamp(path: str | os.PathLike) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise CaseError(
            path, f"cannot be read ({error.strerror}); was it moved since the index was built?"
        ) from error
    return status.st_size, status.st_mtime_ns
