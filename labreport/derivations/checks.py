"""The claims of notebook 01 in numbers: `formulas` against PyTorch and against independent truths, in float64.

Each `…_checks` function compares over a grid of settings and returns `Check`s: the largest difference found beside the
bound that the claim allows. `prove` shows them and stops the notebook when one fails.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from labreport.derivations import formulas as derivations
from labreport.derivations.formulas import Window
from labreport.evidence.statistics import least_cross_entropy
from labreport.images.augment import normalize
from labreport.networks import models

if TYPE_CHECKING:
    from labreport.lab.session import Lab

ROUNDING = 1e-12  # float64 carries 16 digits; sums of some dozen terms of size 1 lose two to three of them


class CheckFailed(AssertionError):
    """A claim of the derivations does not hold in numbers."""


@dataclass(frozen=True)
class Check:
    """One claim, the number of comparisons behind it, their largest absolute difference, and what it may be."""

    claim: str
    comparisons: int
    difference: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.bound  # False for nan, too


def compare(claim: str, pairs: Iterable[tuple[Tensor, Tensor]], bound: float = ROUNDING) -> Check:
    """Compare each (ours, truth): another shape counts as an infinite difference, as does a comparison of nothing."""
    differences = [
        float((ours - truth).abs().max()) if ours.shape == truth.shape and ours.numel() else math.inf
        for ours, truth in pairs
    ]
    worst = math.nan if any(map(math.isnan, differences)) else max(differences, default=math.inf)
    return Check(claim, len(differences), worst, bound)


def table(checks: Iterable[Check]) -> pd.DataFrame:
    """One row a claim, numbers as text. The differences found are left out: their last digits depend on the processor,
    and the table is to be the same everywhere."""
    rows = [(c.claim, c.comparisons, _scientific(c.bound), "holds" if c.holds else "FAILS") for c in checks]
    return pd.DataFrame(rows, columns=["Claim", "Cases", "Largest difference allowed", "Verdict"])


def _scientific(number: float) -> str:
    return f"{number:.0e}" if number else "0"


def require(checks: Iterable[Check]) -> None:
    """Stop when a claim fails.

    Raises:
        CheckFailed: it names the first failing claim, its difference and its bound.
    """
    failed = [check for check in checks if not check.holds]
    if failed:
        first = failed[0]
        raise CheckFailed(f"{first.claim}: differs by {first.difference:.0e}, more than {_scientific(first.bound)}")


def prove(lab: Lab, checks: list[Check], name: str, caption: str) -> list[Check]:
    """Show the checks as a table of the notebook, then stop it if one fails; returns them."""
    lab.table(table(checks), name, caption, caveat="")  # true whatever was trained
    require(checks)
    return checks


# --------------------------------------------------------------------------------------------------------- convolution

BASELINE = (  # the windows of models.Baseline, whose sizes `size_checks` compares with the network's own
    Window("conv1", 2, padding=1),
    Window("pool1", 2, stride=2),
    Window("conv2", 2, padding=1),
    Window("pool2", 2, stride=2),
    Window("conv3", 2),
    Window("pool3", 2, stride=2),
)


def first_value_checks(image: Tensor) -> list[Check]:
    """z₁₁ of a 2×2 kernel on one channel of `image` (H, W), written out, with and without a padding of 1."""
    x, w = image.double(), torch.tensor([[0.3, -1.1], [0.7, 0.4]], dtype=torch.float64)
    plain, padded = (F.conv2d(x[None, None], w[None, None], padding=p)[0, 0, 0, 0] for p in (0, 1))
    written = w[0, 0] * x[0, 0] + w[0, 1] * x[0, 1] + w[1, 0] * x[1, 0] + w[1, 1] * x[1, 1]
    return [
        compare("without padding z₁₁ = w₁₁x₁₁ + w₁₂x₁₂ + w₂₁x₂₁ + w₂₂x₂₂", [(written, plain)]),
        compare("with padding 1 z₁₁ = w₂₂x₁₁", [(w[1, 1] * x[0, 0], padded)]),
    ]


def size_checks() -> list[Check]:
    """The output-size formula against F.conv2d, and through the baseline against the network's own maps."""
    sizes = [
        (torch.tensor(derivations.output_size(n, k, s, p, d)), torch.tensor(_convolved_size(n, k, s, p, d)))
        for n, k, s, p, d in itertools.product(range(7, 34), (1, 2, 3), (1, 2, 3), (0, 1), (1, 2))
    ]
    stages = {stage.name: stage.size for stage in derivations.trace(BASELINE, 32)}
    layers = derivations.layer_costs(models.build("baseline"), torch.zeros(1, 3, 32, 32))
    maps = [(torch.tensor(stages[c.layer]), torch.tensor(c.output[1])) for c in layers if c.kind == "Conv2d"]
    return [
        compare("output size = F.conv2d's", sizes, bound=0),
        compare("sizes through the baseline = its maps'", maps, bound=0),
    ]


