"""The pictures of notebook 01. Each function returns one matplotlib Figure, 6.3 inches wide (the text of an A4 page).

Images are (3, 32, 32) uint8 tensors. Whatever a picture shows is computed by `formulas` (or measured by
`derivation_checks`), never drawn by hand.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from labreport.derivations import formulas as derivations
from labreport.derivations.formulas import Stage, output_size
from labreport.evidence.figures import BLUE, GREY, INK, ORANGE, PALE, WIDTH, styled
from labreport.evidence.statistics import least_cross_entropy
from labreport.images.augment import normalize
from labreport.networks import models

if TYPE_CHECKING:
    from labreport.lab.session import Lab
    from labreport.records.record import RunRecord

GREEN, RED = "#3a8a5f", "#b5342b"
TAPS = ("#4f86b9", "#e3a635", "#6aa884", "#c96a62")  # one colour a kernel weight


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


@dataclass(frozen=True, eq=False)
class Examples:
    """The chapter's images: (B, 3, 32, 32) uint8 and (B,) int64, the class names, and a sentence that says whose."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    sentence: str


TEST_IMAGES = (23, 44, 13)  # places in the test set; of CIFAR-10 a fire engine, a biplane, a white horse


def examples(lab: Lab) -> Examples:
    """Three test images; where stored runs are reported without the data, those that a run's record has kept."""
    stored = [record for records in lab.records().values() for record in records] if lab.reports_only else []
    if stored:
        kept, info = stored[0].predictions, stored[0].data
        images = torch.from_numpy(kept.example_images[:3])
        labels = torch.from_numpy(kept.labels[kept.example_indices[:3]]).long()
        sentence = f"The images are test images that the record {stored[0].stem} has kept."
        return Examples(images, labels, info.classes, sentence)
    test, classes = lab.data.test, lab.data.info.classes
    if lab.data.info.source == "synthetic stand-in":
        chosen, sentence = _clearest(test.images[:200]), "The images are drawn: a stand-in for CIFAR-10."
    else:
        chosen, sentence = torch.tensor(TEST_IMAGES), "The images are test images of CIFAR-10."
    return Examples(test.images[chosen], test.labels[chosen], classes, sentence)


def _clearest(images: Tensor) -> Tensor:
    """Places of the three images whose drawing stands out most in brightness, noise averaged away."""
    smooth = torch.stack([luminance(image) for image in images]).unflatten(1, (8, 4)).unflatten(3, (8, 4)).mean((2, 4))
    return smooth.flatten(1).var(1).argsort(descending=True)[:3]


def first_kernels(records: Sequence[RunRecord]) -> tuple[Tensor, str]:
    """(O, 3, KH, KW) kernels of the first layer that a run learned and a label; the untrained ones without a run."""
    if records:
        record = records[0]
        return torch.from_numpy(record.predictions.first_kernels), f"{len(record.history)} epochs"
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return models.Baseline().conv1.weight.detach(), "untrained"


# ------------------------------------------------------------------------------------------------------ shared drawing


