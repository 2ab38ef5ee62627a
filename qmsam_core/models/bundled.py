"""The float checkpoint that comes with the project: full-size LiteMedSAM trained here on open data (see its model card)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from .checkpoints import CheckpointError

BUNDLED = "open"
"""The word that stands for the bundled checkpoint where a checkpoint's path is expected."""

FOLDER = Path(__file__).parents[2] / "outputs" / "pretrained"
NAME = "litemedsam_open"
HISTORY = FOLDER / f"{NAME}_history.csv"
"""How it was trained: one row an evaluation, the columns of a stage's `history.csv`."""


def edition_of(weights: Path) -> dict:
    """What `bundle` wrote beside the weights of an edition about their training; nothing for any other file."""
    facts = weights.with_suffix(".json")
    told = json.loads(facts.read_text()) if weights.name == f"{NAME}.safetensors" and facts.is_file() else {}
    return told if told and told["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest() else {}


def bundled_checkpoint(model: str = "litemedsam", folder: Path = FOLDER) -> Path:
    """Path of the bundled weights, its SHA-256 checked against the one beside it.

    Raises:
        CheckpointError: another model is asked for, or the file is missing or not the one that was bundled.
    """
    if model != "litemedsam":
        raise CheckpointError(f"checkpoint: {BUNDLED} holds weights of litemedsam, not of {model}; give a path, or train one")
    path, facts = folder / f"{NAME}.safetensors", folder / f"{NAME}.json"
    if not path.is_file() or not facts.is_file():
        raise CheckpointError(f"{path}: the bundled checkpoint or its {facts.name} is missing; it comes with the project's repository")
    expected, found = json.loads(facts.read_text())["sha256"], hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise CheckpointError(f"{path}: SHA-256 is {found[:16]}..., expected {expected[:16]}...; take the file from the repository again")
    return path
