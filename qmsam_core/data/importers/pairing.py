"""Find the masks that belong to each image when whole folders are given.

An image `a/b/x.png` and a mask are compared by their paths without ending. Folders may be links. A folder
with the image's path that holds masks has one object a file. Else the first rule that finds a mask decides:

1. Same path: `a/b/x` in the folder of images and in the folder of masks.
2. Same path without what says "image" or "mask":
   - folders such as `images`, `imagesTr`, `masks`, `labelsTr`, `segmentations`, anywhere in the path;
   - words at the end of a name: `x_image`, `x_0000` (nnU-Net); `x_mask`, `x_seg`, `x_label`, `x_gt`,
     `x_masks` (stardist, cellpose);
   - words at the start of a name: `volume-1` and `segmentation-1` (LiTS), `img0001` and `label0001`.
   Masks that differ by a number, `x_mask`, `x_mask_1` (BUSI), are one object each.
3. The image is the only one in its folder. The masks lie in that folder (`patient7/ct`, `patient7/seg`), in a
   folder of masks in it (`s0001/ct`, `s0001/segmentations/liver`: TotalSegmentator), or in one beside it
   (`7/images/x`, `7/masks/*`: DSB2018). Of several masks each is one object.

Several images with one mask that differ by a contrast at the end of the name (`x_t1`, `x_flair`: BraTS;
`x_0000`, `x_0001`: nnU-Net) need `--contrast`: the word of the one to take, or `all` for a case of each.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from qmsam_core.data.archive import CaseError

from .notes import listed
from .walk import files_below

_WORD = r"(?:(?:cp_)?mask|seg|segmentation|label|gt|anno|annotation|manual)s?"
_MASK_END = re.compile(rf"[ _.-]{_WORD}(?P<number>[ _.-]?\d+)?$", re.IGNORECASE)
_MASK_START = re.compile(rf"^{_WORD}(?:[ _.-]+(?=.)|(?=\d))", re.IGNORECASE)
_MASK_NAME = re.compile(rf"^{_WORD}$", re.IGNORECASE)
_MASK_FOLDER = re.compile(rf"^(?:{_WORD}|ground[ _-]?truths?)(?P<part>Tr|Ts|Va)?$", re.IGNORECASE)
_IMAGE_END = re.compile(r"[ _.-](?:image|img)$", re.IGNORECASE)
_IMAGE_START = re.compile(r"^(?:volume|image|img|scan)s?(?:[ _.-]+(?=.)|(?=\d))", re.IGNORECASE)
_IMAGE_FOLDER = re.compile(r"^(?:image|img|scan|volume|original)s?(?P<part>Tr|Ts|Va)?$", re.IGNORECASE)
_CONTRAST = re.compile(
    r"[ _.-](?P<word>t1(?:ce|c|n|gd|w)?|t2(?:f|w)?|flair|pd|adc|dwi|swi|\d{4})$", re.IGNORECASE
)
_UNREAD = (
    ".gif", ".webp", ".jp2", ".svs", ".img", ".hdr", ".dcm", ".ima", ".mgz", ".npy", ".npz", ".h5", ".mat",
    ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp",
)  # fmt: skip
"""Endings of files that may hold images or masks. They are named if a command does not read them."""
ALL = "all"


@dataclass(frozen=True)
class Pair:
    """A case to import: its name, the file of the image, and the file, folder or files of its masks."""

    name: str
    image: Path
    mask: Path | tuple[Path, ...]


@dataclass
class Pairs:
    """What was found in folders of images and masks.

    Attributes:
        pairs: sorted by name.
        errors: one for each image or mask without a partner or with several, and for dead links.
        notes: what was not read or followed, one line each.
    """

    pairs: list[Pair] = field(default_factory=list)
    errors: list[CaseError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_pairs(images: Path, masks: Path, suffixes: tuple[str, ...], contrast: str | None = None) -> Pairs:
    """Pair the images below one folder with the masks below another, or below the same one.

    Args:
        images: folder of the images.
        masks: folder of the masks.
        suffixes: endings of both.
        contrast: word of the one image to take where several have one mask; `all` takes each; None refuses.
    """
    result = Pairs()
    image_files, mask_files = _files(images, suffixes, result), {}
    if os.path.realpath(images) == os.path.realpath(masks):
        mask_files = {key: path for key, path in image_files.items() if _is_mask(key)}
        image_files = {key: path for key, path in image_files.items() if key not in mask_files}
    else:
        mask_files = _files(masks, suffixes, result)
    for hit, keys in _claims(image_files, mask_files, masks, result).items():
        for key in _of_contrast(keys, contrast, image_files, hit, result):
            result.pairs.append(Pair(key.replace("/", "_"), image_files[key], hit.files(mask_files)))
    result.pairs.sort(key=lambda pair: pair.name)
    return result


_EXPECTED = "expected x with x_mask, masks/x, labelsTr/x or the like (--help lists the rules)"


@dataclass(frozen=True)
class _Hit:
    """Keys of the masks of an image. `objects`: each is one object, else there is one file of labels."""

    masks: tuple[str, ...]
    objects: bool = False

    @property
    def usable(self) -> bool:
        """Whether the masks belong together: a folder of them, or names that differ by a number."""
        return self.objects or len({_numberless(key) for key in self.masks}) == 1

    def files(self, masks: dict[str, Path]) -> Path | tuple[Path, ...]:
        """Return the file of labels, or the files of objects."""
        if len(self.masks) == 1 and not self.objects:
            return masks[self.masks[0]]
        return tuple(masks[key] for key in self.masks)


def _claims(
    images: dict[str, Path], masks: dict[str, Path], root: Path, result: Pairs
) -> dict[_Hit, list[str]]:
    """Masks -> keys of the images that they belong to. Masks that no image claims are errors, too."""
    finders = [
        _by_folder_of_its_name(masks),
        lambda key: _Hit((key,)) if key in masks else None,
        _by_bare_path(masks),
        _by_folder(images, masks),
    ]
    claims: dict[_Hit, list[str]] = defaultdict(list)
    used: set[str] = set()
    for key, path in sorted(images.items()):
        hit = next((hit for finder in finders if (hit := finder(key))), None)
        if hit is None:
            result.errors.append(CaseError(path, f"has no mask in {root}; {_EXPECTED}"))
            continue
        used |= set(hit.masks)
        if hit.usable:
            claims[hit].append(key)
        else:
            problem = f"has {len(hit.masks)} masks ({listed(hit.masks)}); expected one of its name"
            result.errors.append(CaseError(path, problem))
    for key in sorted(set(masks) - used):
        result.errors.append(CaseError(masks[key], f"is a mask without image; {_EXPECTED}"))
    return claims


def _of_contrast(
    keys: list[str], contrast: str | None, images: dict[str, Path], hit: _Hit, result: Pairs
) -> list[str]:
    """Choose among several images of one mask. An error where that is not possible."""
    if len(keys) == 1 or contrast == ALL:
        return keys
    words = [match["word"] if (match := _CONTRAST.search(key)) else "" for key in keys]
    if contrast is not None:
        wanted = [key for key, word in zip(keys, words) if word.lower() == contrast.lower().lstrip("_-.")]
        if len(wanted) == 1:
            return wanted
    names, some = listed([images[key].name for key in keys]), next(filter(None, words), "WORD")
    result.errors.append(
        CaseError(
            images[keys[0]],
            f"fits one mask ({hit.masks[0]}) with other images ({names}); "
            f"give --contrast {some} to take one, or --contrast {ALL} for a case of each",
        )
    )
    return []


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
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    found = named_masks(files, suffixes)
    if not found:
        raise CaseError(
            folder, f"holds no mask; expected files ending in {', '.join(suffixes)}, one an object"
        )
    return found


def named_masks(files: Sequence[Path], suffixes: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Name binary masks by their files, as (object's name, file), sorted by name."""
    return sorted((name, path) for path in files if (name := stem(path, suffixes)))


