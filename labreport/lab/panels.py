"""Panels for whoever reads a notebook in JupyterLab: pictures to ask networks about, a confusion matrix to click on.

A panel knows widgets only; what it shows comes from the function `draw` that it is given, as an SVG and a sentence. A
ValueError of `draw` is shown as its sentence, and the picture stays.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import ipywidgets
import numpy as np
from IPython.display import HTML, display
from matplotlib import colormaps
from matplotlib.colors import to_hex

WIDTH = "820px"

# A file dropped on a photo's panel goes the way of its button, which takes no drop by itself. The page listens, and not
# the panel, which is drawn after this has run and may be drawn anew; it does so before all others, since the browser
# would open the picture and JupyterLab has uses of its own for a file. The button's <input type=file> is nowhere in the
# page: it is met when the button calls its click(). A folder becomes an empty file, to be told of as anything else that
# is no picture. Where scripts do not run, the button is left.
DROP = """
<style>
.labreport-over { position: relative; }
.labreport-over::after {
    content: "Drop the photo here"; position: absolute; inset: 0; display: grid; place-content: center;
    font-size: 24px; border: 3px dashed #3b8bd0; pointer-events: none;
    background: color-mix(in srgb, var(--jp-layout-color1, white) 80%, transparent);
}
</style>
<script>
window.labreportDrop ??= ['dragenter', 'dragover', 'dragleave', 'drop'].map(type => addEventListener(type, event => {
    const panel = event.composedPath().find(node => node.matches?.('.labreport-photo'));
    if (!panel || !event.dataTransfer.types.includes('Files')) return;
    event.preventDefault();
    event.stopPropagation();
    event.dataTransfer.dropEffect = 'copy';
    const leaves = type === 'dragleave' && !panel.contains(event.relatedTarget);
    panel.classList.toggle('labreport-over', type !== 'drop' && !leaves);
    const file = event.dataTransfer.files[0];
    if (type !== 'drop' || !file) return;
    file.arrayBuffer().catch(() => '').then(content => {
        const first = new DataTransfer(), { prototype } = HTMLInputElement, { click } = prototype;
        first.items.add(new File([content], file.name, file));
        prototype.click = function () { this.files = first.files; this.dispatchEvent(new Event('change')); };
        panel.querySelector('.widget-upload').click();
        prototype.click = click;
    });
}, true));
</script>
"""


class _Panel:
    """A picture under a sentence."""

    def __init__(self) -> None:
        self.says = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="svg+xml", layout={"width": WIDTH, "max_width": "100%"})

    def _set(self, draw: Callable[[], tuple[bytes, str]]) -> None:
        try:
            self.picture.value, sentence = draw()
        except ValueError as error:
            sentence = str(error)
        self.says.value = f'<div style="max-width: {WIDTH}; line-height: 1.4">{html.escape(sentence)}</div>'


class PhotoPanel(_Panel):
    """A photo to choose or a test image to pick, two networks side by side, several ways to look at their answers.

    `draw(view, networks, photo, place)` gets the photo's name and content, or None where test image `place` is meant.
    """

    def __init__(
        self,
        networks: Sequence[str],
        first: Sequence[str],
        n_images: int,
        views: Sequence[str],
        draw: Callable[[str, Sequence[str], tuple[str, bytes] | None, int], tuple[bytes, str]],
    ):
        super().__init__()
        self._draw = draw
        self._photo: tuple[str, bytes] | None = None
        self.upload = ipywidgets.FileUpload(accept="image/*", description="A photo of yours", layout={"width": "180px"})
        self.pick = ipywidgets.BoundedIntText(
            0, min=0, max=max(n_images - 1, 0), description="Test image", layout={"width": "180px"}
        )
        self.networks = [ipywidgets.Dropdown(options=networks, value=name, layout={"width": "180px"}) for name in first]
        self.view = ipywidgets.ToggleButtons(options=views)
        self.upload.observe(self._take, "value")
        self.pick.observe(self._put_back, "value")
        for widget in (*self.networks, self.view):
            widget.observe(lambda _: self.draw(), "value")

    def show(self) -> None:
        self.draw()
        asked = ipywidgets.HBox([self.upload, self.pick, *self.networks], layout={"flex_flow": "row wrap"})
        panel = ipywidgets.VBox([asked, self.view, self.says, self.picture])
        display(panel.add_class("labreport-photo"), HTML(DROP))

    def _take(self, change: dict) -> None:
        if change["new"]:
            self._photo = change["new"][0]["name"], bytes(change["new"][0]["content"])
            self.draw()

    def _put_back(self, _: dict) -> None:
        self._photo = None
        self.upload.value = ()  # else the same photo once more would be no change
        self.draw()

    def draw(self) -> None:
        self._set(self._drawn)

    def _drawn(self) -> tuple[bytes, str]:
        wanted = [widget.value for widget in self.networks]
        picture, sentence = self._draw(self.view.value, wanted, self._photo, self.pick.value)
        return picture, f"Asked about {self._photo[0]}. {sentence}" if self._photo else sentence


class AnswersPanel(_Panel):
    """A confusion matrix to click on: the images of a cell, and what another system says of them.

    `matrix(system)` gives counts (K, K); `draw(system, cell, other, right, surest, view)` shows the images of a cell
    (true, called), or all errors (None), where `other` is right, or wrong, or either (None).
    """

    def __init__(
        self,
        systems: Sequence[str],
        first: str,
        second: str,
        classes: Sequence[str],
        matrix: Callable[[str], np.ndarray],
        views: Sequence[str],
        draw: Callable[[str, tuple[int, int] | None, str, bool | None, bool, str], tuple[bytes, str]],
    ):
        super().__init__()
        self._matrix, self._draw = matrix, draw
        self._cell: tuple[int, int] | None = None
        self.system = ipywidgets.Dropdown(options=systems, value=first, description="Answers of")
        self.other = ipywidgets.Dropdown(options=systems, value=second, description="beside")
        self.right = ipywidgets.Dropdown(
            options={"right or wrong": None, "right": True, "wrong": False}, description="which is"
        )
        self.surest = ipywidgets.Dropdown(options={"surest first": True, "least sure first": False})
        self.view = ipywidgets.ToggleButtons(options=views)
        self.all = ipywidgets.Button(description="All errors")
        self.cells = {
            (i, j): ipywidgets.Button(
                tooltip=f"{classes[i]} called {classes[j]}", layout={"width": "52px", "margin": "0"}
            )
            for i in range(len(classes))
            for j in range(len(classes))
        }
        self._classes = classes
        for cell, button in [*self.cells.items(), (None, self.all)]:
            button.on_click(lambda _, cell=cell: self._choose(cell))
        self.system.observe(lambda _: self._relabel(), "value")
        for widget in (self.other, self.right, self.surest, self.view):
            widget.observe(lambda _: self.draw(), "value")

    def show(self) -> None:
        def label(text: str) -> ipywidgets.Widget:
            return ipywidgets.HTML(f'<div style="font-size: 11px; text-align: center">{html.escape(text)}</div>')

        rows = [label("true ↓ called →"), *map(label, self._classes)]
        for i, name in enumerate(self._classes):
            rows += [label(name), *(self.cells[i, j] for j in range(len(self._classes)))]
        columns = f"90px repeat({len(self._classes)}, 54px)"
        grid = ipywidgets.GridBox(
            rows, layout={"grid_template_columns": columns, "grid_gap": "1px", "overflow": "auto"}
        )
        self._relabel()
        asked = ipywidgets.HBox([self.system, self.other, self.right, self.surest], layout={"flex_flow": "row wrap"})
        display(ipywidgets.VBox([asked, grid, ipywidgets.HBox([self.all, self.view]), self.says, self.picture]))

    def _choose(self, cell: tuple[int, int] | None) -> None:
        self._cell = cell
        self.draw()

    def _relabel(self) -> None:
        counts = self._matrix(self.system.value)
        shades = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
        for (i, j), button in self.cells.items():
            button.description = str(counts[i, j])
            button.style.button_color = to_hex(colormaps["Blues"](shades[i, j]))
            button.style.text_color = "white" if shades[i, j] > 0.6 else "black"
        self.draw()

    def draw(self) -> None:
        chosen = (widget.value for widget in (self.other, self.right, self.surest, self.view))
        self._set(lambda: self._draw(self.system.value, self._cell, *chosen))
