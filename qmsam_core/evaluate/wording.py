"""Words for numbers, so that all sentences made from results speak alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def enumerated(names: Sequence[object]) -> str:
    """Write names in a row: `CT`, `CT and MR`, `CT, MR and PET`."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def percent(share: float) -> str:
    """Write a share of 0..1 in percent. It is never rounded up to all: 0.9999 is 99.9 %."""
    rounded = f"{100 * share:.1f}"
    if rounded == "100.0" and share < 1:
        rounded = "99.9"
    return f"{rounded} %"


def points(difference: float, low: float = np.nan, high: float = np.nan) -> str:
    """Write a difference of shares in points, with its 95 % interval if it has one."""
    text = f"{100 * difference:+.2f} points"
    return text if np.isnan([low, high]).any() else f"{text} (95 %: {100 * low:+.2f} to {100 * high:+.2f})"


def fold(ratio: float) -> str:
    """Write a ratio of speeds: `2.1 times as fast`, or how much slower it is below 1."""
    if round(ratio, 2) == 1:
        return "as fast"
    return f"{ratio:.2f} times as fast" if ratio > 1 else f"{1 / ratio:.2f} times as slow"


def told_apart(low: float, high: float, limit: float = 0.0) -> bool:
    """Whether an interval lies on one side of a limit. One that is not known (NaN) does not."""
    return bool(low > limit or high < limit)


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number of things: `1 case`, `3 cases`, `no cases`. The plural ends in s unless given."""
    return f"{number or 'no'} {one if number == 1 else many or one + 's'}"
