"""Sliders beside a fixed figure, for whoever reads a notebook in JupyterLab."""

from __future__ import annotations

import os
from collections.abc import Callable

from matplotlib.figure import Figure


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


def sliders(draw: Callable[..., Figure], **ranges: tuple) -> None:
    """Show `draw(**values)` with a slider for each argument: (least, most) or (least, most, step, start).

    Settings that `draw` refuses with a ValueError show its sentence instead. Without anybody to move them, nothing is
    shown: the notebook's fixed figure stands alone, and no widget is left in its outputs.
    """
    if not live():
        return
    import ipywidgets
    from IPython.display import display

    def show(**values: float) -> None:
        try:
            display(draw(**values))
        except ValueError as error:
            print(error)

    ipywidgets.interact(show, **{name: _slider(*numbers) for name, numbers in ranges.items()})


def _slider(least: float, most: float, step: float = 1, start: float | None = None):
    import ipywidgets

    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    return kind(value=least if start is None else start, min=least, max=most, step=step)
