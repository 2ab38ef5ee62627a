"""Pictures of float and int8 masks on the same image: their outlines, and the pixels where they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.ndimage import find_objects

from ..data.cases import Case
from .case_figures import boxes_on, close_up, draw_mask, draw_slice, fullest_slice, square_limits
from .choice_of_cases import BEST, MEDIAN, ONLY, WORST
from .figure_style import BOTH_MASKS, BOX, FLOAT_MASK, INT8_MASK, WIDTH, new_figure

_CELL = 1.9  # inches, side of a panel
_OTHER = "#e377c2"  # pixels that belong to another object in int8
_MANY = 12  # with more boxes, lines are thinner
_WRAPPED = 4  # panels in a line where each modality has a single case


@dataclass(frozen=True)
class MaskPair:
    """Float and int8 masks of one slice, with the scores of its case.

    Attributes:
        modality: of the case.
        place: best, median, worst or only case.
        image: uint8 (H, W) or (H, W, 3).
        boxes: (N, 4), px.
        first: float labels (H, W).
        second: int8 labels (H, W).
        agreement: mean Dice of both over the case's objects, 0..1.
        dsc: DSC of float and of int8 with the ground truth, 0..1.
    """

    modality: str
    place: str
    image: np.ndarray
    boxes: np.ndarray
    first: np.ndarray
    second: np.ndarray
    agreement: float
    dsc: tuple[float, float]

    @classmethod
    def of(
        cls, case: Case, first: np.ndarray, second: np.ndarray, row: dict, parting: bool = False
    ) -> MaskPair:
        """Make a pair from a case and its two segmentations.

        Args:
            case: an image, or a volume, which shows its slice with most labelled voxels.
            first: float labels of the case's full shape.
            second: int8 labels of the same shape.
            row: has modality, agreement, `dsc float` and dsc (int8), and perhaps place.
            parting: whether a volume shows the slice on which most pixels differ instead.
        """
        z = fullest_slice(case)
        if z is not None and parting:
            z = int(np.count_nonzero(first != second, axis=(1, 2)).argmax())
        image, first, second = (a if z is None else a[z] for a in (case.images, first, second))
        scores = row["agreement"], (row["dsc float"], row["dsc"])
        return cls(row["modality"], row.get("place", ""), image, boxes_on(case, z), first, second, *scores)

    @property
    def apart(self) -> tuple[int, int]:
        """Number of pixels of the slice that only float labels, and that only int8 labels."""
        first, second = self.first > 0, self.second > 0
        return int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))


def pairs_of(
    chosen: pd.DataFrame,
    cases: Sequence[Case],
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    parting: bool = False,
) -> list[MaskPair]:
    """Make the pairs of chosen cases.

    Args:
        chosen: rows of `choice_of_cases.beside_float`.
        cases: all cases, in the order in which they were scored.
        first: float segmentations of all cases.
        second: int8 segmentations of all cases.
        parting: see `MaskPair.of`.
    """
    return [
        MaskPair.of(cases[row["number"]], first[row["number"]], second[row["number"]], row, parting)
        for row in chosen.to_dict("records")
    ]


def outlines_figure(pairs: Sequence[MaskPair]) -> Figure:
    """Draw float and int8 outlines: a row for each modality, its best, median and worst case side by side.

    Below each panel stand the agreement of the two and both DSCs. If no modality has more than one case, the
    modalities follow each other in lines of four.
    """
    modalities = list(dict.fromkeys(pair.modality for pair in pairs))
    if all(pair.place == ONLY for pair in pairs):
        lines = -(-len(pairs) // _WRAPPED)
        figure, grid = _grid(lines, min(len(pairs), _WRAPPED), text=0.85)
        for axes, pair in zip(grid.flat, pairs):
            axes.set_title(pair.modality, fontsize=11)
        places = dict(zip(map(id, pairs), grid.flat))
    else:
        figure, grid = _grid(len(modalities), 3)
        for axes, place in zip(grid[0], (BEST, MEDIAN, WORST)):
            axes.set_title(place, fontsize=12)
        column = {BEST: 0, MEDIAN: 1, ONLY: 1, WORST: 2}
        places = {id(pair): grid[modalities.index(pair.modality), column[pair.place]] for pair in pairs}
        for axes, modality in zip(grid[:, 0], modalities):
            axes.text(-0.04, 0.5, modality, transform=axes.transAxes, rotation=90, ha="right", va="center")
    for pair in pairs:
        _draw_outlines(places[id(pair)], pair)
    lines = [(FLOAT_MASK, 3.2, "float mask"), (INT8_MASK, 1.4, "int8 mask, drawn on it"), (BOX, 1.0, "box")]
    handles = [Line2D([], [], color=colour, linewidth=width, label=label) for colour, width, label in lines]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=10)
    return figure


def parting_figure(pairs: Sequence[MaskPair]) -> Figure:
    """Draw where float and int8 part: pixels that both label, that only one labels, and how many.

    Each panel shows the box in which most pixels differ, and its surroundings. The counts are of the slice.
    """
    figure, grid = new_figure(1, len(pairs), width=WIDTH / 4 * len(pairs), height=2.9, squeeze=False)
    shown = [False] * 4
    for axes, pair in zip(grid[0], pairs):
        kinds = _kinds(pair)
        view = close_up(pair.image, _most_differing(pair))
        draw_slice(axes, pair.image, pair.boxes, None, view)
        for k, (mask, colour) in enumerate(zip(kinds, (BOTH_MASKS, FLOAT_MASK, INT8_MASK, _OTHER))):
            shown[k] |= bool(mask.any())
            _tint(axes, mask, colour, 0.75 if k == 0 else 0.95)
        if view is None:
            square_limits(axes, pair.image)
        axes.set_title(pair.modality, fontsize=11)
        first, second = pair.apart
        counts = f"only float {first:,} px\nonly int8 {second:,} px\nagreement {100 * pair.agreement:.1f} %"
        axes.set_xlabel(counts, fontsize=9.5)
    names = ("both", "only float", "only int8", "both, but another object")
    colours = (BOTH_MASKS, FLOAT_MASK, INT8_MASK, _OTHER)
    handles = [
        Patch(facecolor=colour, edgecolor="#555555", linewidth=0.5, label=name)
        for colour, name, there in zip(colours, names, [True, True, True, shown[3]])
        if there
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=10)
    return figure


def _kinds(pair: MaskPair) -> tuple[np.ndarray, ...]:
    """Pixels of both masks, of float alone, of int8 alone, and of two different objects."""
    first, second = pair.first > 0, pair.second > 0
    same = pair.first == pair.second
    return first & same, first & ~second, second & ~first, first & second & ~same


def _most_differing(pair: MaskPair) -> np.ndarray:
    """The box within which most pixels differ, (1, 4), or (0, 4) without boxes."""
    differs = pair.first != pair.second
    counts = [np.count_nonzero(differs[y0 : y1 + 1, x0 : x1 + 1]) for x0, y0, x1, y1 in pair.boxes]
    return pair.boxes[[int(np.argmax(counts))]] if counts else pair.boxes


def _grid(rows: int, columns: int, text: float = 0.45) -> tuple[Figure, np.ndarray]:
    size = {"width": _CELL * columns + 0.4, "height": (_CELL + text) * rows + 0.6}
    figure, grid = new_figure(rows, columns, squeeze=False, **size)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.set_frame_on(False)
    return figure, grid


def _draw_outlines(axes: Axes, pair: MaskPair) -> None:
    view = close_up(pair.image, pair.boxes)
    draw_slice(axes, pair.image, pair.boxes, None, view)
    if view is None:
        square_limits(axes, pair.image)
    thin = 0.5 if len(pair.boxes) > _MANY else 1.0
    float_lines = (pair.first, "#000000", 3.8), (pair.first, FLOAT_MASK, 3.0)
    int8_lines = (pair.second, "#00000099", 1.9), (pair.second, INT8_MASK, 1.1)
    for labels, colour, width in (*float_lines, *int8_lines):  # each on a dark edge
        for label, window in enumerate(find_objects(labels), start=1):
            if window is not None:
                corner = (window[0].start, window[1].start)
                mask = labels[window] == label
                draw_mask(axes, mask, colour, thin * width, tinted=False, corner=corner)
    only = f"{ONLY}: " if pair.place == ONLY else ""
    first, second = (f"{100 * value:.1f}" for value in pair.dsc)
    text = f"{only}agreement {100 * pair.agreement:.1f} %\nDSC float {first}, int8 {second} %"
    axes.set_xlabel(text, fontsize=9.5)


def _tint(axes: Axes, mask: np.ndarray, colour: str, alpha: float) -> None:
    """Colour the pixels of a mask. The axes keep their limits."""
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(colour, alpha)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(layer, interpolation="nearest")
    axes.set(xlim=limits[0], ylim=limits[1])
