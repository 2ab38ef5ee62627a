"""Evaluate predictions and speed: the challenge's metrics, the paper's numbers beside ours, the figures."""

from .metrics import CaseScore, inscribed_ellipse, score_case, score_cases
from .paper_tables import PAPER
from .tables import beside, caption, per_modality, rendered, styled

__all__ = [
    "PAPER",
    "CaseScore",
    "beside",
    "caption",
    "inscribed_ellipse",
    "per_modality",
    "rendered",
    "score_case",
    "score_cases",
    "styled",
]
