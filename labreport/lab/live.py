"""Trainings shown while they go on: a panel in JupyterLab, lines where nobody looks on."""

from __future__ import annotations

import base64
import html
import io
import time
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labreport.evidence.figures import STYLE, WIDTH
from labreport.evidence.tables import history_table
from labreport.lab.widgets import live
from labreport.training.progress import Lines, Stage, Watch

TRAINING, VALIDATION, INK = "#d98e04", "#3b8bd0", "#808080"  # to be read on white and on black
ROWS = 8  # of the table of epochs
FEW = 30  # epochs, each of which is drawn at once, and as a dot


def watch() -> Watch:
    """A panel where somebody looks on, else lines."""
    return Panel() if live() else Lines()


class Panel:
    """One place in the notebook for all trainings that it is told of; each folds to a line when it has ended."""

    def __init__(self) -> None:
        self._stages: dict[str, Stage] = {}
        self._handle = None
        self._shown = self._drawn = 0.0
        self._epochs = 0
        self._curves = ""

    def __call__(self, stage: Stage) -> None:
        """Take a stage, and show it: at once where it begins or ends, else about once a second."""
        before = self._stages.get(stage.label)
        self._stages[stage.label] = stage
        turn = before is None or stage.ended or len(stage.history) != len(before.history)
        if turn or time.monotonic() - self._shown >= 0.9:
            self._show()

    def _show(self) -> None:
        from IPython.display import HTML, display

        page = HTML(self._html())
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)
        self._shown = time.monotonic()

    def _html(self) -> str:
        under_way = [stage for stage in self._stages.values() if not stage.ended]
        lines = "".join(_under_way(stage) if stage in under_way else _ended(stage) for stage in self._stages.values())
        return f'<div style="max-width: 820px">{lines}{self._picture(under_way)}</div>'

    def _picture(self, stages: Sequence[Stage]) -> str:
        """The curves of what is under way, with each epoch of a few; else a twentieth of the time goes into drawing."""
        epochs = sum(len(stage.history) for stage in stages if stage.epochs <= FEW)
        began = time.monotonic()
        if not any(stage.history or stage.running for stage in stages):
            self._curves = ""
        elif epochs != self._epochs or began >= self._drawn:
            self._epochs = epochs
            data = base64.b64encode(curves(stages)).decode()
            alt = "Loss and accuracy so far"
            self._curves = f'<img src="data:image/png;base64,{data}" alt="{alt}" style="width: 100%; max-width: 46em">'
            self._drawn = time.monotonic() + max(2.0, 20 * (time.monotonic() - began))
        return self._curves


def _under_way(stage: Stage) -> str:
    if stage.elsewhere:
        begun = "in progress in another process, shown from there"
    else:
        begun = stage.beginning if stage.since else "preparing"
    table = history_table(stage.history, ROWS).to_html(index=False, border=0) if stage.history else ""
    return (
        f"<div><strong>{html.escape(stage.label)}</strong>: {html.escape(begun)}</div>"
        f'<progress max="1" value="{stage.share:.4f}" style="width: 100%; max-width: 46em"></progress>'
        f"<div>{html.escape(stage.state)}</div>{_notes(stage)}{table}"
    )


def _ended(stage: Stage) -> str:
    """A line, and the epochs folded under it."""
    line = f"<strong>{html.escape(stage.label)}</strong>: {html.escape(stage.ended)}"
    if not stage.history:
        return f"<div>{line}</div>{_notes(stage)}"
    table = history_table(stage.history, 3 * ROWS).to_html(index=False, border=0)
    return f"<details><summary>{line}</summary>{table}</details>{_notes(stage)}"


def _notes(stage: Stage) -> str:
    return "".join(f'<div style="margin-left: 1em">☞ {html.escape(note)}</div>' for note in stage.notes)


def curves(stages: Sequence[Stage]) -> bytes:
    """Loss and accuracy so far, over all epochs to come, as a PNG without a background."""
    colours = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with mpl.rc_context(STYLE | colours):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH, 2.1), dpi=144)
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(0.08, 0.2, 0.99, 0.97, wspace=0.25)  # fixed: faster than a computed layout
        for stage in stages:
            if stage.running:
                left.plot(*zip(*stage.running, strict=True), color=TRAINING, linewidth=0.7, alpha=0.7)
            _draw(left, stage, "loss", 1)
            _draw(right, stage, "accuracy", 100)
        for ax, label in ((left, "loss, nats"), (right, "accuracy, %")):
            ax.set(xlabel="epoch", ylabel=label, xlim=(0, max(stage.epochs for stage in stages)))
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.grid(axis="y", color=INK, alpha=0.25)
        if not any(stage.history for stage in stages):
            right.set_ylim(0, 100)
        left.plot([], [], color=TRAINING, label="training")
        left.plot([], [], color=VALIDATION, label="validation")
        left.legend(loc="upper right")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


def _draw(ax: Axes, stage: Stage, kind: str, scale: float) -> None:
    """A dot an epoch, at its end."""
    marker = "o" if stage.epochs <= FEW else ""
    for split, colour in (("train", TRAINING), ("val", VALIDATION)):
        points = [(row.epoch, getattr(row, f"{split}_{kind}")) for row in stage.history]
        points = [(epoch, scale * value) for epoch, value in points if value is not None]
        if points:
            ax.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3)