def _convolved_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    x, weight = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel)
    return F.conv1d(x, weight, stride=stride, padding=padding, dilation=dilation).shape[2]


@dataclass(frozen=True, eq=False)
class Convolution:
    """One point of the grid: random operands in float64, with gradients, and the settings."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    settings: dict

    def torch(self) -> Tensor:
        return F.conv2d(self.x, self.weight, self.bias, **self.settings)


def convolutions(seed: int = 0) -> Iterator[Convolution]:
    """Every mix of stride, padding, dilation, kernel size and channels whose kernel fits, on two 5 × 4 images."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    grid = itertools.product((1, 2, (2, 3)), (0, 1, (2, 1)), (1, 2), ((1, 1), (2, 2), (3, 2), (3, 3)), ((1, 1), (3, 2)))
    for stride, padding, dilation, kernel, (c_in, c_out) in grid:
        pad = padding if isinstance(padding, tuple) else (padding, padding)
        if all(dilation * (k - 1) < size + 2 * p for k, size, p in zip(kernel, (5, 4), pad, strict=True)):
            settings = {"stride": stride, "padding": padding, "dilation": dilation}
            yield Convolution(normal(2, c_in, 5, 4), normal(c_out, c_in, *kernel), normal(c_out), settings)


def convolution_checks(seed: int = 0) -> list[Check]:
    """The three implementations against F.conv2d, and the turned kernel against the convolution theorem."""
    cases = list(convolutions(seed))
    forms = {
        "loops over the formula = F.conv2d": derivations.conv2d_loops,
        "im2col and one matrix product = F.conv2d": derivations.conv2d_im2col,
        "sparse Toeplitz matrix = F.conv2d": derivations.conv2d_toeplitz,
    }
    with torch.no_grad():
        checks = [
            compare(claim, ((form(c.x, c.weight, c.bias, **c.settings), c.torch()) for c in cases))
            for claim, form in forms.items()
        ]
        spectra = ((_full_convolution(c.x, c.weight), _fourier_convolution(c.x, c.weight)) for c in cases)
        checks.append(compare("turned kernel = product of Fourier transforms", spectra))
    return checks


def _full_convolution(x: Tensor, weight: Tensor) -> Tensor:
    reach = (weight.shape[2] - 1, weight.shape[3] - 1)
    return derivations.convolve2d(x, weight, padding=reach)


def _fourier_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution theorem: transforms of the full output's size are multiplied, and summed over channels."""
    size = (x.shape[2] + weight.shape[2] - 1, x.shape[3] + weight.shape[3] - 1)
    product = torch.fft.rfft2(x, size)[:, None] * torch.fft.rfft2(weight, size)[None]
    return torch.fft.irfft2(product.sum(2), size)


