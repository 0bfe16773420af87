"""Figures in words, for those who do not see them: what is drawn, with its numbers, read off the drawing itself.

Whoever draws a figure need not write it a second time; and what is said is what is seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

MOST = 6  # points of a curve that are named one by one; of a longer one only ends and extremes are
MOST_CELLS = 130  # numbers of a matrix that are read out
COLORBAR = "<colorbar>"  # the label that matplotlib gives to its axes


def describe(figure: Figure) -> str:
    """What a drawn figure shows, in plain words: its panels, axes, curves, bars, matrices and pictures, with numbers.

    The figure must have been drawn once: matplotlib makes tick labels only then.
    """
    axes = [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != COLORBAR]
    said = list(filter(None, map(_panel, axes)))
    pictures = [text for text in said if text.startswith("picture")]
    panels = [text for text in said if text not in pictures]
    if pictures:
        noun = "picture" if len(pictures) == 1 else f"{len(pictures)} pictures"
        names = [name for text in pictures if (name := text.removeprefix("picture").strip())]
        panels.append(f"{noun}{': ' if names else ''}{'; '.join(names)}")
    if len(panels) > 1:
        panels = [f"Panel {number}: {text}" for number, text in enumerate(panels, start=1)]
    return ". ".join(text[0].upper() + text[1:] for text in panels) + "." if panels else "An empty figure."


def _panel(ax: Axes) -> str:
    title = _flat(ax.get_title())
    parts = [*_bars(ax), *_curves(ax), *_matrix(ax)]
    if not parts and ax.images:
        return f"picture {title}".strip()
    labels = [_flat(text) for text in (ax.get_ylabel(), ax.get_xlabel()) if text]
    head = ", ".join(filter(None, (title, " against ".join(labels))))
    notes = [_flat(text.get_text()) for text in ax.texts if not _number(text.get_text()) and text.get_visible()]
    if notes and not _cells(ax):
        parts.append(f"marked: {', '.join(notes)}")
    return f"{head}: {'; '.join(parts)}" if head and parts else head or "; ".join(parts)


def _spans(ax: Axes) -> dict[tuple[str, str], tuple[float, float]]:
    """The intervals of dots beside names, by colour and name: seaborn draws each as a line of its own."""
    drawn = (line for line in ax.get_lines() if line.get_marker() in ("None", "") and np.size(line.get_xdata()) > 1)
    spans = {}
    for line in drawn if _names(ax.yaxis) else ():
        x, y = (np.asarray(values, float) for values in line.get_data())
        if np.isfinite(x).any() and np.nanmax(y) - np.nanmin(y) < 1 and np.nanmax(x) > np.nanmin(x):
            spans[to_hex(line.get_color()), _name(ax.yaxis, float(np.nanmean(y)))] = (
                float(np.nanmin(x)),
                float(np.nanmax(x)),
            )
    return spans


def _bars(ax: Axes) -> Iterator[str]:
    for bars in (found for found in ax.containers if isinstance(found, BarContainer)):
        lying = bars.orientation == "horizontal"
        centres = [(bar.get_y() + bar.get_height() / 2 if lying else bar.get_x() + bar.get_width() / 2) for bar in bars]
        values = [bar.get_width() if lying else bar.get_height() for bar in bars]
        axis = ax.yaxis if lying else ax.xaxis
        told = [f"{_name(axis, place)} {_short(v)}" for place, v in zip(centres, values, strict=True)]
        yield from _named(bars.get_label(), told)


def _curves(ax: Axes) -> Iterator[str]:
    """Named curves, and dots beside names with their intervals; other lines only repeat or guide."""
    spans, named = _spans(ax), _legend(ax.figure.get_figure(root=True))
    curves: dict[str, str] = {}
    for line in sorted(ax.get_lines(), key=lambda line: line.get_linewidth()):  # a mean is the thickest of its kind
        x, y = (np.asarray(values, float) for values in line.get_data())
        dots = bool(_names(ax.yaxis)) and line.get_marker() not in ("None", "", "|")
        label = str(line.get_label()) if _labelled(line.get_label()) else named.get(_look(line), "")
        if not (np.isfinite(x) & np.isfinite(y)).any() or not (dots or label):
            continue
        points = [point for point in zip(x, y, strict=True) if np.isfinite(point).all()]
        if dots:
            names, colour = (_name(ax.yaxis, b) for _, b in points), to_hex(line.get_color())
            told = [
                f"{n} {_short(a)}" + _interval(spans.get((colour, n))) for n, (a, _) in zip(names, points, strict=True)
            ]
        elif len(points) <= MOST:
            told = [_at(ax, *point) for point in points]
        else:
            low, high = (pick(points, key=lambda point: point[1]) for pick in (min, max))
            told = [f"from {_at(ax, *points[0])} to {_at(ax, *points[-1])}"]
            told += [
                f"{word} {_at(ax, *p)}"
                for word, p in (("lowest", low), ("highest", high))
                if p not in (points[0], points[-1])
            ]
        curves[label or str(len(curves))] = (f"{_flat(label)}: " if label else "") + ", ".join(told)
    yield from curves.values()


def _look(line: Line2D) -> tuple[str, str, str]:
    return to_hex(line.get_color()), str(line.get_linestyle()), str(line.get_marker())


def _legend(figure: Figure) -> dict[tuple[str, str, str], str]:
    """How a line looks → what the legends call it."""
    found = [pair for ax in figure.axes for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
    for legend in filter(None, (*figure.legends, *(ax.get_legend() for ax in figure.axes))):
        handles = [handle for handle in legend.legend_handles if handle is not None]
        found += zip(handles, (text.get_text() for text in legend.get_texts()), strict=True)
    lines = ((handle.lines[0] if isinstance(handle, ErrorbarContainer) else handle, label) for handle, label in found)
    return {_look(line): label for line, label in lines if isinstance(line, Line2D)}


def _interval(span: tuple[float, float] | None) -> str:
    return f" ({_short(span[0])} to {_short(span[1])})" if span else ""


def _matrix(ax: Axes) -> Iterator[str]:
    """Numbers in cells, row by row; of a square of classes the diagonal and the largest numbers beside it."""
    cells = _cells(ax)
    if not cells:
        return
    rows = defaultdict(list)
    for (row, column), text in sorted(cells.items()):
        rows[row].append((column, text))
    names = _names(ax.yaxis)
    if names and names == _names(ax.xaxis):
        yield from _square(cells, list(names.values()))
    elif len(cells) <= MOST_CELLS:
        named = (f"{_name(ax.yaxis, row)} " if names else "" for row in rows)
        yield "; ".join(name + " ".join(t for _, t in row) for name, row in zip(named, rows.values(), strict=True))


def _square(cells: dict[tuple[float, float], str], names: Sequence[str]) -> Iterator[str]:
    places = sorted({row for row, _ in cells})
    yield "on the diagonal " + ", ".join(f"{n} {cells.get((i, i), 0)}" for n, i in zip(names, places, strict=False))
    at = dict(zip(places, names, strict=False))
    others = sorted((-float(text), place) for place, text in cells.items() if place[0] != place[1])
    yield "beside it most: " + ", ".join(f"{at[i]} as {at[j]} {-count:.0f}" for count, (i, j) in others[:5])


def _cells(ax: Axes) -> dict[tuple[float, float], str]:
    """(row, column) → what is written in that cell of a heat map or of a drawn matrix."""
    if not ax.images and not any(hasattr(found, "get_coordinates") for found in ax.collections):
        return {}
    written = [text for text in ax.texts if text.get_transform() == ax.transData and _number(text.get_text())]
    return {text.get_position()[::-1]: text.get_text() for text in written}


def _labelled(label: object) -> bool:
    return bool(label) and not str(label).startswith("_")


def _named(label: object, told: Sequence[str]) -> Iterator[str]:
    if told:
        yield (f"{_flat(str(label))}: " if _labelled(label) else "") + ", ".join(told)


def _at(ax: Axes, x: float, y: float) -> str:
    return f"{_short(y)} at {_name(ax.xaxis, x)}"


def _names(axis: Axis) -> dict[float, str]:
    """What an axis of names, not of numbers, says at each place; where panels share it, one of them says it."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return {}
    shared = axis.axes.get_shared_y_axes() if axis is axis.axes.yaxis else axis.axes.get_shared_x_axes()
    places = axis.get_ticklocs()
    for other in (axis, *(ax.yaxis if axis is axis.axes.yaxis else ax.xaxis for ax in shared.get_siblings(axis.axes))):
        texts = [_flat(label.get_text()) for label in other.get_ticklabels()]
        if any(text and not _number(text) for text in texts):
            return {float(place): text for place, text in zip(places, texts, strict=False) if text}
    return {}


def _name(axis: Axis, place: float) -> str:
    names = _names(axis)
    near = min(names, key=lambda tick: abs(tick - place), default=np.inf)
    return names[near] if abs(near - place) < 0.5 else _short(place)


def _short(value: float) -> str:
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
    return text.replace("-", "−")


def _number(text: str) -> bool:
    """Whether a text begins as a number does, its sign and share of a hundred included."""
    return text.strip().lstrip("+−-(").replace(",", "")[:1].isdigit()


def _flat(text: str) -> str:
    return " ".join(text.split())
