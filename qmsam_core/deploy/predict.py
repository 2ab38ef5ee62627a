"""Segment whole cases in the challenge's format: boxes in, masks out.

    python -m qmsam_core.deploy.predict -i cases/ -o segmentations/
    python -m qmsam_core.deploy.predict -i cases/ -o segmentations/ --model exported/

Without `--model` the project's own int8 model is used. It is exported once, to `outputs/exported/`.

Every slice that a box crosses is encoded once, however many boxes it has. Boxes are decoded in blocks (paper
section 2.1). The same command run again continues where the last run ended. Outputs of another model, other
settings or another input are made again.

Exit code: 0 every case done, 1 some failed, 2 nothing could start or go on, 130 interrupted.
"""

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from ..data.transforms import ORDERS
from .batch import MADE, TIMING, predict_folder
from .engines import ENGINES, open_engine
from .exported import FROM_NOISE, ExportError, read_export
from .memory import memory_size, resident_bytes
from .predictor import Predictor

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
    option(
        "-i",
        "--input",
        required=True,
        type=Path,
        help="folder of npz cases; boxes are derived from labels where a case has none",
    )
    option(
        "-o",
        "--output",
        required=True,
        type=Path,
        help=f"folder for <same name>.npz with 'segs', {TIMING}, and {MADE}, what made them",
    )
    option(
        "--model",
        type=Path,
        help="folder written by qmsam_core.deploy.export; by default the project's int8 model, exported once",
    )
    option("--engine", default="openvino", choices=ENGINES)
    option("--threads", type=int, default=os.cpu_count(), help="of the engine")
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
        default=ORDERS[0],
        choices=ORDERS,
        help="padding before normalising, as the paper, or after it, as the challenge's baseline",
    )
    option(
        "--propagate",
        action="store_true",
        help="in volumes take each box from the mask on the neighbouring slice, "
        "as the challenge's baseline does",
    )
    return parser


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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns the exit code."""
    options = command_line().parse_args(arguments)
    for name in ("threads", "decode_block"):
        if getattr(options, name) < 1:
            print(
                f"predict: --{name.replace('_', '-')} {getattr(options, name)}: expected 1 or more",
                file=sys.stderr,
            )
            return 2
    cases = sorted(options.input.glob("*.npz"))
    if not cases:
        print(f"predict: {options.input}: no .npz files; expected a folder of cases", file=sys.stderr)
        return 2
    if options.output.resolve() == options.input.resolve():
        print(
            f"predict: {options.output}: is the input folder; "
            "give another with -o, or the cases would be replaced",
            file=sys.stderr,
        )
        return 2
    progress = None
    try:
        folder = options.model or shipped_model()
        refuse_noise(folder)
        engine = open_engine(options.engine, folder, options.threads)
        if options.memory_limit and resident_bytes() > options.memory_limit:
            print(
                f"predict: the model alone takes {resident_bytes() >> 20} MB "
                f"of --memory-limit {options.memory_limit >> 20} MB; boxes are decoded one by one",
                file=sys.stderr,
            )
        predictor = Predictor(
            engine,
            options.decode_block,
            order=options.order,
            propagate=options.propagate,
            memory_limit=options.memory_limit,
        )
        progress = Progress(len(cases))
        rows = predict_folder(predictor, cases, options.output, progress.log, progress.done)
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
    failed = sum(row["status"].startswith("failed") for row in rows)
    kept = sum(row["status"] == "kept" for row in rows)
    print(
        f"{len(rows) - failed} cases done{f' ({kept} kept from before)' if kept else ''}, {failed} failed; "
        f"timing in {options.output / TIMING}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
