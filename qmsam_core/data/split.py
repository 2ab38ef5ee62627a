"""Split a data set into parts to train on, to choose epochs on, to compare arms on and to test on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .index import DataFolderError, SliceIndex

TESTING_SHARE = 0.2


def make_parts(
    root: str | os.PathLike,
    folder: Path,
    eval_fraction: float,
    seed: int,
    eval_cases: int = 0,
    validation_root: str | os.PathLike | None = None,
    testing_root: str | os.PathLike | None = None,
) -> tuple[SliceIndex, dict[str, SliceIndex]]:
    """Index a data folder, split it and save each part: training, evaluation, validation and testing.

    Arms are compared on the validation part. In the paper it is the challenge's public validation set.
    Without `validation_root` it is the evaluation part.

    Nothing is chosen on the testing part. In the paper it is the challenge's hidden set. Without
    `testing_root` it is a fifth of the cases, by a hash of their group (`SliceIndex.hold_out`). It is the
    same in every run, so that no change of seed moves a test case into training.

    Args:
        root: folder with `<Modality>/**/*.npz`. Cases without labels are in no part.
        folder: receives `index_<part>.npz` and the index's cache.
        eval_fraction: share of the rest held out to choose epochs (paper section 3.1: one tenth).
        seed: seed of that draw.
        eval_cases: most cases per modality in every part but `train`; 0 takes all. The draw uses a hash of
            the case's path below the root and is the same in every run. The other cases are in no part.
        validation_root: folder like `root` whose labelled cases are the validation part.
        testing_root: folder like `root` whose labelled cases are the testing part.

    Returns:
        The index of all cases of `root`, and the parts by name. A part with its own folder lists that
        folder's problems, including its cases without labels.

    Raises:
        DataFolderError: a folder holds no usable case or no labels.
        ValueError: a case to train or choose on is also in a folder to compare or test on.
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
        part.save(folder / f"index_{name}.npz")
    return index, parts


def _labelled(index: SliceIndex, purpose: str) -> SliceIndex:
    """Keep the cases with labels, list the others as problems. Raises `DataFolderError` if none is left."""
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
    """Raise `ValueError` if a file, by name and size, is also trained or chosen on: its score is biased."""
    known = set(zip(map(os.path.basename, learned_from.cases["path"]), learned_from.cases["bytes"]))
    shared = [
        path
        for path, size in zip(part.cases["path"], part.cases["bytes"])
        if (os.path.basename(path), size) in known
    ]
    if shared:
        raise ValueError(
            f"{part.root}: {len(shared)} of its cases are also among those of {learned_from.root} that are "
            f"trained and chosen on, {os.path.basename(shared[0])} for one; take them out of one of the two"
        )


def _at_most(count: int, part: SliceIndex) -> SliceIndex:
    """Draw up to `count` cases per modality by hash: the first by name would come from one data set."""
    hashes = [
        hashlib.sha256(Path(path).relative_to(part.root).as_posix().encode()).hexdigest()
        for path in part.cases["path"]
    ]
    drawn = part.cases.assign(hash=hashes).sort_values("hash").groupby("modality").head(count)
    smaller = part.subset(sorted(drawn.index))
    smaller.problems = part.problems
    return smaller
