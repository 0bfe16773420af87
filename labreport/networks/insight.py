"""What a trained network makes of one image: its layers' outputs, and which pixels its answer hangs on.

All take a network in evaluation mode and one normalised image (1, 3, H, W).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def feature_maps(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What every convolution makes of the image, (C, H, W) each, by the layer's name, in the order of computation."""
    maps: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: maps.update({name: output[0]}))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def gradient(model: nn.Module, image: Tensor, label: int) -> Tensor:
    """How steeply the log-probability of class `label` changes with each pixel: (H, W), the steepest of its colours."""
    image = image.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(image).log_softmax(1)[0, label], image)
    return slope[0].abs().amax(0)


@torch.no_grad()
def occlusion(model: nn.Module, image: Tensor, label: int, side: int = 6, step: int = 2) -> Tensor:
    """What class `label` loses in probability where a square hides the image: (H, W), from −1 to 1.

    The square, `side` pixels wide, moves by `step` and has the mean colour, 0 in a normalised image. A pixel's value is
    the mean over the squares that hide it (after Zeiler and Fergus, arXiv:1311.2901).
    """
    height, width = image.shape[2:]
    places = [(y, x) for y in range(0, height - side + 1, step) for x in range(0, width - side + 1, step)]
    hidden = torch.zeros(len(places), height, width, dtype=torch.bool)
    for square, (y, x) in zip(hidden, places, strict=True):
        square[y : y + side, x : x + side] = True
    covered = image.masked_fill(hidden[:, None], 0.0)
    whole = model(image).softmax(1)[0, label]
    losses = torch.cat([whole - model(part).softmax(1)[:, label] for part in covered.split(64)])
    return (losses[:, None, None] * hidden).sum(0) / hidden.sum(0).clamp(min=1)
