"""The parameters of a run: typed and bounded. A wrong one is refused with one clear line.

One flat set of keys serves everywhere: `params/<profile>.yaml`, the `parameters` cell of every notebook and
papermill's `-f` and `-p`. The defaults below are those of the smoke profile, and stand in every cell.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

Switch = Literal["loss", "schedule", "checkpoint", "distillation", "frozen_statistics", "resize"]


DATA_ROOTS = ("data_root", "validation_root", "testing_root")


class ParamsError(ValueError):
    """A parameter is unknown, of the wrong type or impossible. The message has one line for each problem."""


def _sequence_to_tuple(value: Any) -> Any:
    """YAML and papermill give lists, the frozen record holds tuples."""
    return tuple(value) if isinstance(value, list) else value


def _each_once(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError("a switch is named twice")
    return value


class Params(BaseModel):
    """All parameters of one run. Each field's description gives its unit, its range and the paper's value."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    profile: str = Field(
        "smoke", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the run and its folder"
    )
    outputs_root: str = Field("outputs", min_length=1, description="folder of all runs")
    seed: int = Field(0, ge=0, lt=2**32, description="of python, numpy and torch")
    threads: int = Field(2, ge=1, description="CPU threads of torch and of the engines")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "cpu", description="where networks train: auto, cpu or cuda"
    )
    data_root: str | None = Field(
        None, min_length=1, description="<root>/<Modality>/**/*.npz; None makes phantoms"
    )
    validation_root: str | None = Field(
        None, min_length=1, description="such a folder for Tables 7 and 9; None: the evaluation cases"
    )
    testing_root: str | None = Field(
        None, min_length=1, description="such a folder for Table 10; None: a fifth of the data"
    )
    phantom_cases: int = Field(
        33, ge=33, description="phantom cases in all, at least 3 for each of the 11 modalities"
    )
    eval_fraction: float = Field(
        0.1, gt=0, le=0.5, description="share held out for evaluation, of what testing leaves; paper 0.1"
    )
    eval_cases: int = Field(
        0, ge=0, description="cases a modality at most, in each part but training; 0 takes all"
    )
    model: Literal["litemedsam", "medsam"] = Field("litemedsam", description="litemedsam or medsam")
    image_size: int = Field(
        64, ge=32, le=1024, multiple_of=16, description="px, side of the network's input; paper 256"
    )
    float_checkpoint: str = Field(
        "public", min_length=1, description="weights of the float model: public (LiteMedSAM's), or a path"
    )
    teacher: str = Field(
        "self", min_length=1, description="distils: self (float baseline) or medsam_vit_b.pth's path"
    )
    recipe: Literal["paper", "released", "deploy"] = Field(
        "paper", description="quantisers: paper, released or deploy"
    )
    released: Annotated[
        tuple[Switch, ...], BeforeValidator(_sequence_to_tuple), AfterValidator(_each_once)
    ] = Field((), description="what to do as the released code does; none is the paper")
    samples_per_modality: int | None = Field(
        1, ge=1, description="slices an epoch, Ns; None: smallest modality; paper 900"
    )
    ablation_share: float = Field(
        0.1, gt=0, lt=1, description="share of each modality in the ablation; paper a tenth"
    )
    batch_size: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_sequence_to_tuple)] = (
        Field(
            (4, 4, 4),
            min_length=3,
            max_length=3,
            description="slices a step in stages 1, 2, 3; paper 2, 4, 2",
        )
    )
    warmup_epochs: int = Field(1, ge=1, description="epochs of linear warm-up, Nw; paper 5")
    annealing_epochs: int = Field(1, ge=1, description="epochs of cosine annealing, Na; paper 10")
    epoch_slices: int = Field(
        1, ge=0, description="evaluation slices a modality that judge an epoch; 0 takes all"
    )
    box_jitter: float = Field(
        5.0, ge=0, le=64, description="px of 256 that sides of training boxes move out at most; baseline 5"
    )
    learning_rate: float = Field(0.0001, gt=0, description="after warm-up; paper 0.01")
    optimizer: Literal["sgd", "adam"] = Field("sgd", description="sgd with momentum 0.9 (paper), or adam")
    scale_rate: float = Field(
        1.0, gt=0, description="rate of activation scales over the weights', paper 1; adam: relative to them"
    )
    learns_from: Literal["labels", "float"] = Field(
        "labels",
        description="labels and stage 1's teacher (paper), or the float model's embeddings and masks alone",
    )
    processes: int = Field(1, ge=1, description="training processes, DDP world size; paper 4")
    decode_block: int = Field(32, ge=1, description="boxes decoded at once")
    benchmark_runs: int = Field(3, ge=3, description="timed runs an arm")
    vit_blocks: int = Field(
        1, ge=1, le=12, description="encoder blocks of MedSAM's ViT-B that are timed; whole 12"
    )
    backbones_compared: int = Field(
        3, ge=3, description="networks that notebook 06 compares, of those in timing/backbones.py; up to 6"
    )
    modalities_apart: int = Field(
        0, ge=0, description="modalities that notebook 10 also calibrates apart; 0 none"
    )
    recipes_compared: int = Field(
        3, ge=0, description="recipes that notebook 10 compares, of those in quant/variants.py; 0 all"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Params:
        if self.learns_from == "float" and (clash := {"loss", "distillation"} & set(self.released)):
            raise ValueError(
                f"released: found {', '.join(sorted(clash))} beside learns_from: float, "
                "which has losses of its own; leave them out"
            )
        if self.learns_from == "float" and self.teacher != "self":
            raise ValueError(f"teacher: found '{self.teacher}' beside learns_from: float; expected self")
        for name, root in self.data_roots.items():
            if not folder_name(root):
                raise ValueError(
                    f"{name}: found '{root}', a path without a folder name; give the data set's own folder"
                )
        return self

    @property
    def data_label(self) -> str:
        """`phantoms`, or the name of the folder the data come from."""
        return "phantoms" if self.data_root is None else folder_name(self.data_root)

    @property
    def data_roots(self) -> dict[str, str]:
        """The data folders that are given, by the parameter's name."""
        return {name: root for name in DATA_ROOTS if (root := getattr(self, name)) is not None}

    @property
    def data_description(self) -> str:
        """`data_label`, with the folders of validation and testing cases where they are other ones."""
        others = {"validated on": self.validation_root, "tested on": self.testing_root}
        return ", ".join(
            [
                self.data_label,
                *(f"{how} {folder_name(root)}" for how, root in others.items() if root is not None),
            ]
        )

    @property
    def label(self) -> str:
        """The name of the run's folder: the profile, followed by the data folder's name if there is one."""
        return self.profile if self.data_root is None else f"{self.profile}-{self.data_label}"

    def interpolation(self, training: bool) -> str:
        """How slices are resized: by area, as for the public checkpoint's own training.

        The released code resizes by nearest neighbour in training and cubically in deployment.
        """
        if "resize" not in self.released:
            return "area"
        return "nearest" if training else "cubic"

    @property
    def run_dir(self) -> Path:
        """The run's folder `<outputs_root>/<label>`. A relative one starts at the project's root."""
        return Path(self.outputs_root) / self.label

    @classmethod
    def check(cls, values: Mapping[str, Any], source: str) -> Params:
        """Validate plain values.

        Args:
            values: one value for each key; missing keys take the smoke profile's value.
            source: the name that opens each line of an error message, e.g. the file's path.

        Raises:
            ParamsError: a key is unknown or a value impossible.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ParamsError("\n".join(f"{source}: {line}" for line in _problems(error))) from None

    @classmethod
    def load(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> Params:
        """Read a YAML profile, replace some of its values, and validate the result.

        Args:
            path: the profile's file.
            overrides: values that replace the profile's.

        Raises:
            ParamsError: the file is missing or no YAML mapping, a key is given twice, or a value is wrong.
        """
        return cls.check({**_read_yaml(Path(path)), **(overrides or {})}, str(path))


def folder_name(path: str) -> str:
    """The name of the folder at a path, which may end in `/` or `..`. It is empty for `/` itself."""
    return Path(os.path.abspath(path)).name


def accepted(name: str) -> str:
    """Say in words what a parameter accepts, e.g. `a whole number, >= 32, a multiple of 16`."""
    schema = Params.model_json_schema()["properties"][name]
    return ", or ".join(_in_words(part) for part in schema.get("anyOf", [schema]))


def parse_override(text: str) -> tuple[str, Any]:
    """Turn the `key=value` of a command line into a key and a typed value.

    The value is read as YAML, unless the parameter takes text. A relative data folder starts at the current
    folder and is made absolute.

    Raises:
        ParamsError: there is no `=`.
    """
    key, equals, raw = text.partition("=")
    if not equals:
        raise ParamsError(f"--set {text}: expected key=value, for example --set seed=1")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError:
        value = raw
    if value is not None and key in Params.model_fields and accepted(key).startswith("text"):
        value = raw
    if key in DATA_ROOTS and value:
        value = os.path.abspath(os.path.expanduser(value))
    return key, value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        node, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        near = ", ".join(str(p) for p in sorted(path.parent.glob("*.yaml"))) or "none in that folder"
        raise ParamsError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); profiles: {near}"
        ) from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: expected lines of 'key: value', found {_shown(values)}")
    keys = [str(key.value) for key, _ in node.value]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ParamsError("\n".join(f"{path}: {key}: given twice; keep one line" for key in twice))
    return {str(key): value for key, value in values.items()}


def _problems(error: ValidationError) -> Iterator[str]:
    """Give one line for each wrong key: the value found and what is accepted."""
    told = set()
    for problem in error.errors(include_url=False):
        key = str(problem["loc"][0]) if problem["loc"] else ""
        if key in told:
            continue
        told.add(key)
        if problem["type"] == "extra_forbidden":
            near = _nearest(key)
            yield f"{key}: no such parameter" + (
                f"; did you mean {near}?" if near else "; see qmsam_core/params.py"
            )
        elif not key:
            yield problem["msg"].removeprefix("Value error, ")
        else:
            place = key + "".join(f"[{part}]" for part in problem["loc"][1:] if isinstance(part, int))
            reason = problem["msg"].removeprefix("Value error, ") if problem["type"] == "value_error" else ""
            hint = "; ".join(filter(None, [reason, _number_hint(problem["input"], key)]))
            yield f"{place}: found {_shown(problem['input'])}; accepted: {accepted(key)}" + (
                f" ({hint})" if hint else ""
            )


def _nearest(key: str) -> str | None:
    """Find the declared name most like `key`, by its initials (lr) or its spelling."""
    initials = [name for name in Params.model_fields if "".join(word[0] for word in name.split("_")) == key]
    return next(iter(initials or difflib.get_close_matches(key.lower(), Params.model_fields, n=1)), None)


def _number_hint(found: Any, key: str) -> str:
    """Explain why a number arrived as text. YAML 1.1 wants a dot in 1.0e-4."""
    if not isinstance(found, str) or "number" not in accepted(key):
        return ""
    if re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", found):
        mantissa, exponent = re.split("[eE]", found)
        sign = exponent if exponent[0] in "+-" else f"+{exponent}"
        return f"YAML reads {found} as text; write {mantissa}.0e{sign}"
    return "a number without quotes is expected"


def _shown(value: Any) -> str:
    kind = {str: "the text ", int: "the number ", float: "the number ", bool: "the truth value "}.get(
        type(value), ""
    )
    value = list(value) if isinstance(value, tuple) else value
    return "nothing" if value is None else f"{kind}{value!r}"


def _in_words(schema: dict[str, Any]) -> str:
    kinds = {
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
        "null": "null",
        "array": "a list",
    }
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        length = f" of {schema['minItems']}" if "minItems" in schema else ""
        return f"a list{length}, each {_in_words(schema['items'])}"
    words = [kinds[schema["type"]]]
    bounds = {
        "minimum": ">=",
        "exclusiveMinimum": ">",
        "maximum": "<=",
        "exclusiveMaximum": "<",
        "multipleOf": "a multiple of",
    }
    words += [f"{sign} {schema[bound]}" for bound, sign in bounds.items() if bound in schema]
    words += ["of letters, digits, '.', '_' and '-' alone"] if "pattern" in schema else []
    words += ["not empty"] if "minLength" in schema else []
    return ", ".join(words)
