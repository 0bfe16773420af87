"""Problem 1 of the lab report in code: convolution and cross-entropy, written out from their formulas.

Nothing here calls PyTorch's own convolution, softmax or loss: those are what notebook 01 and the tests compare with.
Every function takes tensors of any floating type, keeps it, and is differentiable. Images are (N, C, H, W), kernels
(O, C, KH, KW), logits (N, K); stride, padding and dilation are an int or one (vertical, horizontal) pair.

Source of the definitions: the documentation of torch.nn.Conv2d and torch.nn.CrossEntropyLoss, whose conventions
(cross-correlation, floor in the output size, what `mean` divides by) are followed throughout.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = int | tuple[int, int]

# ------------------------------------------------------------------------------------------------- convolution: sizes


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """How many places a kernel takes along one axis: ⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1.

    Raises:
        ValueError: a setting is out of range, or the kernel is larger than the padded input.
    """
    for name, value, least in (("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    if dilation < 1:
        raise ValueError(f"dilation is {dilation}; it must be at least 1")
    span = dilation * (kernel - 1) + 1
    if span > size + 2 * padding:
        raise ValueError(
            f"the kernel spans {span} pixels but the padded input has only {size + 2 * padding}; "
            "pad more, or take a smaller kernel or dilation"
        )
    return (size + 2 * padding - span) // stride + 1


class Window(NamedTuple):
    """How a convolution or pooling layer looks at its input, along either axis."""

    name: str
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1


class Stage(NamedTuple):
    """What is behind a layer: its map's side, and for one value of it the receptive field and the step in pixels."""

    name: str
    size: int
    receptive_field: int
    jump: int


def trace(windows: Iterable[Window], size: int) -> list[Stage]:
    """Sizes and receptive fields through a stack of layers, from an image of size × size pixels; the image comes first.

    A layer's window reaches dilation·(kernel − 1) values further, and neighbouring values of its input lie `jump`
    pixels apart: so r ← r + dilation·(kernel − 1)·jump, then jump ← jump·stride.

    Raises:
        ValueError: a window is larger than its padded input.
    """
    stages = [Stage("image", size, 1, 1)]
    for name, kernel, stride, padding, dilation in windows:
        _, size, field, jump = stages[-1]
        size = output_size(size, kernel, stride, padding, dilation)
        stages.append(Stage(name, size, field + dilation * (kernel - 1) * jump, jump * stride))
    return stages


# -------------------------------------------------------------------------------------------- convolution: three forms


def conv2d_loops(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
) -> Tensor:
    """z[n,o,i,j] = bias[o] + Σ_{c,a,b} weight[o,c,a,b] · x̃[n,c, i·s + a·d, j·s + b·d], by seven loops; x̃ is x padded.

    x: (N, C, H, W). weight: (O, C, KH, KW). bias: (O,). Returns (N, O, OH, OW). Slow, and the definition of the others.

    Raises:
        ValueError: a rank or the channels do not fit, or the kernel is larger than the padded input.
    """
    _check_operands(x, weight, bias)
    (sh, sw), (dh, dw) = _pair(stride), _pair(dilation)
    outputs, channels, kh, kw = weight.shape
    rows, columns = _output_sizes(x, weight, stride, padding, dilation)
    padded = _pad(x, padding)
    z = x.new_zeros(len(x), outputs, rows, columns)
    for n, o, i, j in itertools.product(range(len(x)), range(outputs), range(rows), range(columns)):
        for c, a, b in itertools.product(range(channels), range(kh), range(kw)):
            z[n, o, i, j] += weight[o, c, a, b] * padded[n, c, i * sh + a * dh, j * sw + b * dw]
    return _add_bias(z, bias)


def im2col(x: Tensor, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1) -> Tensor:
    """The pixels under the kernel, one column a place: (N, C, H, W) → (N, C·KH·KW, OH·OW).

    Raises:
        ValueError: the kernel is larger than the padded input.
    """
    rows, columns = (
        _positions(*setting)
        for setting in zip(x.shape[2:], _pair(kernel_size), _pair(stride), _pair(padding), _pair(dilation), strict=True)
    )
    # (KH, 1, OH, 1) and (1, KW, 1, OW) broadcast to every (a, b, i, j); the gather is (N, C, KH, KW, OH, OW).
    windows = _pad(x, padding)[:, :, rows[:, None, :, None], columns[None, :, None, :]]
    return windows.flatten(4).flatten(1, 3)


