"""Synthetic cases of all 11 modalities, so that the study runs without any patient data.

They exercise every part of the pipeline. They say nothing about accuracy on patients.
"""

from .collection import MODALITIES, case_counts, make_case, write_phantoms

__all__ = ["MODALITIES", "case_counts", "make_case", "write_phantoms"]
