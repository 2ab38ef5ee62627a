"""Settings of the C library's allocator: keep training's blocks, and release them between kinds of work."""

import ctypes
import gc

# Otherwise glibc returns training's large blocks to the system at every step. Page faults double its time.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}


def return_memory() -> None:
    """Return to the system the free memory that the settings in `MALLOC` hold back.

    Call it before work whose blocks have other sizes: training at another resolution, or another process.
    Blocks of one size are of little use to the next work. Both kinds together can exceed the memory.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)
