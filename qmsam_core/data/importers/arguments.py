"""Arguments of the importers' command line, and their help."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from qmsam_core.data.phantoms import MODALITIES

from . import pairing
from .intensity import DEFAULT_PERCENTILES, DEFAULT_WINDOW, WINDOWS, parse_window
from .labels import LabelOptions
from .options import ImportOptions
from .planes import ACQUIRED, ORDERS


def arguments_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line, with its help."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.data.importers",
        description="Turn a hospital's images and masks into cases, "
        "<out>/<Modality>/<DataSet>/{2DBox,3DBox}_<Modality>_<name>.npz.",
        epilog="Exit code: 0 all imported, 1 some inputs or something in them could not be used (named on "
        "stderr), 2 nothing could start.",
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
    _add_pairs(nifti, "volume")
    _add_pairs(images, "image")
    _add_series(dicom)
    for kind in (nifti, dicom, images):
        _add_output(kind)
        add_labels(kind)
        add_grey(kind)
    add_volumes(nifti)
    add_volumes(dicom)
    nifti.set_defaults(interpolate=False)
    images.set_defaults(interpolate=False, window=WINDOWS[DEFAULT_WINDOW], plane=ACQUIRED, windowed=False)
    return parser


def _add_pairs(kind: argparse.ArgumentParser, what: str) -> None:
    kind.add_argument("images", type=Path, help=f"{what}, or folder of {what}s (searched in depth)")
    masks = "its mask, folder of one binary mask an object, or folder of masks named like the images"
    kind.add_argument("masks", type=Path, help=masks)
    modality = f"one of {', '.join(MODALITIES)}, or another folder name"
    kind.add_argument("--modality", required=True, type=modality_name, help=modality)
    contrast = (
        "of several images with one mask (x_t1, x_t2; x_0000, x_0001) take the one that ends in WORD; "
        "'all' makes a case of each"
    )
    kind.add_argument("--contrast", metavar="WORD", help=contrast)


def _add_series(kind: argparse.ArgumentParser) -> None:
    images = "folder, searched in depth: every series that a SEG or RTSTRUCT refers to is a case"
    kind.add_argument("images", type=Path, help=images)
    masks = (
        "SEG, RTSTRUCT or NIfTI mask, or folder of masks that refer to the series or are named like the "
        "patients' folders"
    )
    kind.add_argument("masks", type=Path, nargs="?", help=masks)
    kind.add_argument("--modality", type=modality_name, help="default: as the series says")
    add_interpolate(kind)


def add_interpolate(kind: argparse._ActionsContainer) -> None:
    """Add the argument of RTSTRUCT contours."""
    interpolate = "fill slices between two contours of an RTSTRUCT structure that have none themselves"
    kind.add_argument("--interpolate", action="store_true", help=interpolate)


def _add_output(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--out", type=Path, required=True, help="data folder to write to")
    dataset = "name of the data set's folder (default: %(default)s)"
    kind.add_argument("--dataset", type=folder_name, default="Imported", help=dataset)
    kind.add_argument("--name", help="name of a single case (default: the file's or folder's)")
    overwrite = "make existing cases again (else they are kept)"
    kind.add_argument("--overwrite", action="store_true", help=overwrite)


def add_labels(kind: argparse._ActionsContainer) -> None:
    """Add the arguments that say how masks become labels."""
    objects = "keep these names (SEG, RTSTRUCT, folder of masks, colours) or label ids; * and ? allowed"
    kind.add_argument("--objects", nargs="+", default=(), metavar="PATTERN", help=objects)
    threshold = "make masks binary: object where value > THRESHOLD (probability maps, JPEG masks)"
    kind.add_argument("--threshold", type=float, help=threshold)
    instances = "every connected component an object (else an object of several parts keeps one label)"
    kind.add_argument("--instances", action="store_true", help=instances)
    small = "drop objects of fewer voxels or pixels (default: %(default)s)"
    kind.add_argument("--min-size", type=int, default=1, metavar="N", help=small)
    many = "accept up to N labels in a mask, however scattered (else more than 20 are refused if scattered)"
    kind.add_argument("--max-objects", type=int, metavar="N", help=many)
    geometry = "place masks voxel by voxel on their images, whatever geometry they state"
    kind.add_argument("--image-geometry", action="store_true", help=geometry)


def add_grey(kind: argparse._ActionsContainer) -> None:
    """Add the argument of values that are neither CT nor 8-bit."""
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


def add_volumes(kind: argparse._ActionsContainer) -> None:
    """Add the arguments of volumes: window and plane."""
    names = ", ".join(f"{name} {level:g}/{width:g}" for name, (level, width) in WINDOWS.items())
    window = (
        f"CT window in HU: LEVEL,WIDTH (as --window=-600,1500) or one of {names} (default: {DEFAULT_WINDOW})"
    )
    kind.add_argument("--window", type=_window, default=WINDOWS[DEFAULT_WINDOW], help=window)
    windowed = "the values are grey values already, 0..1 or 0..255: neither window nor stretch them"
    kind.add_argument("--windowed", action="store_true", help=windowed)
    plane = (
        "cut volumes into slices along this plane (default: the acquired one, across the coarsest axis; "
        "axial if no spacing is 1.5 times the others)"
    )
    kind.add_argument("--plane", choices=(ACQUIRED, *ORDERS), default=ACQUIRED, help=plane)


def import_options(options: argparse.Namespace) -> ImportOptions:
    """Collect what the arguments of grey values, volumes and labels say.

    Raises:
        ValueError: the percentiles are in no order.
    """
    low, high = options.percentiles
    if not 0 <= low < high <= 100:
        raise ValueError(f"--percentiles {low:g} {high:g}: expected 0 <= LOW < HIGH <= 100")
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


def _window(text: str) -> tuple[float, float]:
    try:
        return parse_window(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def folder_name(text: str) -> str:
    """Check that `text` is a plain folder name. A modality of the study gets its usual spelling."""
    if not re.fullmatch(r"[\w-][\w. -]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no plain folder name (letters, digits, '-', '_', '.')")
    return next((name for name in MODALITIES if name.lower() == text.lower()), text)


def modality_name(text: str) -> str:
    """Check the name of a modality. Any is accepted, but CT has to be called so, or it is not windowed."""
    name = folder_name(text)
    if name not in MODALITIES and re.match(r"(?:cb|ce|nc|ld|hr|pet)?[ _-]?ct", name, re.IGNORECASE):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not windowed in Hounsfield units: only CT is; give CT if these are CT images"
        )
    return name
