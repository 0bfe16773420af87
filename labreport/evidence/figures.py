"""Records as figures, 6.3 inches wide (the text of an A4 page), by seaborn and matplotlib. Nothing here imports torch.

`records` is the list of one recipe's runs, one a seed; `records_by_name` maps recipe names to such lists, of which
empty ones are skipped. Every figure is drawn under `STYLE`, whatever the notebook's own settings are; save it under
`style()` too, so that the same records give the same SVG, byte for byte.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from labreport.evidence import statistics, tables
from labreport.evidence.plausibility import Beside
from labreport.evidence.statistics import Interval, Measurement, measure
from labreport.evidence.tables import RecordsByName
from labreport.facts.reported import LogLine, System
from labreport.records.record import Epoch, RunRecord

WIDTH = 6.3  # inches
INK, GREY, PALE = "#222222", "#7a7a7a", "#e9edf2"
BLUE, ORANGE = "#1f4e79", "#d98e04"  # measured and reported; validation and training: apart in grey print as well
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222", "#7a7a7a")  # Okabe and Ito
MARKERS = "os^DvPX*"
MEASURED = "measured mean; one training, 95 %"  # of bars that a reported number, of one training, is judged by
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "text.hinting": "none",  # text is then as wide at every resolution, and the layout is right for the SVG too
    "svg.fonttype": "path",
    "svg.hashsalt": "labreport",
}
# What stands in for these where the page is dark. Text on coloured cells is black or white, and stays so.
DARK_GROUND = "#111111"
DARK = {
    INK: "#dedede",
    GREY: "#9a9a9a",
    "#737373": "#9a9a9a",
    PALE: "#2c3136",
    BLUE: "#6aaede",
    "#c9dbea": "#34536e",
    "#b5342b": "#e8736a",
}


def style() -> AbstractContextManager[None]:
    """The suite's matplotlib settings, for as long as the `with` lasts."""
    return mpl.rc_context(STYLE)  # type: ignore[arg-type]


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the suite's style, whatever the notebook's own settings are, and lay the figure out for good."""

    @functools.wraps(draw)
    def drawn(*args: object, **kwargs: object) -> Figure:
        with style():
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made while drawing, and take the settings of that moment
            figure.set_layout_engine(None)  # the layout stands; every further drawing would compute it again
            return figure

    return drawn


def following_the_page(svg: bytes) -> bytes:
    """A figure's SVG that is dark in a browser where the page around it is; elsewhere it is drawn as it was."""
    ground = f"#patch_1 > path, [id^=axes] > g:first-child > path {{ fill: {DARK_GROUND} !important }}"
    rules = "".join(
        f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    return svg.replace(b"</style>", f"@media (prefers-color-scheme: dark) {{ {ground} {rules} }}</style>".encode(), 1)


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


def _present(records_by_name: RecordsByName) -> list[Sequence[RunRecord]]:
    present = [records for records in records_by_name.values() if records]
    if not present:
        raise ValueError("no records to draw: train a recipe first")
    return present


def _dots(ax: Axes, labels: Sequence[str], found: Mapping[int, tuple[float, Interval]], **settings: Any) -> None:
    """A dot with its interval in the rows of `found`, place → share and interval; `labels` has each row's name."""
    points = [(place, 100 * x) for place, (share, span) in found.items() for x in (span.low, share, span.high)]
    frame = pd.DataFrame(points, columns=["place", "percent"])
    # Of the three numbers of a row the middle one is the dot, and the outer ones end the bar.
    middle = {"estimator": "median", "errorbar": ("pi", 100), "linestyle": "none"}
    look = {"color": BLUE, "markersize": 4.5, "capsize": 0.25, "err_kws": {"linewidth": 1.1}}
    rows = {"y": "place", "order": range(len(labels)), "orient": "h", "legend": False}
    sns.pointplot(frame, x="percent", ax=ax, **rows, **middle | look | settings)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylabel("")


def _diamonds(ax: Axes, n: int, percents: Mapping[int, float]) -> None:
    """What the lab report states, place → percent, as open diamonds in the places of `n` rows."""
    look = {"color": ORANGE, "marker": "D", "markersize": 5, "markeredgewidth": 1, "fillstyle": "none"}
    rows = {"order": range(n), "orient": "h", "legend": False, "linestyle": "none", "errorbar": None}
    sns.pointplot(x=list(percents.values()), y=list(percents), label="reported", ax=ax, **rows, **look)


def _heatmap(
    ax: Axes, values: np.ndarray, texts: np.ndarray, rows: Sequence[str], columns: Sequence[str], **settings: Any
) -> None:
    """A matrix (R, C) as shades, with a text in each cell."""
    labels = {"xticklabels": columns, "yticklabels": rows}
    sns.heatmap(values, annot=texts, fmt="", rasterized=True, ax=ax, **labels, **settings)  # cells as shapes are large
    for text, colour in zip(ax.texts, ax.collections[0].get_facecolor(), strict=True):
        text.set_color("white" if sns.utils.relative_luminance(colour) < 0.2 else "black")  # of the higher contrast
    ax.tick_params(length=0, labelrotation=0)


# --- one system -----------------------------------------------------------------------------------------------------


@styled
def curves(records: Sequence[RunRecord]) -> Figure:
    """Loss and accuracy over the epochs, training and (unless trained on) validation: the seeds' mean and range."""
    statistics.answers(records)  # refuses an empty list and mixed test sets
    figure = _figure(2.5)
    left, right = figure.subplots(1, 2)
    draw_curves(left, right, [record.history for record in records])
    chance = math.log(len(records[0].data.classes))
    left.axhline(chance, color=GREY, linewidth=0.8, linestyle=":")
    left.annotate(
        f"untrained: ln {len(records[0].data.classes)}",
        (1, chance),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=7,
        color=GREY,
    )
    return figure


def draw_curves(left: Axes, right: Axes, histories: Sequence[Sequence[Epoch]]) -> None:
    """Losses on `left`, accuracies in percent on `right`: the seeds' means, in a band from the lowest to the highest.

    Histories of unequal length are cut to the shortest.
    """
    n = min(len(history) for history in histories)
    rows = [row for history in histories for row in history[:n]]
    splits = {"training": (ORANGE, (3, 1.5)), "validation": (BLUE, "")}
    parts = [
        pd.DataFrame(
            {
                "epoch": [row.epoch for row in rows],
                "loss": [getattr(row, f"{split}_loss") for row in rows],
                "accuracy": [getattr(row, f"{split}_accuracy") for row in rows],
                "split": name,
            }
        ).dropna()  # where the validation images were trained on, too, there is nothing
        for split, name in (("train", "training"), ("val", "validation"))
    ]
    frame = pd.concat([part for part in parts if len(part)])
    frame["accuracy"] *= 100
    several = {"estimator": "mean", "errorbar": ("pi", 100)} if len(histories) > 1 else {"estimator": None}
    colours, dashes = ({name: look[i] for name, look in splits.items()} for i in (0, 1))
    for ax, kind, label in ((left, "loss", "loss, nats"), (right, "accuracy", "accuracy, %")):
        looks = {"hue": "split", "style": "split", "palette": colours, "dashes": dashes, "ax": ax}
        sns.lineplot(frame, x="epoch", y=kind, marker="o" if n < 3 else None, markersize=4, **several, **looks)
        ax.set(xlabel="epoch", ylabel=label, xlim=(0.5, n + 0.5) if n < 10 else (0, n))
        ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
        ax.grid(axis="y")
        ax.legend(loc="best")


@styled
def curves_together(records_by_name: RecordsByName) -> Figure:
    """Several recipes' losses and accuracies over the epochs: training dashed, validation full, the seeds' means."""
    figure = _figure(2.9)
    left, right = figure.subplots(1, 2)
    for i, records in enumerate(_present(records_by_name)):
        n = min(len(record.history) for record in records)
        for ax, kind, scale in ((left, "loss", 1), (right, "accuracy", 100)):
            for split, dash in (("train", "--"), ("val", "-")):
                values = [[getattr(row, f"{split}_{kind}") for row in record.history[:n]] for record in records]
                if all(value is not None for row in values for value in row):
                    look = {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)] if n < 10 else ""}
                    label = tables.title(records) if (ax, split) == (left, "train") else None
                    ax.plot(range(1, n + 1), scale * np.mean(values, axis=0), dash, markersize=4, label=label, **look)
    for ax, label in ((left, "loss, nats"), (right, "accuracy, %")):
        ax.set(xlabel="epoch", ylabel=label, xlim=(0.5, max(ax.get_xlim()[1], 1.5)))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="y")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


