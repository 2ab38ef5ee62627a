"""Save and load a float or quantised model as one file that describes itself.

The description holds configuration, input size, recipe and quantised parts.
"""

import json
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

from brevitas import config
from safetensors import SafetensorError, safe_open

from ..models import (
    CONFIGS,
    CheckpointError,
    Sam,
    build_model,
    load_state,
    read_state,
    save_checkpoint,
    save_state,
)
from ..models.vit import ViTConfig
from .convert import quantize
from .packed import PACKED, VERSION, pack, unpack
from .recipes import RECIPES, Recipe
from .scales import finish_statistics


def save_model(model: Sam, path: str | Path, **facts: object) -> str:
    """Write weights and description to one safetensors file, atomically, and return its SHA-256.

    `facts` are added to the description, which is stored as JSON in the metadata.
    """
    return save_checkpoint(model, path, metadata_of(model, **facts))


def save_packed(model: Sam, path: str | Path, **facts: object) -> str:
    """Write a quantised model as `save_model` does, but its weights as int8 codes and their scales.

    The file has about a quarter of the size. `load_model` reads it as any other, and the model it returns
    gives the same output bit for bit. Weights are then rounded to their codes, so it is not for training on.

    Raises:
        CheckpointError: the model is not quantised, or has weights of more than 8 bits.
    """
    if not getattr(model, "quantised_parts", ()):
        raise CheckpointError(f"{path}: the model is float; expected a quantised one, which has int8 codes")
    own = {PACKED: VERSION, "recipe_fields": asdict(model.recipe)}  # in case `RECIPES` says otherwise later
    return save_state(pack(model), path, metadata_of(model, **facts, **own))


def metadata_of(model: Sam, **facts: object) -> dict[str, str]:
    """Return the metadata of a model's file: its description and `facts`, as JSON under the key `qmsam`."""
    recipe = getattr(model, "recipe", None)
    description = {
        "model": model.config.name,
        "image_size": model.image_size,
        "recipe": recipe.name if recipe else "float",
        "parts": list(getattr(model, "quantised_parts", ())),
        **facts,
    }
    named = CONFIGS[model.config.name]
    for name in ("frame", "preprocessing"):
        if getattr(model.config, name) != getattr(named, name):
            description[name] = getattr(model.config, name)
    if isinstance(named.encoder, ViTConfig) and model.config.encoder != named.encoder:
        description["depth"] = model.config.encoder.depth
    if recipe and RECIPES.get(recipe.name) != recipe:  # a variant of an ablation
        description["recipe_fields"] = asdict(recipe)
    return {"qmsam": json.dumps(description)}


def describe_model(path: str | Path) -> dict:
    """Read the description that `save_model` wrote.

    Raises:
        CheckpointError: the file is missing, is not safetensors, or was written by another program.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a model saved by this study")
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["qmsam"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: not a model saved by this study ({error}); expected safetensors with a description"
        ) from error


OWN = ("model", "image_size", "frame", "preprocessing", "recipe", "parts", "depth", "recipe_fields", PACKED)
"""Keys of a description that follow from the model."""


def facts_of(path: str | Path) -> dict:
    """Return the `facts` with which a model was saved, such as its origin. Raises as `describe_model`."""
    return {key: value for key, value in describe_model(path).items() if key not in OWN}


def load_model(path: str | Path, image_size: int | None = None) -> Sam:
    """Rebuild the model that `save_model` or `save_packed` wrote, with the same configuration and output.

    With another `image_size` than it was saved with, weights and scales stay and the grid of the embedding
    changes.

    Raises:
        CheckpointError: see `describe_model`; or the weights do not fit the description.
    """
    facts = describe_model(path)
    state = unpack(read_state(path), facts, path)
    others = {name: facts.get(name) for name in ("depth", "frame", "preprocessing")}
    model = build_model(facts["model"], image_size or facts["image_size"], **others)
    if facts["parts"]:
        recipe = Recipe(**facts["recipe_fields"]) if "recipe_fields" in facts else facts["recipe"]
        model = quantize(model, recipe, facts["parts"])
        finish_statistics(model)
    # Brevitas would make every quantiser again in case its settings came from the weights; ours do not.
    with patch.object(config, "REINIT_ON_STATE_DICT_LOAD", False):
        load_state(model, state, path)
    return model.eval()
