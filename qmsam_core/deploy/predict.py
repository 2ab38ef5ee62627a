"""Segment images: boxes in, masks out.

    python -m qmsam_core.deploy.predict -i ct.nii.gz --boxes boxes.csv --modality CT -o masks/
    python -m qmsam_core.deploy.predict -i patients/ --boxes-from rtstructs/ -o masks/
    python -m qmsam_core.deploy.predict -i cases/ -o segmentations/ --model exported/

The input is a file, or a folder that is searched in depth: npz cases, NIfTI, NRRD, MetaImage, folders of
DICOM slices, PNG, JPEG, TIFF and BMP. Masks are written in the format that came in, on its own grid, under
the same sub-folders. `objects.csv` has each object's file, label, name, box and volume. Step by step:
docs/your_images.md.

Boxes are in an npz, or come from a table (`--boxes`), from masks (`--boxes-from`), or from the one SEG or
RTSTRUCT in a series' own folder. Where masks overlap, the object with the smaller box lies on top.

Without `--model` the project's own int8 model is used. It is exported once, to `outputs/exported/`.

Every slice that a box crosses is encoded once, however many boxes it has. Boxes are decoded in blocks (paper
section 2.1). The same command run again continues where the last run ended. Outputs of another model, other
settings or another input are made again. Several processes may share an output folder.

Exit code: 0 everything done, 1 some failed or was no case (each is named), 2 nothing could start or go on,
130 interrupted.
"""

import argparse
import os
import sys
import warnings
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from ..data.archive import CaseError
from ..data.importers.intensity import DEFAULT_PERCENTILES, DEFAULT_WINDOW, WINDOWS, parse_window
from ..data.importers.options import ImportOptions
from ..data.importers.planes import ACQUIRED, ORDERS
from ..data.phantoms import MODALITIES
from ..data.transforms import ORDERS as INPUT_ORDERS
from .batch import predict_folder
from .box_table import read_box_table, rows_by_input
from .engines import ENGINES, open_engine
from .exported import FROM_NOISE, ExportError, read_export
from .inputs import Input, find_inputs
from .mask_pairs import masks_of
from .memory import memory_size, resident_bytes
from .predictor import Predictor
from .reading import Reading
from .records import MADE, OBJECTS, TIMING

__all__ = ["main", "predict_folder"]


