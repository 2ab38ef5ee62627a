"""Float networks: LiteMedSAM, MedSAM and their small siblings, with the key names of the public checkpoints."""

from .checkpoints import CheckpointError, load_checkpoint, read_state, save_checkpoint
from .layers import MatMul
from .sam import CONFIGS, Sam, SamConfig, build_model, count_parameters

__all__ = [
    "CONFIGS", "CheckpointError", "MatMul", "Sam", "SamConfig", "build_model", "count_parameters", "load_checkpoint", "read_state", "save_checkpoint",
]  # fmt: skip
