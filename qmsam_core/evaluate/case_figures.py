"""Pictures of cases: boxes and masks drawn on the image, for the contact sheet and for Figures 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import find_objects

from .figure_style import WIDTH, new_figure
from .metrics import modality_of
from .paper_tables import MODALITIES, harmonised

# Objects of one image in turn, bright enough for any image; the box has a colour of its own.
_OBJECTS = ("#2fb5ff", "#ff9f1c", "#19d3a2", "#ff7ac6", "#b48cff", "#ff5a36")
_BOX = "#f0e442"
_MANY = 12  # objects from which lines are drawn thinner
_SHOWN_PX = 384  # images are thinned to about this side: pictures are small, files should be


@dataclass(frozen=True)
class QualitativeRow:
    """One case of Figures 2 and 3.

    `image` uint8 (H, W) or (H, W, 3), `boxes` (N, 4) px, `masks` label arrays (H, W) by panel name in the order shown,
    `dsc` 0..1 by panel name where one is known, `title` stands on the left.
    """

    title: str
    image: np.ndarray
    boxes: np.ndarray
    masks: Mapping[str, np.ndarray]
    dsc: Mapping[str, float]

    @classmethod
    def of(
        cls, case: Any, masks: Mapping[str, np.ndarray], dsc: Mapping[str, float], title: str = ""
    ) -> QualitativeRow:
        """A row from a case and predictions of its full shape: of a volume, the slice with most labelled voxels."""
        z = fullest_slice(case)
        planes = {"ground truth": case.labels, **masks}
        cut = {name: mask if z is None else mask[z] for name, mask in planes.items()}
        image = case.images if z is None else case.images[z]
        return cls(
            title or case.name.removeprefix("2DBox_").removeprefix("3DBox_"),
            image,
            boxes_on(case, z),
            cut,
            dsc,
        )


def qualitative_figure(rows: Sequence[QualitativeRow]) -> Figure:
    """Figures 2 and 3: a row a case; image and box, then each mask with its DSC underneath.

    The first picture is the whole image; the masks are shown close up where the boxes fill little of it.
    """
    panels = ["image and box", *rows[0].masks]
    cell = WIDTH / 4
    figure, grid = new_figure(
        len(rows),
        len(panels),
        width=cell * len(panels) + 0.2,
        height=(cell + 0.28) * len(rows) + 0.25,
        squeeze=False,
    )
    for axes, row in zip(grid, rows):
        _draw_row(axes, row)
        axes[0].set_ylabel(_shortened(row.title), fontsize=9)
    for panel, name in zip(grid[0], panels):
        panel.set_title(name)
    return figure


def gallery_figure(rows: Sequence[QualitativeRow]) -> Figure:
    """As `qualitative_figure` with a column a case, all pictures of one size: for many cases, wide rather than high."""
    panels = ["image and box", *rows[0].masks]
    cell = max(WIDTH / len(rows), 1.3)
    figure, grid = new_figure(
        len(panels),
        len(rows),
        width=cell * len(rows) + 0.2,
        height=(cell + 0.1) * len(panels) + 0.25,
        squeeze=False,
    )
    for axes, row in zip(grid.T, rows):
        _draw_row(axes, row)
        for panel in axes if _close_up(row) is None else axes[:1]:  # close-ups are square
            _square(panel, row.image)
        for panel in axes[1:]:
            panel.xaxis.label.set_size(10)
        axes[0].set_title(_shortened(row.title), fontsize=10)
    for panel, name in zip(grid[:, 0], panels):
        panel.set_ylabel(name, fontsize=10)
    return figure


def _draw_row(axes: Sequence[Axes], row: QualitativeRow) -> None:
    """The image with its boxes, then each mask, close up where the boxes fill little of the image, with its DSC."""
    draw_slice(axes[0], row.image, row.boxes)
    for panel, (name, mask) in zip(axes[1:], row.masks.items()):
        draw_slice(panel, row.image, row.boxes, mask, _close_up(row))
        panel.set_xlabel(f"DSC {100 * row.dsc[name]:.1f} %" if name in row.dsc else "")


def contact_sheet(cases: Sequence[Any], columns: int = 4, titles: Sequence[str] | None = None) -> Figure:
    """A picture a case with boxes and mask contours, sorted by modality in the paper's order.

    `cases` are `Case`s; of a volume the slice with most labelled voxels is shown. `titles` default to the modality in
    the name, with the slice's number. With `columns` cases of each modality a row is a modality.
    """
    titles = list(titles) if titles is not None else [harmonised(modality_of(case.name)) for case in cases]
    order = sorted(
        range(len(cases)),
        key=lambda i: MODALITIES.index(titles[i]) if titles[i] in MODALITIES else len(MODALITIES),
    )
    lines = -(-len(cases) // columns)
    figure, grid = new_figure(lines, columns, height=lines * (WIDTH / columns + 0.28), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, i in zip(grid.flat, order):
        z = fullest_slice(cases[i])
        image, labels = cases[i].images, cases[i].labels
        image, labels = (image, labels) if z is None else (image[z], None if labels is None else labels[z])
        draw_slice(axes, image, boxes_on(cases[i], z), labels)
        _square(axes, image)
        axes.set_title(titles[i] if z is None else f"{titles[i]}, z = {z}", fontsize=11)
    return figure


def fullest_slice(case: Any) -> int | None:
    """The slice of a volume to show: most labelled voxels, or the middle one without labels; None for an image."""
    if (
        case.images.ndim == 3
        and case.images.shape[-1] == 3
        and (case.labels is None or case.labels.ndim == 2)
    ):
        return None
    if case.labels is None or not case.labels.any():
        return case.images.shape[0] // 2
    return int(np.count_nonzero(case.labels, axis=(1, 2)).argmax())


def boxes_on(case: Any, z: int | None) -> np.ndarray:
    """The case's boxes on slice `z` as (N, 4) px, x_min, y_min, x_max, y_max; (0, 4) without boxes."""
    if case.boxes is None:
        return np.empty((0, 4))
    if z is None:
        return np.asarray(case.boxes)
    met = case.boxes[(case.boxes[:, 2] <= z) & (z <= case.boxes[:, 5])]
    return met[:, [0, 1, 3, 4]]