class Progress:
    """A progress bar on a terminal. Elsewhere plain lines, because a log file wants no control characters."""

    def __init__(self, total: int) -> None:
        stream = sys.stderr
        self._bar = tqdm(total=total, unit="case", file=stream) if stream.isatty() else None
        self._stream, self._total, self._done = stream, total, 0
        self._every = max(1, total // 20)

    def done(self) -> None:
        """Count one more case."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif self._done % self._every == 0 or self._done == self._total:
            print(f"{self._done} of {self._total} cases", file=self._stream, flush=True)

    def log(self, line: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Close the bar, so that the terminal is in order."""
        if self._bar is not None:
            self._bar.close()


def command_line() -> argparse.ArgumentParser:
    """Return the command line's parser; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.deploy.predict",
        description=__doc__,
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
    _add_image_options(option)
    _add_mask_options(option)
    _add_engine_options(option)
    return parser


def _add_image_options(option) -> None:
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
    option("--modality", help="of files that do not tell it (NIfTI, NRRD, MetaImage): CT, MR, PET, ...")
    names = ", ".join(WINDOWS)
    option(
        "--window",
        type=_window,
        default=WINDOWS[DEFAULT_WINDOW],
        help=f"CT window in HU: LEVEL,WIDTH or one of {names} (default: {DEFAULT_WINDOW})",
    )
    option(
        "--percentiles",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=DEFAULT_PERCENTILES,
        help="what becomes black and white in images that are neither CT nor 8-bit (default: 0.5 99.5)",
    )
    option(
        "--plane",
        choices=(ACQUIRED, *ORDERS),
        default=ACQUIRED,
        help="cut volumes into slices along this plane (default: the acquired one)",
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
        help="folder written by qmsam_core.deploy.export; by default the project's int8 model, exported once",
    )
    option("--engine", default="openvino", choices=ENGINES)
    option("--threads", type=int, default=os.cpu_count(), help="of the engine (default: all, %(default)s)")
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
        default=INPUT_ORDERS[0],
        choices=INPUT_ORDERS,
        help="padding before normalising, as the paper, or after it, as the challenge's baseline",
    )
    option(
        "--propagate",
        action="store_true",
        help="in volumes take each box from the mask on the neighbouring slice, "
        "as the challenge's baseline does",
    )


def _window(text: str) -> tuple[float, float]:
    try:
        return parse_window(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _shard(text: str) -> tuple[int, int]:
    try:
        number, count = (int(part) for part in text.split("/"))
    except ValueError:
        number, count = 0, 0
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text!r}: expected K/N such as 3/16, K from 1 to N")
    return number, count


def refuse_noise(folder: Path) -> None:
    """Raise `ExportError` if an export was made for its speed only, with scales that fit no image."""
    if FROM_NOISE in read_export(folder)["origin"]:
        raise ExportError(f"{folder}: {FROM_NOISE}; export again with --calibrate and a folder of cases")


def shipped_model() -> Path:
    """Export the project's int8 model to `outputs/exported/`, unless this very export is there already.

    Returns the folder, and says on stderr which model it is.

    Raises:
        CheckpointError: the file is missing, damaged or another.
        OSError: the folder cannot be written.
    """
    from ..models import SHIPPED, checkpoint_path  # PyTorch is needed for this alone
    from ..quant import facts_of
    from .export import export_if_stale, model_to_export

    path = checkpoint_path(SHIPPED)
    model, origin = model_to_export("litemedsam", SHIPPED, "deploy")
    folder = path.parents[1] / "exported" / path.stem
    facts = export_if_stale(model, folder, origin)
    made = "; ".join(f"{key} {value}" for key, value in facts_of(path).items() if key != "data")
    print(
        f"model: {facts['model']} in int8, recipe {facts['recipe']}, from {facts['origin']}"
        f"{f' ({made})' if made else ''}; exported to {folder}",
        file=sys.stderr,
    )
    return folder


def check_options(options: argparse.Namespace) -> None:
    """Raise `ValueError` if options cannot be used, with what was expected."""
    for name in ("threads", "decode_block"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected 1 or more")
    low, high = options.percentiles
    if not 0 <= low < high <= 100:
        raise ValueError(f"--percentiles {low:g} {high:g}: expected 0 <= LOW < HIGH <= 100")
    if options.boxes and options.boxes_from:
        raise ValueError("--boxes and --boxes-from: expected one of the two")
    if options.output.resolve() == options.input.resolve():
        raise ValueError(
            f"{options.output}: is the input folder; give another with -o, or the cases would be replaced"
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
    found = find_inputs(options.input, without)
    inputs = [one for one in found if isinstance(one, Input)]
    if not inputs:
        raise CaseError(options.input, "nothing to segment; expected npz, NIfTI, NRRD, DICOM or image files")
    rows, masks, errors = {}, {}, []
    if options.boxes:
        rows, errors = rows_by_input(read_box_table(options.boxes), inputs)
    if options.boxes_from:
        inputs, masks, errors = masks_of(inputs, options.input, options.boxes_from)
    left = [one for one in found if isinstance(one, CaseError)] + errors
    if options.shard:
        inputs = [one for one in inputs if one.in_shard(options.shard)]
        # one part names what belongs to none
        left = left if options.shard[0] == 1 else []
    how = ImportOptions(options.window, tuple(options.percentiles), plane=options.plane)
    modality = options.modality and next(
        (name for name in MODALITIES if name.lower() == options.modality.lower()), options.modality
    )
    return [*inputs, *left], Reading(modality, how, rows, masks, options.to_source)


def opened_predictor(options: argparse.Namespace) -> Predictor:
    """Open the model. Raises `ValueError` or `OSError` if it cannot be used."""
    folder = options.model or shipped_model()
    refuse_noise(folder)
    engine = open_engine(options.engine, folder, options.threads)
    if options.memory_limit and resident_bytes() > options.memory_limit:
        print(
            f"predict: the model alone takes {resident_bytes() >> 20} MB "
            f"of --memory-limit {options.memory_limit >> 20} MB; boxes are decoded one by one",
            file=sys.stderr,
        )
    return Predictor(
        engine,
        options.decode_block,
        order=options.order,
        propagate=options.propagate,
        memory_limit=options.memory_limit,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns the exit code."""
    options = command_line().parse_args(arguments)
    # pydicom warns about each value that bends the standard, and most hospitals' files hold some.
    warnings.filterwarnings("ignore", module="pydicom")
    progress = None
    try:
        check_options(options)
        inputs, reading = gather(options)
        predictor = opened_predictor(options)
        progress = Progress(len(inputs))
        rows = predict_folder(
            predictor,
            inputs,
            options.output,
            progress.log,
            progress.done,
            reading,
            options.one_mask_an_object,
        )
    except (ValueError, OSError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "predict: stopped; finished cases are kept, the same command goes on with the rest",
            file=sys.stderr,
        )
        return 130
    finally:
        if progress:
            progress.close()
    print(summary(rows, options.output))
    return 1 if any(row["status"].startswith("failed") or row.get("left_out") for row in rows) else 0


def summary(rows: list[dict], output: Path) -> str:
    """Count what became of the inputs, in one line."""
    count = Counter(row["status"].split(":")[0] for row in rows)
    notes = [
        f"{count[status]} {words}"
        for status, words in (("kept", "kept from before"), ("done elsewhere", "by another process"))
        if count[status]
    ]
    left_out = sum(row.get("left_out", 0) for row in rows)
    lost = f", {left_out} structures or files left out" if left_out else ""
    kept = f" ({', '.join(notes)})" if notes else ""
    return (
        f"{len(rows) - count['failed']} cases done{kept}, "
        f"{count['failed']} failed{lost}; objects in {output / OBJECTS}, timing in {output / TIMING}"
    )


if __name__ == "__main__":
    sys.exit(main())
