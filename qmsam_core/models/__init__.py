"""Float networks: LiteMedSAM and MedSAM, with the key names of the public checkpoints."""

from ..provenance.weights import PUBLIC, SHIPPED, CheckpointError, checkpoint_path
from .checkpoints import (
    load_checkpoint,
    load_state,
    read_state,
    same_weights,
    save_checkpoint,
    save_state,
    weights_hash,
)
from .layers import MatMul
from .sam import CONFIGS, Sam, SamConfig, build_model, count_parameters, parameter_table

__all__ = [
    "CONFIGS",
    "PUBLIC",
    "SHIPPED",
    "CheckpointError",
    "MatMul",
    "Sam",
    "SamConfig",
    "build_model",
    "checkpoint_path",
    "count_parameters",
    "load_checkpoint",
    "load_state",
    "parameter_table",
    "read_state",
    "same_weights",
    "save_checkpoint",
    "save_state",
    "weights_hash",
]
