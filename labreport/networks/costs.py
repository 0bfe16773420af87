"""What a network costs: its floating-point operations, by torch's counter."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from labreport.facts.recipes import Recipe


def flops_per_input(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """FLOPs of a forward, and of a forward and backward pass, for one input of `shape`, by torch's counter.

    It counts convolutions and matrix products, a multiply-add as two; the gradient of the input is not computed.
    """
    model = copy.deepcopy(model).cpu().train()
    inputs = torch.zeros(2, *shape)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(inputs)
    with FlopCounterMode(display=False) as both:
        model(inputs).sum().backward()
    return forward.get_total_flops() // 2, both.get_total_flops() // 2


def training_flops(recipe: Recipe, model: nn.Module, shape: tuple[int, ...], n_train: int) -> int:
    """FLOPs of the whole training: every image of every epoch, at the size that the epoch shows it in."""
    images = min(n_train // recipe.batch_size * recipe.batch_size or n_train, n_train)
    sides = [recipe.image_side(epoch, shape[-1]) for epoch in range(recipe.epochs)]
    shapes = {side: (*shape[:-2], side, side) if len(shape) == 3 else shape for side in set(sides)}
    return sum(flops_per_input(model, shapes[side])[1] * sides.count(side) for side in shapes) * images