def _files(folder: Path, suffixes: tuple[str, ...], result: Pairs) -> dict[str, Path]:
    """Files below `folder`, keyed by path without ending, with forward slashes. Hidden files are skipped."""
    below, found, unread, others = files_below(folder), {}, [], []
    for path in below.files:
        name, parts = stem(path, suffixes), path.relative_to(folder).parts
        key = PurePosixPath(*parts[:-1], name or "").as_posix()
        if name and key in found:
            result.errors.append(
                CaseError(path, f"has the name of {found[key].name} in its folder; rename one")
            )
        elif name:
            found[key] = path
        elif stem(path, _UNREAD) is not None:
            unread.append(path)
        else:
            others.append(path.name)
    result.errors += below.errors
    result.errors += [
        CaseError(path, f"is of a type this command does not read; expected {', '.join(suffixes)}")
        for path in unread
    ]
    if others:
        result.notes.append(f"{len(others)} files of other types in {folder} are not read: {listed(others)}")
    result.notes += [f"{path} leads to a folder above it and is not followed" for path in below.loops]
    return found


def _is_mask(key: str) -> bool:
    *folders, name = key.split("/")
    by_name = any(pattern.search(name) for pattern in (_MASK_END, _MASK_START, _MASK_NAME))
    return by_name or any(map(_MASK_FOLDER.match, folders))


