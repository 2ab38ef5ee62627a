"""Words for numbers in the sentences that say what a table or figure shows."""

from __future__ import annotations

from collections.abc import Sequence

FLOAT, TRAINED, CALIBRATED, ELLIPSE = "Baseline", "Stage 3", "Calibrated", "Ellipse"
"""Arms of the scores."""

ARMS = {
    FLOAT: "float",
    "Baseline, own order": "float, normalised before padding",
    "Stage 1": "int8 after stage 1 of training (encoder alone)",
    "Stage 2": "int8 after stage 2 of training",
    TRAINED: "int8 after training",
    "Proposed": "int8 after training",
    CALIBRATED: "int8 calibrated without training",
    "Shipped": "the project's own int8 model",
    "NNCF": "int8 by NNCF",
    ELLIPSE: "the ellipse in the box",
}
"""Arms of the scores in words. `Proposed` is what the paper's Table 10 calls its model after stage 3."""


EXPORTS = {
    "float_fast": "float, rewritten",
    "int8_released": "int8, authors' style",
    "int8_nncf": "int8 by NNCF",
}
"""Exports in words, where their folder's name is a code."""


def exported(name: str) -> str:
    """Write the name of an arm that begins with an export's in words: `int8_nncf, encoder`."""
    export, comma, rest = name.partition(",")
    return f"{EXPORTS.get(export, export)}{comma}{rest}"


def percent(share: float) -> str:
    """Write a share 0..1 as a percentage. Only all is 100.0 %: 0.9999 is 99.9 %."""
    rounded = f"{100 * share:.1f}"
    return f"{'99.9' if rounded == '100.0' and share < 1 else rounded} %"


def points(difference: float) -> str:
    """Write a difference of shares in points, with its sign."""
    return f"{100 * difference:+.2f} points"


def interval(low: float, high: float) -> str:
    """Write a 95 % interval of a difference of shares. One that is NaN or has no width saw no spread."""
    return f"95 %: {100 * low:+.2f} to {100 * high:+.2f}" if low < high else "too few cases for an interval"


def fold(ratio: float) -> str:
    """Write a ratio of speeds: `2.10 times as fast`, or below 1 how many times as slow."""
    if round(ratio, 2) == 1:
        return "as fast"
    return f"{ratio:.2f} times as fast" if ratio > 1 else f"{1 / ratio:.2f} times as slow"


def counted(count: int, what: str) -> str:
    """Write a number with a noun: `1 case`, `3 cases`, `2 modalities`, `2 boxes`."""
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}{'es' if what.endswith('x') else 's'}"
    return f"{count:,} {what if count == 1 else many}"


def enumerated(names: Sequence[str], most: int = 4) -> str:
    """List names in a sentence, and count those after the first `most`."""
    rest = len(names) - most
    shown = [*names[:most], f"{rest} more"] if rest > 0 else list(names)
    return " and ".join(part for part in (", ".join(shown[:-1]), *shown[-1:]) if part)


def upper_first(sentence: str) -> str:
    """Begin a sentence with a capital letter."""
    return sentence[:1].upper() + sentence[1:]


def direction(low: float, high: float) -> int:
    """Sign of a difference by its interval; 0 if the interval contains 0 or is NaN."""
    return int(low > 0) - int(high < 0)
