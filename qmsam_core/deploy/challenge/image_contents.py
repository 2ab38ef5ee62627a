"""What the challenge's image holds beside its base image, in MB: wheel by wheel, the model, the code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder
from pathlib import Path

from packaging.requirements import Requirement

from .build_context import MODEL


@dataclass(frozen=True)
class Content:
    """One part of the image.

    Attributes:
        name: of a distribution, or `model` or `code`.
        version: of a distribution, else "".
        mb: its files on disk, in 10^6 bytes.
    """

    name: str
    version: str
    mb: float


def image_contents(context: Path, path: Sequence[str] | None = None) -> list[Content]:
    """List what the image of a build context holds beside its base image, wheels first, the largest first.

    Args:
        context: what `build_context` wrote.
        path: folders in which the distributions are installed; None for those of this Python.

    Raises:
        ValueError: a distribution is not installed there, or another version of it.
    """
    needed = distributions_of(context / "requirements.txt", path)
    wheels = [Content(one.name, one.version, installed_bytes(one) / 1e6) for one in needed]
    wheels.sort(key=lambda one: -one.mb)
    model = sum(file.stat().st_size for file in (context / MODEL).rglob("*") if file.is_file())
    code = sum(file.stat().st_size for file in (context / "qmsam_core").rglob("*.py"))
    return [*wheels, Content("model", "", model / 1e6), Content("code", "", code / 1e6)]


def requirements_in(file: Path) -> list[Requirement]:
    """Read a requirements file of plain lines. Comments and blank lines are passed over."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def distributions_of(file: Path, path: Sequence[str] | None = None) -> list[Distribution]:
    """List the installed distributions that a requirements file names, and all that these depend on.

    Args:
        file: requirements file.
        path: as in `image_contents`.

    Raises:
        ValueError: as `image_contents`.
    """
    waiting, found = requirements_in(file), {}
    while waiting:
        wanted = waiting.pop(0)
        one = _installed(wanted.name, path)
        if one is None or not wanted.specifier.contains(one.version, prereleases=True):
            there = f"version {one.version}" if one else "nothing"
            raise ValueError(f"{file}: asks for {wanted}, found {there} installed; install the requirements")
        if one.name not in found:
            found[one.name] = one
            waiting += _dependencies(one)
    return list(found.values())


def _installed(name: str, path: Sequence[str] | None) -> Distribution | None:
    context = DistributionFinder.Context(name=name, path=sys.path if path is None else list(path))
    return next(iter(MetadataPathFinder.find_distributions(context)), None)


def _dependencies(one: Distribution) -> Iterator[Requirement]:
    for line in one.requires or ():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield needed


def installed_bytes(one: Distribution) -> int:
    """Return the bytes that a distribution's files take on disk, compiled modules included."""
    paths = (Path(one.locate_file(file)) for file in one.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def install(requirements: Path, prefix: Path) -> None:
    """Install a requirements file into an empty folder with pip, as the image's build does.

    Raises:
        ValueError: pip could not. Its own message is on stderr.
    """
    quiet = (
        "--quiet",
        "--disable-pip-version-check",
        "--no-warn-conflicts",
    )  # with packages not installed there
    what = ("--target", str(prefix), "-r", str(requirements))
    done = subprocess.run([sys.executable, "-m", "pip", "install", *quiet, *what])
    if done.returncode:
        raise ValueError(f"{requirements}: pip could not install it into {prefix}; see its message above")
