"""Make the build context of the challenge's container, and say what the image holds.

    python -m qmsam_core.deploy.challenge -o container
    docker build -t qmsam container

The image has the model, OpenVINO and the code that segments npz cases, and no PyTorch. `--prefix` shows the
build where there is no docker: the same requirements are installed into an empty folder, and measured there.
Without it the sizes are those of the distributions in this Python.
"""

import argparse
import sys
from pathlib import Path

from ...evaluate.tables import markdown
from ..predict import shipped_model
from .build_context import build_context, check_empty
from .image_contents import Content, image_contents, install


def arguments_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line, with its help."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.deploy.challenge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("-o", "--output", required=True, type=Path, metavar="FOLDER", help="new folder for the context")
    option(
        "--model",
        type=Path,
        metavar="EXPORT",
        help="folder written by qmsam_core.deploy.export, or one of several by modality; "
        "by default the project's int8 model",
    )
    option("--prefix", type=Path, metavar="EMPTY_FOLDER", help="install the requirements here, and measure")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns 0, or 2 if something could not be made."""
    options = arguments_parser().parse_args(arguments)
    try:
        if options.prefix:
            check_empty(options.prefix, "--prefix")
        context = build_context(options.output, options.model or shipped_model())
        if options.prefix:
            install(context / "requirements.txt", options.prefix)
        contents = image_contents(context, [str(options.prefix)] if options.prefix else None)
    except (ValueError, OSError) as error:
        print(f"challenge: {error}", file=sys.stderr)
        return 2
    print(table(contents))
    print(f"\ndocker build -t qmsam {context}", file=sys.stderr)
    return 0


def table(contents: list[Content]) -> str:
    """Return the table of an image's contents as Markdown, with their sum."""
    rows = [(one.name, one.version, f"{one.mb:.1f}") for one in contents]
    total = sum(one.mb for one in contents)
    return markdown(("in the image, beside its base", "version", "MB"), [*rows, ("sum", "", f"{total:.1f}")])


if __name__ == "__main__":
    sys.exit(main())