def conv2d_im2col(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
) -> Tensor:
    """`conv2d_loops` as one matrix product: kernels as rows (O, C·KH·KW) times `im2col` (N, C·KH·KW, OH·OW)."""
    _check_operands(x, weight, bias)
    rows, columns = _output_sizes(x, weight, stride, padding, dilation)
    z = weight.flatten(1) @ im2col(x, (weight.shape[2], weight.shape[3]), stride, padding, dilation)
    return _add_bias(z.unflatten(2, (rows, columns)), bias)


def toeplitz(weight: Tensor, size: tuple[int, int], stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1) -> Tensor:
    """The sparse matrix T (O·OH·OW, C·H·W) with conv(x) = T · x for flattened images of height × width = `size`.

    Each row holds one kernel at one place; taps that fall on the padding have no entry. Along a diagonal the entries
    repeat, which is what makes the matrix (doubly block) Toeplitz.
    """
    outputs, channels, kh, kw = weight.shape
    pixels = channels * size[0] * size[1]
    # Lay out the pixels' numbers as an image and let im2col move them; 0 is left for the padding.
    numbers = torch.arange(1, pixels + 1, device=weight.device).view(1, channels, *size)
    under = im2col(numbers, (kh, kw), stride, padding, dilation)[0]
    taps, places = under.nonzero(as_tuple=True)
    row = torch.arange(outputs, device=weight.device)[:, None] * under.shape[1] + places
    column = (under[taps, places] - 1).expand(outputs, -1)
    return torch.sparse_coo_tensor(
        torch.stack((row.flatten(), column.flatten())),
        weight.flatten(1)[:, taps].flatten(),
        (outputs * under.shape[1], pixels),
        check_invariants=False,
    )


def conv2d_toeplitz(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
) -> Tensor:
    """`conv2d_loops` as one sparse matrix `toeplitz(weight, …)` times each flattened image."""
    _check_operands(x, weight, bias)
    rows, columns = _output_sizes(x, weight, stride, padding, dilation)
    matrix = toeplitz(weight, (x.shape[2], x.shape[3]), stride, padding, dilation)
    z = (matrix @ x.flatten(1).T).T
    return _add_bias(z.reshape(len(x), len(weight), rows, columns), bias)


def convolve2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
) -> Tensor:
    """Convolution as mathematics defines it: the cross-correlation above with the kernel turned by 180°."""
    _check_operands(x, weight, bias)
    return conv2d_im2col(x, weight.flip(2, 3), bias, stride, padding, dilation)


class ConvGradients(NamedTuple):
    """Gradients of a loss with respect to a convolution's operands, each of its operand's shape."""

    x: Tensor
    weight: Tensor
    bias: Tensor


def conv2d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
) -> ConvGradients:
    """Pass `grad` = ∂L/∂z (N, O, OH, OW) back through z = conv2d(x, weight, bias).

    ∂L/∂bias sums grad over images and places; ∂L/∂weight correlates the padded input with grad (`grad @ im2colᵀ`);
    ∂L/∂x is the transposed convolution of grad.

    Raises:
        ValueError: `grad` has another shape than the convolution's output.
    """
    _check_operands(x, weight, None)
    expected = (len(x), len(weight), *_output_sizes(x, weight, stride, padding, dilation))
    if tuple(grad.shape) != expected:
        raise ValueError(f"grad has shape {tuple(grad.shape)}, but the convolution's output is {expected}")
    under = im2col(x, (weight.shape[2], weight.shape[3]), stride, padding, dilation)
    grad_weight = (grad.flatten(2) @ under.transpose(1, 2)).sum(0)
    return ConvGradients(
        conv2d_transposed(grad, weight, (x.shape[2], x.shape[3]), stride, padding, dilation),
        grad_weight.view_as(weight),
        grad.sum((0, 2, 3)),
    )


