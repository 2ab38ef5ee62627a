"""Read an exported folder: `export.json`, checked against the files beside it. PyTorch is not needed."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..provenance.files import sha256

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
FROM_NOISE = "activation scales from one image of noise: for speed and size only, its masks are of no use"
FLOAT = "float"
"""Subfolder of an export that may hold the same model in float."""
WRITERS = ("torch", "onnx", "brevitas", "openvino")
"""Packages on whose versions an export depends."""
REWRITTEN = ("fast", "linear")
"""Styles in which what depends on the image alone is apart, and images and boxes come one by one."""
PREPARED = ("cells", "k", "v", "q")
"""Outputs of `prepare`: the inputs of a fast export's decoder that depend on the image alone."""


class ExportError(ValueError):
    """An export cannot be made or cannot be used. The message says which file and why."""


def put_in_place(work: Path, folder: Path, facts: dict) -> dict:
    """Move finished files from `work` to `folder`, each by a rename, `export.json` last.

    Returns the content of `export.json`: the facts, and the bytes and SHA-256 of every file.
    """
    facts = {
        **facts,
        "files": {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in sorted(work.iterdir())},
    }
    (work / "export.json").write_text(json.dumps(facts, indent=2))
    for name in [*facts["files"], "export.json"]:
        os.replace(work / name, folder / name)
    return facts


def read_export(folder: str | Path) -> dict:
    """Read the description of an export and check it against the files beside it.

    Raises:
        ExportError: there is no `export.json`, it has another format, or a file is missing or was changed
            since.
    """
    folder = Path(folder)
    path = folder / "export.json"
    if not path.is_file():
        raise ExportError(
            f"{path}: no such file; expected a folder written by `python -m qmsam_core.deploy.export`"
        )
    try:
        facts = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ExportError(f"{path}: not JSON ({error}); export again") from error
    if facts.get("format") != FORMAT:
        raise ExportError(f"{path}: format {facts.get('format')!r}, expected {FORMAT}; export again")
    for name, file in facts["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != file["sha256"]:
            raise ExportError(f"{folder / name}: missing or changed since the export; export again")
    return facts


def export_digest(facts: dict) -> str:
    """Return a SHA-256 of what an export computes. `facts` is the result of `read_export`.

    Exports with equal digests give the same masks. OpenVINO numbers the nodes of an `.xml` anew at every
    conversion, so `.xml` files are left out. A graph counts by its `.onnx`, or where there is none by the
    constants in its `.bin`.
    """
    files = {
        name: file["sha256"] for name, file in facts["files"].items() if name.endswith((".onnx", ".bin"))
    }
    return hashlib.sha256(json.dumps([facts["weights"], files], sort_keys=True).encode()).hexdigest()


def parts_in(facts: dict) -> list[str]:
    """Return the names of an export's parts, in the order in which they run."""
    return [name for name in ("encoder", "prepare", "decoder") if f"{name}.xml" in facts["files"]]


def file_sizes(exports: dict[str, dict]) -> "pd.DataFrame":
    """Return the file sizes of exports: columns arm (such as `int8, ONNX`), part and mb.

    `exports` holds the contents of `export.json` by name.
    """
    import pandas as pd  # takes long to load, and opening an export needs no tables

    kinds = {"ONNX": ".onnx", "OpenVINO weights": ".bin"}
    rows = [
        {"arm": f"{name}, {kind}", "part": part, "mb": facts["files"][part + ending]["bytes"] / 1e6}
        for name, facts in exports.items()
        for kind, ending in kinds.items()
        for part in ("encoder", "prepare", "decoder")
        if part + ending in facts["files"]
    ]
    return pd.DataFrame(rows)
