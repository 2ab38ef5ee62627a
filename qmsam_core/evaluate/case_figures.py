"""Draw boxes and masks on the images of cases, for the contact sheet and for Figures 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import find_objects

from ..data.cases import Case, boxes_on_slice
from .figure_style import WIDTH, new_figure
from .paper_tables import MODALITIES

# Colours of an image's objects, used in turn and bright enough for any image. Boxes have another colour.
_OBJECTS = ("#2fb5ff", "#ff9f1c", "#19d3a2", "#ff7ac6", "#b48cff", "#ff5a36")
_BOX = "#f0e442"
_MANY = 12  # more objects than this are drawn with thinner lines
_COLUMNS = 4  # panels in a row of the contact sheet
_SHOWN_PX = 384  # images are subsampled to about this side, to keep files small


@dataclass(frozen=True)
class QualitativeRow:
    """One case of Figures 2 and 3.

    Attributes:
        title: text on the left.
        image: uint8 (H, W) or (H, W, 3).
        boxes: (N, 4), px.
        masks: panel name -> labels (H, W), in the order shown.
        dsc: panel name -> DSC 0..1, where known.
        score: what `dsc` holds, as written below the panels.
    """

    title: str
    image: np.ndarray
    boxes: np.ndarray
    masks: Mapping[str, np.ndarray]
    dsc: Mapping[str, float]
    score: str = "DSC"

    @classmethod
    def of(
        cls, case: Case, masks: Mapping[str, np.ndarray], dsc: Mapping[str, float], title: str = ""
    ) -> QualitativeRow:
        """Make a row from a case and masks of its full shape.

        A volume shows its slice with most labelled voxels.
        """
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
    """Draw Figures 2 and 3: one row for each case, with image and box, then each mask above its DSC.

    The first panel shows the whole image. If the boxes fill little of it, the masks are shown close up.
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
    """Like `qualitative_figure`, with one column for each case and panels of equal size. Suits many cases."""
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
    """Draw the image with its boxes, then each mask with its DSC, close up if the boxes fill little."""
    draw_slice(axes[0], row.image, row.boxes)
    for panel, (name, mask) in zip(axes[1:], row.masks.items()):
        draw_slice(panel, row.image, row.boxes, mask, _close_up(row))
        panel.set_xlabel(f"{row.score} {100 * row.dsc[name]:.1f} %" if name in row.dsc else "")


def contact_sheet(cases: Sequence[Case], titles: Sequence[str]) -> Figure:
    """Draw each case with boxes and mask contours, sorted by modality in the paper's order.

    Args:
        cases: cases with boxes and labels. A volume shows its slice with most labelled voxels.
        titles: modality of each case. A volume's slice number is added.
    """
    order = sorted(
        range(len(cases)),
        key=lambda i: MODALITIES.index(titles[i]) if titles[i] in MODALITIES else len(MODALITIES),
    )
    lines = -(-len(cases) // _COLUMNS)
    figure, grid = new_figure(lines, _COLUMNS, height=lines * (WIDTH / _COLUMNS + 0.28), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, i in zip(grid.flat, order):
        z = fullest_slice(cases[i])
        image, labels = cases[i].images, cases[i].labels
        image, labels = (image, labels) if z is None else (image[z], labels[z])
        draw_slice(axes, image, boxes_on(cases[i], z), labels)
        _square(axes, image)
        axes.set_title(titles[i] if z is None else f"{titles[i]}, z = {z}", fontsize=11)
    return figure


def fullest_slice(case: Case) -> int | None:
    """Slice of a volume with most labelled voxels, or the middle one without labels. None for an image."""
    if not case.is_volume:
        return None
    if case.labels is None or not case.labels.any():
        return case.images.shape[0] // 2
    return int(np.count_nonzero(case.labels, axis=(1, 2)).argmax())


def boxes_on(case: Case, z: int | None) -> np.ndarray:
    """Boxes of a case on slice `z` (None for an image), (N, 4) px: x_min, y_min, x_max, y_max."""
    return case.boxes if z is None else boxes_on_slice(case.boxes, z)[1]


def draw_slice(
    axes: Axes,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray | None = None,
    view: tuple[slice, slice] | None = None,
) -> None:
    """Draw a slice with its boxes and the outlines of its objects.

    Args:
        axes: axes to draw on. Coordinates are those of the full image. Pixel centres are whole numbers.
        image: uint8 (H,W) or (H,W,3).
        boxes: (N,4), px.
        labels: labels (H,W), or None.
        view: rows and columns to show. None shows the whole image.
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
    for box in boxes:
        draw_box(axes, box, thickness=thickness)
    if labels is not None:
        _objects(axes, labels)
    axes.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    axes.set_frame_on(False)


def draw_box(axes: Axes, box: Sequence[float], colour: str = _BOX, thickness: float = 1.1) -> None:
    """Draw a box (4,), px, around the pixels that it covers."""
    x_min, y_min, x_max, y_max = box
    frame = Rectangle((x_min - 0.5, y_min - 0.5), x_max - x_min + 1, y_max - y_min + 1)
    frame.set(fill=False, edgecolor=colour, linewidth=thickness)
    axes.add_patch(frame)


def _thinned(image: np.ndarray) -> np.ndarray:
    step = max(1, max(image.shape[:2]) // _SHOWN_PX)
    return image[::step, ::step]


def _objects(axes: Axes, labels: np.ndarray) -> None:
    """Tint and outline each object in its colour."""
    windows = find_objects(labels)
    thickness = 0.8 if len(windows) > _MANY else 1.6
    for label, window in enumerate(windows, start=1):
        if window is not None:
            corner = (window[0].start, window[1].start)
            draw_mask(axes, labels[window] == label, object_colour(label), thickness, corner=corner)


def object_colour(number: int) -> str:
    """Colour of an object by its number, from 1. Colours are used in turn."""
    return _OBJECTS[(number - 1) % len(_OBJECTS)]


def draw_mask(
    axes: Axes,
    mask: np.ndarray,
    colour: str,
    thickness: float = 1.6,
    line: str = "solid",
    tinted: bool = True,
    corner: tuple[int, int] = (0, 0),
) -> None:
    """Outline a mask on a slice, and tint it. An empty mask draws nothing.

    Args:
        axes: axes of the slice, see `draw_slice`.
        mask: bool (h, w).
        colour: of the line and the tint.
        thickness: of the line, points.
        line: style of the line.
        tinted: whether the area is tinted.
        corner: row and column of the slice where the mask begins.
    """
    if not mask.any():
        return
    step = max(1, max(mask.shape) // _SHOWN_PX)
    padded = np.pad(mask[::step, ::step], 1).astype(float)
    rows, columns = (start + step * np.arange(-1, size - 1) for start, size in zip(corner, padded.shape))
    if tinted:
        axes.contourf(columns, rows, padded, levels=[0.5, 2], colors=[colour], alpha=0.22)
    axes.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=thickness, linestyles=line)


def _square(axes: Axes, image: np.ndarray) -> None:
    """Set square limits, so that images of all shapes fit into one grid."""
    height, width = image.shape[:2]
    side = max(height, width)
    axes.set(
        xlim=(width / 2 - side / 2, width / 2 + side / 2), ylim=(height / 2 + side / 2, height / 2 - side / 2)
    )


def _close_up(row: QualitativeRow) -> tuple[slice, slice] | None:
    """Square 1.5 times as wide as all boxes together. None if it is not clearly smaller than the image."""
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