@styled
def confusion(records: Sequence[RunRecord]) -> Figure:
    """Test images by true and predicted class: counts, mean over the seeds; shade, the share of the true class."""
    statistics.answers(records)
    classes = records[0].data.classes
    matrices = [statistics.confusion(r.predictions.labels, r.predictions.predicted, len(classes)) for r in records]
    counts = np.mean(matrices, axis=0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(3.3)  # as high as its counts need, so that another picture fits on the page
    ax = figure.subplots()
    numbers = np.array([[f"{count:.0f}" if round(count) else "" for count in row] for row in counts])
    # The square root brings out the few per cent of each confusion beside a diagonal near one.
    bar = {"shrink": 0.8, "ticks": [0, 5, 10, 25, 50, 75, 100], "label": "share of the true class, %"}
    look = {"cmap": "Blues", "norm": PowerNorm(0.5, 0, 100), "square": True, "cbar_kws": bar}
    _heatmap(ax, 100 * shares, numbers, classes, classes, annot_kws={"fontsize": 7}, **look)
    ax.set_xticks(ax.get_xticks(), classes, rotation=45, ha="right", rotation_mode="anchor")
    ax.set(xlabel="predicted class", ylabel="true class")
    return figure


@styled
def per_class(records: Sequence[RunRecord], reported: System | None = None) -> Figure:
    """Accuracy of each class: the mean, one training's 95 % interval, each seed faint; and as the report states it."""
    correct, total = tables.class_counts(records)
    classes = records[0].data.classes
    figure = _figure(0.8 + 0.17 * len(classes))
    ax = figure.subplots()
    shares = correct / total
    intervals = [statistics.next_accuracy(correct[:, k].tolist(), int(total[k])) for k in range(len(classes))]
    found = dict(enumerate(zip(shares.mean(axis=0), intervals, strict=True)))
    _dots(ax, classes, found, markersize=4, label=MEASURED)
    if len(records) > 1:
        look = {"marker": "|", "linewidth": 1, "color": BLUE, "alpha": 0.6, "size": 7}
        sns.stripplot(pd.DataFrame(100 * shares), orient="h", jitter=False, ax=ax, **look)
    if reported is not None and reported.per_class and tables.is_cifar10(records):
        percents = {classes.index(line.name): 100 * line.correct / line.total for line in reported.per_class}
        _diamonds(ax, len(classes), percents)
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="test accuracy, %")
    ax.grid()
    figure.legend(loc="outside upper right", ncols=2)
    return figure


