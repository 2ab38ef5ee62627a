"""Refuse outputs that would replace what they are made from, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from ...data.archive import CaseError
from ...data.source import Source
from .inputs import Input
from .mask_files import target_of
from .reading import Reading


def check_originals(
    inputs: Iterable[Input], reading: Reading, output: Path, apart: bool, others: Iterable[Path] = ()
) -> None:
    """Raise `ValueError` if an output is an input, its source, a mask that boxes come from, or another file.

    Args:
        inputs: what is segmented.
        reading: where boxes and sources come from.
        output: the output folder.
        apart: one mask an object.
        others: files that are read besides, such as the table of boxes.
    """
    sources = [(one, _source(one, reading)) for one in inputs]
    targets = {os.path.realpath(target): target for target in _targets(sources, output, apart)}
    for path in chain(others, _originals(sources, reading)):
        real = Path(os.path.realpath(path))
        for place in (real, *real.parents):  # a folder of masks would be replaced as a whole
            if str(place) in targets:
                raise ValueError(
                    f"{targets[str(place)]}: the output would replace {path}, which it is made from; "
                    "give another folder with -o"
                )


def _targets(sources: list[tuple], output: Path, apart: bool) -> Iterator[Path]:
    for one, source in sources:
        target = target_of(one, source, output, apart)
        yield target
        if target.suffix == ".mhd":
            yield target.with_suffix(".zraw")


def _originals(sources: list[tuple], reading: Reading) -> Iterator[Path]:
    for one, source in sources:
        yield from one.files
        if source is not None:
            yield Path(source.path)
    for mask in reading.masks.values():
        yield from mask if isinstance(mask, tuple) else [mask]


def _source(one: Input, reading: Reading) -> Source | None:
    try:
        return reading.source(one)
    except (CaseError, OSError):
        return None  # it is named when it is read
