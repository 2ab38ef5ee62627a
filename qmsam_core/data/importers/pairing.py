"""Find the mask that belongs to each image when whole folders are given.

An image `a/b/x.png` is matched by its path without ending, `a/b/x`. These rules are tried in order:

1. A mask has the same path.
2. A mask has the same path after a word such as `_mask`, `_seg` or `_label` is removed from the mask's name,
   and `_image` or nnU-Net's `_0000` from the image's name.
3. The image and the mask are each alone in the same sub-folder (`patient7/ct.nii.gz`,
   `patient7/liver.nii.gz`).

A folder with the image's path that holds masks counts as one mask. Each of its files is one object.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from qmsam_core.data.archive import CaseError

_MASK_WORD = re.compile(
    r"(?:^|(?<=/)|[ _.-])(?:mask|seg|segmentation|label|gt|annotation|manual)s?$", re.IGNORECASE
)
_IMAGE_WORD = re.compile(r"(?:[ _.-](?:image|img)|_0000)$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """A case to import: its name, the file of the image, and the file or folder of the mask."""

    name: str
    image: Path
    mask: Path


def find_pairs(images: Path, masks: Path, suffixes: tuple[str, ...]) -> tuple[list[Pair], list[CaseError]]:
    """Pair the images below one folder with the masks below another, or below the same one.

    Returns:
        The pairs sorted by name, and an error for each image or mask that has no partner or several.
    """
    image_files, mask_files = _files(images, suffixes), _files(masks, suffixes)
    if os.path.realpath(images) == os.path.realpath(masks):
        image_files = {key: path for key, path in image_files.items() if not _MASK_WORD.search(key)}
        mask_files = {key: path for key, path in mask_files.items() if _MASK_WORD.search(key)}
    mask_files = _with_folders(mask_files, image_files, masks)
    finders = [_by_key(mask_files), _by_bare_key(mask_files), _by_folder(image_files, mask_files)]
    errors, claims = [], {}
    for key, image in sorted(image_files.items()):
        found = next((hits for finder in finders if (hits := finder(key))), [])
        if len(found) == 1:
            claims.setdefault(found[0], []).append(Pair(key.replace("/", "_"), image, mask_files[found[0]]))
        else:
            several = f"has {len(found)} masks ({', '.join(found)})" if found else f"has no mask in {masks}"
            errors.append(CaseError(image, f"{several}; expected one of its name"))
    for key, path in sorted(mask_files.items()):
        if len(claims.get(key, [])) != 1:
            found = " and ".join(pair.image.name for pair in claims.get(key, []))
            errors.append(
                CaseError(
                    path,
                    f"fits several images ({found})" if found else f"is a mask without image in {images}",
                )
            )
    return sorted((c[0] for c in claims.values() if len(c) == 1), key=lambda pair: pair.name), errors


def stem(path: Path, suffixes: tuple[str, ...]) -> str | None:
    """Name of the file without its ending, or None if it has none of `suffixes`."""
    # Longest first, so that `.nii.gz` is removed as a whole.
    ending = next((s for s in sorted(suffixes, key=len, reverse=True) if path.name.lower().endswith(s)), None)
    return path.name[: -len(ending)] if ending else None


def masks_in(folder: Path, suffixes: tuple[str, ...]) -> list[tuple[str, Path]]:
    """List a folder of binary masks as (object's name, file), sorted by name.

    Raises:
        CaseError: the folder has no file with one of the `suffixes`.
    """
    found = sorted(
        (name, path)
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and (name := stem(path, suffixes))
    )
    if not found:
        raise CaseError(
            folder, f"holds no mask; expected files ending in {', '.join(suffixes)}, one an object"
        )
    return found


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files below `folder`, keyed by path without ending, with forward slashes. Hidden files are skipped."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = path.relative_to(folder).parts
        name = stem(path, suffixes)
        if name and not any(part.startswith(".") for part in parts):
            found[PurePosixPath(*parts[:-1], name).as_posix()] = path
    return found


def _with_folders(masks: dict[str, Path], images: dict[str, Path], root: Path) -> dict[str, Path]:
    """Replace the masks in a folder named like an image by that folder."""
    result = {}
    for key, path in masks.items():
        folder = PurePosixPath(key).parent.as_posix()
        if folder in images:
            result[folder] = root / folder
        else:
            result[key] = path
    return result


def _by_key(masks: dict[str, Path]):
    return lambda key: [key] if key in masks else []


def _by_bare_key(masks: dict[str, Path]):
    bare: dict[str, list[str]] = {}
    for key in masks:
        bare.setdefault(_MASK_WORD.sub("", key), []).append(key)
    return lambda key: bare.get(key) or bare.get(_IMAGE_WORD.sub("", key), [])


def _by_folder(images: dict[str, Path], masks: dict[str, Path]):
    def parent(key: str) -> str:
        return PurePosixPath(key).parent.as_posix()

    n_images, inside = Counter(map(parent, images)), {}
    for key in masks:
        inside.setdefault(parent(key), []).append(key)

    def find(key: str) -> list[str]:
        folder = parent(key)
        alone = folder != "." and n_images[folder] == 1 and len(inside.get(folder, [])) == 1
        return inside[folder] if alone else []

    return find
