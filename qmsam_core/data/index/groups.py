"""Group the cases of one patient or volume by their file names, so that a split keeps them on one side.

The challenge's names are `{2DBox,3DBox}_<Modality>_<DataSet>_<id>...`, with words separated by "_". The first
rule that applies gives a case's group:

1. The name up to and with a **patient's word**: `P207`, `patient12`, `sub-03`, `subject_4`. For example,
   `CDDCESM_P207_L_CM_MLO` and `CDDCESM_P207_L_DM_MLO` are one patient.
2. In 2-D files, the name before a **slice's word** at the end (`_z12`, `_slice_012`, `-frame3`), if that part
   holds a number.
3. In 2-D files, the name before a **bare number** of up to four digits at the end. The word before the number
   must hold a digit, must be neither the data set's name nor a year, and must take several values in this
   modality. `HVSMR2_10000_130` is slice 130 of volume 10000. `AMD_0003`, `BUSI_10018` and `ISIC_2018_0001`
   are single cases.

Words for copies (`mirrored`, `flipped`, `augmented`) are ignored. If no rule applies, a case is its own
group. A wrong merge takes variety from a data set, and from a small one all its evaluation cases. Some
relations do not show in the names, so these cases stay apart: one patient's CT and MR, or one X-ray with two
masks under two names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

_COPY = re.compile(r"(?i)_(?:mirrored|mirror|flipped|hflip|vflip|rotated|augmented|aug\d*)(?=_|$)")
_PATIENT = re.compile(r"(?:^|_)(?:(?i:patient|pat|subject|subj|sub)[-_]?[0-9]+|P[0-9]+)(?=[-_]|$)")
_SLICE = re.compile(r"(?i)[-_](?:z|slice|frame|sl|fr)[-_]?[0-9]+$")
_NUMBER = re.compile(r"[-_]([0-9]{1,4})$")
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")


def case_groups(names: Sequence[str]) -> list[str]:
    """Find the group of each case of one modality.

    Args:
        names: paths below the data root, `<Modality>/**/*.npz`.

    Returns:
        One key per case. Equal keys belong together. All keys differ if the rules would leave a single group.
    """
    stems = [_bare(name) for name in names]
    keys = [_certain(stem, _is_planar(name)) for name, stem in zip(names, stems)]
    for number, volume in _numbered_slices(names, stems, keys).items():
        keys[number] = volume
    folders = [PurePosixPath(name).parent.as_posix() for name in names]
    groups = [f"{folder}/{key or stem}" for folder, key, stem in zip(folders, keys, stems)]
    return groups if len(set(groups)) > 1 else list(names)


def _bare(name: str) -> str:
    """The file's stem without the format's prefix, the modality and words for copies."""
    modality = PurePosixPath(name).parts[0]
    stem = re.sub(r"^[23]DBox_", "", PurePosixPath(name).stem)
    return _COPY.sub("", stem.removeprefix(f"{modality}_"))


def _is_planar(name: str) -> bool:
    return not PurePosixPath(name).name.startswith("3DBox_")


def _certain(stem: str, planar: bool) -> str:
    """The group by a patient's or slice's word (rules 1 and 2); "" if there is none."""
    if patient := _PATIENT.search(stem):
        return stem[: patient.end()]
    if planar and (found := _SLICE.search(stem)) and any(c.isdigit() for c in stem[: found.start()]):
        return stem[: found.start()]
    return ""


def _numbered_slices(names: Sequence[str], stems: Sequence[str], keys: Sequence[str]) -> dict[int, str]:
    """Map positions in `names` to volumes, for names that end in a slice's bare number (rule 3)."""
    volumes = {}
    for number, (name, stem, key) in enumerate(zip(names, stems, keys)):
        found = _NUMBER.search(stem)
        if not key and found and _is_planar(name) and _looks_like_an_id(stem[: found.start()]):
            volumes[number] = stem[: found.start()]
    siblings = defaultdict(set)
    for volume in volumes.values():
        siblings[_mother(volume)].add(volume)
    return {number: volume for number, volume in volumes.items() if len(siblings[_mother(volume)]) > 1}


def _looks_like_an_id(volume: str) -> bool:
    before, _, word = volume.rpartition("_")
    word = re.split("-", word)[-1]
    return bool(before) and any(c.isdigit() for c in word) and not _YEAR.fullmatch(word)


def _mother(volume: str) -> str:
    """The part of the name that the volumes of one data set share: all before the id's word."""
    return re.split(r"[-_](?=[^-_]*$)", volume)[0]
