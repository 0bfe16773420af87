"""A learning curve that moves while a notebook trains."""

from __future__ import annotations

import io
import math
import os
import sys
import time
from collections.abc import Sequence

from matplotlib.figure import Figure

from labreport.evidence.figures import WIDTH, draw_curves, style
from labreport.facts.recipes import Recipe
from labreport.records.record import Epoch


class LiveDisplay:
    """A learning curve that moves in JupyterLab; nothing where nobody looks on."""

    def __init__(self, curve):
        self._curve = curve

    @classmethod
    def start(cls, recipe: Recipe) -> LiveDisplay:
        if "ipykernel" not in sys.modules or os.environ.get("LABREPORT_HEADLESS"):
            return cls(None)
        return cls(LiveCurve(recipe.title or recipe.name))

    def update(self, run) -> None:
        if self._curve:
            self._curve.update(run.history)

    def close(self) -> None:
        if self._curve:
            self._curve.close()


class LiveCurve:
    """A learning curve in the notebook that is redrawn while the training goes on, at most every `min_seconds`."""

    def __init__(self, title: str = "", min_seconds: float = 2.0):
        self._title, self._min_seconds = title, min_seconds
        self._history: tuple[Epoch, ...] = ()
        self._drawn_epochs, self._drawn_at = 0, -math.inf
        self._handle = None

    def update(self, history: Sequence[Epoch]) -> None:
        """Take the history so far, and redraw it unless that was done a moment ago."""
        self._history = tuple(history)
        if time.monotonic() - self._drawn_at >= self._min_seconds:
            self._draw()

    def close(self) -> None:
        """Leave the whole history standing as the last picture."""
        if len(self._history) != self._drawn_epochs:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import Image, display  # only a notebook has it, and only a notebook gets here

        image = Image(data=self._png(), format="png")
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)
        self._drawn_epochs, self._drawn_at = len(self._history), time.monotonic()

    def _png(self) -> bytes:
        with style():
            figure = Figure(figsize=(WIDTH, 2.3), dpi=110)
            left, right = figure.subplots(1, 2)
            figure.subplots_adjust(0.08, 0.19, 0.99, 0.9, wspace=0.25)  # fixed: faster than a computed layout
            figure.suptitle(self._title, fontsize=8.5)
            draw_curves(left, right, [self._history])
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
        return buffer.getvalue()
