"""Command line of the importers: `python -m qmsam_core.data.importers {nifti,dicom,images} ...`.

Exit codes: 0 every input is now a case, 1 some failed (each is named on stderr), 2 nothing could start.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from qmsam_core.data.archive import CaseError
from qmsam_core.data.phantoms import MODALITIES

from . import pairing
from .assemble import dicom_case, nifti_case, planar_case
from .batch import Job, run_jobs, unexpected
from .grids import VOLUME_SUFFIXES, is_flat
from .intensity import DEFAULT_PERCENTILES, DEFAULT_WINDOW, WINDOWS, parse_window
from .labels import LabelOptions
from .options import ImportOptions
from .pairing import Pair, find_pairs, stem
from .planar import IMAGE_SUFFIXES
from .planes import ACQUIRED, ORDERS
from .series import DicomFolder, holds_dicom, modality_of


class _Unusable(Exception):
    """The command cannot start. The message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _parser()
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
    """A folder of DICOM files is one case, else each sub-folder is one. `--one-case` takes the whole tree."""
    root = options.images
    if not root.is_dir():
        raise _Unusable(f"{root}: is no folder; expected a folder of DICOM files, or of such folders")
    inner = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    single = options.one_case or not inner or holds_dicom(root)
    _check_exists(options.masks)
    if not single and options.name:
        raise _Unusable(
            f"--name {options.name}: {root} holds several cases; they are named after their folders"
        )
    for folder in [root] if single else inner:
        try:
            yield _dicom_job(folder, options, how, single)
        except CaseError as error:
            yield error
        except Exception as error:  # as in run_jobs: a malformed header stops only its own case
            yield unexpected(folder, error)


def _dicom_job(folder: Path, options: argparse.Namespace, how: ImportOptions, single: bool) -> Job:
    found = DicomFolder.scan(folder)
    mask = options.masks if single or options.masks is None else _mask_of(folder.name, options.masks)
    drawn = (
        (DicomFolder.read_mask(mask) if mask.is_file() else None)
        if mask
        else (found.masks[0] if len(found.masks) == 1 else None)
    )
    stated = modality_of(found.image_series(drawn))
    if stated and options.modality and stated != options.modality:
        raise CaseError(folder, f"is a {stated} series; --modality says {options.modality}")
    modality = options.modality or stated
    if modality is None:
        raise CaseError(folder, "is none of CT, MR and PET; give --modality")
    name = options.name or folder.resolve().name
    return Job(
        folder, name, modality, True, lambda case_name: dicom_case(case_name, found, mask, modality, how)
    )


def _mask_of(name: str, masks: Path) -> Path:
    """Find the mask of a case: `name.<ending>`, or folder `name` of one DICOM mask or a volume per object."""
    files = [
        p
        for p in sorted(masks.iterdir())
        if p.name == name or (stem(p, (*VOLUME_SUFFIXES, ".dcm")) or p.name) == name
    ]
    if len(files) != 1:
        raise CaseError(
            masks / name,
            f"{len(files) or 'no'} masks for case {name!r}; "
            f"expected one {name}.nii.gz, {name}.dcm or folder {name}",
        )
    inside = sorted(p for p in files[0].iterdir() if p.is_file()) if files[0].is_dir() else []
    dicom = len(inside) == 1 and stem(inside[0], VOLUME_SUFFIXES) is None
    return inside[0] if dicom else files[0]


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
    low, high = options.percentiles
    if not 0 <= low < high <= 100:
        raise _Unusable(f"--percentiles {low:g} {high:g}: expected 0 <= LOW < HIGH <= 100")
    labels = LabelOptions(
        tuple(options.objects),
        options.threshold,
        options.instances,
        options.min_size,
        options.max_objects,
        options.image_geometry,
        options.interpolate,
    )
    return ImportOptions(options.window, (low, high), labels, options.windowed, options.plane)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.data.importers",
        description="Turn a hospital's images and masks into cases, "
        "<out>/<Modality>/<DataSet>/{2DBox,3DBox}_<Modality>_<name>.npz.",
        epilog="Exit code: 0 all imported, 1 some inputs could not be used (named on stderr), "
        "2 nothing could start.",
    )
    kinds = parser.add_subparsers(dest="kind")
    layouts = {
        "epilog": f"How images and masks of folders are paired. {pairing.__doc__}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    nifti = kinds.add_parser(
        "nifti", help="NIfTI (or MHA, NRRD) volumes with masks on the same grid", **layouts
    )
    dicom = kinds.add_parser("dicom", help="DICOM series with SEG, RTSTRUCT or a NIfTI mask")
    images = kinds.add_parser("images", help="PNG, JPEG, TIFF or BMP images with masks", **layouts)
    for kind, what in ((nifti, "volume"), (images, "image")):
        kind.add_argument("images", type=Path, help=f"{what}, or folder of {what}s (searched in depth)")
        kind.add_argument(
            "masks",
            type=Path,
            help="its mask, folder of one binary mask an object, or folder of masks named like the images",
        )
        kind.add_argument(
            "--modality",
            required=True,
            type=_folder_name,
            help=f"one of {', '.join(MODALITIES)}, or another folder name",
        )
        contrast = (
            "of several images with one mask (x_t1, x_t2; x_0000, x_0001) take the one that ends in WORD; "
            "'all' makes a case of each"
        )
        kind.add_argument("--contrast", metavar="WORD", help=contrast)
    dicom.add_argument(
        "images", type=Path, help="folder of one series with its mask, or folder of such folders"
    )
    dicom.add_argument(
        "masks",
        type=Path,
        nargs="?",
        help="SEG, RTSTRUCT or NIfTI mask, or folder of masks named like the cases' folders",
    )
    dicom.add_argument("--modality", type=_folder_name, help="default: as the series says")
    dicom.add_argument(
        "--one-case", action="store_true", help="take the folder with all its sub-folders as one case"
    )
    for kind in (nifti, dicom, images):
        _add_common(kind, volumes=kind is not images)
    interpolate = "fill slices between two contours of an RTSTRUCT structure that have none themselves"
    dicom.add_argument("--interpolate", action="store_true", help=interpolate)
    nifti.set_defaults(interpolate=False)
    images.set_defaults(interpolate=False, window=WINDOWS[DEFAULT_WINDOW], plane=ACQUIRED, windowed=False)
    return parser


