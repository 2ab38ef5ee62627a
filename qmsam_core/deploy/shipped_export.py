"""The export of the project's int8 model that `predict` takes by default. It is made once."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from ..provenance.files import sha256, write_json
from ..provenance.weights import PUBLIC, SHIPPED, CheckpointError, checkpoint_path
from .exported import FLOAT, WRITERS, ExportError, read_export
from .reservations import Reservations

STAMP = "made_from.json"
"""In the export's folder: what it was made from, and a line on the model."""


def shipped_model(image_size: int | None = None) -> Path:
    """Export the project's int8 model to `outputs/exported/`, unless this very export is there already.

    Its float parent is exported beside it, so that `choice.choose` takes it where it is quicker. PyTorch is
    needed only to export.

    Args:
        image_size: side of the model's input in px; None is its own.

    Returns:
        The folder. On stderr it says which model it is.

    Raises:
        CheckpointError: the file is missing, damaged or another.
        OSError: the folder cannot be written.
    """
    path = checkpoint_path(SHIPPED)
    folder = path.parents[1] / "exported" / (f"{path.stem}_{image_size}" if image_size else path.stem)
    sources = _sources(path)
    known = _known(folder, sources)
    if known is None:
        if not folder.exists():
            print(f"exporting the project's int8 model to {folder}, once", file=sys.stderr, flush=True)
        with Reservations(folder.parent) as reserved, reserved.alone(folder.name):  # processes start together
            known = _known(folder, sources) or _export(path, folder, image_size)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / STAMP, {"sources": sources, "model": known})
    print(f"model: {known}; exported to {folder}", file=sys.stderr)
    return folder


def _sources(path: Path) -> dict[str, str]:
    """Return hashes of the checkpoints and of the library's code, and versions of what writes exports."""
    library = Path(__file__).parents[1]
    code = {file.relative_to(library).as_posix(): sha256(file) for file in sorted(library.rglob("*.py"))}
    try:
        parent = sha256(checkpoint_path(PUBLIC))
    except CheckpointError:  # not installed
        parent = ""
    return {"int8": sha256(path), "float": parent, **code, **{name: version(name) for name in WRITERS}}


def _known(folder: Path, sources: dict[str, str]) -> str | None:
    """Return the line on the model if the folder holds the export of these sources, undamaged."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
        read_export(folder)
        return stamp["model"] if stamp["sources"] == sources else None
    except (OSError, ValueError, KeyError, TypeError, ExportError):
        return None


def _export(path: Path, folder: Path, image_size: int | None) -> str:
    """Export the int8 model and, where the public weights are installed, its float parent."""
    from ..quant import facts_of  # PyTorch and Brevitas take seconds to load
    from .export import export_if_stale, model_to_export

    model, origin = model_to_export("litemedsam", SHIPPED, "deploy", image_size=image_size)
    facts = export_if_stale(model, folder, origin)
    try:
        parent, source = model_to_export("litemedsam", PUBLIC, "float", image_size=image_size)
        export_if_stale(parent, folder / FLOAT, source)
    except CheckpointError as error:
        print(f"no float model is compared with it: {error}", file=sys.stderr)
    made = "; ".join(f"{key} {value}" for key, value in facts_of(path).items() if key != "data")
    about = f"{facts['model']} in int8, recipe {facts['recipe']}, from {facts['origin']}"
    return about + (f" ({made})" if made else "")
