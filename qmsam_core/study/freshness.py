"""Decide which notebooks are up to date. A notebook runs again only when something it depends on changed.

It depends on its parameters, its source, the library modules it imports directly or not, its inputs, the
checkpoints and the data folder. All are compared by content (SHA-256), except the cases of the data folder.
Those may take hundreds of gigabytes, so their names, sizes and modification times are compared. The folder's
`SOURCES.md` states licences and so decides what is trained on and shown. It is compared by content.

The fingerprint is stored in the notebook's `run.json`, beside the hashes of its outputs. The outputs must
still have these hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qmsam_core.data.licences import SOURCES
from qmsam_core.params import Params
from qmsam_core.provenance import weights
from qmsam_core.provenance.files import sha256, write_json
from qmsam_core.provenance.imported_modules import modules_reached
from qmsam_core.provenance.weights import PUBLIC, SHA256
from qmsam_core.study.notebooks import Notebook

Fingerprint = dict[str, str]
LIBRARY = Path(__file__).parents[1]
READS_SHIPPED = "study/compared_models.py"
"""The module by which notebooks read the project's int8 model."""


def fingerprint(root: Path, params: Params, notebook: Notebook) -> Fingerprint:
    """Return one hash for each thing the results depend on. A missing input has the value "absent"."""
    run_dir, reached = root / params.run_dir, modules_reached(notebook.code, LIBRARY)
    inputs = {
        name: sha256(run_dir / name) if (run_dir / name).exists() else "absent" for name in notebook.inputs
    }
    return {
        "parameters": _hash(params.model_dump(mode="json")),
        "notebook": notebook.source,
        "library": _hash({str(p.relative_to(LIBRARY)): sha256(p) for p in reached}),
        "inputs": _hash(inputs),
        "checkpoints": _hash(checkpoints(root, params) | shipped(reached)),
        "data": _hash({name: _hash(_listing(root / folder)) for name, folder in params.data_roots.items()})
        if params.data_roots
        else "phantoms",
    }


def checkpoints(root: Path, params: Params) -> dict[str, str]:
    """Return the SHA-256 of the weights that each parameter names, or "absent" for a missing file."""
    given = {"float_checkpoint": params.float_checkpoint, "teacher": params.teacher}
    known = {PUBLIC: SHA256, "self": "self"}
    files = {name: root / value for name, value in given.items()}
    return {
        name: known.get(given[name]) or (sha256(path) if path.is_file() else "absent")
        for name, path in files.items()
    }


def shipped(modules: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of the project's int8 model, or "absent", if one of the modules compares it."""
    file, reads = weights.SHIPPED_FILE, READS_SHIPPED in (p.relative_to(LIBRARY).as_posix() for p in modules)
    return {"shipped": sha256(file) if file.is_file() else "absent"} if reads else {}


def stale_because(root: Path, params: Params, notebook: Notebook) -> str:
    """Return in a few words why the notebook has to run. Empty if its results are up to date."""
    folder = root / params.run_dir / notebook.name
    record = read_record(folder)
    if not record or not (folder / "executed.ipynb").is_file():
        return "first run"
    then = record.get("fingerprint")
    if not isinstance(then, dict):
        return "last run by hand or broken off"
    now = fingerprint(root, params, notebook)
    changed = [part for part in now if now[part] != then.get(part)]
    if changed:
        return ", ".join(changed) + " changed"
    recorded = record.get("outputs", {})
    touched = [
        name for name in {*recorded, *notebook.outputs} if not _as_recorded(folder / name, recorded.get(name))
    ]
    return f"{', '.join(sorted(touched))} missing or altered" if touched else ""


def read_record(folder: Path) -> dict[str, Any]:
    """Read the `run.json` of a notebook's folder. Empty if there is none or it cannot be read."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def store(folder: Path, marks: Fingerprint) -> None:
    """Store the fingerprint that a notebook ran with in its `run.json`."""
    write_json(folder / "run.json", {**read_record(folder), "fingerprint": marks})


def _as_recorded(path: Path, digest: str | None) -> bool:
    return path.exists() and (digest is None or sha256(path) == digest)


def _listing(folder: Path) -> list[list[Any]]:
    files = sorted(folder.rglob("*.npz"))
    stated = [[SOURCES, sha256(folder / SOURCES)]] if (folder / SOURCES).is_file() else []
    return stated + [
        [str(p.relative_to(folder)), (found := p.stat()).st_size, found.st_mtime_ns] for p in files
    ]


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