def _add_common(kind: argparse.ArgumentParser, volumes: bool) -> None:
    kind.add_argument("--out", type=Path, required=True, help="data folder to write to")
    kind.add_argument(
        "--dataset",
        type=_folder_name,
        default="Imported",
        help="name of the data set's folder (default: %(default)s)",
    )
    kind.add_argument("--name", help="name of a single case (default: the file's or folder's)")
    if volumes:
        names = ", ".join(f"{name} {level:g}/{width:g}" for name, (level, width) in WINDOWS.items())
        window = (
            f"CT window in HU: LEVEL,WIDTH (as --window=-600,1500) or one of {names} "
            f"(default: {DEFAULT_WINDOW})"
        )
        kind.add_argument("--window", type=_window, default=WINDOWS[DEFAULT_WINDOW], help=window)
        windowed = "the values are grey values already, 0..1 or 0..255: neither window nor stretch them"
        kind.add_argument("--windowed", action="store_true", help=windowed)
        plane = (
            "cut volumes into slices along this plane (default: the acquired one, across the coarsest axis; "
            "axial if no spacing is 1.5 times the others)"
        )
        kind.add_argument("--plane", choices=(ACQUIRED, *ORDERS), default=ACQUIRED, help=plane)
    percentiles = (
        "what becomes 0 and 255 in images that are neither CT nor 8-bit "
        "(default: 0.5 99.5, of non-zero values)"
    )
    kind.add_argument(
        "--percentiles",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=DEFAULT_PERCENTILES,
        help=percentiles,
    )
    objects = "keep these names (SEG, RTSTRUCT, folder of masks) or label ids; * and ? allowed"
    kind.add_argument("--objects", nargs="+", default=(), metavar="PATTERN", help=objects)
    kind.add_argument(
        "--threshold",
        type=float,
        help="make masks binary: object where value > THRESHOLD (probability maps, JPEG masks)",
    )
    kind.add_argument(
        "--instances",
        action="store_true",
        help="every connected component an object (else an object of several parts keeps one label)",
    )
    kind.add_argument(
        "--min-size",
        type=int,
        default=1,
        metavar="N",
        help="drop objects of fewer voxels or pixels (default: %(default)s)",
    )
    many = "accept up to N labels in a mask, however scattered (else more than 20 are refused if scattered)"
    kind.add_argument("--max-objects", type=int, metavar="N", help=many)
    geometry = "place masks voxel by voxel on their images, whatever geometry they state"
    kind.add_argument("--image-geometry", action="store_true", help=geometry)
    kind.add_argument(
        "--overwrite", action="store_true", help="make existing cases again (else they are kept)"
    )


def _window(text: str) -> tuple[float, float]:
    try:
        return parse_window(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _folder_name(text: str) -> str:
    """Check that `text` is a plain folder name. A modality of the study gets its usual spelling."""
    if not re.fullmatch(r"[\w-][\w. -]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no plain folder name (letters, digits, '-', '_', '.')")
    return next((name for name in MODALITIES if name.lower() == text.lower()), text)


if __name__ == "__main__":
    sys.exit(main())