def backward_checks(seed: int = 0) -> list[Check]:
    """The three gradients against autograd through F.conv2d, and the transposed convolution against F's own."""
    ours, theirs, transposed = [], [], []
    for case in convolutions(seed):
        output = case.torch()
        grad = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).view_as(output)
        operands = case.x.detach(), case.weight.detach()
        theirs.append(torch.autograd.grad(output, (case.x, case.weight, case.bias), grad))
        ours.append(derivations.conv2d_backward(grad, *operands, **case.settings))
        matrix = derivations.toeplitz(operands[1], (5, 4), **case.settings)
        transposed.append(((matrix.T @ grad.flatten(1).T).T.reshape(case.x.shape), ours[-1].x))
    names = ("input (transposed convolution)", "weight (a correlation)", "bias (a sum)")
    checks = [
        compare(f"gradient to the {name} = autograd", ((o[i], t[i]) for o, t in zip(ours, theirs, strict=True)))
        for i, name in enumerate(names)
    ]
    return [*checks, compare("transposed Toeplitz matrix = transposed convolution", transposed)]


def pointwise_checks(image: Tensor, weight: Tensor) -> list[Check]:
    """A 1×1 convolution of `image` (1, C, H, W) by `weight` (O, C) against a linear layer on each pixel's channels."""
    image, weight = image.double(), weight.double()
    convolved = derivations.conv2d_im2col(image, weight[:, :, None, None])
    by_pixel = F.linear(image.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)
    return [compare("1×1 convolution = linear layer at every pixel", [(convolved, by_pixel)])]


def seen_pixels(windows: Iterable[Window], size: int) -> Tensor:
    """Which pixels (size, size) bool the middle value behind `windows` depends on, found by autograd, not by formula.

    Every window is a convolution by ones, so that no two paths cancel.
    """
    x = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    y = x
    for _, kernel, stride, padding, dilation in windows:
        ones = torch.ones(1, 1, kernel, kernel, dtype=torch.float64)
        y = F.conv2d(y, ones, stride=stride, padding=padding, dilation=dilation)
    middle = y.shape[2] // 2
    (grad,) = torch.autograd.grad(y[0, 0, middle, middle], x)
    return grad[0, 0] > 0


def receptive_field_checks(windows: tuple[Window, ...], size: int) -> list[Check]:
    """The receptive-field formula behind each layer against the width of the square of pixels that autograd finds."""
    stages = derivations.trace(windows, size)[1:]
    pairs = [
        (torch.tensor(stage.receptive_field), seen_pixels(windows[: i + 1], size).any(0).sum())
        for i, stage in enumerate(stages)
    ]
    return [compare("receptive field = pixels with a gradient", pairs, bound=0)]


# ------------------------------------------------------------------------------------------------ parameters and FLOPs

# Without networks that only repeat another one's layers, on larger images, or are a single layer.
SUITE = tuple(name for name in models.MODELS if "_at_" not in name and name != "linear")


def example_input(name: str) -> Tensor:
    """Zeros of the shape that the model takes: one image, or for the dense network one row of features."""
    return torch.zeros(1, 256) if name == "dense_softmax" else torch.zeros(1, 3, 32, 32)


