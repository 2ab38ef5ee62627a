"""Words for numbers in the sentences that answer a run's questions."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float) -> str:
    """Write a share 0..1 as a percentage."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """Write a difference of shares in points, with its sign."""
    return f"{100 * difference:+.2f} points"


def interval(low: float, high: float) -> str:
    """Write a 95 % interval of a difference of shares. One that is NaN or has no width saw no spread."""
    return f"95 %: {100 * low:+.2f} to {100 * high:+.2f}" if low < high else "too few cases for an interval"


def cases(count: int) -> str:
    """Count cases."""
    return f"{count} case{'s' * (count != 1)}"


def enumerated(names: Sequence[str], most: int = 3) -> str:
    """List names in a sentence, and count those after the first `most`."""
    rest = len(names) - most
    shown = [*names[:most], f"{rest} more"] if rest > 0 else list(names)
    return " and ".join(part for part in (", ".join(shown[:-1]), *shown[-1:]) if part)