def luminance(image: Tensor) -> Tensor:
    """(3, H, W) uint8 → (H, W) float64 in [0, 1], by the weights of ITU-R BT.601."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    return torch.einsum("c,chw->hw", weights, image.double() / 255)


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _picture(ax: Axes, image: Tensor, title: str = "") -> None:
    ax.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_title(title)
    _bare(ax)


def _signed(ax: Axes, values: Tensor, title: str = "") -> None:
    """A feature map on a scale that is symmetric about 0: blue below, white at, red above it."""
    limit = float(values.abs().max()) or 1.0
    ax.imshow(values.detach().numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set_title(title)
    _bare(ax)


def _number(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if round(value, digits) else f"{0:.{digits}f}"


def _cells(
    ax: Axes,
    values: Tensor | np.ndarray,
    *,
    cmap: str = "Greys",
    limits: tuple[float, float],
    digits: int = 0,
    size: float = 7,
) -> None:
    """A matrix as coloured cells with its numbers in them; nan stays empty."""
    values = np.ma.masked_invalid(np.asarray(values, dtype=float))
    colours = mpl.colormaps[cmap](mpl.colors.Normalize(*limits)(values))
    ax.pcolormesh(
        np.ma.masked_array(values), cmap=cmap, vmin=limits[0], vmax=limits[1], edgecolors="white", linewidth=0.8
    )
    for (row, column), value in np.ma.ndenumerate(values):  # leaves masked ones out
        dark = np.dot(colours[row, column, :3], (0.299, 0.587, 0.114)) < 0.55
        colour = "white" if dark else "black"
        ax.text(column + 0.5, row + 0.5, _number(value, digits), ha="center", va="center", size=size, color=colour)
    ax.set(xlim=(-0.06, values.shape[1] + 0.06), ylim=(values.shape[0] + 0.06, -0.06), aspect="equal")
    _bare(ax)


def _frame(
    ax: Axes, row: float, column: float, height: float, width: float, colour: str = ORANGE, **style: Any
) -> None:
    ax.add_patch(Rectangle((column, row), width, height, fill=False, edgecolor=colour, **{"linewidth": 1.8, **style}))


def liveliest_crop(values: Tensor, side: int) -> tuple[int, int]:
    """Row and column of the side × side crop of (H, W) `values` with the largest variance."""
    crops = values.unfold(0, side, 1).unfold(1, side, 1).flatten(2)
    best = int(crops.var(2).argmax())
    return best // crops.shape[1], best % crops.shape[1]


# --------------------------------------------------------------------------------------------------------- convolution


@styled
def kernel_at_work(image: Tensor, kernel: Tensor) -> Figure:
    """A crop of `image` under `kernel` (2, 2), at three places, with the sum written out."""
    gray = luminance(image)
    side = 5
    top, left = liveliest_crop(gray, side)
    crop = (10 * gray[top : top + side, left : left + side]).round()  # whole tenths: the sums can be redone by hand
    output = derivations.conv2d_im2col(crop[None, None], kernel[None, None].double())[0, 0]
    figure = _figure(3.0)
    axes = figure.subplots(2, 4, width_ratios=(1.1, 1, 1, 1))
    axes[0, 0].imshow(gray.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes[0, 0].set_title("image")
    _bare(axes[0, 0])
    _frame(axes[0, 0], top - 0.5, left - 0.5, side, side)
    _cells(axes[1, 0], kernel, cmap="RdBu_r", limits=(-2, 2), size=8)
    axes[1, 0].set(title="kernel", xlim=(-1, 3), ylim=(3, -1))
    strongest = divmod(int(output.abs().argmax()), output.shape[1])
    moments = (((0, 0), 1), ((0, 1), 2), (strongest, output.numel()))  # the window's place, and values computed so far
    for (above, below), ((i, j), count) in zip(axes.T[1:], moments, strict=True):
        _cells(above, crop, cmap="gray", limits=(0, 10))
        _frame(above, i, j, *kernel.shape)
        above.set_title(f"window at ({i}, {j})")
        done = torch.arange(output.numel()).view_as(output) < count
        _cells(below, output.where(done, math.nan), cmap="RdBu_r", limits=(-10, 10))
        _frame(below, 0, 0, output.shape[0], output.shape[1], colour=GREY, linewidth=0.6)
        _frame(below, i, j, 1, 1)
        products = zip(kernel.flatten().tolist(), crop[i : i + 2, j : j + 2].flatten().tolist(), strict=True)
        terms = " ".join(f"{'+' if w > 0 else '−'} {abs(w) * x:.0f}" for w, x in products).removeprefix("+ ")
        below.set_xlabel(f"{terms} = {_number(float(output[i, j]))}")
    return figure


@styled
def flipping(image: Tensor) -> Figure:
    """Cross-correlation and convolution by the same kernel: of an impulse, and of `image`."""
    impulse = torch.zeros(5, 5, dtype=torch.float64)
    impulse[2, 2] = 1
    numbered = torch.arange(1.0, 10, dtype=torch.float64).view(3, 3)
    slope = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
    figure = _figure(3.0)
    axes = figure.subplots(2, 4)
    _cells(axes[0, 0], impulse, limits=(0, 14))
    _cells(axes[0, 1], numbered, cmap="Blues", limits=(0, 14))
    axes[0, 1].set(xlim=(-1, 4), ylim=(4, -1))
    axes[1, 0].imshow(luminance(image).numpy(), cmap="gray", interpolation="nearest")
    _bare(axes[1, 0])
    _cells(axes[1, 1], slope, cmap="RdBu_r", limits=(-4, 4))
    axes[1, 1].set(xlim=(-1, 4), ylim=(4, -1))
    forms = (derivations.conv2d_im2col, derivations.convolve2d)
    for column, form in enumerate(forms, start=2):
        _cells(
            axes[0, column],
            form(impulse[None, None], numbered[None, None], padding=1)[0, 0],
            cmap="Blues",
            limits=(0, 14),
        )
        _signed(axes[1, column], form(luminance(image)[None, None], slope[None, None])[0, 0])
    for ax, title in zip(axes[0], ("input", "kernel", "cross-correlation", "convolution"), strict=True):
        ax.set_title(title)
    return figure


def _draw_places(above: Axes, below: Axes, size: int, place: int, *, reach: int, **setting: int) -> None:
    """A kernel at one place of a padded size × size input, and the output below; `reach` cells of room each way."""
    kernel, stride, padding, dilation = (setting[name] for name in ("kernel", "stride", "padding", "dilation"))
    out = output_size(size, kernel, stride, padding, dilation)
    row, column = divmod(min(place, out * out - 1), out)
    for i in range(-padding, size + padding):
        for j in range(-padding, size + padding):
            inside = 0 <= i < size and 0 <= j < size
            style: dict[str, Any] = (
                {"facecolor": PALE, "edgecolor": "#b8c2cd"}
                if inside
                else {"facecolor": "none", "edgecolor": "#b8c2cd", "linestyle": ":"}
            )
            above.add_patch(Rectangle((j, i), 1, 1, linewidth=0.7, **style))
    for a in range(kernel):
        for b in range(kernel):
            corner = (column * stride + b * dilation - padding, row * stride + a * dilation - padding)
            above.add_patch(Rectangle(corner, 1, 1, facecolor=ORANGE, alpha=0.75, edgecolor="white", linewidth=0.7))
    for i in range(out):
        for j in range(out):
            colour = ORANGE if (i, j) == (row, column) else "#c9dbea"
            below.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.7))
    for ax, side in ((above, size), (below, out)):
        middle = side / 2
        ax.set(
            xlim=(middle - reach / 2, middle + reach / 2), ylim=(middle + reach / 2, middle - reach / 2), aspect="equal"
        )
        _bare(ax)
    below.set_xlabel(f"{size}×{size} → {out}×{out}")


PLACES = {
    "2×2": {"kernel": 2, "stride": 1, "padding": 0, "dilation": 1},
    "2×2, padding 1": {"kernel": 2, "stride": 1, "padding": 1, "dilation": 1},
    "3×3, padding 1, stride 2": {"kernel": 3, "stride": 2, "padding": 1, "dilation": 1},
    "2×2, dilation 3": {"kernel": 2, "stride": 1, "padding": 0, "dilation": 3},
}


@styled
def places(settings: dict[str, dict[str, int]] = PLACES, size: int = 5) -> Figure:
    """For each setting the kernel at its second place on a size × size input, and the output."""
    figure = _figure(2.6)
    axes = figure.subplots(2, len(settings), squeeze=False)
    reach = max(size + 2 * setting["padding"] for setting in settings.values())
    for (above, below), (title, setting) in zip(axes.T, settings.items(), strict=True):
        _draw_places(above, below, size, place=1, reach=reach, **setting)
        above.set_title(title)
    return figure


def last_place(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The number of the kernel's last place, from 0.

    Raises:
        ValueError: the kernel is larger than the padded input.
    """
    return output_size(size, kernel, stride, padding, dilation) ** 2 - 1


