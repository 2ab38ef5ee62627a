"""Training: losses, stages, the training loop, and functions that run one stage from files to files."""

from .calibration import calibration_slices, quantise_and_calibrate
from .judge import evaluate
from .loop import Data, fit
from .losses import distillation_loss, embedding_iou, mask_iou, segmentation_loss
from .pipeline import launch_stage, make_float_baseline, make_teacher, run_stage
from .stage_data import evaluation_batches, make_data
from .stages import STAGES, Schedule, Stage, protocol, schedule_of, stage_budgets, stage_summary, teacher_name
from .teacher import CachedEncoder, EmbeddingCache, Teacher
from .trainer import Job, TrainingError

__all__ = [
    "STAGES", "CachedEncoder", "Data", "EmbeddingCache", "Job", "Schedule", "Stage", "Teacher",
    "TrainingError", "calibration_slices", "distillation_loss", "embedding_iou", "evaluate",
    "evaluation_batches", "fit", "launch_stage", "make_data", "make_float_baseline", "make_teacher",
    "mask_iou", "protocol", "quantise_and_calibrate", "run_stage", "schedule_of", "segmentation_loss",
    "stage_budgets", "stage_summary", "teacher_name",
]  # fmt: skip
