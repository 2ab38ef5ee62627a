"""Write masks in the format that an input came in, on its own grid, and find out whether they are there.

| input | masks |
|---|---|
| npz | npz with `segs` |
| NIfTI, MetaImage | the same format with label values |
| NRRD | `.seg.nrrd` with the objects' names, as 3D Slicer writes segmentations |
| DICOM series | DICOM SEG with the objects' names |
| PNG, JPEG, TIFF, BMP | PNG whose stored index is the label, turned upright as viewers show the image |

With one mask an object there is a folder of binary masks instead, except for DICOM SEG, whose segments may
overlap.

The writers of the hospital's formats are imported where they are used. Their libraries take longer to load
than an npz case takes to segment, and need not be installed for it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...data.archive import CaseArchive, CaseError
from ...data.cases import Case, read_segmentation, write_segmentation
from ...data.importers.endings import IMAGE_SUFFIXES, VOLUME_SUFFIXES
from ...data.importers.pairing import stem
from ...data.source import Source
from ..masks import MasksApart
from .inputs import Input

NRRD = (".nrrd", ".nhdr")
SEG_NRRD = ".seg.nrrd"


def ending(path: Path, kind: str) -> str:
    """Ending of the masks of a file, such as `.nii.gz`."""
    if kind == "npz":
        return ".npz"
    if kind == "dicom":
        return ".dcm"
    if kind == "image":
        return ".png"
    own = path.name[len(stem(path, VOLUME_SUFFIXES) or path.name) :].lower()
    return SEG_NRRD if own in NRRD else own


def target_of(one: Input, source: Source | None, output: Path, apart: bool) -> Path:
    """Return the file or folder for the masks of an input.

    Args:
        one: the input.
        source: source that the masks of an imported case go back to, else None.
        output: the output folder.
        apart: one mask an object.
    """
    kind, path = (one.kind, one.path) if source is None else (source.kind, Path(source.path))
    bare = _bare(one)
    suffix = ending(path, kind)
    return output / (bare if apart and suffix != ".dcm" else f"{bare}{suffix}")


def _bare(one: Input) -> str:
    """Name of an input without its ending."""
    endings = {"npz": (".npz",), "volume": (SEG_NRRD, *VOLUME_SUFFIXES), "image": IMAGE_SUFFIXES}
    if one.kind == "dicom":
        return one.place.removesuffix(".dcm") if one.path.is_file() else one.place
    bare = stem(Path(one.place), endings[one.kind])
    return (Path(one.place).parent / bare).as_posix() if bare else one.place


def write_masks(target: Path, source: Source | None, masks: np.ndarray | MasksApart, case: Case) -> None:
    """Write the masks of a case, atomically.

    Args:
        target: what `target_of` returned.
        source: grid and format to write in; None writes npz.
        masks: labels (H, W) or (D, H, W), or the masks one by one, on the axes of the case.
        case: the segmented case.

    Raises:
        CaseError: the source's file is gone or does not fit.
        OSError: the target cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(masks, np.ndarray):
        _write(target, source, masks, case.names)
    elif source is not None and source.kind == "dicom":
        from .dicom_seg import write_seg

        stack = np.stack([source.to_source(masks[i]) for i in range(len(masks))], axis=-1)
        _atomically(target, lambda part: write_seg(part, source, stack, case.names))
    else:
        kind, path = ("npz", target) if source is None else (source.kind, Path(source.path))
        suffix = ending(path, kind)
        with _new_folder(target) as folder:
            for i in range(len(masks)):
                name = case.names[i] if case.names else ""
                words = [f"{i + 1:03d}", re.sub(r"[^\w.-]+", "_", name)[:64]]
                _write(folder / f"{'_'.join(filter(None, words))}{suffix}", source, masks[i], (name,))


def _write(target: Path, source: Source | None, labels: np.ndarray, names: tuple[str, ...]) -> None:
    if source is None:
        write_segmentation(target, labels)
        return
    labels = labels.astype(np.uint8 if labels.max(initial=0) <= 255 else np.uint16, copy=False)
    if source.kind == "image":
        from .label_png import write_png

        _atomically(target, lambda part: write_png(part, labels))
    elif source.kind == "dicom":
        from .dicom_seg import write_seg

        _atomically(target, lambda part: write_seg(part, source, source.to_source(labels), names))
    else:
        from .volume_masks import write_volume

        write_volume(target, source, source.to_source(labels), names)


def _atomically(target: Path, write) -> None:
    with _new_folder(target, rename=False) as folder:
        part = folder / target.name
        write(part)
        os.replace(part, target)


@contextmanager
def _new_folder(target: Path, rename: bool = True) -> Iterator[Path]:
    """Yield a hidden folder beside `target`; if `rename`, it takes the place of `target` at the end."""
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    try:
        yield folder
        if rename:
            os.chmod(folder, 0o755)
            if target.exists():  # all that lies in it was written for this case
                shutil.rmtree(target)
            os.replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_finished(target: Path, one: Input) -> bool:
    """Whether the masks of an input are there, readable and, in an npz, of the case's size."""
    if not target.exists():
        return False
    try:
        if target.is_dir():
            own = (file for file in target.iterdir() if file.is_file() and not file.name.startswith("."))
            return all(_readable(file) for file in own)
        if target.name.endswith(".npz"):
            return _fits(target, one.path)
        return _readable(target)
    except (CaseError, OSError, EOFError, zlib.error):
        return False


def _fits(target: Path, case: Path) -> bool:
    segs = read_segmentation(target)
    with CaseArchive(case) as archive:
        shape = archive.header("imgs").shape
    return segs.shape == shape or segs.shape == shape[:2]


def _readable(file: Path) -> bool:
    name = file.name.lower()
    if name.endswith(".npz"):
        return read_segmentation(file) is not None
    if name.endswith(".png"):
        from .label_png import readable_png

        return readable_png(file)
    if name.endswith(".dcm"):
        import pydicom

        return "PixelData" in pydicom.dcmread(file, force=True)
    from .volume_masks import readable_volume

    return readable_volume(file)