def counted(model: nn.Module, inputs: Tensor) -> tuple[int, int]:
    """Parameters and the FLOPs of one forward pass of `inputs`, as PyTorch counts them."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(inputs)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops()


def suite_costs(names: Iterable[str] = SUITE) -> pd.DataFrame:
    """One row a model: parameters and forward FLOPs of one image, by formula and as PyTorch counts them."""
    rows = []
    for name in names:
        model, inputs = models.build(name), example_input(name)
        layers = derivations.layer_costs(model, inputs)
        parameters, flops = counted(model, inputs)
        rows.append((name, sum(c.parameters for c in layers), parameters, sum(c.flops for c in layers), flops))
    columns = ["Model", "Parameters, formula", "Parameters, PyTorch", "FLOPs, formula", "FLOPs, PyTorch"]
    return pd.DataFrame(rows, columns=columns)


def cost_checks(costs: pd.DataFrame) -> list[Check]:
    """Formula and PyTorch must agree to the last unit in every row of `suite_costs()`."""
    return [
        compare(
            f"{what} by formula = PyTorch's count",
            [
                (torch.tensor(ours), torch.tensor(theirs))
                for ours, theirs in zip(costs[f"{what}, formula"], costs[f"{what}, PyTorch"], strict=True)
            ],
            bound=0,
        )
        for what in ("Parameters", "FLOPs")
    ]


# ------------------------------------------------------------------------------------------------------- cross-entropy


def softmax_checks(seed: int = 0) -> list[Check]:
    """Softmax, its shift invariance, and log-softmax where the naive form fails."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(64, 10, generator=generator, dtype=torch.float64)
    extreme = torch.tensor([[1000.0, 0.0, -1000.0], [-1000.0, -1000.0, -1000.0], [1000.0, 1000.0, 0.0]]).double()
    shifted = [(derivations.softmax(logits + c), derivations.softmax(logits)) for c in (-100.0, 1.0, 100.0)]
    return [
        compare("softmax = F.softmax", [(derivations.softmax(logits), F.softmax(logits, 1))]),
        compare("softmax(y + c) = softmax(y)", shifted),
        compare(
            "naive log-softmax = stable one, logits of size 3",
            [(derivations.log_softmax_naive(logits), derivations.log_softmax(logits))],
        ),
        compare(
            "log-sum-exp = torch.logsumexp, logits of ±1000", [(derivations.log_sum_exp(extreme), extreme.logsumexp(1))]
        ),
        compare(
            "log-softmax = F.log_softmax, logits of ±1000",
            [(derivations.log_softmax(extreme), F.log_softmax(extreme, 1))],
        ),
    ]


