"""A folder of phantoms: which modality gets how many cases, and files that are made once and kept while they are right."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Callable

import numpy as np

from qmsam_core.data.archive import atomic_file
from qmsam_core.data.cases import Case, tight_boxes

from . import microscopy, optical, radiographs, tomography, waves

SLICES_IN_PAPER = {  # paper Table 2
    "CT": 1218411, "MR": 236804, "PET": 89059, "Endoscopy": 43443, "X-Ray": 34893, "Dermoscopy": 3694, "US": 1646,
    "OCT": 1436, "Mammography": 1233, "Fundus": 1057, "Microscopy": 1000,
}  # fmt: skip
MODALITIES = tuple(SLICES_IN_PAPER)
VOLUMES = ("CT", "MR", "PET")
LEAST_CASES = 3
"""Cases every modality gets, so that each can be trained and evaluated on."""

_MEAN_SLICES = 14  # of a volume
_MAKERS: dict[str, Callable] = {
    "CT": tomography.make_ct, "MR": tomography.make_mr, "PET": tomography.make_pet, "Endoscopy": optical.make_endoscopy,
    "X-Ray": radiographs.make_xray, "Dermoscopy": optical.make_dermoscopy, "US": waves.make_ultrasound, "OCT": waves.make_oct,
    "Mammography": radiographs.make_mammogram, "Fundus": optical.make_fundus, "Microscopy": microscopy.make_microscopy,
}  # fmt: skip
_SIZES = {"CT": 128, "MR": 128, "PET": 96}
_MANIFEST = "phantoms.json"
MANIFEST_EVERY = 100  # cases: what an interruption loses at most


def make_case(modality: str, seed: int, size: int | None = None) -> Case:
    """One synthetic case with labels and tight boxes, the same for the same arguments.

    Args:
        modality: one of `MODALITIES`.
        seed: at least 0.
        size: longest side in plane, pixels, at least 48; None for 96 to 128 (volumes of 12 to 16 slices) or 224 (images).

    Raises:
        ValueError: unknown modality, negative seed or a size too small to draw in.
    """
    if modality not in _MAKERS:
        raise ValueError(f"modality {modality!r}: expected one of {', '.join(MODALITIES)}")
    size = _SIZES.get(modality, 224) if size is None else size
    if size < 48 or seed < 0:
        raise ValueError(f"size {size}, seed {seed}: expected a size of at least 48 px and a seed of at least 0")
    rng = np.random.default_rng((seed, zlib.crc32(modality.encode())))
    images, labels, *spacing = _MAKERS[modality](rng, size)
    while labels.max() == 0:  # an object may fall outside the picture; draw again
        images, labels, *spacing = _MAKERS[modality](rng, size)
    name = f"{'3DBox' if modality in VOLUMES else '2DBox'}_{modality}_{seed:06d}"
    return Case(name, images, tight_boxes(labels)[1], labels, np.asarray(spacing[0] if spacing else np.ones(3), dtype=np.float64))


def case_counts(n_cases: int, imbalance: float = 0.5) -> dict[str, int]:
    """Cases a modality: three each, the rest so that numbers of slices follow the paper's Table 2 to the power `imbalance`.

    At 1 they are in the paper's own proportions (1200 to 1), which leaves the rare modalities with three images in any folder of a few hundred
    cases; the root keeps Table 2's order and most of its imbalance; at 0 all are alike. Fewer than 33 cases are raised to 33. Counts
    grow with `n_cases` in every modality, so a larger folder contains a smaller one.
    """
    counts = dict.fromkeys(MODALITIES, LEAST_CASES)
    share = {m: n**imbalance / (_MEAN_SLICES if m in VOLUMES else 1) for m, n in SLICES_IN_PAPER.items()}
    for _ in range(n_cases - LEAST_CASES * len(MODALITIES)):
        counts[max(MODALITIES, key=lambda m: share[m] / (counts[m] - LEAST_CASES + 1))] += 1
    return counts


def write_phantoms(
    root: str | os.PathLike,
    n_cases: int,
    seed: int,
    progress: bool | Callable[[int, int], None] = False,
    imbalance: float = 0.5,
    processes: int = 1,
) -> Path:
    """Fill a folder with phantoms, `<root>/<Modality>/Phantom<Modality>/{2DBox,3DBox}_*.npz`, and return it.

    Files already there and right (same content hash, made by the same code) are kept; files of an earlier call that no longer
    belong are removed; anything else in the folder is left alone.

    Args:
        root: made if missing.
        n_cases, imbalance: how many in all and of each modality, see `case_counts`.
        seed: at least 0.
        progress: True prints a line every 20 cases; or a function of (cases done, cases in all).
        processes: how many draw at the same time.
    """
    root = Path(root)
    wanted = _wanted(case_counts(n_cases, imbalance), seed)
    known = _read_manifest(root)
    _remove_leftovers(root, known, wanted)
    report = _reporter(progress)
    hashes: dict[str, str] = {}
    with ProcessPoolExecutor(processes) if processes > 1 else nullcontext() as pool:
        run = partial(pool.map, chunksize=8) if pool else map
        for done, (name, digest) in enumerate(zip(wanted, run(partial(_kept_or_made, root, known), wanted.items())), start=1):
            hashes[name] = digest
            if done % MANIFEST_EVERY == 0 or done == len(wanted):
                _write_manifest(root, hashes | {k: v for k, v in known.items() if k in wanted and k not in hashes})
            report(done, len(wanted))
    return root


def _kept_or_made(root: Path, known: dict[str, str], wanted: tuple[str, tuple[str, int]]) -> str:
    """Hash of a file, which is drawn if it is not there or not what the present code wrote."""
    name, (modality, seed) = wanted
    digest = _sha256(root / name)
    if digest is None or digest != known.get(name):
        make_case(modality, seed).save(root / name)
        digest = _sha256(root / name)
    return digest


def _wanted(counts: dict[str, int], seed: int) -> dict[str, tuple[str, int]]:
    """File name below the root -> modality and seed of the case."""
    wanted = {}
    for modality, count in counts.items():
        kind = "3DBox" if modality in VOLUMES else "2DBox"
        for k in range(count):
            case_seed = seed * 1_000_000 + k
            wanted[f"{modality}/Phantom{modality}/{kind}_{modality}_{case_seed:06d}.npz"] = (modality, case_seed)
    return wanted


def _reporter(progress: bool | Callable[[int, int], None]) -> Callable[[int, int], None]:
    if callable(progress):
        return progress

    def lines(done: int, total: int) -> None:
        if progress and (done % 20 == 0 or done == total):
            print(f"phantoms: {done} of {total} cases", flush=True)

    return lines


def _code_hash() -> str:
    """Hash of the sources that draw phantoms: files made by other code are made again."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_manifest(root: Path) -> dict[str, str]:
    """File name -> hash of what the present code wrote there; None stands for files of other code, to be made again or removed."""
    try:
        manifest = json.loads((root / _MANIFEST).read_text())
        files = {str(name): str(value) for name, value in manifest["files"].items() if not _leaves(name)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}
    return files if manifest.get("code") == _code_hash() else dict.fromkeys(files)


def _leaves(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _write_manifest(root: Path, hashes: dict[str, str]) -> None:
    text = json.dumps({"about": "phantoms made by qmsam_core.data.phantoms", "code": _code_hash(), "files": hashes}, indent=1)
    with atomic_file(root / _MANIFEST) as stream:
        stream.write(text.encode())


def _remove_leftovers(root: Path, known: dict[str, str], wanted: dict) -> None:
    for name in known.keys() - wanted.keys():
        (root / name).unlink(missing_ok=True)
