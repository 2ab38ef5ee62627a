"""Colours of labels, for the formats that hold them."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps

COLOURS = (255 * np.array(colormaps["tab20"].colors)).astype(int)
"""RGB 0..255, (20, 3). Label k has the colour of row (k - 1) modulo 20."""