def edge_kernel(side: int) -> Tensor:
    """(side, side) weights 1 left of the middle, −1 right of it; a single 1 for side 1."""
    return (
        torch.sign((side - 1) / 2 - torch.arange(side, dtype=torch.float64)).expand(side, side)
        if side > 1
        else torch.ones(1, 1, dtype=torch.float64)
    )


@styled
def one_place(image: Tensor, size: int, place: int, **setting: int) -> Figure:
    """One setting at one place of a crop of `image`, in tenths of its brightness: what the slider moves.

    Raises:
        ValueError: the kernel is larger than the padded input.
    """
    side, padding = setting["kernel"], setting["padding"]
    gray = luminance(image)
    top, left = liveliest_crop(gray, size)
    pixels, weights = (10 * gray[top : top + size, left : left + size]).round(), edge_kernel(side)
    geometry = {name: setting[name] for name in ("stride", "padding", "dilation")}
    output = derivations.conv2d_im2col(pixels[None, None], weights[None, None], None, **geometry)[0, 0]
    under = derivations.im2col(pixels[None, None], side, **geometry)[0][:, place]
    figure, reach = _figure(3.0), size + 2 * padding + 1
    above, middle, below = figure.subplots(1, 3, width_ratios=(2, 1, 2))
    _draw_places(above, below, size, place, reach=reach, **setting)
    _cells(middle, weights, cmap="RdBu_r", limits=(-2, 2))
    middle.set(title="weights", xlim=(side / 2 - 2.6, side / 2 + 2.6), ylim=(side / 2 + 2.6, side / 2 - 2.6))
    above.set_title("pixels")
    below.set_title("output")
    for ax, values in ((above, pixels), (below, output)):
        for (row, column), value in np.ndenumerate(values.numpy()):
            ax.text(column + 0.5, row + 0.5, _number(value), ha="center", va="center", size=min(6.5, 75 / reach))
    products = zip(weights.flatten().tolist(), under.tolist(), strict=True)
    terms = " ".join(f"{'+' if w > 0 else '−'} {abs(w):.0f}·{x:.0f}" for w, x in products if w).removeprefix("+ ")
    total = f"{terms} = {_number(float(output.flatten()[place]))}"
    figure.supxlabel("\n".join(textwrap.wrap(total, 100)), size=8)
    figure.draw_without_rendering()  # titles move with the squares, so a layout is right only the second time
    return figure


