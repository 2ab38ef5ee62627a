"""Score predictions as the challenge does: DSC and NSD by modality, and agreement with another model.

    python -m qmsam_core.evaluate -i cases/ -s segmentations/ [--agree-with other/] [-o scores.csv]

Exit code: 0 every case was scored, 1 some had no prediction or no labels, 2 nothing could be scored.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from ..data.cases import Case, CaseError, read_segmentation
from ..provenance.files import write_atomic
from .agreement import agreement
from .metrics import modality_of, score_cases
from .tables import per_modality, rendered


def command_line() -> argparse.ArgumentParser:
    """Build the parser of the command line. See the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option(
        "-i",
        "--input",
        required=True,
        type=Path,
        help="cases with labels, <name>.npz in this folder or below",
    )
    option(
        "-s",
        "--segmentations",
        required=True,
        type=Path,
        help="folder of <same name>.npz with 'segs', in the same sub-folders or in none",
    )
    option(
        "--agree-with",
        type=Path,
        help="another folder of segmentations: adds their agreement, the mean Dice between the two",
    )
    option("-o", "--output", type=Path, help="CSV, one row a case")
    option("--processes", type=int, default=os.cpu_count(), help="cases scored at once")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code. See the module's docstring."""
    options = command_line().parse_args(arguments)
    pairs, others, problems = [], [], []
    for path in sorted(options.input.rglob("*.npz")):
        below = path.relative_to(options.input)
        segs = predicted(options.segmentations, below)
        other = predicted(options.agree_with, below) if options.agree_with else None
        reason = why_not(path, segs, other)
        problems += [f"{path}: {reason}"] if reason else []
        pairs += [] if reason else [(path, segs, _modality(path, options.input))]
        others += [] if reason else [other]
    for line in problems:
        print(f"evaluate: left out: {line}", file=sys.stderr)
    if not pairs:
        print(
            f"evaluate: {options.input}: no case with labels has a prediction in {options.segmentations}",
            file=sys.stderr,
        )
        return 2
    scores = score_cases(pairs, processes=max(1, options.processes))
    if options.agree_with:
        scores["agreement"] = [_agreement(case, segs, other) for (case, segs, _), other in zip(pairs, others)]
    if options.output:
        write_atomic(options.output, lambda partial: scores.to_csv(partial, index=False))
    print(rendered(per_modality(scores)).to_string(index=False))
    return 1 if problems else 0


def predicted(folder: Path, below: Path) -> Path:
    """Return the segmentation of a case: in the same sub-folder as the case, or directly in `folder`."""
    return folder / below if (folder / below).is_file() else folder / below.name


def why_not(case: Path, segs: Path, other: Path | None) -> str:
    """Say why a case cannot be scored. Return "" if it can."""
    missing = [path for path in (segs, other) if path and not path.is_file()]
    if missing:
        return f"no prediction {missing[0]}"
    try:
        if Case.load(case).labels is None:
            return "has no labels ('gts')"
        read_segmentation(segs)
    except CaseError as error:
        return error.message
    return ""


def _modality(path: Path, root: Path) -> str:
    """Modality of a case: the first folder below the root, else the one in the file's name."""
    below = path.relative_to(root).parts
    return below[0] if len(below) > 1 else modality_of(path.stem)


def _agreement(case: Path, segs: Path, other: Path) -> float:
    objects = Case.load(case).with_boxes().boxes
    return agreement(read_segmentation(other), read_segmentation(segs), len(np.atleast_2d(objects)))


if __name__ == "__main__":
    sys.exit(main())
