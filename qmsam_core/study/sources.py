"""Whether what a study reads from outside is there: weights, data folders, a GPU. Asked before any notebook runs."""

from __future__ import annotations

import sys
from pathlib import Path

from qmsam_core.params import Params
from qmsam_core.provenance.weights import checkpoint_path
from qmsam_core.study.notebooks import StudyError

SHOWN_PROBLEMS = 10  # lines on cases that cannot be used; the rest is a count


def check_weights(root: Path, params: Params) -> None:
    """Raise `CheckpointError` where the float model's weights are not the published ones, `StudyError` where a file is not there."""
    files = {"float_checkpoint": root / checkpoint_path(params.float_checkpoint, params.model)}
    files |= {} if params.teacher == "self" else {"teacher": root / params.teacher}
    lines = [
        f"{name}: {path} not found; put the file there or correct the parameter"
        for name, path in files.items()
        if not path.is_file()
    ]
    if lines:
        raise StudyError("\n".join(lines))


def check_sources(root: Path, params: Params) -> None:
    """Raise `StudyError` if the device is not there or a data folder holds no usable case; name cases that are left out on stderr."""
    lines = []
    for name, folder in params.data_roots.items():
        lines += _data_problems(root / folder, labelled=name != "data_root")
    if params.data_root is None and params.profile == "paper":
        lines.append(
            "data_root: the paper profile runs on the challenge's data; make study PROFILE=paper DATA=<folder>"
        )
    if params.device == "cuda" and not _has_cuda():
        lines.append("device: found cuda, but PyTorch sees no GPU; set auto or cpu")
    if lines:
        raise StudyError("\n".join(lines))


def _data_problems(folder: Path, labelled: bool = False) -> list[str]:
    """What makes a data folder unusable, or no case `labelled`, one line or none; single files that cannot be used are told on stderr and left out."""
    from qmsam_core.data.index import DataFolderError, SliceIndex

    try:
        index = SliceIndex.build(folder, scan_labels=False)
    except DataFolderError as error:
        return [str(error)]
    if labelled and not index.cases["has_labels"].any():
        return [f"{folder}: none of its {len(index.cases)} cases has labels ('gts'), which scoring needs"]
    for path, message in index.problems[:SHOWN_PROBLEMS]:
        print(
            f"note: left out: {message if message.startswith(str(path)) else f'{path}: {message}'}",
            file=sys.stderr,
        )
    if more := len(index.problems[SHOWN_PROBLEMS:]):
        print(
            f"note: left out: {more} more; {len(index.cases)} cases can be used, notebook 00 lists the others",
            file=sys.stderr,
        )
    return []


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
