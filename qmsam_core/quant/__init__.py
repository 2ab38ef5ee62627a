"""Quantisation: recipes as data, conversion of a float model by replacing its layers, and storage."""

from .calibration import calibrate
from .convert import QuantMatMul, fold_batch_norm, quantize
from .recipes import PARTS, RECIPES, Recipe, find_recipe
from .scales import scale_parameters
from .storage import describe_model, facts_of, load_model, save_model, save_packed

__all__ = [
    "PARTS", "RECIPES", "QuantMatMul", "Recipe", "calibrate", "describe_model", "facts_of", "find_recipe",
    "fold_batch_norm", "load_model", "quantize", "save_model", "save_packed", "scale_parameters",
]  # fmt: skip