@styled
def matrix_forms() -> Figure:
    """A 2×2 kernel on a 4×4 image as im2col's matrix and as the Toeplitz matrix, one colour a weight."""
    numbers = torch.arange(1, 17, dtype=torch.float64).view(1, 1, 4, 4)
    taps = torch.arange(1, 5, dtype=torch.float64).view(1, 1, 2, 2)
    colours = ListedColormap(["white", *TAPS])
    figure = _figure(2.05)
    image, columns, matrix = figure.subplots(1, 3, width_ratios=(1, 1.75, 2.6))
    shown = torch.zeros(4, 4)
    shown[:2, :2] = taps[0, 0]
    _tap_cells(image, shown, numbers[0, 0], colours)
    under = derivations.im2col(numbers, 2)[0]
    _tap_cells(columns, torch.arange(1, 5)[:, None].expand_as(under), under, colours)
    _tap_cells(matrix, derivations.toeplitz(taps, (4, 4)).to_dense(), None, colours)
    image.set(title="image", xlabel="kernel at (0, 0)")
    columns.set(title="im2col: a column a place", xlabel="9 places")
    columns.set_yticks((0.5, 1.5, 2.5, 3.5), ("w₁₁", "w₁₂", "w₂₁", "w₂₂"))
    columns.tick_params(length=0)
    matrix.set(title="Toeplitz matrix: a row a place", xlabel="16 pixels", ylabel="9 places")
    return figure