@styled
def examples(record: RunRecord) -> Figure:
    """The test images that the record keeps: its most confident right answers, one a class, and its worst errors."""
    seen = record.predictions
    if len(seen.example_images) == 0:
        raise ValueError(f"{record.stem} keeps no example images: draw those of a network that was trained on images")
    places = seen.example_indices
    right = seen.correct[places]
    columns = 10
    titles = ("Right: class and confidence", "Wrong: true class, predicted class and confidence")
    found = zip(titles, map(np.flatnonzero, (right, ~right)), strict=True)
    blocks = [(title, chosen.tolist()) for title, chosen in found if len(chosen)]
    heights = [math.ceil(len(chosen) / columns) for _, chosen in blocks]
    figure = _figure(0.98 * sum(heights) + 0.25 * len(blocks))
    parts = figure.subfigures(len(blocks), 1, False, height_ratios=heights)[:, 0]
    for part, height, (title, chosen) in zip(parts, heights, blocks, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=8.5)
        axes = part.subplots(height, columns, squeeze=False).ravel()
        for ax in axes:
            ax.axis("off")
        for ax, i in zip(axes, chosen, strict=False):
            _show_example(ax, record, i)
    return figure


def _show_example(ax: Axes, record: RunRecord, i: int) -> None:
    """The i-th example image under its classes and confidence."""
    seen = record.predictions
    ax.imshow(seen.example_images[i].transpose(1, 2, 0), interpolation="nearest")
    ax.set_title(answer_lines(record, seen.example_indices[i]), fontsize=7, pad=2)


def answer_lines(record: RunRecord, place: int) -> str:
    """A test image's class, the answer if it is another, and its confidence, a line each: side by side they overlap."""
    seen, classes = record.predictions, record.data.classes
    true, called = classes[seen.labels[place]], classes[seen.predicted[place]]
    return "\n".join(dict.fromkeys([true, called])) + f"\n{100 * seen.confidence[place]:.1f} %"


# --- the images, and what an optimiser does -------------------------------------------------------------------------


