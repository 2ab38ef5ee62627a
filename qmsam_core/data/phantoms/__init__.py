"""Synthetic cases of all 11 modalities, so that the study runs without any patient data.

Each is drawn from the physics that makes the modality look as it does; objects touch, nest and are no ellipses (the ellipse inscribed
in the box scores a mean Dice of 0.75 to 0.85, about 0.81 on real data), and some borders cannot be seen. They exercise every part
of the pipeline; they say nothing about accuracy on patients.
"""

from .collection import MODALITIES, case_counts, make_case, write_phantoms

__all__ = ["MODALITIES", "case_counts", "make_case", "write_phantoms"]
