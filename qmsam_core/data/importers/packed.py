"""Check the compressed voxels of MetaImage and NRRD files, whose checksums ITK does not compare."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from qmsam_core.data.archive import CaseError

_CHUNK = 1 << 20


def check_packed(path: str | os.PathLike) -> None:
    """Raise `CaseError` if a `.mha`, `.mhd` or `.nrrd` file has no voxels, or damaged compressed ones.

    ITK compares the length of voxels that are not compressed itself.
    """
    path = Path(path)
    try:
        if not path.stat().st_size:
            raise CaseError(path, "is empty (0 bytes); copy or download it again")
        header, offset = _header(path)
        if path.suffix.lower() == ".nrrd":
            packed = header.get("encoding", "").lower() in ("gzip", "gz")
            voxels = header.get("data file") or header.get("datafile")
        else:
            packed = header.get("compresseddata", "").lower() == "true"
            voxels = header.get("elementdatafile")
        attached = voxels is None or voxels.upper() == "LOCAL"
        source = path if attached else path.parent / voxels
        if (
            not attached
            and voxels.split()[0].upper() != "LIST"
            and "%" not in voxels
            and not source.is_file()
        ):
            raise CaseError(path, f"has its voxels in {voxels}, which is not there; keep both in one folder")
        if packed:
            _inflate(source, offset if attached else 0)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CaseError(
            path, f"is damaged or cut off ({' '.join(str(error).split())}); copy or download it again"
        ) from error
    except OSError as error:
        raise CaseError(path, f"cannot be read ({error.strerror or error})") from error


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a header, keyed in lower case, and the first byte behind it."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while line := stream.readline(_CHUNK):
            text = line.decode("latin-1").strip()
            key, found, value = text.partition("=" if path.suffix.lower() != ".nrrd" else ":")
            if found:
                fields[key.strip().lower()] = value.lstrip("=").strip()
            if not text or key.strip().lower() == "elementdatafile":
                break
        return fields, stream.tell()


def _inflate(path: Path, offset: int) -> None:
    """Read a zlib or gzip stream to its end, where its checksum is compared."""
    unpack = zlib.decompressobj(wbits=47)  # 47: zlib or gzip, whichever the stream starts with
    with path.open("rb") as stream:
        stream.seek(offset)
        while not unpack.eof:
            part = stream.read(_CHUNK)
            if not part:
                raise EOFError("the compressed voxels end too early")
            while part and not unpack.eof:
                unpack.decompress(part, _CHUNK)
                part = unpack.unconsumed_tail
