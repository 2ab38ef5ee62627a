"""Arguments of predict's command line, and what they name: inputs, boxes and masks."""

import argparse
import os
import sys
from functools import cache
from pathlib import Path

from ..data.archive import CaseError
from ..data.importers.arguments import (
    add_grey,
    add_interpolate,
    add_labels,
    add_volumes,
    import_options,
    modality_name,
)
from ..data.importers.walk import check_name, in_utf8
from ..data.preprocessing import ORDERS
from .engines import ENGINES, has_bf16
from .files.box_table import read_box_table, rows_by_input
from .files.inputs import Input, find_inputs
from .files.originals import check_originals
from .files.reading import Reading
from .memory import memory_size
from .records import MADE, OBJECTS, TIMING, read_made

PRECISIONS = ("auto", "f32", "bf16")
PRECISION = "QMSAM_PRECISION"
"""Environment variable with the default of --precision."""


def arguments_parser(description: str) -> argparse.ArgumentParser:
    """Make the parser of the command line, with its help."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.deploy.predict",
        usage="%(prog)s -i INPUT -o OUTPUT [options]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("-i", "--input", required=True, type=Path, help="file, or folder that is searched in depth")
    option(
        "-o",
        "--output",
        required=True,
        type=Path,
        help=f"folder for the masks, {OBJECTS}, {TIMING}, and {MADE}, what made them",
    )
    _add_box_options(option)
    _add_mask_options(option)
    _add_engine_options(option)
    grey = parser.add_argument_group("grey values and slices of files that are no npz")
    add_grey(grey)
    add_volumes(grey)
    labels = parser.add_argument_group("objects of the masks of --boxes-from")
    add_labels(labels)
    add_interpolate(labels)
    return parser


def _add_box_options(option) -> None:
    option(
        "--boxes",
        type=Path,
        metavar="TABLE",
        help="CSV or JSON, one row a box: file, name, x_min y_min z_min x_max y_max z_max (ends included) "
        "or x y z width height depth; frame voxel (default), LPS or RAS; first 0 (default) or 1",
    )
    option(
        "--boxes-from",
        type=Path,
        metavar="MASKS",
        help="mask of the input, or folder of masks named like the inputs: boxes are tight around objects",
    )
    option(
        "--modality",
        type=modality_name,
        help="of files that do not tell it (NIfTI, NRRD, MetaImage): CT selects the window; MR, PET, ...",
    )


def _add_mask_options(option) -> None:
    option(
        "--one-mask-an-object",
        action="store_true",
        help="write a folder of binary masks for each input, whole where they overlap (DICOM: one SEG)",
    )
    option(
        "--to-source",
        action="store_true",
        help="write the masks of imported npz cases in the format and on the grid they came from",
    )
    option(
        "--shard",
        type=_shard,
        metavar="K/N",
        help="do only part K of N, from 1: each input belongs to one part, by its name",
    )


def _add_engine_options(option) -> None:
    option(
        "--model",
        type=Path,
        help="folder written by qmsam_core.deploy.export; or one with several of them: default/, and others "
        "named after the modalities they are for, such as CT/ and MR+PET/; by default the project's int8 "
        "model, exported once",
    )
    option(
        "--image-size",
        type=int,
        metavar="PX",
        help="side of the input of the project's int8 model, a multiple of 16 (default: 256); on 265 real "
        "cases 192 keeps the mean DSC in three fifths of the time, 128 loses 2.2 points (OCT 30, CT and "
        "microscopy 6) in a third; PET and fundus gain; see qmsam_core.study.resolutions",
    )
    option("--engine", default="openvino", choices=ENGINES)
    option("--threads", type=int, default=os.cpu_count(), help="of the engine (default: all, %(default)s)")
    option(
        "--precision",
        choices=PRECISIONS,
        default=os.environ.get(PRECISION, "auto"),
        help="OpenVINO's hint for what is not int8; auto measures once, for some seconds, what is quickest "
        "on this CPU, keeps that in the cache, and takes a quicker float model if the export holds one"
        "; with --memory-limit auto is f32, as measuring takes memory "
        f"(default: %(default)s, or the environment variable {PRECISION})",
    )
    option(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="keep the models that OpenVINO compiled here, so that later runs start sooner; made if absent, "
        f"may be deleted at any time (default: {default_cache()})",
    )
    option("--no-cache", action="store_true", help="compile anew and measure nothing (--precision f32)")
    option(
        "--decode-block", type=int, default=8, help="boxes decoded at once at most; fewer need less memory"
    )
    option(
        "--memory-limit",
        "--memory-limit-mb",
        type=memory_size,
        metavar="SIZE",
        help="memory of the whole process, e.g. 1.5G, 800M or 1500 (MB): "
        "fewer boxes are decoded at once to stay within it",
    )
    option(
        "--order",
        choices=ORDERS,
        help="padding before normalising, as the paper, or after it, as the challenge's baseline "
        "(default: the network's own, for LiteMedSAM the paper's)",
    )
    option(
        "--propagate",
        action="store_true",
        help="in volumes take each box from the mask on the neighbouring slice, "
        "as the challenge's baseline does",
    )


def default_cache() -> Path:
    """Return the folder for compiled models and measurements, in the user's own folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qmsam_core"


