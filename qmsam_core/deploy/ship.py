"""Make the project's int8 model and its card from a quantised checkpoint.

    python -m qmsam_core.deploy.ship CHECKPOINT --judge cases/ --trained-on calibration_cases/

The model is packed as `outputs/pretrained/litemedsam_int8.safetensors` and exported. On one slice of every
case of the folder given with `--judge` the masks of this export are compared with the float model's, and with
the labels where there are any. `README.md` beside the file, the model card, tells the result. The cases that
judge should be others than those that set the scales or trained.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot

from ..data.boxed_slices import slices_of
from ..data.licences import SOURCES
from ..models import PUBLIC, SHIPPED, CheckpointError, build_model, checkpoint_path
from ..provenance import weights
from ..provenance.files import write_atomic
from ..quant import facts_of, load_model, save_packed
from .engines import open_engine
from .export import export_model
from .exported import FROM_NOISE
from .model_card import by_modality, card, described
from .own_images import judge

CARD = "README.md"


def ship(checkpoint: str | Path, judging: Path, trained_on: Sequence[str] = ()) -> Path:
    """Pack a quantised checkpoint as the project's int8 model, judge its export, and write its card.

    Args:
        checkpoint: a quantised model of this study, or `int8` to judge the present one anew.
        judging: folder of npz cases with boxes or labels, in subfolders by modality.
        trained_on: what set the scales or trained. A folder of cases is told by its name and its sources.
            Empty keeps what the checkpoint says.

    Returns:
        Path of the card. The model and card that are there stay until the new ones are judged.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, float or not LiteMedSAM's, or its scales come
            from noise.
        ValueError: there is no case to judge on, or the folder that judges also trained.
    """
    if judging.resolve() in {Path(text).resolve() for text in trained_on}:
        raise ValueError(f"{judging}: trained, so it cannot judge; expected a folder of other cases")
    source = checkpoint_path(checkpoint)
    model, facts = load_model(source), facts_of(source)
    if FROM_NOISE in str(facts.get("origin")):
        raise CheckpointError(f"{source}: {FROM_NOISE}; expected a model calibrated on cases, or trained")
    float_model = build_model(model.config.name, model.image_size, PUBLIC).eval()
    slices, left_out = slices_of(judging, count=sys.maxsize)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if trained_on:
        facts["data"] = [described(text) for text in trained_on]
    path = weights.SHIPPED_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".ship-") as scratch:
        made = Path(scratch, path.name)
        save_packed(model, made, **facts)
        packed, folder = load_model(made), Path(scratch, "exported")
        export_model(packed, folder)
        print(f"judging on {len(slices)} slices", file=sys.stderr, flush=True)
        found = judge(float_model, open_engine("openvino", folder), slices, shown=1)
        pyplot.close(found.figure)
        text = card(packed, made, by_modality(found.table), judging)
        made.chmod(0o644)
        made.replace(path)  # together with its card, once all is known
    return write_atomic(path.with_name(CARD), lambda part: part.write_text(text, encoding="utf-8"))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns the exit code, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.deploy.ship",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help=f"a quantised model of this study; {SHIPPED}: the present one")
    parser.add_argument(
        "--judge", required=True, type=Path, metavar="FOLDER", help="npz cases, in subfolders by modality"
    )
    parser.add_argument(
        "--trained-on",
        nargs="+",
        default=(),
        metavar="TEXT",
        help=f"what set the scales or trained: folders, whose {SOURCES} the card sums up, or words",
    )
    options = parser.parse_args(arguments)
    try:
        written = ship(options.checkpoint, options.judge, options.trained_on)
    except (ValueError, OSError) as error:
        print(f"ship: {error}", file=sys.stderr)
        return 2
    print(f"{weights.SHIPPED_FILE}\n{written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
