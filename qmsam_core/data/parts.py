"""The three parts of a data set: what is trained on, what choices are made on, and what nothing is chosen on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .index import SliceIndex

TESTING_SHARE = 0.2
PARTS = ("train", "evaluation", "testing")


def make_parts(root: str | os.PathLike, folder: Path, eval_fraction: float, seed: int, eval_cases: int = 0) -> tuple[SliceIndex, dict[str, SliceIndex]]:
    """Index a data folder, split it, and save each part.

    The testing part is a fifth of the cases, by a hash of their group (`SliceIndex.hold_out`): the same in every run, so that nobody trains on it
    by changing a seed. The paper's testing set is the challenge's hidden one.

    Args:
        root: folder with `<Modality>/**/*.npz`. folder: gets `index_<part>.npz` and the index's cache.
        eval_fraction: share of the rest held out for choosing epochs (paper section 3.1: one tenth), drawn by `seed`.
        eval_cases: evaluation and testing cases a modality at most, drawn by a hash of the case's name below the root, so the same in every run;
            0 takes all. The others are in no part.

    Returns:
        The index of all cases, and the parts by name.

    Raises:
        DataFolderError: no usable case.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = SliceIndex.build(root, cache=folder / "index_cache.npz")
    rest, testing = index.hold_out(TESTING_SHARE)
    train, evaluation = rest.split(eval_fraction, seed)
    if eval_cases:
        evaluation, testing = (_at_most(eval_cases, part) for part in (evaluation, testing))
    parts = dict(zip(PARTS, (train, evaluation, testing)))
    for name, part in parts.items():
        part.save(folder / f"index_{name}.npz", times=False)  # what is made from a part stays up to date when the data are copied
    return index, parts


def _at_most(count: int, part: SliceIndex) -> SliceIndex:
    """At most `count` cases a modality, in index order. By a hash: the first by name would come from one data set."""
    hashes = [hashlib.sha256(Path(path).relative_to(part.root).as_posix().encode()).hexdigest() for path in part.cases["path"]]
    drawn = part.cases.assign(hash=hashes).sort_values("hash").groupby("modality").head(count)
    return part.subset(sorted(drawn.index))
