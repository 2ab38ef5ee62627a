"""Index of slices (paper section 2.1), built from file headers, cached on disk and searched by bisection."""

from .folder import DataFolderError
from .slice_index import SliceIndex, SliceRef

__all__ = ["DataFolderError", "SliceIndex", "SliceRef"]
