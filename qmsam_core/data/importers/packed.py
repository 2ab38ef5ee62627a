"""Find the voxels of MetaImage and NRRD files, and check them if compressed: ITK compares no checksums."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from qmsam_core.data.archive import CaseError

from .notes import naming_damage

_CHUNK = 1 << 20
_DATA_FILE = re.compile(r"(?im)^(?:ElementDataFile\s*=|data ?file:)[ \t]*(\S.*?)[ \t\r]*$")
_MOST_FILES = 65536  # of a numbered pattern


def check_packed(path: str | os.PathLike) -> None:
    """Raise `CaseError` if a `.mha`, `.mhd` or `.nrrd` file has no voxels, or damaged compressed ones.

    ITK compares the length of voxels that are not compressed itself.
    """
    path = Path(path)
    with naming_damage(path):
        if not path.stat().st_size:
            raise CaseError(path, "is empty (0 bytes); copy or download it again")
        header, offset = _header(path)
        packed = (header.get("encoding") or header.get("compresseddata") or "").lower()
        voxels = header.get("data file") or header.get("datafile") or header.get("elementdatafile")
        attached = voxels is None or voxels.upper() == "LOCAL"
        source = path if attached else path.parent / voxels
        single = not attached and list(_names(f"data file: {voxels}")) == [voxels]
        if single and not source.is_file():
            raise CaseError(path, f"has its voxels in {voxels}, which is not there; keep both in one folder")
        if packed in ("gzip", "gz", "true"):
            _inflate(source, offset if attached else 0)


def voxel_files(path: Path) -> list[Path]:
    """List the files that hold the voxels of a `.mhd` or `.nhdr` header, as its text says, if they are there.

    Empty for other files.
    """
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return []
    try:
        text = path.read_bytes()[:_CHUNK].decode("utf-8", "surrogateescape")
    except OSError:
        return []
    found = set()
    for name in _names(text):
        own = path.parent / PurePosixPath(name.replace("\\", "/"))
        found |= {file for file in (own, path.parent / own.name) if file.is_file()}
    return sorted(found)


def _names(text: str) -> Iterator[str]:
    """Yield the files that a MetaImage or NRRD header names: one, a list of lines, or a numbered pattern."""
    for match in _DATA_FILE.finditer(text):
        words = match[1].split()
        if words[0].upper() == "LIST":
            yield from filter(None, map(str.strip, text[match.end() :].splitlines()))
        elif len(words) >= 3 and "%" in words[0] and all(word.isdigit() for word in words[1:]):
            first, last, step = (*map(int, words[1:]), 1)[:3]
            for number in range(first, min(last, first + _MOST_FILES) + 1, max(step, 1)):
                with contextlib.suppress(TypeError, ValueError):
                    yield words[0] % number
        else:
            yield match[1]


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
