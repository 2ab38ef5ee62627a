"""The index of slices: made from the headers of a folder's case files, kept as a cache, searched by bisection (paper section 2.1)."""

from .folder import DataFolderError
from .slice_index import SliceIndex, SliceRef

__all__ = ["DataFolderError", "SliceIndex", "SliceRef"]
