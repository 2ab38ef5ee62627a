"""A folder of phantoms: how many cases each modality gets, and files that are kept while they are right."""

import hashlib
import json
import os
import zlib
from pathlib import Path

import numpy as np

from qmsam_core.data.cases import Case, tight_boxes
from qmsam_core.provenance.files import write_json

from .canvas import Canvas, label_map
from .modalities import SCENES

MODALITIES = tuple(SCENES)
LEAST_CASES = 3  # a modality, so that each can be trained and evaluated on
_MANIFEST = "phantoms.json"


def make_case(modality: str, seed: int, size: int | None = None) -> Case:
    """One synthetic case with labels 1..N and tight boxes, the same for the same arguments.

    CT, MR and PET are volumes of 6 to 8 slices, uint8 (D,H,W); the others are images, uint8 (H,W,3).

    Args:
        modality: one of `MODALITIES`.
        seed: at least 0.
        size: longest side of a slice, pixels, at least 48; None for 96 to 128 (volumes) or 224 (images).

    Raises:
        ValueError: unknown modality, negative seed or a size too small to draw in.
    """
    if modality not in SCENES:
        raise ValueError(f"modality {modality!r}: expected one of {', '.join(MODALITIES)}")
    scene = SCENES[modality]
    longest = max(scene.height, scene.width)
    size = longest if size is None else size
    if size < 48 or seed < 0:
        raise ValueError(f"size {size}, seed {seed}: expected a size of at least 48 px, a seed of at least 0")
    key = (seed, zlib.crc32(modality.encode()))
    depth = int(np.random.default_rng(key).integers(6, 9)) if scene.field else 1
    shape = (scene.height * size // longest, scene.width * size // longest)
    slices = [Canvas(shape, key, (2 * number + 1) / depth - 1, number) for number in range(depth)]
    for canvas in slices:
        scene.paint(canvas)
    images = np.stack([canvas.pixels() for canvas in slices])
    labels = label_map([np.stack(masks) for masks in zip(*(canvas.objects for canvas in slices))])
    images, labels = (images[..., 0].copy(), labels) if scene.field else (images[0], labels[0])
    spacing = np.array([scene.field / shape[1]] * 2 + [5.0]) if scene.field else np.ones(3)
    return Case(_name(modality, seed), images, tight_boxes(labels)[1], labels, spacing)


def _name(modality: str, seed: int) -> str:
    return f"{'3DBox' if SCENES[modality].field else '2DBox'}_{modality}_{seed:06d}"


def case_counts(n_cases: int) -> dict[str, int]:
    """Cases a modality: three each, the rest so that slices go as the roots of those in the paper's Table 2.

    The roots keep the paper's order without its proportions (1200 to 1). Fewer than 33 cases are raised to
    33. A larger folder has at least as many cases of every modality.
    """
    counts = dict.fromkeys(MODALITIES, LEAST_CASES)
    # a volume counts as its 7 slices (on average)
    share = {m: s.slices_in_paper**0.5 / (7 if s.field else 1) for m, s in SCENES.items()}
    for _ in range(n_cases - LEAST_CASES * len(MODALITIES)):
        counts[max(MODALITIES, key=lambda m: share[m] / (counts[m] - LEAST_CASES + 1))] += 1
    return counts


def write_phantoms(root: str | os.PathLike, n_cases: int, seed: int) -> Path:
    """Fill a folder with `n_cases` phantoms, at least 33 (see `case_counts`), and return it.

    Files are `<root>/<Modality>/Phantom<Modality>/{2DBox,3DBox}_<Modality>_<6 digits>.npz`. Those of an
    earlier call, named in `phantoms.json`, are kept while they and the code that draws them are unchanged,
    made again when not, and removed when they no longer belong. Other files are left alone.
    """
    root, known = Path(root), _read_manifest(Path(root))
    numbers = [(m, 1_000_000 * seed + k) for m, count in case_counts(n_cases).items() for k in range(count)]
    wanted = {f"{m}/Phantom{m}/{_name(m, number)}.npz": (m, number) for m, number in numbers}
    for name in known.keys() - wanted.keys():
        (root / name).unlink(missing_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    # names all files already now, so that none is forgotten should this call be broken off
    write_json(root / _MANIFEST, {"files": {name: known.get(name) for name in wanted}})
    for name, case in wanted.items():
        if _digest(root / name) != known.get(name):
            make_case(*case).save(root / name)
    write_json(root / _MANIFEST, {"files": {name: _digest(root / name) for name in wanted}})
    return root


def _digest(path: Path) -> str:
    """Hash of a file and of the code that draws phantoms, so that a change of either is seen."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    parts = [part.read_bytes() for part in (*sources, path) if part.is_file()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _read_manifest(root: Path) -> dict[str, str | None]:
    """File name -> digest, None where it was not yet written; empty without a readable manifest."""
    try:
        files = json.loads((root / _MANIFEST).read_text())["files"]
        inside = [name for name in files if name.endswith(".npz") and not {"..", "/"} & set(Path(name).parts)]
        return {name: files[name] for name in inside}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
