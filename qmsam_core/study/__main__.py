"""Run the notebooks that are not up to date, in order, and write the reports.

    python -m qmsam_core.study params/smoke.yaml [--only NN] [--from NN] [--force] [--set key=value]

Exit codes: 0, all notebooks succeeded. 1, a notebook failed. 2, nothing was started because the parameters,
weights, data or inputs are wrong. 130, the run was interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qmsam_core.params import Params, ParamsError, parse_override
from qmsam_core.provenance.environment import ProvenanceError, project_root
from qmsam_core.provenance.weights import CheckpointError
from qmsam_core.study.notebooks import NotebookError, StudyError, find_notebooks
from qmsam_core.study.sources import check_sources, check_weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code, see above."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.study", description="Run the notebooks that are not up to date."
    )
    parser.add_argument("params", help="the profile, for example params/smoke.yaml")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NN", help="this notebook alone; may be repeated"
    )
    parser.add_argument("--from", dest="start", metavar="NN", help="this notebook and those after it")
    parser.add_argument("--force", action="store_true", help="also what is up to date")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value; may be repeated",
    )
    options = parser.parse_args(arguments)
    try:
        params = Params.load(options.params, dict(map(parse_override, options.overrides)))
        root = project_root()
        check_weights(root, params)
        from qmsam_core.study.runner import Study  # here, because its imports take a second

        study = Study(root, params, find_notebooks(root / "notebooks"))
        selected = study.select(options.only, options.start)
        check_sources(root, params)
        study.check_inputs(selected)
    except (ParamsError, ProvenanceError, CheckpointError, NotebookError, StudyError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return 0 if study.run(selected, options.force) else 1
    except KeyboardInterrupt:
        print("\ninterrupted; what was up to date still is", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
