"""Float networks: LiteMedSAM, MedSAM and their small siblings, with the key names of the public checkpoints."""

from .checkpoints import CheckpointError, load_checkpoint, read_state, same_weights, save_checkpoint
from .layers import MatMul
from .sam import CONFIGS, Sam, SamConfig, build_model, count_parameters, parameter_table

__all__ = [
    "CONFIGS", "CheckpointError", "MatMul", "Sam", "SamConfig", "build_model", "count_parameters", "load_checkpoint",
    "parameter_table", "read_state",
    "same_weights", "save_checkpoint",
]  # fmt: skip
