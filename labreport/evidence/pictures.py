"""Pictures and what networks say of them, as figures 6.3 inches wide. Nothing here imports torch.

Images are (N, 3, 32, 32) uint8 arrays; probabilities (N, num_classes), by the network's title.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labreport.evidence.figures import BLUE, GREY, INK, ORANGE, WIDTH, styled

MAPS, TILE = 12, 32  # feature maps shown of a layer, and pixels a side of each on the sheet


def _show(ax: Axes, image: np.ndarray) -> None:
    ax.imshow(image.transpose(1, 2, 0), interpolation="nearest")
    ax.axis("off")


@styled
def bars(
    images: np.ndarray,
    probabilities: Mapping[str, np.ndarray],
    classes: Sequence[str],
    names: Sequence[str] = (),
    labels: Sequence[int] | None = None,
) -> Figure:
    """Each image beside its bars, a column a network: the most probable class dark, the true one on orange."""
    figure = Figure(figsize=(WIDTH, 0.25 + 1.35 * len(images)), layout="constrained")
    ratios = [0.75, *([1.0] * len(probabilities))]
    axes = figure.subplots(len(images), len(ratios), squeeze=False, width_ratios=ratios)
    for i, (picture, *row) in enumerate(axes):
        _show(picture, images[i])
        if names:
            picture.set_title(names[i], fontsize=7.5, pad=3)
        for column, (ax, (title, said)) in enumerate(zip(row, probabilities.items(), strict=True)):
            percents, best = np.round(100 * said[i], 1), int(said[i].argmax())  # as printed, on any processor
            colours = [BLUE if k == best else "#b9c9d9" for k in range(len(classes))]
            ax.barh(range(len(classes)), percents, color=colours, height=0.75)
            ax.set(xlim=(0, 118), xticks=[0, 50, 100], ylim=(len(classes) - 0.5, -0.5))
            ax.set_yticks(range(len(classes)), classes if column == 0 else [""] * len(classes), fontsize=6.5)
            ax.tick_params(axis="x", labelsize=6.5, labelbottom=i == len(images) - 1)
            ax.text(percents[best] + 1.5, best, f"{percents[best]:.1f} %", va="center", fontsize=6.5)
            if labels is not None:
                ax.axhspan(labels[i] - 0.5, labels[i] + 0.5, color=ORANGE, alpha=0.22, linewidth=0, zorder=0)
            if i == 0:
                ax.set_title(title)
            if i == len(images) - 1:
                ax.set_xlabel("probability, %")
    return figure


@styled
def grid(images: np.ndarray, titles: Sequence[str], columns: int = 10) -> Figure:
    """Images under their titles of up to three lines, `columns` in a row."""
    if len(images) == 0:
        raise ValueError("no image to show: choose another class or kind of answer")
    rows = math.ceil(len(images) / columns)
    lines = max(title.count("\n") + 1 for title in titles)
    figure = Figure(figsize=(WIDTH, (0.6 + 0.125 * lines) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, image, title in zip(axes, images, titles, strict=False):
        _show(ax, image)
        ax.set_title(title, fontsize=6.5, pad=2)
    return figure


@styled
def feature_maps(image: np.ndarray, maps: Mapping[str, np.ndarray]) -> Figure:
    """An image (3, H, W), and under it of every layer's outputs (C, h, w) the maps that vary most over the image.

    Zero is white; red is above it, blue below, each map by its own largest value.
    """
    figure = Figure(figsize=(WIDTH, 0.75 + 0.63 * len(maps)), layout="constrained")
    first, *axes = figure.subplots(len(maps) + 1, 1, height_ratios=[1.5, *([1.0] * len(maps))])
    _show(first, image)
    first.set_anchor("W")
    for ax, (name, values) in zip(axes, maps.items(), strict=True):
        chosen = np.sort(np.argsort(-values.std(axis=(1, 2)), kind="stable")[:MAPS])
        height, width = values.shape[1:]
        sheet = np.full((TILE, MAPS * (TILE + 2) - 2), np.nan)  # tiles of one size, whatever the layer's is
        rows, columns = (np.arange(TILE) * length // TILE for length in (height, width))
        for place, k in enumerate(chosen):
            left = place * (TILE + 2)
            sheet[:, left : left + TILE] = values[k][np.ix_(rows, columns)] / max(float(np.abs(values[k]).max()), 1e-12)
        ax.imshow(sheet, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        ax.set_anchor("W")
        ax.axis("off")
        ax.set_title(
            f"{name}: {len(chosen)} of {len(values)} maps of {height}×{width}", loc="left", fontsize=7, pad=2, color=INK
        )
    return figure


@styled
def important_pixels(image: np.ndarray, found: Mapping[str, tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """An image (3, H, W) and for each network, title → (answer, occlusion, gradient), its two maps (H, W)."""
    figure = Figure(figsize=(WIDTH, 2.0), layout="constrained")
    first, *axes = figure.subplots(1, 1 + 2 * len(found))
    _show(first, image)
    first.set_title("the image", fontsize=7)
    for k, (title, (answer, hidden, slope)) in enumerate(found.items()):
        limit = max(float(np.abs(hidden).max()), 0.01)
        for ax, values, settings, word in (
            (
                axes[2 * k],
                100 * hidden,
                {"cmap": "RdBu_r", "vmin": -100 * limit, "vmax": 100 * limit},
                "occlusion, points",
            ),
            (
                axes[2 * k + 1],
                slope / max(float(slope.max()), 1e-12),
                {"cmap": "Greys", "vmin": 0, "vmax": 1},
                "gradient",
            ),
        ):
            drawn = ax.imshow(values, interpolation="nearest", **settings)
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{title}\n{answer}\n{word}", fontsize=6.5, pad=3)
            bar = figure.colorbar(drawn, ax=ax, location="bottom", shrink=0.9, pad=0.03)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=6, length=2, color=GREY)
    return figure
