"""Data: cases in the challenge's format, the index of slices, sampling, transforms and synthetic phantoms.

`data.slices` and `data.sampling` need PyTorch. They are not imported here, so that the rest starts fast.
"""

from .cases import Case, CaseError, read_segmentation, tight_boxes, write_segmentation
from .index import DataFolderError, SliceIndex, SliceRef
from .transforms import EvalTransform, Geometry, TrainTransform

__all__ = [
    "Case",
    "CaseError",
    "DataFolderError",
    "EvalTransform",
    "Geometry",
    "SliceIndex",
    "SliceRef",
    "TrainTransform",
    "read_segmentation",
    "tight_boxes",
    "write_segmentation",
]
