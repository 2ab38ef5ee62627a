"""Choose among several exports by the modality of the case: one model a modality, with a fallback (DAFT).

    models/default/export.json ...      the fallback, which takes all other cases
    models/CT/export.json ...
    models/MR+PET/export.json ...       one export for both

The sub-folders are exports of `qmsam_core.deploy.export`. They are named after the challenge's modalities,
whatever the case of the letters. Files beside them and hidden folders play no part.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..data.phantoms import MODALITIES
from .engines import Engine
from .exported import ExportError, export_digest, read_export
from .files.inputs import Input
from .files.reading import Reading
from .predictor import Predictor

FALLBACK = "default"
"""Sub-folder of the export for cases of all other modalities, or of none that is known."""


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


# the challenge's results say Microscope
_KNOWN = {_plain(name): name for name in MODALITIES} | {"microscope": "Microscopy"}


def known_modality(name: str) -> str | None:
    """Return the study's spelling of a modality: `xray` is X-Ray. None if it is none of the challenge's."""
    return _KNOWN.get(_plain(name))


def modality_in(name: str) -> str | None:
    """Return the modality in a challenge case's name, such as `3DBox_CT_0566`; None if it has none."""
    named = re.match(r"[23]DBox_([^_.]+)", name)
    return known_modality(named[1]) if named else None


def modality_of(one: Input, reading: Reading) -> str:
    """Tell the modality of an input.

    The first of these that tells it counts: the headers of a DICOM series, the name of an npz case
    (`3DBox_CT_0566.npz`), the modality that the user gave, the nearest folder around the file, up to the
    input folder, that is named after one.

    Returns:
        The modality, in the study's spelling if it is one of the challenge's; "" if nothing tells it.

    Raises:
        CaseError: a DICOM series cannot be read, or does not tell its modality and none is given.
    """
    if one.kind == "npz" and (found := modality_in(one.path.name)):
        return found
    if told := reading.modality_of(one):
        return known_modality(told) or told
    around = one.path.absolute().parents[: len(Path(one.place).parts)]
    return next(filter(None, (known_modality(folder.name) for folder in around)), "")


def is_by_modality(folder: Path) -> bool:
    """Whether a folder holds exports by modality and is no export itself.

    Raises:
        ExportError: it is both.
    """
    single, several = (folder / "export.json").exists(), (folder / FALLBACK).is_dir()
    if single and several:
        raise ExportError(
            f"{folder}: is an export and holds the folder {FALLBACK}/ of several; expected one of the two; "
            "move export.json and its files away, or give another folder"
        )
    return several or (not single and any(folder.glob("*/export.json")))


def exports_in(folder: Path) -> dict[str, Path]:
    """List the exports of a folder, by the name of their sub-folder.

    Raises:
        ExportError: there is no fallback, a name is no modality's, or two serve one modality.
    """
    exports = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")}
    if FALLBACK not in exports:
        raise ExportError(
            f"{folder}: has no sub-folder {FALLBACK}/; expected one, with the export that takes the cases "
            "of all other modalities"
        )
    served_by(exports)
    return exports


def served_by(exports: dict[str, Path]) -> dict[str, str]:
    """Return the name of the export that serves a modality, by modality. Raises as `exports_in`."""
    served: dict[str, str] = {}
    for name, path in exports.items():
        for part in name.split("+") if name != FALLBACK else ():
            modality = known_modality(part)
            if modality is None:
                raise ExportError(
                    f"{path}: {part!r} is no modality; expected a sub-folder {FALLBACK}, or one named "
                    f"{', '.join(MODALITIES)}, or several of them joined by +"
                )
            if modality in served:
                raise ExportError(
                    f"{path}: serves {modality}, as {path.with_name(served[modality])} does; "
                    "expected one export a modality; rename or remove one"
                )
            served[modality] = name
    return served


@dataclass(frozen=True)
class Choice:
    """Which model a case gets.

    Attributes:
        modality: of the case; "" if nothing tells it.
        model: name of the export's sub-folder.
    """

    modality: str
    model: str

    def __str__(self) -> str:
        if not self.modality:
            return f"cases of unknown modality: segmented by model {self.model}"
        fallback = ", as none is its own" if self.model == FALLBACK else ""
        return f"{self.modality}: segmented by model {self.model}{fallback}"


class PredictorByModality:
    """Predictors of several exports, of which each case gets the one of its modality.

    An engine is opened when the first case asks for it, and stays open: the memory is that of all engines
    that were asked for, about as much again for each as the first export takes.

    Args:
        folder: holds the exports, see the module's docstring.
        open_export: opens the engine of an export's folder.
        interpolation, order, propagate: see `Predictor`. They are those of all predictors.
        options: other attributes of `Predictor`.

    Attributes:
        exports: folders of the exports, by the name of the sub-folder.
        source: hash of what determines the masks: all exports, and which modalities they serve.

    Raises:
        ExportError: see `exports_in`, or one of the exports is none or was changed since.
    """

    def __init__(
        self,
        folder: Path,
        open_export: Callable[[Path], Engine],
        interpolation: str | None = None,
        order: str | None = None,
        propagate: bool = False,
        **options,
    ) -> None:
        self.interpolation, self.order, self.propagate = interpolation, order, propagate
        self.exports = exports_in(Path(folder))
        self._served = served_by(self.exports)
        digests = {name: export_digest(read_export(path)) for name, path in self.exports.items()}
        self.source = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
        self._open = open_export
        self._options = {**options, "interpolation": interpolation, "order": order, "propagate": propagate}
        self._engines: dict[str, Engine] = {}
        self._predictors: dict[str, Predictor] = {}

    def choose(self, one: Input, reading: Reading) -> Choice:
        """Choose the model of an input. Raises as `modality_of`."""
        modality = modality_of(one, reading)
        return Choice(modality, self._served.get(modality, FALLBACK))

    def of(self, model: str) -> Predictor:
        """Return the predictor of a model by its sub-folder's name, and open its engine if it is the first.

        Raises:
            ExportError: the export was changed since.
        """
        if model not in self._engines:
            self._engines[model] = self._open(self.exports[model])
            self._predictors.clear()  # so that each measures again how much memory is left
        if model not in self._predictors:
            self._predictors[model] = Predictor(self._engines[model], **self._options)
        return self._predictors[model]