def _bare(key: str, folder: re.Pattern, names: Sequence[re.Pattern]) -> str:
    """Path without the folders and the words that say what the file is."""
    *folders, name = key.split("/")
    kept = [m["part"] or "" if (m := folder.match(part)) else part for part in folders]
    for pattern in names:
        name = pattern.sub("", name) or name
    return "/".join([part for part in kept if part] + [name]).lower()


def _by_bare_path(masks: dict[str, Path]):
    bare: dict[str, list[str]] = defaultdict(list)
    for key in masks:
        bare[_bare(key, _MASK_FOLDER, (_MASK_END, _MASK_START))].append(key)
    tries = [(), (_IMAGE_END,), (_CONTRAST,), (_IMAGE_START,), (_IMAGE_START, _IMAGE_END, _CONTRAST)]

    def find(key: str) -> _Hit | None:
        for names in tries:
            if found := bare.get(_bare(key, _IMAGE_FOLDER, names)):
                return _Hit(tuple(sorted(found)))
        return None

    return find


def _by_folder_of_its_name(masks: dict[str, Path]):
    inside = _by_parent(masks)
    return lambda key: _Hit(tuple(inside[key]), objects=True) if key in inside else None


def _by_folder(images: dict[str, Path], masks: dict[str, Path]):
    """Masks of an image that is alone in its folder: in that folder, in a folder of masks in or beside it."""
    n_images, inside = {k: len(v) for k, v in _by_parent(images).items()}, _by_parent(masks)

    def find(key: str) -> _Hit | None:
        folder = PurePosixPath(key).parent
        if folder.as_posix() == "." or n_images[folder.as_posix()] != 1:
            return None
        if here := inside.get(folder.as_posix()):
            return _Hit(tuple(here), objects=len(here) > 1)
        above = folder.parent if _IMAGE_FOLDER.match(folder.name) else folder
        if above.as_posix() == ".":  # `images/x` beside `masks`: only a common name says they belong together
            return None
        near = [f for f in map(PurePosixPath, inside) if f.parent == above and _MASK_FOLDER.match(f.name)]
        found = tuple(k for f in near for k in inside[f.as_posix()])
        return _Hit(found, objects=True) if found else None

    return find


def _by_parent(files: dict[str, Path]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for key in sorted(files):
        found[PurePosixPath(key).parent.as_posix()].append(key)
    return found


def _numberless(key: str) -> str:
    match = _MASK_END.search(key)
    return key[: match.start("number")] if match and match["number"] else key