@styled
def image_grid(images: np.ndarray, labels: np.ndarray, classes: Sequence[str], columns: int = 10) -> Figure:
    """The first `columns` images of each class. images: (N, 3, H, W) uint8; labels: (N,)."""
    side = images.shape[-1]
    figure = _figure(WIDTH * len(classes) / columns * 0.92)
    ax = figure.subplots()
    sheet = np.full((len(classes) * (side + 1), columns * (side + 1), 3), 255, np.uint8)
    for k in range(len(classes)):
        for j, image in enumerate(images[labels == k][:columns]):
            top, left = k * (side + 1), j * (side + 1)
            sheet[top : top + side, left : left + side] = image.transpose(1, 2, 0)
    ax.imshow(sheet, interpolation="nearest")
    ax.set_yticks([k * (side + 1) + side / 2 for k in range(len(classes))], classes)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


@styled
def seen_pixels(masks: Mapping[str, np.ndarray]) -> Figure:
    """Which pixels networks see, a panel each. masks: title → (H, W) bool."""
    figure = _figure(2.3)
    for ax, (title, mask) in zip(figure.subplots(1, len(masks)), masks.items(), strict=True):
        ax.imshow(mask, cmap=ListedColormap([ORANGE, PALE]), vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(f"{title}: {mask.sum():,} of {mask.size:,}")
        ax.set(xlabel="column", ylabel="row")
    return figure


@styled
def singular_values(before: np.ndarray, after: Mapping[int, np.ndarray]) -> Figure:
    """Singular values after so many steps of an iteration, against those before it; all arrays (K,)."""
    figure = _figure(2.4)
    ax = figure.subplots()
    for i, (steps, values) in enumerate(after.items()):
        ax.plot(before, values, color=PALETTE[i], label=f"{steps} step{'s' if steps > 1 else ''}")
    ax.axhline(1, color=GREY, linewidth=0.8, linestyle="--")
    ax.set(xlabel="singular value before, of a matrix of norm 1", ylabel="after", ylim=(0, 1.45))
    ax.legend(ncols=len(after), loc="lower right")
    ax.grid()
    return figure


# --- all systems ----------------------------------------------------------------------------------------------------


@styled
def comparison(records_by_name: RecordsByName, reference: RecordsByName | None = None) -> Figure:
    """Table 1 as dots: what the report states, the measured mean with one training's interval, the reference run's."""
    rows = tables.comparison_rows(records_by_name)
    figure = _figure(0.8 + 0.19 * len(rows))
    ax = figure.subplots()

    def measured(runs: RecordsByName) -> dict[int, Measurement]:
        return {k: measure(runs[row.name], row.quantity) for k, row in enumerate(rows) if runs.get(row.name)}

    own = measured(records_by_name)
    _diamonds(ax, len(rows), {k: 100 * row.statement.value for k, row in enumerate(rows) if row.statement})
    if reference:
        means = {k + 0.32: 100 * found.value for k, found in measured(reference).items()}
        ax.plot(list(means.values()), list(means), "s", color=GREY, markersize=3.5, label="reference run")
    dots = {k: (found.value, found.one_training) for k, found in own.items()}
    _dots(ax, [row.label for row in rows], dots, label=MEASURED)
    for k in sorted(set(range(len(rows))) - set(own)):
        note: dict[str, Any] = {"xy": (1, k), "xycoords": ("axes fraction", "data"), "ha": "right", "va": "center"}
        ax.annotate("not run", **note, fontsize=7, color=GREY)
    ax.set(xlabel="accuracy, %")
    ax.grid()
    figure.legend(loc="outside upper right", ncols=3)
    return figure


@styled
def beside(found: Sequence[Beside]) -> Figure:
    """A report's accuracies as diamonds, and where one more training of each network would lie."""
    shown = [one for one in found if one.statement.quantity.endswith("accuracy")]
    figure = _figure(0.8 + 0.19 * len(shown))
    ax = figure.subplots()
    _diamonds(ax, len(shown), {k: 100 * one.statement.value for k, one in enumerate(shown)})
    dots = {k: (one.measured.value, one.interval) for k, one in enumerate(shown) if one.measured}
    labels = [f"{one.title}, {one.statement.quantity.partition(' ')[0]} ({one.statement.place})" for one in shown]
    _dots(ax, labels, dots, label="one more training, 95 %")
    ax.set(xlabel="accuracy, %")
    ax.grid()
    figure.legend(loc="outside upper right", ncols=2)
    return figure


@styled
def accuracy_vs_cost(records_by_name: RecordsByName) -> Figure:
    """Test accuracy against the number of parameters and against the FLOPs of the whole training."""
    present = _present(records_by_name)
    figure = _figure(3.1)
    axes = figure.subplots(1, 2, sharey=True)
    for i, records in enumerate(present):
        measured = measure(records, "test accuracy")
        error = [[100 * (measured.value - measured.interval.low)], [100 * (measured.interval.high - measured.value)]]
        settings = {"color": PALETTE[i % len(PALETTE)], "fmt": MARKERS[i % len(MARKERS)], "markersize": 5}
        for ax, cost in zip(axes, (records[0].parameters, records[0].train_flops), strict=True):
            label = tables.short_title(records) if ax is axes[0] else None
            ax.errorbar(cost, 100 * measured.value, yerr=error, capsize=2.5, elinewidth=1.1, label=label, **settings)
    for ax, label in zip(axes, ("parameters", "FLOPs of the training"), strict=True):
        ax.set(xscale="log", xlabel=label)
        ax.margins(x=0.1)
        _log_ticks(ax)
        ax.grid()
    axes[0].set_ylabel("test accuracy, %")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _log_ticks(ax: Axes) -> None:
    """Three labelled ticks or more on a logarithmic x axis, and no more than fit: 1, 1 and 3, or 1, 2, 5."""
    low, high = ax.get_xlim()
    for steps in ((1,), (1, 3), (1, 2, 5)):
        locator = LogLocator(subs=steps)
        if sum(low <= tick <= high for tick in locator.tick_values(low, high)) >= 3:
            break
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(math.inf, math.inf)))
    ax.xaxis.set_minor_formatter(NullFormatter())  # within two decades, their labels would overlap