def conv2d_transposed(
    grad: Tensor, weight: Tensor, size: tuple[int, int], stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
) -> Tensor:
    """Tᵀ · grad, for T = `toeplitz(weight, size, …)`: (N, O, OH, OW) → (N, C, *size).

    Written as a convolution: spread grad over the grid of stride 1, correlate it with the kernels turned by 180° and
    with inputs and outputs swapped, padded so far that the kernel overlaps by one value, and cut the padding off.
    """
    spread = spread_out(grad, weight, size, stride, padding, dilation)
    (ph, pw), (dh, dw) = _pair(padding), _pair(dilation)
    reach = (dh * (weight.shape[2] - 1), dw * (weight.shape[3] - 1))
    full = conv2d_im2col(spread, weight.transpose(0, 1).flip(2, 3), padding=reach, dilation=dilation)
    return full[:, :, ph : ph + size[0], pw : pw + size[1]]


def spread_out(
    grad: Tensor, weight: Tensor, size: tuple[int, int], stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
) -> Tensor:
    """`grad` on the grid that stride 1 would have given, zeros between: what a transposed convolution starts from."""
    (sh, sw), (ph, pw), (dh, dw) = _pair(stride), _pair(padding), _pair(dilation)
    height = output_size(size[0], weight.shape[2], 1, ph, dh)
    width = output_size(size[1], weight.shape[3], 1, pw, dw)
    spread = grad.new_zeros(*grad.shape[:2], height, width)
    spread[:, :, : sh * grad.shape[2] : sh, : sw * grad.shape[3] : sw] = grad
    return spread


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _pad(x: Tensor, padding: Pair) -> Tensor:
    vertical, horizontal = _pair(padding)
    return F.pad(x, (horizontal, horizontal, vertical, vertical))


def _positions(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Where tap a of the kernel at place i lies in the padded input, a·dilation + i·stride: (kernel, places)."""
    places = torch.arange(output_size(size, kernel, stride, padding, dilation))
    return dilation * torch.arange(kernel)[:, None] + stride * places


def _output_sizes(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> tuple[int, ...]:
    settings = zip(x.shape[2:], weight.shape[2:], _pair(stride), _pair(padding), _pair(dilation), strict=True)
    return tuple(output_size(*setting) for setting in settings)


def _add_bias(z: Tensor, bias: Tensor | None) -> Tensor:
    return z if bias is None else z + bias[:, None, None]


def _check_operands(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if x.ndim != 4:
        raise ValueError(f"the input has shape {tuple(x.shape)}; a batch of images has four axes, (N, C, H, W)")
    if weight.ndim != 4:
        raise ValueError(f"the weight has shape {tuple(weight.shape)}; kernels have four axes, (O, C, KH, KW)")
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"the input has {x.shape[1]} channels but the kernels expect {weight.shape[1]}")
    if bias is not None and tuple(bias.shape) != (len(weight),):
        raise ValueError(f"the bias has shape {tuple(bias.shape)}; {len(weight)} kernels need ({len(weight)},)")


# ------------------------------------------------------------------------------------------------ parameters and FLOPs


def conv2d_parameters(c_in: int, c_out: int, kernel_size: Pair, *, bias: bool = True, groups: int = 1) -> int:
    """Numbers in a convolution: c_out · (c_in / groups · KH · KW + 1), without the 1 when it has no bias."""
    kh, kw = _pair(kernel_size)
    return c_out * (c_in // groups * kh * kw + bias)


def conv2d_flops(c_in: int, c_out: int, kernel_size: Pair, output: tuple[int, int], *, groups: int = 1) -> int:
    """FLOPs of one image's convolution: each of c_out · OH · OW values takes c_in / groups · KH · KW multiply-adds.

    A multiply-add is two; adding the bias is left out, as in PyTorch's counter.
    """
    kh, kw = _pair(kernel_size)
    return 2 * c_out * output[0] * output[1] * (c_in // groups) * kh * kw


def linear_parameters(n_in: int, n_out: int, *, bias: bool = True) -> int:
    """Numbers in a fully connected layer: n_out · (n_in + 1), without the 1 when it has no bias."""
    return n_out * (n_in + bias)


def linear_flops(n_in: int, n_out: int) -> int:
    """FLOPs of one image's fully connected layer: n_out · n_in multiply-adds of two."""
    return 2 * n_out * n_in


@dataclass(frozen=True)
class LayerCost:
    """One layer's output shape without the batch axis, its numbers, and the FLOPs of one image's forward pass."""

    layer: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    flops: int


def layer_costs(model: nn.Module, inputs: Tensor) -> list[LayerCost]:
    """The cost of every Conv2d, Linear and BatchNorm2d that `inputs` (N, …) pass through, in their order, by formula.

    Only the shapes come from the forward pass. Batch norm counts two numbers a channel and no FLOPs: it is folded into
    the convolution before it once a network is trained. Other layers have nothing to count, or go uncounted.
    """
    costs: list[LayerCost] = []
    names = {module: name for name, module in model.named_modules()}
    hooks = [
        module.register_forward_hook(lambda module, _, output: costs.append(_layer_cost(names[module], module, output)))
        for module in names
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d)
    ]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(inputs)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return costs


