"""How long a model is trained from nothing, at which resolutions, and the learning rate along the way."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

PHASE = r"(\d+) px, (?:(\d+) images|(\d+) boxes on (\d+) images), (\d+(?:\.\d+)?) (steps|minutes)(?:, from ([1-9](?:\.\d+)?e-\d))?(, fixed stem)?(, new decoder)?"
"""One entry of the parameter `float_phases`, for example `64 px, 16 images, 45 minutes`, `112 px, 16 images, 400 steps, from 4e-4`, or
`64 px, 32 boxes on 1200 images, 5 minutes`, which trains the mask decoder alone. `, fixed stem` behind it trains all but the encoder's convolutional stage,
`, new decoder` begins the mask decoder anew."""

PEAK = 1e-3  # learning rate, where no phase says otherwise
BOX = 16**2  # what a box costs the mask decoder alone, in pixels of an image with four boxes for the whole network (LiteMedSAM, two cores)
BEHIND_STEM = 0.5  # what an image costs all but the stem, of what it costs the whole network (two cores, 112 and 224 px)
WARM_UP, LAST = 0.03, 0.01  # share of a course of the learning rate; rate at its end as a share of its peak


@dataclass(frozen=True)
class Phase:
    """Training at one resolution: side of the input in px, images a step over all processes, and its length, by the clock or in steps.

    With `kept` images the prompt encoder and the mask decoder are trained alone, on embeddings computed once at the phase's beginning; `images` is
    then the number of boxes a step. A box costs the decoder as little at any size, 1/200 of an image of 224 px, since it is shown a sample of the cells.

    `peak`, if given, begins the course of the learning rate anew at that peak, so that a training that had come to its end can be continued, at a
    lower resolution again if that is where it pays.

    With `fixed_stem` the encoder's first stage stays as it is and the decoder is shown a sample of the cells, see `train.fixed_stem`: about twice the
    images in the same time on two cores.

    With `new_decoder` the phase begins with a prompt encoder and a mask decoder that fill the box they are asked about, see `models.filled_box`.
    """

    size: int
    images: int
    length: float
    unit: str
    peak: float | None = None
    kept: int = 0
    fixed_stem: bool = False
    new_decoder: bool = False

    @classmethod
    def parse(cls, text: str) -> Phase:
        """Read `64 px, 16 images, 45 minutes`, with `, from 4e-4` behind it or without. Raises ValueError for anything else, and for sizes the network cannot have."""
        found = re.fullmatch(PHASE, text)
        if not found:
            raise ValueError(f"phase {text!r}: expected for example '64 px, 16 images, 45 minutes' or '64 px, 16 images, 2000 steps, from 4e-4'")
        size, images, boxes, kept, length, unit, peak, stem, new = found.groups()
        phase = cls(int(size), int(images or boxes), float(length), unit, float(peak) if peak else None, int(kept or 0), bool(stem), bool(new))
        if phase.size % 16 or phase.size < 32 or phase.images < 1 or phase.length <= 0 or kept == "0":
            raise ValueError(f"phase {text!r}: expected a multiple of 16 from 32 px up, at least one image, and a length above 0")
        if phase.kept and phase.fixed_stem:
            raise ValueError(f"phase {text!r}: 'fixed stem' says nothing where the whole encoder stays as it is, on kept images; leave it out")
        return phase

    @property
    def weight(self) -> float:
        """What the phase counts for in the whole: its minutes, or the pixels it reads, which is what steps of different sizes cost."""
        if self.unit == "minutes":
            return self.length
        return self.length * self.images * (BOX if self.kept else self.size**2 * (BEHIND_STEM if self.fixed_stem else 1))

    def done(self, steps: int, seconds: float) -> float:
        """Share of the phase that is over after so many steps and seconds, 0..1."""
        return min(1.0, (steps if self.unit == "steps" else seconds / 60) / self.length)


def parse_phases(texts: Sequence[str]) -> tuple[Phase, ...]:
    """Read a list of phases; all must be given in the same unit, so that their shares of the whole are known in advance."""
    phases = tuple(Phase.parse(text) for text in texts)
    if len({phase.unit for phase in phases}) > 1:
        raise ValueError("phases in steps and in minutes: expected one unit for all of them")
    return phases


def overall(phases: Sequence[Phase], number: int, done: float) -> float:
    """Share of these phases that is over when `done` of phase `number` is, 0..1."""
    weights = [phase.weight for phase in phases]
    return (sum(weights[:number]) + done * weights[number]) / sum(weights)


def learning_rate(phases: Sequence[Phase], number: int, done: float) -> float:
    """Learning rate when `done` of phase `number` is over, 0..1. One course, see `course`, covers all phases up to the next that has a peak of its own."""
    begins = [k for k, phase in enumerate(phases) if k == 0 or phase.peak is not None]
    first = max(k for k in begins if k <= number)
    end = min((k for k in begins if k > number), default=len(phases))
    return course(phases[first].peak or PEAK, overall(phases[first:end], number - first, done))


def course(peak: float, share: float) -> float:
    """Learning rate when `share` of its course is over: linear warm-up over the first 3 %, then half a cosine to 1 % of `peak`."""
    if share < WARM_UP:
        return peak * (0.01 + 0.99 * share / WARM_UP)
    cosine = 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))
    return peak * (LAST + (1 - LAST) * cosine)