def _tap_cells(ax: Axes, taps: Tensor, numbers: Tensor | None, colours: ListedColormap) -> None:
    """Cells coloured by the kernel weight that meets them, 0 for none, with `numbers` written in."""
    ax.pcolormesh(taps.numpy(), cmap=colours, vmin=0, vmax=4, edgecolors="#cfd6de", linewidth=0.5)
    if numbers is not None:
        for (row, column), number in np.ndenumerate(numbers.numpy()):
            ax.text(column + 0.5, row + 0.5, f"{number:.0f}", ha="center", va="center", size=6.5, color="black")
    ax.set(xlim=(0, taps.shape[1]), ylim=(taps.shape[0], 0), aspect="equal", anchor="N")
    _bare(ax)


@styled
def backward_steps() -> Figure:
    """The gradient to a 5×5 input behind a 3×3 kernel of stride 2: spread out, then correlated, the kernel turned."""
    kernel = torch.tensor([[1.0, 2, 0], [0, 1, 0], [0, -1, -2]], dtype=torch.float64)[None, None]
    grad = torch.tensor([[1.0, 2], [3, -1]], dtype=torch.float64)[None, None]
    spread = derivations.spread_out(grad, kernel, (5, 5), stride=2)
    result = derivations.conv2d_transposed(grad, kernel, (5, 5), stride=2)
    panels = (
        (grad, "∂L/∂z"),
        (spread, "spread out: stride 2"),
        (kernel.flip(2, 3), "kernel, turned by 180°"),
        (result, "∂L/∂x"),
    )
    figure = _figure(1.95)
    for ax, (values, title) in zip(figure.subplots(1, 4), panels, strict=True):
        _cells(ax, values[0, 0], cmap="RdBu_r", limits=(-8, 8))
        middle = values.shape[2] / 2
        ax.set(xlim=(middle - 2.6, middle + 2.6), ylim=(middle + 2.6, middle - 2.6), title=title)
    return figure


@styled
def receptive_fields(image: Tensor, stages: Sequence[Stage], seen: Sequence[Tensor]) -> Figure:
    """What one value behind each layer sees: pixels with a gradient in colour, the formula's square as a frame.

    stages: behind each layer, without the image itself. seen: a (32, 32) bool mask for each.
    """
    figure = _figure(1.5)
    for ax, stage, mask in zip(figure.subplots(1, len(stages)), stages, seen, strict=True):
        dimmed = (0.3 * image.double() + 0.7 * 235).to(torch.uint8)
        _picture(ax, torch.where(mask, image, dimmed))
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        _frame(
            ax, int(rows[0]) - 0.5, int(columns[0]) - 0.5, stage.receptive_field, stage.receptive_field, linewidth=1.4
        )
        ax.set_title(stage.name)
        ax.set_xlabel(f"{stage.receptive_field}×{stage.receptive_field}")
    return figure


@styled
def costs_by_model(costs: pd.DataFrame) -> Figure:
    """Parameters and FLOPs of `checks.suite_costs()`: dots by formula, rings as PyTorch counts them."""
    figure = _figure(0.25 * len(costs) + 0.8)
    axes = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(costs))
    for ax, what in zip(axes, ("Parameters", "FLOPs"), strict=True):
        formula, counted = costs[f"{what}, formula"], costs[f"{what}, PyTorch"]
        ax.hlines(places, formula.min() / 3, formula, color="#c9dbea", linewidth=1.2, zorder=1)
        ax.plot(formula, places, "o", markersize=4, color=BLUE, label="formula")
        ax.plot(counted, places, "o", markersize=8, fillstyle="none", color=ORANGE, label="PyTorch's count")
        for place, value in zip(places, formula, strict=True):
            ax.annotate(_short(value), (value, place), (8, 0), textcoords="offset points", va="center", size=7.5)
        ax.set(xscale="log", xlim=(formula.min() / 3, formula.max() * 12))
        ax.set(xlabel="parameters" if what == "Parameters" else "FLOPs of one image's forward pass")
        ax.set_yticks(places, costs["Model"])
        ax.tick_params(left=False)
        ax.minorticks_off()
        ax.spines["left"].set_visible(False)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _short(value: float) -> str:
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


