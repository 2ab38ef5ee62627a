"""Choose how many boxes are decoded at once within a memory limit."""

import re
import resource
from pathlib import Path

EMBEDDINGS_A_BOX = 12
"""Decoder memory per box decoded at once, in units of the image's embedding (LiteMedSAM: 4 MB).
Measured on OpenVINO with 8 and 32 boxes: 9 (int8) to 12 (float). Most of it holds the image's tokens in the
decoder's layers and the enlarged maps. All of these have the embedding's size."""

BYTES_A_PIXEL = 9
"""Memory per slice pixel when masks are enlarged: a float32 mask while it is made, its binary form,
a constant, and a reserve."""


def resident_bytes() -> int:
    """Return the memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def block_within(limit: int, held: int, embedding_bytes: int, pixels: int) -> int:
    """Return how many boxes can be decoded at once; 0 if not even one fits.

    Args:
        limit: bytes allowed in all.
        held: bytes held before the first decoding, cases included.
        embedding_bytes: bytes of the embedding of one image.
        pixels: pixels of a slice.
    """
    return max(0, (limit - held - BYTES_A_PIXEL * pixels) // (EMBEDDINGS_A_BOX * embedding_bytes))


def equal_blocks(count: int, most: int) -> list[slice]:
    """Split `count` boxes into as few blocks of at most `most` as possible, of nearly equal sizes.

    Engines compile for each block size they meet.
    """
    blocks = -(-count // most)
    edges = [count * k // blocks for k in range(blocks + 1)] if count else [0]
    return [slice(a, b) for a, b in zip(edges, edges[1:])]


def memory_size(text: str) -> int:
    """Return the bytes of `1.5G`, `800M` or `1500` (MB), powers of 1024. Other texts raise `ValueError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG]?)B?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise ValueError(f"{text!r}: expected a size such as 1.5G, 800M or 1500 (MB)")
    return int(float(found[1]) * 2 ** (30 if found[2].upper() == "G" else 20))
