"""Surface area in a 2x2x2 neighbourhood of voxels by marching cubes, as in DeepMind's surface-distance.

The challenge computes NSD with these areas. MONAI has the same table, but importing MONAI takes seconds in
every worker process. The areas here are float64, so there is no rounding to explain. The tests check that
both tables are equal.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# The triangles of neighbourhoods 0..127. Each is written as its normal, in eighths of the voxel's faces. The
# normal's length is the area, its signs do not matter. "022+111" means (0, 2, 2)/8 and (1, 1, 1)/8. A
# neighbourhood's complement has the same surface, so 128..255 mirror these.
TRIANGLES = """
- 111 111 220+220 111 202+202 111+111 111+222+400 111 111+111 202+202 111+222+400 220+220 111+222+400
111+222+400 400+400 111 022+022 111+111 040+111+222 111+111 004+111+222 111+111+111 111+111+222+222 111+111
022+022+111 111+202+202 022+111+202+333 111+220+220 022+111+220+333 111+111+222+400 111+222+400 111 111+111
022+022 040+111+222 111+111 111+202+202 022+022+111 022+111+202+333 111+111 111+111+111 004+111+222
111+111+222+222 111+220+220 111+111+222+400 022+111+220+333 111+222+400 220+220 040+111+222 040+111+222
040+040 111+220+220 111+202+220+333 040+111+111+222 040+111+222 111+220+220 040+111+111+222 111+202+220+333
040+111+222 220+220+220+220 111+220+220 111+220+220 220+220 111 111+111 111+111 111+220+220 022+022
004+111+222 022+022+111 022+111+220+333 111+111 111+111+111 111+202+202 111+111+222+400 040+111+222
111+111+222+222 022+111+202+333 111+222+400 202+202 004+111+222 111+202+202 111+202+220+333 004+111+222
004+004 004+111+111+222 004+111+222 111+202+202 004+111+111+222 202+202+202+202 111+202+202 111+202+220+333
004+111+222 111+202+202 202+202 111+111 111+111+111 022+022+111 040+111+111+222 022+022+111 004+111+111+222
022+022+022+022 022+022+111 111+111+111 111+111+111+111 004+111+111+222 111+111+111 040+111+111+222
111+111+111 022+022+111 111+111 111+222+400 111+111+222+222 022+111+202+333 040+111+222 022+111+220+333
004+111+222 022+022+111 022+022 111+111+222+400 111+111+111 111+202+202 111+111 111+220+220 111+111 111+111
111
"""


@lru_cache(maxsize=256)
def surface_areas(spacing: tuple[float, float, float]) -> np.ndarray:
    """Surface in mm2 of each neighbourhood code 0..255, float64 (256,). `spacing` is mm along each axis."""
    a, b, c = spacing
    faces = np.array([b * c, a * c, a * b]) / 8
    half = [_area(triangles, faces) for triangles in TRIANGLES.split()]
    return np.array(half + half[::-1])


def _area(triangles: str, faces: np.ndarray) -> float:
    if triangles == "-":
        return 0.0
    return sum(
        float(np.linalg.norm(faces * [int(digit) for digit in normal])) for normal in triangles.split("+")
    )
