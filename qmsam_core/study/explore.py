"""Draw a box on a slice and see the mask at once: what notebook 11 offers a person, and what it shows when nobody is there."""

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
from ..evaluate.figure_style import new_figure

HEADLESS = "QMSAM_HEADLESS"
"""Set in the environment of notebooks that nobody watches."""


def somebody_is_there() -> bool:
    """Whether a person may draw: not in a run of the study."""
    return not os.environ.get(HEADLESS)


class BoxExplorer:
    """One case at a time, one slice of it, one box: encodes a slice when it is first asked about, decodes every box drawn on it.

    Args:
        engine: see `deploy.Engine`.
        cases: to choose from, with boxes.
        interpolation: how slices are resized.

    Attributes:
        mask: of the last box, bool (H,W). seconds: what encoding the slice and decoding that box took.
    """

    def __init__(self, engine: Engine, cases: Sequence[Case], interpolation: str = "area") -> None:
        self.engine, self.cases, self.interpolation = engine, list(cases), interpolation
        self.seconds = {"encode": 0.0, "decode": 0.0}
        self.mask: np.ndarray | None = None
        self.figure: Figure | None = None
        self.show_case(0)

    def show_case(self, number: int) -> None:
        """Turn to a case, of a volume to the slice with most labelled voxels."""
        self.case = self.cases[number]
        self.show_slice(fullest_slice(self.case) or 0)

    def show_slice(self, z: int) -> None:
        """Turn to a slice; nothing is computed before a box is drawn on it."""
        if not 0 <= z < self.case.n_slices:
            raise ValueError(f"slice {z}: {self.case.name} has {self.case.n_slices}")
        self.z, self._embedding, self.mask = z, None, None
        self.image = self.case.slice_image(z)
        self.geometry = Geometry.of(*self.image.shape[:2], self.engine.image_size)
        self.draw(None)

    def given_boxes(self) -> np.ndarray:
        """The case's own boxes that cross this slice: (N,4) x_min, y_min, x_max, y_max, pixels."""
        return boxes_on(self.case, self.z if self.case.is_volume else None)

    def segment(self, box: Sequence[float]) -> np.ndarray:
        """Mask bool (H,W) of a box (4,) on the slice shown, in pixels, corners in any order; updates `seconds` and the picture.

        Raises:
            ValueError: a box that lies outside the slice.
        """
        x, y = sorted((box[0], box[2])), sorted((box[1], box[3]))
        height, width = self.image.shape[:2]
        if x[0] >= width or y[0] >= height or x[1] < 0 or y[1] < 0:
            raise ValueError(
                f"box {[round(float(v), 1) for v in box]}: lies outside the slice of {width} x {height} pixels"
            )
        corners = np.clip([x[0], y[0], x[1], y[1]], 0, [width - 1, height - 1, width - 1, height - 1])
        self.seconds["encode"] = 0.0
        if self._embedding is None:
            started = time.perf_counter()
            self._embedding = self.engine.encode(self.geometry.image(self.image, self.interpolation)[None])
            self.seconds["encode"] = time.perf_counter() - started
        started = time.perf_counter()
        logits = self.engine.decode(self._embedding, self.geometry.boxes(corners[None]))
        self.mask = self.geometry.mask_to_image(logits)[0]
        self.seconds["decode"] = time.perf_counter() - started
        self.draw(corners)
        return self.mask

    def draw(self, box: np.ndarray | None) -> None:
        """The slice, and the last box with its mask and what they took; before the first box, the case's own boxes."""
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

    def show(self, live: bool = False, size: float = 5.0) -> Figure:
        """The picture; `live` makes it one of pyplot's, on whose canvas (`%matplotlib widget`) boxes can be dragged."""
        self.figure = (
            pyplot.subplots(figsize=(size, size), layout="constrained")[0]
            if live
            else new_figure(width=size, height=size)[0]
        )
        self.draw(None)
        self._selector = RectangleSelector(
            self.figure.axes[0],
            lambda press, release: self.segment((press.xdata, press.ydata, release.xdata, release.ydata)),
            button=[1],
        )
        return self.figure

    def controls(self) -> ipywidgets.Widget:
        """A list of the cases, and a slider over the slices."""
        names = ipywidgets.Dropdown(
            options=[(case.name, k) for k, case in enumerate(self.cases)], description="case"
        )
        slices = ipywidgets.IntSlider(
            self.z, 0, self.case.n_slices - 1, description="slice", continuous_update=False
        )

        def to_case(change: dict) -> None:
            self.show_case(change["new"])
            slices.max, slices.value = max(self.case.n_slices - 1, self.z), self.z
            slices.max = self.case.n_slices - 1

        names.observe(to_case, "value")
        slices.observe(lambda change: change["new"] == self.z or self.show_slice(change["new"]), "value")
        return ipywidgets.HBox([names, slices])
