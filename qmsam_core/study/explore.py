"""A picture of a slice on which boxes are drawn and their masks appear. `explore_panel` adds buttons."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from matplotlib import pyplot
from matplotlib.backend_bases import MouseEvent
from matplotlib.figure import Figure
from matplotlib.widgets import RectangleSelector

from ..data import Case
from ..deploy.engines import Engine
from ..evaluate.case_figures import boxes_on, draw_box, draw_mask, draw_slice, fullest_slice, object_colour
from .drawn_boxes import ELLIPSE, FLOAT, INT8, DrawnBoxes, warm_up

HEADLESS = "QMSAM_HEADLESS"
"""Environment variable that is set when a notebook runs unattended."""

ALL = "all three"
LINES = {FLOAT: ("#2fb5ff", "solid"), INT8: ("#ff9f1c", "dashed"), ELLIPSE: ("#ff7ac6", "dotted")}
"""Colour and style of a model's outlines when all are shown together."""


def somebody_is_there() -> bool:
    """Return whether a person can draw boxes. False in a run of the study."""
    return not os.environ.get(HEADLESS)


class BoxExplorer:
    """Show one slice of one case, the boxes drawn on it, and their masks by one model or by all together.

    Args:
        engines: `FLOAT` and `INT8` -> engine. Each runs once, so that later times are those of use.
        cases: cases to choose from, with or without boxes of their own.
        interpolation: how slices are resized.

    Attributes:
        case: case shown.
        z: number of the slice shown, 0 for an image.
        drawn: boxes on the slice, with masks and times.
        view: what is shown, one of `views`.
        figure: picture; None before `show`.
    """

    def __init__(
        self, engines: Mapping[str, Engine], cases: Sequence[Case], interpolation: str = "area"
    ) -> None:
        self.engines, self.cases, self.interpolation = dict(engines), list(cases), interpolation
        self.view, self.figure = INT8, None
        warm_up(self.engines)
        self.show_case(0)

    @property
    def views(self) -> tuple[str, ...]:
        """What can be shown: each model's masks, or the outlines of all."""
        return (*self.drawn.models, ALL)

    @property
    def shown_models(self) -> tuple[str, ...]:
        """Models whose masks are shown."""
        return self.drawn.models if self.view == ALL else (self.view,)

    def show_case(self, number: int) -> None:
        """Show a case by its number. Of a volume, show the slice with most labelled voxels."""
        self.case = self.cases[number]
        self.show_slice(fullest_slice(self.case) or 0)

    def show_slice(self, z: int) -> None:
        """Show slice `z` without drawn boxes. Raises `ValueError` for no such slice."""
        if not 0 <= z < self.case.n_slices:
            raise ValueError(f"slice {z}: {self.case.name} has {self.case.n_slices}")
        self.z = z
        self.drawn = DrawnBoxes(self.case.slice_image(z), self.engines, self.interpolation)
        if self.figure is not None:
            self._draw_image()
        self.draw()

    def given_boxes(self) -> Sequence[Sequence[int]]:
        """Return the case's own boxes that cross this slice: (N, 4) x_min, y_min, x_max, y_max, pixels."""
        if self.case.boxes is None:
            return []
        return boxes_on(self.case, self.z if self.case.is_volume else None)

    def add(self, *boxes: Sequence[float]) -> None:
        """Add boxes (4,), segment them and show their masks. Raises `ValueError` as `DrawnBoxes.add`."""
        for box in boxes:
            self.drawn.add(box)
        self.draw()

    def undo(self) -> None:
        """Take the last box and its mask away."""
        self.drawn.undo()
        self.draw()

    def clear(self) -> None:
        """Take all boxes and masks away."""
        self.drawn.clear()
        self.draw()

    def show_view(self, view: str) -> None:
        """Show other masks of the same boxes, see `views`. Raises `ValueError` for another view."""
        if view not in self.views:
            raise ValueError(f"view {view!r}: expected one of {', '.join(self.views)}")
        self.view = view
        self.draw()

    def draw(self) -> None:
        """Segment what is new, and draw boxes and masks. Without drawn boxes, draw the case's own thinly."""
        masks = {model: self.drawn.masks(model) for model in self.shown_models}
        if self.figure is None:
            return
        axes = self.figure.axes[0]
        for artist in self._overlay:
            artist.remove()
        before = set(axes.get_children())
        if not self.drawn.boxes:
            for box in self.given_boxes():
                draw_box(axes, box, thickness=0.6)
        for number, box in enumerate(self.drawn.boxes, start=1):
            colour = object_colour(number)
            draw_box(axes, box, *(() if self.view == ALL else (colour,)))
            for model, made in masks.items():
                if self.view == ALL:
                    draw_mask(axes, made[number - 1], LINES[model][0], 2, LINES[model][1], tinted=False)
                else:
                    draw_mask(axes, made[number - 1], colour)
        self._overlay = [artist for artist in axes.get_children() if artist not in before]
        self.figure.canvas.draw_idle()

    def show(self, dragged: Callable[[Sequence[float]], None] | None = None) -> Figure:
        """Make the picture. Pyplot makes it, so that boxes can be dragged on it (`%matplotlib widget`).

        Args:
            dragged: takes the box (4,) that was dragged; None adds it.
        """
        self._dragged = dragged or self.add
        with pyplot.ioff():  # else the notebook shows it once more, apart from the buttons
            self.figure = pyplot.figure(figsize=(5.2, 5.2), layout="none", facecolor="none")
        self.figure.add_axes((0, 0, 1, 1))
        self._draw_image()
        self.draw()
        return self.figure

    def _draw_image(self) -> None:
        axes = self.figure.axes[0]
        axes.clear()
        self._overlay = []
        draw_slice(axes, self.drawn.image, [])
        if hasattr(self, "_selector"):
            self._selector.disconnect_events()
        self._selector = RectangleSelector(axes, self._released, button=[1], props={"facecolor": "none"})

    def _released(self, press: MouseEvent, release: MouseEvent) -> None:
        box = (press.xdata, press.ydata, release.xdata, release.ydata)
        if box[0] != box[2] and box[1] != box[3]:  # else a click without a drag
            self._dragged(box)
