"""Draw Figure 1 of the paper: the quantised linear layer, convolution and attention block."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .figure_style import COLOURS, INK, PALE, WIDTH, new_figure

_WIDE, _HIGH = 1.75, 0.62
_RADIUS, _HALF = 0.36, 0.72  # half the height and half the width of what calculates
_MATRIX = "matrix\nproduct"
_INPUTS, _QUANTISERS, _PRODUCT, _OUTPUT = -1.2, 0.2, 2.55, 6.95  # heights that all panels share
_GAP = 0.04  # between an arrow's end and the shape it meets


def quantised_sublayers_figure() -> Figure:
    """Draw Figure 1: (a) linear, (b) convolution, (c) attention. Inputs and outputs are in floating point.

    Orange shapes calculate on 8-bit operands. Green boxes quantise the operand that they name. Grey shapes
    and bare names are in floating point. Section 2.2 keeps bias, activation and normalisation in it.
    """
    figure, panels = new_figure(1, 3, width=1.45 * WIDTH, height=6.2, width_ratios=[1, 1, 1.72])
    for axes, title, weight_op in zip(panels, ("(a) linear", "(b) convolution"), (_MATRIX, "convo-\nlution")):
        _weight_layer(axes, weight_op)
        _frame(axes, title, 4.6)
    _attention(panels[2])
    _frame(panels[2], "(c) attention block", 7.9)
    figure.supxlabel(
        "green: quantised to 8 bits   orange: calculated on 8-bit operands   grey: floating point",
        fontsize=12,
    )
    return figure


def _weight_layer(axes: Axes, operation: str) -> None:
    left, right, middle = 1.15, 3.45, 2.3
    for x, name in ((left, "input"), (right, "weight")):
        _tensor(axes, x, _INPUTS, name)
        _arrow(axes, (x, _INPUTS + 0.28), (x, _QUANTISERS - _HIGH / 2))
        _quantiser(axes, x, _QUANTISERS, f"8-bit {name}")
    _compute(axes, middle, _PRODUCT, operation)
    _elbow(axes, (left, _QUANTISERS + _HIGH / 2), (middle - _HALF, _PRODUCT))
    _elbow(axes, (right, _QUANTISERS + _HIGH / 2), (middle + _HALF, _PRODUCT))
    _arrow(axes, (middle, _PRODUCT + _RADIUS), (middle, 4.75 - _RADIUS))
    _compute(axes, middle, 4.75, "+", quantised=False)
    _tensor(axes, right + 0.25, 4.75, "bias")
    _arrow(axes, (right - 0.25, 4.75), (middle + _RADIUS, 4.75))
    _arrow(axes, (middle, 4.75 + _RADIUS), (middle, _OUTPUT - 0.28))
    _tensor(axes, middle, _OUTPUT, "output")


def _attention(axes: Axes) -> None:
    query, key, value = 1.15, 3.75, 6.4
    left = (query + key) / 2  # where query meets key
    right = (left + value) / 2  # where the attention meets value
    for x, name, height in ((query, "query", _QUANTISERS), (key, "key", 1.4), (value, "value", _QUANTISERS)):
        _tensor(axes, x, _INPUTS, name)
        _quantiser(axes, x, height, f"8-bit {name}")
        _arrow(axes, (x, _INPUTS + 0.28), (x, _QUANTISERS - (_HIGH / 2 if x != key else _RADIUS)))
    _compute(axes, key, _QUANTISERS, "transpose", quantised=False)
    _arrow(axes, (key, _QUANTISERS + _RADIUS), (key, 1.4 - _HIGH / 2))
    _elbow(axes, (query, _QUANTISERS + _HIGH / 2), (left - _HALF, _PRODUCT))
    _elbow(axes, (key, 1.4 + _HIGH / 2), (left + _HALF, _PRODUCT))
    _compute(axes, left, _PRODUCT, _MATRIX)
    _arrow(axes, (left, _PRODUCT + _RADIUS), (left, 3.65 - _HIGH / 2))
    _plain(axes, left, 3.65, "scale, softmax")
    _arrow(axes, (left, 3.65 + _HIGH / 2), (left, 4.75 - _HIGH / 2))
    _quantiser(axes, left, 4.75, "8-bit attention")
    _elbow(axes, (left, 4.75 + _HIGH / 2), (right - _HALF, 5.7))
    _elbow(axes, (value, _QUANTISERS + _HIGH / 2), (right + _HALF, 5.7))
    _compute(axes, right, 5.7, _MATRIX)
    _arrow(axes, (right, 5.7 + _RADIUS), (right, _OUTPUT - 0.28))
    _tensor(axes, right, _OUTPUT, "output")


def _frame(axes: Axes, title: str, width: float) -> None:
    axes.set(xlim=(0, width), ylim=(-1.5, 7.3), aspect="equal", title=title)
    axes.axis("off")


def _quantiser(axes: Axes, x: float, y: float, text: str) -> None:
    wide = _WIDE if len(text) < 13 else 1.2 * _WIDE
    shape = FancyBboxPatch(
        (x - wide / 2, y - _HIGH / 2), wide, _HIGH, boxstyle="round,pad=0,rounding_size=0.25"
    )
    shape.set(facecolor=COLOURS[2], edgecolor=INK, linewidth=1.2, alpha=0.9)
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", color="white", weight="bold", fontsize=10.5)


def _plain(axes: Axes, x: float, y: float, text: str) -> None:
    wide = 1.55 * _WIDE
    axes.add_patch(
        FancyBboxPatch(
            (x - wide / 2, y - _HIGH / 2), wide, _HIGH, boxstyle="square,pad=0", facecolor=PALE, edgecolor=INK
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=11)


def _compute(axes: Axes, x: float, y: float, text: str, quantised: bool = True) -> None:
    """Draw an operation: a circle for a sign such as +, and a wider shape for words."""
    half, size = (_RADIUS, 13) if len(text) == 1 else (_HALF, 9.5)
    shape = FancyBboxPatch(
        (x - half, y - _RADIUS), 2 * half, 2 * _RADIUS, boxstyle=f"round,pad=0,rounding_size={_RADIUS}"
    )
    shape.set(facecolor=COLOURS[1] if quantised else PALE, edgecolor=INK, linewidth=1.2)
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", weight="bold", fontsize=size, linespacing=0.95)


def _tensor(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(x, y, text, ha="center", va="center", style="italic", fontsize=12)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    dx, dy = (1 if e > s else -1 if e < s else 0 for s, e in zip(start, end))
    tip = (end[0] - dx * _GAP, end[1] - dy * _GAP)
    axes.annotate(
        "",
        tip,
        start,
        arrowprops={"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0, "linewidth": 1.4},
    )


def _elbow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a line up from the start, then an arrow sideways into the end."""
    axes.plot([start[0], start[0]], [start[1], end[1]], color=INK, linewidth=1.4, solid_capstyle="round")
    _arrow(axes, (start[0], end[1]), end)
