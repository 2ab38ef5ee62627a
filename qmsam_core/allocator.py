"""The C library's allocator: told to keep training's blocks, and to give them back between two kinds of work."""

import ctypes
import gc
import sys

MALLOC = {  # else glibc returns training's large blocks to the system at every step, and page faults double its time
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
}


def return_memory() -> None:
    """Give memory that is free but held back under `MALLOC` to the system, before work whose blocks have other sizes: another resolution of training,
    another process. Blocks of one size are of little use to the next, and both kinds together can be more than there is."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)