HAND_MADE = {  # name → (O=1, C, KH, KW) weights on red, green and blue
    "vertical edges": torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).expand(1, 3, 3, 3) / 3,
    "horizontal edges": torch.tensor([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]]).expand(1, 3, 3, 3) / 3,
    "Laplacian": torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(1, 3, 3, 3) / 3,
    "1×1: brightness": torch.tensor([1.0, 1, 1]).view(1, 3, 1, 1) / 3,
    "1×1: red − green": torch.tensor([1.0, -1, 0]).view(1, 3, 1, 1),
    "1×1: blue − yellow": torch.tensor([-0.5, -0.5, 1]).view(1, 3, 1, 1),
}


@styled
def hand_made_kernels(image: Tensor) -> Figure:
    """Feature maps of `image` under edge kernels (upper row) and 1×1 kernels, which mix channels (lower row)."""
    figure = _figure(3.05)
    axes = figure.subplots(2, 4)
    _picture(axes[0, 0], image, "image")
    _bare(axes[1, 0])
    x = image[None].double() / 255
    for ax, (name, weight) in zip((*axes[0, 1:], *axes[1, 1:]), HAND_MADE.items(), strict=True):
        response = derivations.conv2d_im2col(x, weight.double())[0, 0]
        if name == "1×1: brightness":
            ax.imshow(response.numpy(), cmap="gray", interpolation="nearest")
            ax.set_title(name)
            _bare(ax)
        else:
            _signed(ax, response, name)
    for place, (channel, name) in enumerate(zip(x[0], ("red", "green", "blue"), strict=True)):
        inset = axes[1, 0].inset_axes((0.22, 0.68 - 0.34 * place, 0.7, 0.32))
        inset.imshow(channel.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        inset.set_ylabel(name, size=7)
        _bare(inset)
    axes[1, 0].set_title("its channels")
    return figure


@styled
def first_layer(kernels: Tensor, images: Tensor, label: str) -> Figure:
    """First-layer kernels (O, 3, KH, KW) as colours; below each, the feature map of every image (B, 3, 32, 32) uint8.

    Eight kernels at most, those of largest norm. Grey is weight 0; maps are shown before the activation.
    """
    kernels = kernels[kernels.flatten(1).norm(dim=1).argsort(descending=True)[:8]].double()
    scale = kernels.abs().max()
    maps = derivations.conv2d_im2col(normalize(images).double(), kernels, padding=1)
    figure = _figure(0.72 * (1 + len(images)))
    axes = figure.subplots(1 + len(images), 1 + len(kernels))
    _bare(axes[0, 0])
    axes[0, 0].text(0.5, 0.5, label, ha="center", va="center", transform=axes[0, 0].transAxes, size=7.5)
    for ax, kernel in zip(axes[0, 1:], kernels, strict=True):
        ax.imshow((0.5 + kernel / scale / 2).permute(1, 2, 0).numpy(), interpolation="nearest")
        _bare(ax)
    for row, image, responses in zip(axes[1:], images, maps, strict=True):
        _picture(row[0], image)
        for ax, response in zip(row[1:], responses, strict=True):
            _signed(ax, response)
    return figure


# ------------------------------------------------------------------------------------------------------- cross-entropy


@styled
def losses_and_divergence(p: float = 0.7) -> Figure:
    """−ln of the true class's probability; and for two classes cross-entropy as entropy plus KL divergence."""
    figure = _figure(2.3)
    left, right = figure.subplots(1, 2)
    probability = torch.linspace(0.005, 1, 400, dtype=torch.float64)
    left.plot(probability, -probability.log(), color=BLUE)
    marks = ((0.5, "ln 2: the least loss\nof a wrong answer"), (0.1, "ln 10: ten classes, no idea"))
    for value, name in marks:
        left.plot(value, -math.log(value), "o", color=ORANGE, markersize=4)
        left.annotate(name, (value, -math.log(value)), (5, 4), textcoords="offset points", size=7.5)
    left.set(xlabel="probability of the true class", ylabel="loss, nats", xlim=(0, 1), ylim=(0, 5.2))
    q = torch.linspace(0.02, 0.98, 400, dtype=torch.float64)
    both_p, both_q = torch.tensor([p, 1 - p]).double(), torch.stack((q, 1 - q), 1)
    floor, kl = float(derivations.entropy(both_p)), derivations.kl_divergence(both_p, both_q)
    right.plot(q, floor + kl, color=BLUE, label="cross-entropy H(p, q)")
    right.axhline(floor, color=GREEN, linewidth=1, linestyle="--", label="entropy H(p)")
    right.fill_between(q, floor, floor + kl, color=TAPS[0], alpha=0.25, linewidth=0, label="KL(p‖q)")
    right.plot(p, floor, "o", color=ORANGE, markersize=4)
    right.annotate("q = p", (p, floor), (0, -10), textcoords="offset points", ha="center", size=7.5)
    right.set(xlabel=f"q, where p = {p:g}", ylabel="nats", xlim=(0, 1), ylim=(0, 2.4))
    right.legend(loc="upper center")
    return figure


@styled
def overflow() -> Figure:
    """The loss of logits (s, 0) whose true class is the second, s + log(1 + exp(−s)): the naive forms stop."""
    figure = _figure(2.3)
    ax = figure.subplots()
    scale = torch.logspace(0, 3.3, 400, dtype=torch.float64)
    logits = torch.stack((scale, torch.zeros_like(scale)), 1)
    ax.plot(scale, -derivations.log_softmax(logits)[:, 1], color=BLUE, linewidth=3, alpha=0.35, label="stable, float64")
    for dtype, colour, dash in ((torch.float64, ORANGE, "-"), (torch.float32, RED, "--")):
        loss = -derivations.log_softmax_naive(logits.to(dtype))[:, 1].double()
        last = int(loss.isfinite().sum()) - 1
        name = str(dtype).removeprefix("torch.")
        ax.plot(scale[: last + 1], loss[: last + 1], dash, color=colour, linewidth=1.3, label=f"naive, {name}")
        ax.plot(scale[last], loss[last], "x", color=colour, markeredgewidth=1.8)
        limit = f"exp(s) is inf from s = {math.log(torch.finfo(dtype).max):.1f}"
        end = (float(scale[last]), float(loss[last]))
        ax.annotate(limit, end, (-4, 6), textcoords="offset points", ha="right", size=7.5, color=colour)
    ax.set(xscale="log", yscale="log", xlim=(1, 2000))
    ax.set(xlabel="largest logit s, the true class's being 0", ylabel="loss, nats")
    ax.legend(loc="lower right")
    return figure


def descend(logits: Tensor, label: int, steps: int, rate: float = 1.0) -> Tensor:
    """`logits` (K,) after so many steps y ← y − rate · (softmax(y) − t)."""
    y, target = logits[None].double(), torch.tensor([label])
    for _ in range(steps):
        y = y - rate * derivations.cross_entropy_gradient(y, target)
    return y[0]


@styled
def gradient_steps(
    image: Tensor,
    logits: Tensor,
    label: int,
    classes: Sequence[str],
    steps: Sequence[int] = (0, 2, 8),
    temperature: float = 1.0,
) -> Figure:
    """Softmax of one image's logits (K,) / temperature after some steps of descent, and t − p, the next step.

    The steps are those of `descend`; the temperature, above 0, changes only how the logits are read.
    """
    figure = _figure(2.5)
    axes = figure.subplots(1, 1 + len(steps), width_ratios=(1.1, *[1.25] * len(steps)))
    _picture(axes[0], image, classes[label])
    places, target = np.arange(len(classes)), torch.tensor([label])
    for ax, count in zip(axes[1:], steps, strict=True):
        y = descend(logits, label, count)[None] / temperature
        p, step = derivations.softmax(y)[0], -derivations.cross_entropy_gradient(y, target)[0]
        bars = ax.barh(places, p.numpy(), height=0.74, color="#c9dbea", label="probability p")
        bars[label].set_edgecolor(BLUE)  # the true class
        ax.barh(places, step.numpy(), height=0.26, color=RED, label="step of the logit, t − p")
        ax.axvline(0, color=GREY, linewidth=0.7)
        ax.set(title=f"{count} steps: loss {float(derivations.cross_entropy(y, target)):.2f}")
        ax.set(xlim=(-0.35, 1.02), xticks=(0, 0.5, 1))
        ax.set_yticks(places, classes if ax is axes[1] else [""] * len(classes))
        ax.tick_params(left=False)
        ax.spines["left"].set_visible(False)
        ax.invert_yaxis()
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


@styled
def untrained_losses(fresh: dict[int, float], recorded: dict[str, Sequence[float]]) -> Figure:
    """Losses before the first step: of new networks with K classes against ln K, and of this suite's trainings.

    fresh: K → mean loss of an untrained network. recorded: recipe's name → untrained validation losses of its runs on
    ten classes; when empty, only the first panel is drawn.
    """
    figure = _figure(max(2.3, 0.22 * len(recorded) + 0.8))
    left, *rest = figure.subplots(1, 2 if recorded else 1, squeeze=False)[0]
    k = np.geomspace(2, 1000, 100)
    left.plot(k, np.log(k), color=BLUE, label="ln K")
    left.plot(list(fresh), list(fresh.values()), "o", color=ORANGE, markersize=4.5, label="untrained baseline")
    left.set(xscale="log", xlabel="classes K", ylabel="mean cross-entropy, nats")
    left.set_xticks(list(fresh), [f"{n:,}" for n in fresh])
    left.minorticks_off()
    left.legend()
    for ax in rest:
        ax.axvline(math.log(10), color=BLUE, linewidth=1)
        ax.text(math.log(10), -0.62, " ln 10", va="center", color=BLUE, size=7.5)
        for place, losses in enumerate(recorded.values()):
            ax.plot(losses, [place] * len(losses), "o", color=ORANGE, markersize=4.5)
        everything = [math.log(10), *(loss for losses in recorded.values() for loss in losses)]
        room = max(0.05, 0.1 * (max(everything) - min(everything)))
        ax.set(xlim=(min(everything) - room, max(everything) + 2 * room), ylim=(len(recorded) - 0.5, -0.9))
        ax.set_yticks(range(len(recorded)), list(recorded))
        ax.set_xlabel("validation loss before the first step, nats")
    return figure


@styled
def impossible_losses(logs: dict[str, Sequence[tuple[float, float]]], factors: Sequence[int]) -> Figure:
    """Printed (accuracy in [0, 1], loss) pairs against the bound (1 − a) ln 2, and the same times each of `factors`."""
    figure = _figure(2.5)
    ax = figure.subplots()
    a = np.linspace(0.4, 0.75, 50)
    floor = least_cross_entropy(a)
    ax.fill_between(a, 1e-3, floor, color=RED, alpha=0.1, linewidth=0)
    ax.plot(a, floor, color=RED, linewidth=1.2)
    ax.text(0.745, 0.105, "no mean cross-entropy\ncan lie here", ha="right", va="center", color=RED, size=8)
    ax.text(0.405, float(least_cross_entropy(0.4)) * 1.07, "(1 − a) ln 2", color=RED, va="bottom", size=8)
    ax.axhline(math.log(10), color=GREY, linewidth=0.8, linestyle="--")
    ax.text(0.745, math.log(10) * 1.07, "ln 10: untrained", color=GREY, ha="right", va="bottom", size=8)
    for (name, pairs), marker in zip(logs.items(), ("o", "x"), strict=True):
        accuracy, loss = np.array(pairs).T
        series = ((1, INK, "printed"), *((f, c, f"× {f}") for f, c in zip(factors, (ORANGE, GREEN), strict=True)))
        for factor, colour, what in series:
            points, label = loss * factor, f"{what}, {name}"
            ax.plot(accuracy, points, marker, color=colour, markersize=4.5, fillstyle="none", label=label)
    ax.set(yscale="log", xlim=(0.4, 0.75), ylim=(0.005, 8), xlabel="validation accuracy a", ylabel="loss, nats")
    ax.set_yticks((0.01, 0.1, 1), ("0.01", "0.1", "1"))
    ax.minorticks_off()
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
