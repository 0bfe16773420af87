"""Exact shortcuts: what a network computes, without the work that cannot change it.

Weights, their names and their number stay as they are. Each shortcut is tested against the plain network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OnePixelConv2d(nn.Conv2d):
    """A convolution that is a matrix product where one pixel comes out.

    There the kernel lies still, and its taps over the padding see only zeros: eight of the nine taps of a 3×3 kernel on
    a map of one pixel. In ResNet-18 with images of 32×32 pixels, three of the last group's convolutions are like that;
    they hold 63 % of its parameters. The idle taps' gradients are zero, as without the shortcut.
    """

    @classmethod
    def of(cls, conv: nn.Conv2d) -> OnePixelConv2d:
        """`conv` with the shortcut; the two share their weights."""
        shape = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
        new = nn.utils.skip_init(cls, *shape, bias=conv.bias is not None)  # draws no random numbers
        new.weight, new.bias = conv.weight, conv.bias
        return new

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, out_channels, H', W'); the shortcut where H' = W' = 1."""
        geometry = list(zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True))
        if any((size + 2 * pad - kernel) // stride for size, kernel, stride, pad in geometry):  # type: ignore[operator]
            return super().forward(x)
        rows, columns = (min(size, kernel - pad) for size, kernel, _, pad in geometry)  # type: ignore[operator]  # of the input, under the kernel
        top, left = self.padding  # type: ignore[str-unpack]
        # Channels last, as the weights lie in memory: so the slices are views, and gradients come back in that layout.
        weight = self.weight.permute(0, 2, 3, 1)[:, top : top + rows, left : left + columns].flatten(1)  # type: ignore[operator]
        pixels = x.permute(0, 2, 3, 1)[:, :rows, :columns].flatten(1)
        return F.linear(pixels, weight, self.bias)[:, :, None, None]


# --- what a network never uses: found by autograd, so independent of the shortcuts above ------------------------------


def seen_pixels(model: nn.Module, side: int, n: int = 64) -> Tensor:
    """Which pixels of side × side images reach the logits: (side, side) bool, those with a gradient in `n` images."""
    images = torch.randn(n, 3, side, side, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(images).square().sum(), images)
    return gradient.abs().sum((0, 1)) > 0


def idle_weights(model: nn.Module, side: int, n: int = 64) -> int:
    """How many weights lie in kernel taps that meet nothing but padding in `n` images of side × side pixels."""
    kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    loss = F.cross_entropy(model(torch.randn(n, 3, side, side)), torch.arange(n) % 10)
    gradients = torch.autograd.grad(loss, kernels)
    # All of a tap's weights, since a single one can be without a gradient by chance, behind a ReLU.
    return sum(int((g == 0).all(dim=1).all(dim=0).sum()) * g.shape[0] * g.shape[1] for g in gradients)


# --- putting them in --------------------------------------------------------------------------------------------------


@torch.no_grad()
def install(model: nn.Module, side: int) -> None:
    """Give `model`, in place, a OnePixelConv2d wherever a convolution makes one pixel of side × side images."""
    found: list[nn.Conv2d] = []

    def look(conv: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        if output.shape[2:] == (1, 1) and inputs[0].shape[2:] != conv.kernel_size and _plain(conv):
            found.append(conv)

    hooks = [m.register_forward_hook(look) for m in model.modules() if type(m) is nn.Conv2d]
    weight = next(model.parameters())
    was_training = model.training
    model.eval()(torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if any(child is conv for conv in found):
                setattr(parent, name, OnePixelConv2d.of(child))  # type: ignore[arg-type]


def _plain(conv: nn.Conv2d) -> bool:
    """Whether the convolution has no option that the shortcut does not know."""
    return (conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), 1, "zeros") and isinstance(conv.padding, tuple)
