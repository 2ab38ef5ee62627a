"""The parts of a data set: what is trained on, what choices are made on, what the tables compare on, and what nothing is chosen on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .index import DataFolderError, SliceIndex

TESTING_SHARE = 0.2
PARTS = ("train", "evaluation", "validation", "testing")


def make_parts(
    root: str | os.PathLike,
    folder: Path,
    eval_fraction: float,
    seed: int,
    eval_cases: int = 0,
    validation_root: str | os.PathLike | None = None,
    testing_root: str | os.PathLike | None = None,
) -> tuple[SliceIndex, dict[str, SliceIndex]]:
    """Index a data folder, split it, and save each part.

    The validation part, on which arms are compared, is the challenge's public validation set in the paper; without a folder of its own it is the evaluation
    part. The testing part is the challenge's hidden set in the paper; without a folder of its own it is a fifth of the cases, by a hash of their group
    (`SliceIndex.hold_out`): the same in every run, so that nobody trains on it by changing a seed.

    Args:
        root: folder with `<Modality>/**/*.npz`; cases without labels are in no part. folder: gets `index_<part>.npz` and the index's cache.
        eval_fraction: share of the rest held out for choosing epochs (paper section 3.1: one tenth), drawn by `seed`.
        eval_cases: cases a modality at most of every part but `train`, drawn by a hash of the case's name below the root, so the same in every run;
            0 takes all. The others are in no part.
        validation_root, testing_root: folders of the same kind whose labelled cases make up those parts.

    Returns:
        The index of all cases of `root`, and the parts by name; a part with a folder of its own lists that folder's problems, cases without labels among them.

    Raises:
        DataFolderError: a folder without a usable case, or without labels.
        ValueError: a case to train or choose on is in a folder to compare or test on as well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = SliceIndex.build(root, cache=folder / "index_cache.npz")
    rest = _labelled(index, "training")
    testing = None
    if testing_root is None:
        rest, testing = rest.hold_out(TESTING_SHARE)
    train, evaluation = rest.split(eval_fraction, seed)
    parts = {"train": train, "evaluation": evaluation, "validation": evaluation, "testing": testing}
    for name, other in (("validation", validation_root), ("testing", testing_root)):
        if other is not None:
            parts[name] = _labelled(SliceIndex.build(other, cache=folder / f"index_cache_{name}.npz"), name)
            _refuse_shared(parts[name], rest)
    if eval_cases:
        parts = {
            name: part if name == "train" else _at_most(eval_cases, part) for name, part in parts.items()
        }
    for name, part in parts.items():
        part.save(
            folder / f"index_{name}.npz", times=False
        )  # what is made from a part stays up to date when the data are copied
    return index, parts


def _labelled(index: SliceIndex, purpose: str) -> SliceIndex:
    """The cases that have labels; the others are added to the problems. Raises `DataFolderError` where none has."""
    with_labels = index.cases["has_labels"]
    if not with_labels.any():
        raise DataFolderError(
            index.root, f"none of its {len(index.cases)} cases has labels ('gts'), which {purpose} needs"
        )
    part = index.subset(index.cases.index[with_labels])
    part.problems = sorted(
        [
            *index.problems,
            *((Path(path), "has no labels ('gts')") for path in index.cases["path"][~with_labels]),
        ]
    )
    return part


def _refuse_shared(part: SliceIndex, learned_from: SliceIndex) -> None:
    """Raise `ValueError` where a file of a part is one of those that are trained or chosen on, by name and size: its score would be no news."""
    known = set(zip(map(os.path.basename, learned_from.cases["path"]), learned_from.cases["bytes"]))
    shared = [
        path
        for path, size in zip(part.cases["path"], part.cases["bytes"])
        if (os.path.basename(path), size) in known
    ]
    if shared:
        raise ValueError(
            f"{part.root}: {len(shared)} of its cases are also among those of {learned_from.root} that are trained and chosen on, {os.path.basename(shared[0])} for one; "
            "take them out of one of the two"
        )


def _at_most(count: int, part: SliceIndex) -> SliceIndex:
    """At most `count` cases a modality, in index order. By a hash: the first by name would come from one data set."""
    hashes = [
        hashlib.sha256(Path(path).relative_to(part.root).as_posix().encode()).hexdigest()
        for path in part.cases["path"]
    ]
    drawn = part.cases.assign(hash=hashes).sort_values("hash").groupby("modality").head(count)
    smaller = part.subset(sorted(drawn.index))
    smaller.problems = part.problems
    return smaller
