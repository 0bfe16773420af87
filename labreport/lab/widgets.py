"""Sliders beside a fixed figure, for whoever reads a notebook in JupyterLab."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from labreport.evidence.figures import following_the_page, style

if TYPE_CHECKING:
    from ipywidgets import VBox, Widget


def live() -> bool:
    """Whether somebody is there to move a slider.

    A front end such as JupyterLab says in each request which cell it runs; papermill, nbmake and nbconvert do not.
    `LABREPORT_HEADLESS=1` means no.
    """
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None or os.environ.get("LABREPORT_HEADLESS"):
        return False
    return "cellId" in kernel.get_parent("shell").get("metadata", {})


def sliders(draw: Callable[..., Figure], most: Mapping[str, Callable[..., int]] = {}, **ranges: tuple) -> None:
    """Show `draw(**values)` with a slider for each argument: (least, most) or (least, most, step, start).

    `most` says where a slider ends that ends elsewhere as the others move, from their values. Settings that `draw`
    refuses with a ValueError leave the picture, and its sentence stands above. Without anybody to move them, nothing is
    shown: the notebook's fixed figure stands alone, and no widget is left in its outputs.
    """
    if live():
        from IPython.display import display

        display(panel(draw, most, **ranges))


def panel(draw: Callable[..., Figure], most: Mapping[str, Callable[..., int]] = {}, **ranges: tuple) -> VBox:
    """The sliders, a line for a sentence, and the picture."""
    import ipywidgets

    asked = {name: _slider(name, *numbers) for name, numbers in ranges.items()}
    says = ipywidgets.HTML(layout={"min_height": "2em"})
    picture = ipywidgets.Image(format="svg+xml", layout={"width": "820px", "max_width": "100%"})

    def redraw(_: object = None) -> None:
        values = {name: slider.value for name, slider in asked.items()}
        try:
            for name, end in most.items():
                asked[name].max = end(**{other: value for other, value in values.items() if other != name})
                values[name] = asked[name].value
            picture.value, says.value = svg(draw(**values)), ""
        except ValueError as error:
            says.value = html.escape(str(error))

    redraw()
    for slider in asked.values():
        slider.observe(redraw, "value")
    return ipywidgets.VBox([ipywidgets.Box([*asked.values()], layout={"flex_flow": "row wrap"}), says, picture])


def svg(figure: Figure) -> bytes:
    """A figure for the screen, dark where the page is."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg")
    return following_the_page(buffer.getvalue())


def _slider(name: str, least: float, most: float, step: float = 1, start: float | None = None) -> Widget:
    import ipywidgets

    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    start = least if start is None else start
    return kind(start, min=least, max=most, step=step, description=name, style={"description_width": "7em"})
