"""Quantisation: recipes as data, conversion of a float model by replacing its layers, and storage."""

import warnings

# Before the imports, because importing Brevitas warns of an optional package that this study does not use.
warnings.filterwarnings("ignore", message="fast_hadamard_transform package not found", category=UserWarning)

from .convert import QuantMatMul, calibrate, fold_batch_norm, quantize, scale_parameters  # noqa: E402
from .recipes import PARTS, RECIPES, Recipe, find_recipe  # noqa: E402
from .storage import describe_model, load_model, save_model  # noqa: E402

__all__ = [
    "PARTS", "RECIPES", "QuantMatMul", "Recipe", "calibrate", "describe_model", "find_recipe",
    "fold_batch_norm", "load_model", "quantize", "save_model", "scale_parameters",
]  # fmt: skip