def cross_entropy_checks(seed: int = 0) -> list[Check]:
    """`cross_entropy` and `nll_loss` against PyTorch's over every option, and the gradient against autograd."""
    generator = torch.Generator().manual_seed(seed)
    n, k = 32, 10
    logits = 3 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    labels = torch.randint(k, (n,), generator=generator)
    soft = torch.rand(n, k, generator=generator, dtype=torch.float64)
    soft /= soft.sum(1, keepdim=True)
    weight = torch.rand(k, generator=generator, dtype=torch.float64) + 0.5
    log_p = derivations.log_softmax(logits)

    def both(targets: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        return derivations.cross_entropy(logits, targets, **options), F.cross_entropy(logits, targets, **options)

    plain: list[dict[str, Any]] = [
        {"reduction": reduction, "weight": w} for reduction in ("mean", "sum", "none") for w in (None, weight)
    ]
    ignoring: list[dict[str, Any]] = [
        {**options, "ignore_index": label} for options in plain for label in (-100, int(labels[0]))
    ]
    smoothed = [{**options, "label_smoothing": e} for options in ignoring for e in (0.1, 1.0)]
    nll = [(derivations.nll_loss(log_p, labels, **o), F.nll_loss(log_p, labels, **o)) for o in ignoring]
    composed = [(F.cross_entropy(logits, labels, **o), derivations.nll_loss(log_p, labels, **o)) for o in ignoring]
    softly = [both(soft, **options, label_smoothing=e) for options in plain for e in (0.0, 0.1)]
    gradients = [_both_gradients(logits, t, e, r) for t in (labels, soft) for e in (0.0, 0.1) for r in ("mean", "sum")]
    return [
        compare("negative log-likelihood = F.nll_loss", nll),
        compare("F.cross_entropy = nll_loss of log_softmax", composed),
        compare("label smoothing = F.cross_entropy", (both(labels, **options) for options in smoothed)),
        compare("soft targets = F.cross_entropy", softly),
        compare(
            "sum / N = F.cross_entropy's default, the mean",
            [(derivations.cross_entropy(logits, labels, reduction="sum") / n, F.cross_entropy(logits, labels))],
        ),
        compare("softmax(y) − t = autograd's gradient", gradients),
    ]


def _both_gradients(logits: Tensor, targets: Tensor, smoothing: float, reduction: str) -> tuple[Tensor, Tensor]:
    y = logits.clone().requires_grad_()
    loss = F.cross_entropy(y, targets, label_smoothing=smoothing, reduction=reduction)
    ours = derivations.cross_entropy_gradient(logits, targets, label_smoothing=smoothing, reduction=reduction)
    return ours, torch.autograd.grad(loss, y)[0]


def information_checks(seed: int = 0) -> list[Check]:
    """Entropy, KL divergence and cross-entropy of random distributions, and what maximum likelihood chooses."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 64, 10, generator=generator, dtype=torch.float64)
    p, q = derivations.softmax(logits)
    cross = derivations.cross_entropy(logits[1], p, reduction="none")
    labels = torch.randint(10, (1000,), generator=generator).square() % 10  # unequal frequencies, one of them 0
    frequencies = torch.bincount(labels, minlength=10).double() / len(labels)
    present = frequencies > 0
    constant = frequencies[present].log().expand(len(labels), -1)
    places = present.cumsum(0)[labels] - 1
    slope = derivations.cross_entropy_gradient(constant, places).sum(0)
    kl = derivations.kl_divergence(p, q)
    return [
        compare("KL divergence = F.kl_div", [(kl.sum(), F.kl_div(q.log(), p, reduction="sum"))]),
        compare("cross-entropy = entropy + KL divergence", [(cross, derivations.entropy(p) + kl)]),
        compare("KL divergence ≥ 0", [(kl.clamp(max=0), torch.zeros_like(kl))], bound=0),
        compare("no slope at the classes' frequencies", [(slope, torch.zeros_like(slope))]),
    ]


def untrained_checks(seed: int = 0) -> list[Check]:
    """Equal logits cost ln K whatever the label; small ones half their variance more, up to terms of third order."""
    sizes = (2, 10, 100, 1000)
    generator = torch.Generator().manual_seed(seed)
    equal = [
        (derivations.cross_entropy(torch.zeros(k, k).double(), torch.arange(k)), _number(math.log(k))) for k in sizes
    ]
    small = [1e-2 * torch.randn(k, generator=generator, dtype=torch.float64) for k in sizes]
    nearly = [
        (
            derivations.cross_entropy(y.expand(len(y), -1), torch.arange(len(y))),
            math.log(len(y)) + y.var(correction=0) / 2,
        )
        for y in small
    ]
    return [
        compare("equal logits over K classes: loss = ln K", equal),
        compare("logits of size 0.01: loss = ln K + variance / 2", nearly, bound=1e-6),
    ]


def untrained_losses(images: Tensor, sizes: Iterable[int] = (2, 10, 100, 1000), seed: int = 0) -> dict[int, float]:
    """K → mean loss of a new baseline with K classes on `images` (N, 3, 32, 32) uint8, labels dealt evenly."""
    losses = {}
    with torch.random.fork_rng(devices=()), torch.no_grad():
        for k in sizes:
            torch.manual_seed(seed)
            logits = models.build("baseline", k).eval()(normalize(images))
            losses[k] = float(derivations.cross_entropy(logits, torch.arange(len(images)) % k))
    return losses


def log_checks(seed: int = 0) -> list[Check]:
    """The lower bound of the loss at an accuracy, and what a sum of batch means divided by N is."""
    generator = torch.Generator().manual_seed(seed)
    logits = (
        torch.randn(40, 500, 10, generator=generator, dtype=torch.float64) * torch.linspace(0, 20, 40)[:, None, None]
    )
    labels = torch.randint(10, (40, 500), generator=generator)
    below, sums = [], []
    for y, t in zip(logits, labels, strict=True):
        y = y + 5 * derivations.one_hot(t, 10)
        loss = derivations.cross_entropy(y, t)
        floor = _number(least_cross_entropy(float((y.argmax(1) == t).double().mean())))
        below.append((floor - loss).clamp(min=0))
        batches = zip(y.split(20), t.split(20), strict=True)
        means = torch.stack([F.cross_entropy(*batch) for batch in batches])
        sums.append((means.sum() / len(y) * 20, loss))
    return [
        compare("mean cross-entropy ≥ (1 − accuracy) · ln 2", ((b, torch.zeros_like(b)) for b in below), bound=0),
        compare("(sum of batch means / N) · batch size = mean", sums),
    ]


def _number(value: ArrayLike) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