def _layer_cost(name: str, layer: nn.Module, output: Tensor) -> LayerCost:
    shape = tuple(output.shape[1:])
    if isinstance(layer, nn.Conv2d):
        c_in, c_out, groups = layer.in_channels, layer.out_channels, layer.groups
        kernel, places = (layer.kernel_size[0], layer.kernel_size[1]), (shape[1], shape[2])
        parameters = conv2d_parameters(c_in, c_out, kernel, bias=layer.bias is not None, groups=groups)
        return LayerCost(name, "Conv2d", shape, parameters, conv2d_flops(c_in, c_out, kernel, places, groups=groups))
    if isinstance(layer, nn.Linear):
        n_in, n_out = layer.in_features, layer.out_features
        parameters = linear_parameters(n_in, n_out, bias=layer.bias is not None)
        return LayerCost(name, "Linear", shape, parameters, linear_flops(n_in, n_out))
    return LayerCost(name, "BatchNorm2d", shape, sum(p.numel() for p in layer.parameters()), 0)


# ------------------------------------------------------------------------------------------------------------- softmax


def softmax_naive(logits: Tensor) -> Tensor:
    """exp(y_i) / Σ_j exp(y_j) over the last axis as the formula stands: inf / inf once a logit is past about 709."""
    exponentials = logits.exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def log_sum_exp(logits: Tensor) -> Tensor:
    """log Σ_j exp(y_j) over the last axis, as m + log Σ_j exp(y_j − m) with m the largest logit: (…, K) → (…).

    No exponent is then above 0, so nothing overflows, and one term is 1, so the sum never underflows to 0.
    """
    largest = logits.amax(-1, keepdim=True)
    return (largest + (logits - largest).exp().sum(-1, keepdim=True).log()).squeeze(-1)


def log_softmax_naive(logits: Tensor) -> Tensor:
    """log(softmax) as the formula stands: nan or −inf where `softmax_naive` overflows or underflows."""
    return softmax_naive(logits).log()


def log_softmax(logits: Tensor) -> Tensor:
    """y_i − log Σ_j exp(y_j) over the last axis."""
    return logits - log_sum_exp(logits)[..., None]


def softmax(logits: Tensor) -> Tensor:
    """exp(log_softmax(y)) over the last axis: probabilities that sum to 1."""
    return log_softmax(logits).exp()


# ------------------------------------------------------------------------------------------------------- cross-entropy


