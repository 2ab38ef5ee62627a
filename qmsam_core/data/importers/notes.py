"""What an importer has to say about a case beside the case itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class Loss(str):
    """A note that something of the input is left out. It is counted and sets the exit code."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """An object of a SEG or RTSTRUCT: its name, its bool mask (z,y,x) or None, and notes on it."""

    name: str
    mask: np.ndarray | None
    notes: tuple[str, ...] = ()


def listed(names: Sequence[object], limit: int = 8) -> str:
    """Join names with commas. Only the first `limit` are written out, the rest is counted."""
    rest = len(names) - limit
    return ", ".join(map(str, names[:limit])) + (f" and {rest} more" if rest > 0 else "")
