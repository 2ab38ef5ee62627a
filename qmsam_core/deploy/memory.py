"""How many boxes are decoded at once within a memory limit."""

import re
import resource
import sys
from pathlib import Path

EMBEDDINGS_A_BOX = 12
"""Memory of the decoder for each box it has at once, in embeddings of the image (LiteMedSAM: 4 MB). Measured on OpenVINO with 8 and 32 boxes:
9 (int8) to 12 (float); most of it are the image's tokens in the decoder's layers and the enlarged maps, which all have the embedding's size."""

BYTES_A_PIXEL = 9
"""Memory of the way back to image size for each pixel of a slice: an enlarged mask in float32 while it is made, its binary form, a constant, and room."""


def resident_bytes() -> int:
    """Memory that this process holds now; its peak where the system tells no more."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def block_within(limit: int, held: int, embedding_bytes: int, pixels: int) -> int:
    """Boxes that can be decoded at once; 0 where not even one fits.

    Args:
        limit: bytes allowed in all. held: bytes held before the first decoding, cases included.
        embedding_bytes: of the embedding of one image. pixels: of a slice.
    """
    return max(0, (limit - held - BYTES_A_PIXEL * pixels) // (EMBEDDINGS_A_BOX * embedding_bytes))


def equal_blocks(count: int, most: int) -> list[slice]:
    """As few blocks of at most `most` as hold `count` boxes, of sizes as equal as can be: engines compile for each size they meet."""
    blocks = -(-count // most)
    edges = [count * k // blocks for k in range(blocks + 1)] if count else [0]
    return [slice(a, b) for a, b in zip(edges, edges[1:])]


def memory_size(text: str) -> int:
    """Bytes of `1.5G`, `800M` or `1500` (MB), powers of 1024. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG]?)B?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise ValueError(f"{text!r}: expected a size such as 1.5G, 800M or 1500 (MB)")
    return int(float(found[1]) * 2 ** (30 if found[2].upper() == "G" else 20))
