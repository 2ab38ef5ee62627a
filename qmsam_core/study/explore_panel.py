"""The buttons, lists and texts around the picture of `explore`, for JupyterLab."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets

from ..data import Case
from ..evaluate.paper_tables import MODALITIES
from .explore import ALL, LINES, BoxExplorer
from .own_image import open_image, open_sent

AUTO = ipywidgets.Layout(width="auto")
HINT = "Drag a box on the picture."


class ExplorerPanel:
    """Buttons and texts beside the explorer's picture. What goes wrong is said in the panel.

    Attributes:
        widget: all of it. Without a canvas that a notebook can show, the picture is missing.
    """

    def __init__(self, explorer: BoxExplorer) -> None:
        self.explorer = explorer
        self.cases = ipywidgets.Dropdown(options=self._names(), description="case", layout=AUTO)
        self.slices = ipywidgets.IntSlider(0, 0, 0, description="slice", continuous_update=False, layout=AUTO)
        self.view = ipywidgets.ToggleButtons(options=explorer.views, value=explorer.view)
        self.view.style.button_width = "auto"
        self.undo, self.clear, self.given = (
            ipywidgets.Button(description=text, layout=AUTO) for text in ("undo", "clear", "the case's boxes")
        )
        self.path = ipywidgets.Text(placeholder="path of an image or DICOM folder", layout=AUTO)
        self.modality = ipywidgets.Dropdown(
            options=[("modality as the file tells", None), *((name, name) for name in MODALITIES)],
            layout=AUTO,
        )
        self.open = ipywidgets.Button(description="open", layout=AUTO)
        self.upload = ipywidgets.FileUpload(description="or upload, below 10 MB", layout=AUTO, multiple=True)
        self.times, self.message = ipywidgets.HTML(), ipywidgets.HTML()
        self._connect()
        figure = explorer.show(lambda box: self._do(explorer.add, box))
        self.widget = self._laid_out(figure.canvas)
        self._refresh()

    def _names(self) -> list[tuple[str, int]]:
        return [(case.name, number) for number, case in enumerate(self.explorer.cases)]

    def _connect(self) -> None:
        explorer = self.explorer
        self.cases.observe(lambda change: self._do(explorer.show_case, change["new"]), "value")
        self.slices.observe(self._to_slice, "value")
        self.view.observe(lambda change: self._do(explorer.show_view, change["new"]), "value")
        self.undo.on_click(lambda _: self._do(explorer.undo))
        self.clear.on_click(lambda _: self._do(explorer.clear))
        self.given.on_click(lambda _: self._do(explorer.add, *explorer.given_boxes()))
        self.open.on_click(lambda _: self._do(self._open_path))
        self.upload.observe(lambda change: change["new"] and self._do(self._open_sent), "value")

    def _laid_out(self, canvas: object) -> ipywidgets.Widget:
        own = ipywidgets.VBox([self.path, self.modality, ipywidgets.HBox([self.open, self.upload])])
        folded = ipywidgets.Accordion([own], titles=["your own image"], selected_index=None)
        boxes = ipywidgets.HBox([self.undo, self.clear, self.given])
        side = [self.cases, self.slices, self.view, boxes, self.times, self.message, folded]
        panel = ipywidgets.VBox(side, layout=ipywidgets.Layout(width="26em"))
        shown = [panel]
        if isinstance(canvas, ipywidgets.Widget):
            canvas.header_visible = canvas.footer_visible = canvas.toolbar_visible = canvas.resizable = False
            canvas.layout.flex = "0 0 auto"
            shown = [canvas, panel]
        wrapped = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", grid_gap="1em")
        return ipywidgets.Box(shown, layout=wrapped)

    def _do(self, action: Callable, *arguments: object) -> None:
        """Do what was asked for, and say in the panel what stood against it."""
        self.times.value, self.message.value = "segmenting …", ""
        try:
            action(*arguments)
        except Exception as error:  # JupyterLab shows a callback's exception nowhere else
            expected = isinstance(error, (ValueError, OSError))
            self._say(str(error) if expected else repr(error), "font-weight: bold; color: #d1242f")
        self._refresh()

    def _say(self, text: str, style: str = "") -> None:
        self.message.value = f'<div style="line-height: 1.4; {style}">{escape(text)}</div>'

    def _to_slice(self, change: dict) -> None:
        if change["new"] != self.explorer.z:
            self._do(self.explorer.show_slice, change["new"])

    def _open_path(self) -> None:
        self._show_own(*open_image(self.path.value, self.modality.value))

    def _open_sent(self) -> None:
        files, self.upload.value = self.upload.value, ()
        self._show_own(*open_sent(files, self.modality.value))

    def _show_own(self, case: Case, notes: list[str]) -> None:
        self.explorer.cases.append(case)
        self.cases.options = self._names()
        self.cases.value = len(self.explorer.cases) - 1
        self._say("; ".join(notes))

    def _refresh(self) -> None:
        explorer = self.explorer
        # the slider never holds a value above its maximum, so the maximum is lowered last
        self.slices.max, self.slices.value = max(explorer.case.n_slices - 1, explorer.z), explorer.z
        self.slices.max = explorer.case.n_slices - 1
        self.slices.disabled = explorer.case.n_slices == 1
        self.undo.disabled = self.clear.disabled = not explorer.drawn.boxes
        self.given.disabled = not len(explorer.given_boxes())
        self.times.value = times_html(explorer) if explorer.drawn.boxes else HINT


def times_html(explorer: BoxExplorer) -> str:
    """Milliseconds of the image and of the last box by each model shown, as a table in HTML.

    With all models shown, the table also explains their lines and says how far masks agree with float's.
    """
    drawn, all_shown = explorer.drawn, explorer.view == ALL
    rows = [["", "image", "last box", *(["like float"] if all_shown else [])]]
    for model in explorer.shown_models:
        seconds = [drawn.image_seconds.get(model), *drawn.box_seconds.get(model, [None])[-1:]]
        cells = [model, *("–" if value is None else f"{1e3 * value:.0f} ms" for value in seconds)]
        rows.append([*cells, *([f"{100 * drawn.agreement(model):.1f} %"] if all_shown else [])])
    if all_shown:
        keys = [f"border-top: 3px {line} {colour}" for colour, line in map(LINES.get, explorer.shown_models)]
        keys = ["", *(f'<div style="{key}; width: 2em"></div>' for key in keys)]
        rows = [[key, *row] for key, row in zip(keys, rows)]
    lines = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    style = "border-collapse: separate; border-spacing: .9em 0; line-height: 1.6; white-space: nowrap"
    return f'<table style="{style}">' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
