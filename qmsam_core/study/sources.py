"""Check weights, data folders and the GPU before any notebook runs."""

from __future__ import annotations

import sys
from pathlib import Path

from qmsam_core.params import Params
from qmsam_core.provenance.weights import checkpoint_path
from qmsam_core.study.notebooks import StudyError

SHOWN_PROBLEMS = 10  # cases that cannot be used, one line each; the others are only counted


def check_weights(root: Path, params: Params) -> None:
    """Check that the weights named by the parameters are there.

    Raises:
        CheckpointError: the public weights are missing or not the published ones.
        StudyError: a file is missing.
    """
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
    """Check the device and the data folders. Cases that are left out are named on stderr.

    Raises:
        StudyError: the device is missing, a data folder has no usable case, or the paper profile has no data.
    """
    lines = []
    for name, folder in params.data_roots.items():
        lines += _data_problems(root / folder, labelled=name != "data_root")
    if params.data_root is None and params.profile == "paper":
        lines.append(
            "data_root: the paper profile runs on the challenge's data; "
            "make study PROFILE=paper DATA=<folder>"
        )
    if params.device == "cuda" and not _has_cuda():
        lines.append("device: found cuda, but PyTorch sees no GPU; set auto or cpu")
    if lines:
        raise StudyError("\n".join(lines))


def _data_problems(folder: Path, labelled: bool = False) -> list[str]:
    """Return one line if a data folder is unusable, or if it must be `labelled` and no case has labels.

    Files that cannot be used are left out and named on stderr.
    """
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
            f"note: left out: {more} more; {len(index.cases)} cases can be used, "
            "notebook 00 lists the others",
            file=sys.stderr,
        )
    return []


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