def nll_loss(
    log_probabilities: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood −w[tₙ] · logp[n, tₙ], of log-probabilities (of probabilities it would mean nothing).

    log_probabilities: (N, K). labels: (N,) int64 in 0…K−1, or `ignore_index`, which counts for nothing. weight: (K,),
    one factor a class. `mean` divides by the sum of the weights that took part, as PyTorch does.

    Raises:
        ValueError: a shape, a label or the reduction does not fit.
    """
    _check_labels(log_probabilities, labels, weight, ignore_index)
    losses, weights = _nll_terms(log_probabilities, labels, weight, ignore_index)
    return _reduce(losses, reduction, weights.sum())


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """−Σ_k w_k t_k log softmax(y)_k, per image or reduced; `nll_loss` of `log_softmax` for plain labels.

    logits: (N, K). targets: (N,) int64 labels, or (N, K) probabilities. label_smoothing ε in [0, 1] mixes the targets
    with the uniform distribution: (1 − ε)·t + ε/K. With labels, `mean` divides by the weights of the labels that took
    part; with probabilities, by N.

    Raises:
        ValueError: a shape, a label, ε or the reduction does not fit.
    """
    _check_smoothing(label_smoothing)
    log_p = log_softmax(logits)
    soft = targets.is_floating_point()
    if not soft and label_smoothing == 0:
        return nll_loss(log_p, targets, weight=weight, ignore_index=ignore_index, reduction=reduction)
    scaled = log_p if weight is None else weight * log_p
    if soft:
        t = _smooth(_check_probabilities(logits, targets), label_smoothing)
        return _reduce(-(t * scaled).sum(1), reduction, len(logits))
    _check_labels(logits, targets, weight, ignore_index)
    hard, weights = _nll_terms(log_p, targets, weight, ignore_index)
    uniform = torch.where(targets == ignore_index, 0.0, -scaled.mean(1))
    return _reduce((1 - label_smoothing) * hard + label_smoothing * uniform, reduction, weights.sum())


def cross_entropy_gradient(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """∂L/∂y = softmax(y) − t, for the mean over N images divided by N: (N, K).

    targets: (N,) int64 labels or (N, K) probabilities.

    Raises:
        ValueError: a shape, a label or ε does not fit, or the reduction is neither `mean` nor `sum`.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; a gradient needs 'mean' or 'sum'")
    _check_smoothing(label_smoothing)
    if targets.is_floating_point():
        t = _check_probabilities(logits, targets)
    else:
        t = one_hot(targets, logits.shape[1]).to(logits.dtype)
    gradient = softmax(logits) - _smooth(t, label_smoothing)
    return gradient / len(logits) if reduction == "mean" else gradient


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(N,) labels → (N, num_classes) int64, 1 at the label and 0 elsewhere.

    Raises:
        ValueError: a label is not in 0…num_classes−1.
    """
    _check_range(labels, num_classes)
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).long()


def entropy(p: Tensor) -> Tensor:
    """H(p) = −Σ p log p over the last axis, in nats; 0 log 0 is 0."""
    return -torch.xlogy(p, p).sum(-1)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q) = Σ p log(p/q) over the last axis, in nats: at least 0, and 0 only for p = q; inf where q misses p."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def _nll_terms(log_p: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Each image's weighted loss and its weight, both (N,) and 0 where the label is ignored."""
    kept = labels != ignore_index
    safe = labels.where(kept, 0)
    weights = torch.where(kept, 1.0 if weight is None else weight[safe], 0.0).to(log_p.dtype)
    picked = log_p.gather(1, safe[:, None]).squeeze(1)
    return torch.where(kept, -weights * picked, 0.0), weights


def _smooth(t: Tensor, label_smoothing: float) -> Tensor:
    return (1 - label_smoothing) * t + label_smoothing / t.shape[1]


def _reduce(losses: Tensor, reduction: str, divisor: Tensor | int) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return losses.sum() / divisor
    raise ValueError(f"reduction is {reduction!r}; there are 'mean', 'sum' and 'none'")


def _check_labels(logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> None:
    if logits.ndim != 2:
        raise ValueError(f"the logits have shape {tuple(logits.shape)}; they need two axes, (N, K)")
    if tuple(labels.shape) != (len(logits),):
        raise ValueError(f"the labels have shape {tuple(labels.shape)}; {len(logits)} rows need ({len(logits)},)")
    if weight is not None and tuple(weight.shape) != (logits.shape[1],):
        raise ValueError(f"the class weights have shape {tuple(weight.shape)}; {logits.shape[1]} classes need one each")
    _check_range(labels[labels != ignore_index], logits.shape[1])


def _check_range(labels: Tensor, num_classes: int) -> None:
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise ValueError(f"label {outside[0].item()} is not one of the {num_classes} classes 0…{num_classes - 1}")


def _check_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.shape != logits.shape:
        raise ValueError(f"soft targets have shape {tuple(targets.shape)}, but the logits {tuple(logits.shape)}")
    return targets


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must lie between 0 and 1")
