"""Command line of the importers: `python -m qmsam_core.data.importers {nifti,dicom,images} ...`.

Exit codes: 0 every input is now a case, 1 some failed or something in them was left out (each is named on
stderr), 2 nothing could start.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from qmsam_core.data.archive import CaseError
from qmsam_core.data.cases import Case

from .arguments import arguments_parser, import_options
from .assemble import dicom_case, nifti_case, planar_case
from .batch import Job, run_jobs, unexpected
from .dicom_tree import Series, find_series
from .endings import IMAGE_SUFFIXES, VOLUME_SUFFIXES
from .grids import is_flat
from .notes import listed
from .options import ImportOptions
from .pairing import Pair, find_pairs, stem
from .series import DicomFolder
from .series_masks import Masks, named_cases
from .walk import files_below


class _Unusable(Exception):
    """The command cannot start. The message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = arguments_parser()
    options = parser.parse_args(arguments)
    if options.kind is None:
        parser.print_help()
        return 2
    # pydicom warns about each value that bends the standard, and most hospitals' files hold some.
    warnings.filterwarnings("ignore", module="pydicom")
    try:
        jobs = _JOBS[options.kind](options, _import_options(options))
        # Jobs are made one by one. An error that stops the whole command is raised with the first.
        first = next(jobs, None)
        if first is None:
            raise _Unusable(f"{options.images}: nothing to import in it")
    except _Unusable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run_jobs(chain([first], jobs), options.out, options.dataset, options.overwrite)


def _nifti_jobs(options: argparse.Namespace, how: ImportOptions) -> Iterator[Job | CaseError]:
    for pair in _pairs(options, VOLUME_SUFFIXES):
        read = lambda name, p: nifti_case(name, p.image, p.mask, options.modality, how)  # noqa: E731
        yield (
            pair
            if isinstance(pair, CaseError)
            else Job(pair.image, pair.name, options.modality, not is_flat(pair.image), partial(read, p=pair))
        )


def _planar_jobs(options: argparse.Namespace, how: ImportOptions) -> Iterator[Job | CaseError]:
    for pair in _pairs(options, (*IMAGE_SUFFIXES, *VOLUME_SUFFIXES)):
        read = lambda name, p: planar_case(name, p.image, p.mask, how)  # noqa: E731
        yield (
            pair
            if isinstance(pair, CaseError)
            else Job(pair.image, pair.name, options.modality, False, partial(read, p=pair))
        )


def _dicom_jobs(options: argparse.Namespace, how: ImportOptions) -> Iterator[Job | CaseError]:
    """Every series with a mask is a case."""
    root = options.images
    if not root.is_dir():
        raise _Unusable(f"{root}: is no folder; expected a folder of DICOM files")
    _check_exists(options.masks)
    below = files_below(root)
    tree = find_series(below.files)
    if tree.others:
        names = listed([path.name for path in tree.others])
        print(f"note: {len(tree.others)} files are no DICOM images or drawn masks: {names}", flush=True)
    for path in below.loops:
        print(f"note: {path} leads to a folder above it and is not followed", flush=True)
    cases = named_cases(tree, root, options.masks)
    if options.name and len(cases.masks) > 1:
        raise _Unusable(
            f"--name {options.name}: {root} holds {len(cases.masks)} cases, named after their folders"
        )
    for line in cases.notes:
        print(f"note: {line}", flush=True)
    yield from (*below.errors, *tree.damaged, *cases.errors)
    for name, (series, mask) in cases.masks.items():
        try:
            yield _dicom_job(options.name or name, series, mask, options.modality, how)
        except CaseError as error:
            yield error
        except Exception as error:  # as in run_jobs: a malformed header stops only its own case
            yield unexpected(series.folder, error)


def _dicom_job(name: str, series: Series, mask: Masks | None, given: str | None, how: ImportOptions) -> Job:
    found = DicomFolder.of(series.folder, series.files)
    modality = found.modality(given)

    def read(case_name: str) -> tuple[Case, list[str]]:
        case, notes = dicom_case(case_name, found, mask, modality, how)
        return case, [*(series.notes if mask is None else ()), *notes]

    return Job(series.folder, name, modality, True, read, series.uid)


def _pairs(options: argparse.Namespace, suffixes: tuple[str, ...]) -> list[Pair | CaseError]:
    images, masks = options.images, options.masks
    _check_exists(images)
    _check_exists(masks)
    if images.is_dir():
        if not masks.is_dir():
            raise _Unusable(f"{masks}: is one file, but the images are a folder; expected a folder of masks")
        if options.name:
            raise _Unusable(f"--name {options.name}: cases of a folder are named after their images")
        found = find_pairs(images, masks, suffixes, options.contrast)
        for note in found.notes:
            print(f"note: {note}", flush=True)
        return [*found.errors, *found.pairs]
    name = stem(images, suffixes)
    wrong = next((p for p in (images, masks) if not p.is_dir() and stem(p, suffixes) is None), None)
    if wrong is not None:
        return [CaseError(wrong, f"is of an unsupported type; expected {', '.join(suffixes)}")]
    return [Pair(options.name or name, images, masks)]


_JOBS = {"nifti": _nifti_jobs, "dicom": _dicom_jobs, "images": _planar_jobs}


def _check_exists(path: Path | None) -> None:
    if path is not None and not path.exists():
        raise _Unusable(f"{path}: there is no such file or folder")


def _import_options(options: argparse.Namespace) -> ImportOptions:
    try:
        return import_options(options)
    except ValueError as error:
        raise _Unusable(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