def cache_of(options: argparse.Namespace) -> Path | None:
    """Return the folder of compiled models that the options ask for; None for none."""
    if options.no_cache or options.engine != "openvino":
        return None
    return options.cache or default_cache()


def _shard(text: str) -> tuple[int, int]:
    try:
        number, count = (int(part) for part in text.split("/"))
    except ValueError:
        number, count = 0, 0
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text!r}: expected K/N such as 3/16, K from 1 to N")
    return number, count


def check_options(options: argparse.Namespace) -> None:
    """Raise `ValueError` if options cannot be used, with what was expected."""
    for name in ("threads", "decode_block"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected 1 or more")
    size = options.image_size
    if size is not None and (size % 16 or size < 32):
        raise ValueError(f"--image-size {size}: expected a multiple of 16, at least 32 px")
    if size and options.model:
        raise ValueError(
            f"--image-size {size}: {options.model} has its size; "
            "export it at another one with qmsam_core.deploy.export --size"
        )
    if options.precision not in PRECISIONS:  # argparse does not check a default
        raise ValueError(f"{PRECISION}={options.precision}: expected one of {', '.join(PRECISIONS)}")
    if options.cache and options.no_cache:
        raise ValueError("--cache and --no-cache: expected one of the two")
    if options.precision == "bf16" and not (options.engine == "openvino" and has_bf16()):
        raise ValueError("--precision bf16: this CPU has no bf16 arithmetic, or the engine is not openvino")
    if options.cache and options.engine != "openvino":
        raise ValueError(
            f"--cache: expected the engine openvino, found {options.engine}; leave one of them out"
        )
    if options.cache and options.cache.exists() and not options.cache.is_dir():
        raise ValueError(f"--cache {options.cache}: is a file; expected a folder, made if absent")
    if options.boxes and options.boxes_from:
        raise ValueError("--boxes and --boxes-from: expected one of the two")
    for path in filter(None, (options.output, options.boxes_from)):
        check_name(path)
    output, given = options.output.resolve(), options.input.resolve()
    if output == given:
        raise ValueError(
            f"{options.output}: is the input folder; give another with -o, or the cases would be replaced"
        )
    if given.is_dir() and output in given.parents:
        raise ValueError(
            f"{options.output}: contains the input {options.input}, and outputs are no inputs; "
            "give another folder with -o"
        )
    if options.boxes_from and output == options.boxes_from.resolve():
        raise ValueError(
            f"{options.output}: is the folder of --boxes-from; give another with -o, "
            "or the masks there would be replaced"
        )


def gather(options: argparse.Namespace) -> tuple[list[Input | CaseError], Reading]:
    """Find what to segment, in this shard, and how to read it.

    Returns:
        Inputs with the errors among them: files that are no case, rows and masks that fit none.

    Raises:
        ValueError: nothing can start. The message names the file.
    """
    given = [path for path in (options.boxes, options.boxes_from) if path]
    inside = options.boxes_from and options.boxes_from.resolve() == options.input.resolve()
    without = [options.output, *(path for path in given if not (inside and path == options.boxes_from))]

    def log(line: str) -> None:
        print(in_utf8(line), file=sys.stderr)

    found = find_inputs(
        options.input, without, log=log, is_output=cache(lambda folder: bool(read_made(folder / MADE)))
    )
    inputs = [one for one in found if isinstance(one, Input)]
    if not inputs and len(found) == 1:
        raise found[0]
    if not inputs:
        raise CaseError(options.input, "nothing to segment; expected npz, NIfTI, NRRD, DICOM or image files")
    rows, masks, errors = {}, {}, []
    if options.boxes:
        rows, errors = rows_by_input(read_box_table(options.boxes), inputs)
    if options.boxes_from:
        from .files.mask_pairs import masks_of  # its libraries take long to load

        inputs, masks, errors = masks_of(inputs, options.input, options.boxes_from, log)
    reading = Reading(options.modality, import_options(options), rows, masks, options.to_source)
    tables = [options.output / name for name in (MADE, TIMING, OBJECTS)]
    if options.boxes and options.boxes.resolve() in [table.resolve() for table in tables]:
        raise ValueError(f"{options.boxes}: the output would replace this table; give another folder with -o")
    read = [path for path in given if path.is_file()]
    check_originals(inputs, reading, options.output, options.one_mask_an_object, read)
    left = [one for one in found if isinstance(one, CaseError)] + errors
    if options.shard:
        inputs = [one for one in inputs if one.in_shard(options.shard)]
        # one part names what belongs to none
        left = left if options.shard[0] == 1 else []
    return [*inputs, *left], reading