def draw_slice(
    axes: Axes,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray | None = None,
    view: tuple[slice, slice] | None = None,
) -> None:
    """Draw a slice uint8 (H,W) or (H,W,3), its boxes (N,4) and objects (labels (H,W)) outlined; `view` is what to show of it, rows and columns.

    Coordinates are those of the full image, a pixel's centre at whole numbers.
    """
    rows, columns = view or (slice(0, image.shape[0]), slice(0, image.shape[1]))
    extent = (columns.start - 0.5, columns.stop - 0.5, rows.stop - 0.5, rows.start - 0.5)
    axes.imshow(
        _thinned(image[rows, columns]),
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=extent,
        interpolation="antialiased",
    )
    thickness = 0.6 if len(boxes) > _MANY else 1.1
    for x_min, y_min, x_max, y_max in boxes:
        frame = Rectangle((x_min - 0.5, y_min - 0.5), x_max - x_min + 1, y_max - y_min + 1)
        frame.set(fill=False, edgecolor=_BOX, linewidth=thickness)
        axes.add_patch(frame)
    if labels is not None:
        _objects(axes, labels)
    axes.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    axes.set_frame_on(False)


def _thinned(image: np.ndarray) -> np.ndarray:
    step = max(1, max(image.shape[:2]) // _SHOWN_PX)
    return image[::step, ::step]


def _objects(axes: Axes, labels: np.ndarray) -> None:
    """Each object tinted and outlined in its colour, through the corners of its pixels."""
    windows = find_objects(labels)
    thickness = 0.8 if len(windows) > _MANY else 1.6
    for label, window in enumerate(windows, start=1):
        if window is None:
            continue
        whole = labels[window] == label
        step = max(1, max(whole.shape) // _SHOWN_PX)
        mask = np.pad(whole[::step, ::step], 1).astype(float)
        rows, columns = (
            part.start + step * np.arange(-1, size - 1) for part, size in zip(window, mask.shape)
        )
        colour = _OBJECTS[(label - 1) % len(_OBJECTS)]
        axes.contourf(columns, rows, mask, levels=[0.5, 2], colors=[colour], alpha=0.22)
        axes.contour(columns, rows, mask, levels=[0.5], colors=[colour], linewidths=thickness)


def _square(axes: Axes, image: np.ndarray) -> None:
    """Give the picture the room of a square, so that pictures of all shapes stand in one grid."""
    height, width = image.shape[:2]
    side = max(height, width)
    axes.set(
        xlim=(width / 2 - side / 2, width / 2 + side / 2), ylim=(height / 2 + side / 2, height / 2 - side / 2)
    )


def _close_up(row: QualitativeRow) -> tuple[slice, slice] | None:
    """The square around all boxes with half as much again of surroundings, where that is clearly less than the image."""
    height, width = row.image.shape[:2]
    if not len(row.boxes):
        return None
    low, high = row.boxes[:, :2].min(axis=0), row.boxes[:, 2:].max(axis=0)
    side = int(max(1.5 * (high - low + 1).max(), 24))
    if side > 0.75 * min(height, width):
        return None
    x, y = (
        int(np.clip((a + b - side) // 2, 0, size - side)) for a, b, size in zip(low, high, (width, height))
    )
    return slice(y, y + side), slice(x, x + side)


def _shortened(title: str, most: int = 22) -> str:
    return title if len(title) <= most else f"{title[: most - 1]}…"
