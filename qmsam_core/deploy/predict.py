"""Segment images: boxes in, masks out.

    python -m qmsam_core.deploy.predict -i ct.nii.gz --boxes boxes.csv --modality CT -o masks/
    python -m qmsam_core.deploy.predict -i patients/ --boxes-from rtstructs/ -o masks/
    python -m qmsam_core.deploy.predict -i cases/ -o segmentations/ --model exported/

The input is a file, or a folder that is searched in depth: npz cases, NIfTI, NRRD, MetaImage, DICOM series
(several in one folder, or one in several), PNG, JPEG, TIFF and BMP. Masks are written in the format that came
in, on its own grid, under the same sub-folders. `objects.csv` has each object's file, label, name, box and
volume. Step by step: docs/your_images.md.

Boxes are in an npz, or come from a table (`--boxes`), from masks (`--boxes-from`), or from the one SEG or
RTSTRUCT that refers to a series, wherever it lies. Where masks overlap, the object with the smaller box lies
on top.

Without `--model` the project's own int8 model is used. It is exported once, to `outputs/exported/`. With a
folder of several exports the case's modality chooses, see `qmsam_core.deploy.by_modality`.

Every slice that a box crosses is encoded once, however many boxes it has. Boxes are decoded in blocks (paper
section 2.1). The same command run again continues where the last run ended. Outputs of another model, other
settings or another input are made again. Several processes may share an output folder.

Exit code: 0 everything done, 1 some failed or was no case (each is named), 2 nothing could start or go on,
130 interrupted.
"""

import argparse
import sys
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

from ..data.importers.walk import in_utf8
from .batch import predict_folder
from .by_modality import PredictorByModality, exports_in, is_by_modality
from .choice import choose
from .engines import Engine, OpenVinoEngine, open_engine
from .exported import FROM_NOISE, ExportError, read_export
from .memory import resident_bytes
from .predict_arguments import arguments_parser, cache_of, check_options, gather
from .predictor import Predictor
from .records import MADE, OBJECTS, TIMING, read_made
from .shipped_export import shipped_model

__all__ = ["main", "predict_folder"]


class Progress:
    """A progress bar on a terminal. Elsewhere plain lines, because a log file wants no control characters."""

    def __init__(self, total: int) -> None:
        stream, self._bar = sys.stderr, None
        if stream.isatty():
            from tqdm import tqdm  # not installed where nobody looks, as in the challenge's container

            self._bar = tqdm(total=total, unit="case", file=stream)
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
        line = in_utf8(line)
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Close the bar, so that the terminal is in order."""
        if self._bar is not None:
            self._bar.close()


def refuse_noise(folder: Path) -> None:
    """Raise `ExportError` if an export was made for its speed only, with scales that fit no image."""
    if FROM_NOISE in read_export(folder)["origin"]:
        raise ExportError(f"{folder}: {FROM_NOISE}; export again with --calibrate and a folder of cases")


def opened_engine(options: argparse.Namespace, folder: Path) -> Engine:
    """Open the engine of an export in its quickest way, and say if it leaves no memory for boxes."""
    cache = cache_of(options)
    # measuring opens all ways at once, which takes twice the memory
    if options.engine == "openvino" and options.precision == "auto" and cache and not options.memory_limit:
        choice = choose(folder, options.threads, cache, partial(print, file=sys.stderr, flush=True))
        engine = OpenVinoEngine(choice.folder, options.threads, cache=cache, ways=choice.ways)
    else:
        precision = "bf16" if options.precision == "bf16" else "f32"
        engine = open_engine(options.engine, folder, options.threads, precision, cache)
    if options.memory_limit and resident_bytes() > options.memory_limit:
        print(
            f"predict: the model alone takes {resident_bytes() >> 20} MB "
            f"of --memory-limit {options.memory_limit >> 20} MB; boxes are decoded one by one",
            file=sys.stderr,
        )
    return engine


def opened_predictor(options: argparse.Namespace) -> Predictor | PredictorByModality:
    """Open the model, or the folder of several. Raises `ValueError` or `OSError` if it cannot be used."""
    folder = options.model or shipped_model(options.image_size)
    names = ("decode_block", "order", "propagate", "memory_limit")
    settings = {name: getattr(options, name) for name in names}
    if is_by_modality(folder):
        for export in exports_in(folder).values():
            refuse_noise(export)
        return PredictorByModality(folder, partial(opened_engine, options), **settings)
    refuse_noise(folder)
    return Predictor(opened_engine(options, folder), **settings)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns the exit code."""
    options = arguments_parser(__doc__).parse_args(arguments)
    # pydicom warns about each value that bends the standard, and most hospitals' files hold some.
    warnings.filterwarnings("ignore", module="pydicom")
    progress = None
    try:
        check_options(options)
        inputs, reading = gather(options)
        predictor = opened_predictor(options)
        print(f"segmenting {len(inputs)} cases", file=sys.stderr, flush=True)
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
        print(in_utf8(f"predict: {error}"), file=sys.stderr)
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
    if not options.shard and (line := of_no_input(rows, options.output)):
        print(in_utf8(line), file=sys.stderr)
    print(in_utf8(summary(rows, options.output)))
    return 1 if any(row["status"].startswith("failed") or row.get("left_out") for row in rows) else 0


def of_no_input(rows: list[dict], output: Path) -> str:
    """Name the cases that have masks in the output folder and are no inputs of this run, "" without any.

    They may be of another input folder, or of an input that is gone.
    """
    names = sorted(read_made(output / MADE).get("cases", {}).keys() - {row["case"] for row in rows})
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{output}: note: holds masks of {len(names)} other inputs ({shown})" if names else ""


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
