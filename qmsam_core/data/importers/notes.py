"""What an importer has to say about a case beside the case itself."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qmsam_core.data.archive import CaseError


class Loss(str):
    """A note that something of the input is left out. It is counted and sets the exit code."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """An object of a SEG or RTSTRUCT: its name, its bool mask (z,y,x) or None, and notes on it."""

    name: str
    mask: np.ndarray | None
    notes: tuple[str, ...] = ()


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn errors of reading and inflating a file within the block into a `CaseError` that names it."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CaseError(
            path, f"is damaged or cut off ({' '.join(str(error).split())}); copy or download it again"
        ) from error
    except OSError as error:
        raise CaseError(path, f"cannot be read ({error.strerror or error})") from error


def listed(names: Sequence[object], limit: int = 8) -> str:
    """Join names with commas. Only the first `limit` are written out, the rest is counted."""
    rest = len(names) - limit
    return ", ".join(map(str, names[:limit])) + (f" and {rest} more" if rest > 0 else "")
