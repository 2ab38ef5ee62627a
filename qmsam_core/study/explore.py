"""Draw a box on a slice and see its mask at once, in notebook 11."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import ipywidgets
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.widgets import RectangleSelector

from ..data import Case
from ..data.transforms import Geometry
from ..deploy.engines import Engine
from ..evaluate.case_figures import boxes_on, draw_slice, fullest_slice

HEADLESS = "QMSAM_HEADLESS"
"""Environment variable that is set when a notebook runs unattended."""


def somebody_is_there() -> bool:
    """Return whether a person can draw boxes. False in a run of the study."""
    return not os.environ.get(HEADLESS)


class BoxExplorer:
    """Show one slice of one case, and segment the boxes drawn on it.

    A slice is encoded when its first box is drawn. Every box is decoded.

    Args:
        engine: see `deploy.Engine`.
        cases: cases to choose from, with boxes.
        interpolation: how slices are resized.

    Attributes:
        mask: mask of the last box, bool (H, W); None before the first box.
        seconds: seconds of the last box, by `encode` and `decode`. `encode` is 0 if the embedding existed.
    """

    def __init__(self, engine: Engine, cases: Sequence[Case], interpolation: str = "area") -> None:
        self.engine, self.cases, self.interpolation = engine, list(cases), interpolation
        self.seconds = {"encode": 0.0, "decode": 0.0}
        self.mask: np.ndarray | None = None
        self.figure: Figure | None = None
        self.show_case(0)

    def show_case(self, number: int) -> None:
        """Show a case by its number. Of a volume, show the slice with most labelled voxels."""
        self.case = self.cases[number]
        self.show_slice(fullest_slice(self.case) or 0)

    def show_slice(self, z: int) -> None:
        """Show slice `z`, and encode it only once a box is drawn. Raises `ValueError` for no such slice."""
        if not 0 <= z < self.case.n_slices:
            raise ValueError(f"slice {z}: {self.case.name} has {self.case.n_slices}")
        self.z, self._embedding, self.mask = z, None, None
        self.image = self.case.slice_image(z)
        self.geometry = Geometry.within(self.engine, *self.image.shape[:2]).with_preprocessing(
            interpolation=self.interpolation
        )
        self.draw(None)

    def given_boxes(self) -> np.ndarray:
        """Return the case's own boxes that cross this slice: (N, 4) x_min, y_min, x_max, y_max, pixels."""
        return boxes_on(self.case, self.z if self.case.is_volume else None)

    def segment(self, box: Sequence[float]) -> np.ndarray:
        """Segment a box on the slice shown, and update `seconds` and the picture.

        Args:
            box: (4,) x, y of two opposite corners in pixels, in any order.

        Returns:
            Mask, bool (H, W).

        Raises:
            ValueError: the box lies outside the slice.
        """
        x, y = sorted((box[0], box[2])), sorted((box[1], box[3]))
        height, width = self.image.shape[:2]
        if x[0] >= width or y[0] >= height or x[1] < 0 or y[1] < 0:
            raise ValueError(
                f"box {[round(float(v), 1) for v in box]}: "
                f"lies outside the slice of {width} x {height} pixels"
            )
        corners = np.clip([x[0], y[0], x[1], y[1]], 0, [width - 1, height - 1, width - 1, height - 1])
        self.seconds["encode"] = 0.0
        if self._embedding is None:
            started = time.perf_counter()
            self._embedding = self.engine.encode(self.geometry.image(self.image)[None])
            self.seconds["encode"] = time.perf_counter() - started
        started = time.perf_counter()
        logits = self.engine.decode(self._embedding, self.geometry.boxes(corners[None]))
        self.mask = self.geometry.mask_to_image(logits)[0]
        self.seconds["decode"] = time.perf_counter() - started
        self.draw(corners)
        return self.mask

    def draw(self, box: np.ndarray | None) -> None:
        """Draw the slice with `box`, the mask and the times. If `box` is None, draw the case's boxes."""
        if self.figure is None:
            return
        axes = self.figure.axes[0]
        axes.clear()
        boxes = self.given_boxes() if box is None else box[None]
        draw_slice(axes, self.image, boxes, None if self.mask is None else self.mask.astype(np.uint8))
        encode, decode = (f"{1e3 * self.seconds[part]:.0f} ms" for part in ("encode", "decode"))
        axes.set_title(
            "drag a box"
            if self.mask is None
            else f"image {encode if self.seconds['encode'] else 'known'}, box {decode}"
        )
        self.figure.canvas.draw_idle()

    def show(self) -> Figure:
        """Make the picture. Pyplot makes it, so that boxes can be dragged on it (`%matplotlib widget`)."""
        self.figure = pyplot.subplots(figsize=(5, 5), layout="constrained")[0]
        self.draw(None)
        self._selector = RectangleSelector(
            self.figure.axes[0],
            lambda press, release: self.segment((press.xdata, press.ydata, release.xdata, release.ydata)),
            button=[1],
        )
        return self.figure

    def controls(self) -> ipywidgets.Widget:
        """Make a list of the cases and a slider over the slices."""
        names = ipywidgets.Dropdown(
            options=[(case.name, k) for k, case in enumerate(self.cases)], description="case"
        )
        slices = ipywidgets.IntSlider(
            self.z, 0, self.case.n_slices - 1, description="slice", continuous_update=False
        )

        def to_case(change: dict) -> None:
            self.show_case(change["new"])
            # the slider never holds a value above its maximum, so the maximum is lowered last
            slices.max, slices.value = max(self.case.n_slices - 1, self.z), self.z
            slices.max = self.case.n_slices - 1

        names.observe(to_case, "value")
        slices.observe(lambda change: change["new"] == self.z or self.show_slice(change["new"]), "value")
        return ipywidgets.HBox([names, slices])
