"""The range that the codes of an activation cover."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Range:
    """Codes of an activation: `round(x / scale)` clamped to `low`..`high`.

    Of unsigned codes with a zero point, these are the codes minus the zero point.
    """

    scale: float
    low: int
    high: int

    def apply(self, x: Tensor) -> Tensor:
        """Quantise and dequantise a float32 tensor."""
        return (x / self.scale).round_().clamp_(self.low, self.high).mul_(self.scale)

    @classmethod
    def symmetric(cls, low: float, high: float, bits: int, signed: bool = True) -> Range:
        """Cover the larger of -low and high on both sides of zero, or 0..high if not `signed`."""
        top = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        return cls(max(-low if signed else 0.0, high, 1e-10) / top, -top - 1 if signed else 0, top)

    @classmethod
    def shifted(cls, low: float, high: float, bits: int) -> Range:
        """Cover low..high, widened to contain zero, which has a code of its own."""
        low, high, steps = min(low, 0.0), max(high, 0.0), 2**bits - 1
        scale = max(high - low, 1e-10) / steps
        zero = round(-low / scale)
        return cls(scale, -zero, steps - zero)