@styled
def ablation(records_by_name: RecordsByName) -> Figure:
    """What each change does to the test accuracy of the recipe that comes first: points, with their intervals."""
    whole, *variants = _present(records_by_name)
    figure = _figure(0.6 + 0.26 * len(variants))
    ax = figure.subplots()
    changes = {}
    for k, records in enumerate(variants):
        result = statistics.paired_test(statistics.answers(records), statistics.answers(whole))
        changes[k] = result.difference, Interval(result.low, result.high, result.method)
    _dots(ax, [tables.title(records) for records in variants], changes)
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set(xlabel="change of test accuracy, points")
    ax.grid()
    return figure


@styled
def accuracy_over_time(records_by_name: RecordsByName) -> Figure:
    """Validation accuracy against the seconds of training so far: each system's first run."""
    figure = _figure(2.8)
    ax = figure.subplots()
    for i, records in enumerate(_present(records_by_name)):
        history = records[0].history
        seconds = np.cumsum([row.seconds for row in history])
        values = [np.nan if row.val_accuracy is None else 100 * row.val_accuracy for row in history]
        colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        markers: dict[str, Any] = {"marker": marker, "markersize": 3.5, "markevery": max(len(history) // 12, 1)}
        ax.plot(seconds, values, color=colour, label=tables.short_title(records), **markers)
    ax.set(xscale="log", xlabel="seconds of training", ylabel="validation accuracy, %")
    ax.grid()
    figure.legend(loc="outside lower center", ncols=4)
    return figure


FEWEST_ANSWERS = 20  # in a bin of a reliability diagram: with fewer its accuracy is mostly chance


@styled
def histories(records_by_name: RecordsByName, log: Sequence[LogLine] = ()) -> Figure:
    """Validation loss and accuracy of several systems over the epochs, and the accuracies of a reported log.

    Each system's seeds as their mean, in a band from the lowest to the highest.
    """
    rows = [
        (tables.short_title(records), row.epoch, row.val_loss, 100 * row.val_accuracy)
        for records in _present(records_by_name)
        for record in records
        for row in record.history
        if row.val_accuracy is not None
    ]
    frame = pd.DataFrame(rows, columns=["system", "epoch", "loss", "accuracy"])
    figure = _figure(2.7)
    left, right = figure.subplots(1, 2)
    n = frame["system"].nunique()
    look = {"hue": "system", "style": "system", "dashes": False, "markers": [*MARKERS[:n]], "palette": [*PALETTE[:n]]}
    for ax, kind, label in ((left, "loss", "validation loss, nats"), (right, "accuracy", "validation accuracy, %")):
        sns.lineplot(frame, x="epoch", y=kind, errorbar=("pi", 100), markersize=4, ax=ax, legend=ax is right, **look)
        ax.set(ylabel=label)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="y")
    if log:
        look = {"color": ORANGE, "markersize": 5, "fillstyle": "none", "linewidth": 0.7, "label": "the report's log"}
        right.plot([line.epoch for line in log], [line.percent for line in log], "D:", **look)
    right.get_legend().remove()
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


@styled
def accuracy_by_size(groups: Mapping[str, RecordsByName], reported: float | None = None) -> Figure:
    """Test accuracy with its interval against the side of the images that the network sees: a line for each group.

    `reported` is a share that the report states.
    """
    figure = _figure(2.8)
    ax = figure.subplots()
    for i, (label, records_by_name) in enumerate((k, v) for k, v in groups.items() if any(v.values())):
        present = sorted(_present(records_by_name), key=tables.pixels)
        found = [measure(records, "test accuracy") for records in present]
        error = [[m.value - m.interval.low for m in found], [m.interval.high - m.value for m in found]]
        sides = [tables.pixels(records) for records in present]
        look: dict[str, Any] = {
            "color": PALETTE[i],
            "marker": MARKERS[i],
            "markersize": 4.5,
            "capsize": 2.5,
            "elinewidth": 1.1,
        }
        named = label + tables.mark([record for records in present for record in records])
        ax.errorbar(sides, [100 * m.value for m in found], yerr=100 * np.array(error), label=named, **look)
    if reported is not None:
        ax.axhline(100 * reported, color=ORANGE, linestyle=":", label=f"reported, {100 * reported:.2f} %")
    ax.set_xscale("log", base=2)
    ax.set_xticks([32, 64, 128, 224], ["32", "64", "128", "224"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="pixels a side of the images that the network sees", ylabel="test accuracy, %")
    ax.grid()
    figure.legend(loc="outside upper right", ncols=2)
    return figure


@styled
def reliability(records_by_name: RecordsByName) -> Figure:
    """Accuracy at each confidence, all seeds pooled; on the diagonal a network is as right as it says.

    Bins of fewer than `FEWEST_ANSWERS` images are left out; the calibration error in the title counts them too.
    """
    present = _present(records_by_name)
    columns = min(len(present), 4)
    rows = math.ceil(len(present) / columns)
    figure = _figure(0.3 + 1.5 * rows)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(present) :]:
        ax.set_visible(False)
    for ax in axes.flat[len(present) - columns : len(present)]:
        ax.tick_params(labelbottom=True)  # the lowest one of its column that is drawn
    for ax, records in zip(axes.flat, present, strict=False):
        _draw_reliability(ax, records)
        error = statistics.calibration(records).error
        ax.set_title(f"{tables.short_title(records)}\nerror {100 * error:.1f} %", fontsize=8)
        ax.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", xticks=[0, 50, 100], yticks=[0, 50, 100])
    figure.supxlabel(f"confidence, % (bins of fewer than {FEWEST_ANSWERS} images are left out)", fontsize=8)
    figure.supylabel("accuracy, %", fontsize=8)
    return figure


def _draw_reliability(ax: Axes, records: Sequence[RunRecord]) -> None:
    """Bars of the bins' accuracies, dots at their mean confidences, and the diagonal."""
    confidence = np.concatenate([record.predictions.confidence for record in records])
    correct = np.concatenate([record.predictions.correct for record in records])
    bins = statistics.reliability_bins(confidence, correct)
    shown = bins.count >= FEWEST_ANSWERS
    width = 100 * (bins.edges[1] - bins.edges[0])
    ax.bar(100 * bins.edges[:-1][shown], 100 * bins.accuracy[shown], width, align="edge", color="#9db8d2")
    ax.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle="--")
    ax.plot(100 * bins.confidence[shown], 100 * bins.accuracy[shown], "o-", color=BLUE, markersize=2.5, linewidth=1)


@styled
def class_changes(records_by_name: RecordsByName) -> Figure:
    """Accuracy of every class and system in percent; shade, the change in points from the system to its left."""
    present = _present(records_by_name)
    counts = map(tables.class_counts, present)
    shares = np.stack([100 * correct.mean(axis=0) / total for correct, total in counts], axis=1)
    changes = np.diff(shares, axis=1, prepend=shares[:, :1])
    limit = max(float(np.abs(changes).max()), 1.0)
    texts = tables.class_changes(records_by_name).iloc[:, 1:].to_numpy()
    figure = _figure(2.8)
    ax = figure.subplots()
    look = {"cmap": "RdBu", "vmin": -limit, "vmax": limit, "cbar_kws": {"shrink": 0.8, "label": "change, points"}}
    names = [tables.short_title(records).replace(" ", "\n", 1) for records in present]
    _heatmap(ax, changes, texts, present[0][0].data.classes, names, annot_kws={"fontsize": 6.5}, **look)
    return figure
