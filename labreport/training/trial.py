"""A network tried on a few images before it is trained: what cannot work is said in a sentence, not after an epoch."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from labreport.facts.recipes import KNOWN, Recipe
from labreport.images.splits import Data
from labreport.networks import models
from labreport.training import evaluate
from labreport.training.compiled import steps_for
from labreport.training.device import threads_for
from labreport.training.run import DeviceSplit, Run
from labreport.training.steps import chunks, train_compiled, train_eagerly

N = 8  # images of a trial
FORWARD = 1 / 3  # of a training step's work: the backward pass is twice the forward pass
MOST, SECONDS, LEAST = 128, 0.2, 3  # images, seconds and steps of a timing, of which the first one warms up


class NetworkError(ValueError):
    """A network cannot be trained; the message says what is wrong with it, and what would be right."""


def try_network(recipe: Recipe, num_classes: int, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Build the recipe's network and take one batch of inputs of `shape` through it, forward and backward.

    Returns hints, mostly none: things that work, but hardly as they are meant. No random numbers of torch's own
    generator are used up.

    Raises:
        NetworkError: the network cannot be built, cannot read its inputs, or gives something else than logits.
        ValueError: there is no network of that name.
    """
    side = shape[-1]
    sides = {recipe.image_side(epoch, side) for epoch in range(recipe.epochs)} if len(shape) == 3 else {side}
    shapes = tuple((*shape[:1], s, s) if len(shape) == 3 else (s,) for s in sorted(sides, reverse=True))
    builder = models.find(recipe.model)
    _check_special(recipe, builder, num_classes)
    return _tried(builder, recipe.model, num_classes, shapes)


def _check_special(recipe: Recipe, builder: Callable[..., nn.Module], num_classes: int) -> None:
    """Two settings ask for layers that only the fast recipe's network has."""
    if not (recipe.whiten or recipe.optimizer == "muon"):
        return
    with torch.random.fork_rng(devices=[]):
        model = built(builder, recipe.model, num_classes)
    if not all(hasattr(model, name) for name in ("whiten", "whitening", "head")):
        setting = "whiten=True" if recipe.whiten else "optimizer='muon'"
        raise NetworkError(
            f"recipe {recipe.name!r}: {setting} is for networks like fast94, with a whitening layer and a head, and "
            f"{recipe.model!r} has none; choose whiten=False and optimizer='sgd' or 'adam'"
        )


@functools.cache
def _tried(
    builder: Callable[..., nn.Module], name: str, num_classes: int, shapes: tuple[tuple[int, ...], ...]
) -> tuple[str, ...]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = built(builder, name, num_classes)
        for shape in shapes:
            logits = forward(model, name, torch.randn(N, *shape))
            check_logits(name, logits, num_classes)
        check_gradients(name, logits, num_classes)
        return tuple(hints(model, name, logits))


def built(builder: Callable[..., nn.Module], name: str, num_classes: int) -> nn.Module:
    """The network, whatever its class does to be built."""
    try:
        model = builder(num_classes)
    except Exception as error:  # a reader's own class may raise anything
        takes_none = isinstance(error, TypeError) and "argument" in str(error)
        way_out = "its constructor takes the number of classes: def __init__(self, num_classes=10)"
        raise NetworkError(
            f"the network {name!r} cannot be built ({type(error).__name__}: {error})"
            + (f"; {way_out}" if takes_none else "")
        ) from error
    if not isinstance(model, nn.Module):
        raise NetworkError(f"the network {name!r} is a {type(model).__name__}, and must be a torch.nn.Module")
    if not list(model.parameters()):
        raise NetworkError(
            f"the network {name!r} has no parameters to train; layers are found when they are attributes of it, or in "
            "an nn.Sequential or nn.ModuleList, not in a plain list"
        )
    return model


def forward(model: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """What the network says of the inputs; a failure is told with the layer that it happened in."""
    lazy = {n: m for n, m in model.named_modules() if any(map(_is_lazy, m.parameters(recurse=False)))}
    kinds = {n: type(m).__name__ for n, m in lazy.items()}
    with layers_entered(model) as entered:
        try:
            logits = model.train()(inputs)
        except Exception as error:  # torch and a reader's own code raise nearly any type
            where = f" in its layer {entered[-1]}" if entered else ""
            raise NetworkError(
                f"the network {name!r} cannot read a batch of shape {tuple(inputs.shape)}{where}: "
                f"{' '.join(str(error).split())}{expected(model, entered)}"
            ) from error
    if lazy:
        (first, layer), *_ = lazy.items()
        sized = getattr(layer, "in_features", None) or getattr(layer, "in_channels", None)
        raise NetworkError(
            f"the network {name!r} has a lazy layer, {first} ({kinds[first]}), which has no weights until it has seen "
            f"an image; write {type(layer).__name__}({sized or '…'}, …) instead"
        )
    return logits


def _is_lazy(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, UninitializedParameter)


@contextmanager
def layers_entered(model: nn.Module) -> Iterator[list[str]]:
    """The layers that the forward pass is in, the innermost last: `fc (Linear)`."""
    entered: list[str] = []
    hooks = []
    for name, module in model.named_modules():
        if name:
            label = f"{name} ({type(module).__name__})"
            hooks.append(module.register_forward_pre_hook(lambda *_, label=label: entered.append(label)))
            hooks.append(module.register_forward_hook(lambda *_: entered.pop() and None))
    try:
        yield entered
    finally:
        for hook in hooks:
            hook.remove()


def expected(model: nn.Module, entered: list[str]) -> str:
    """What the layer that failed takes, where it is one that says so."""
    layer = model.get_submodule(entered[-1].split(" ")[0]) if entered else None
    if isinstance(layer, nn.Linear):
        return f"; it takes {layer.in_features} numbers an image"
    if isinstance(layer, nn.Conv2d):
        return f"; it takes {layer.in_channels} channels"
    return ""


def check_logits(name: str, logits: object, num_classes: int) -> None:
    if not isinstance(logits, Tensor):
        raise NetworkError(
            f"the network {name!r} gives a {type(logits).__name__}, and must give a tensor of logits (N, {num_classes})"
        )
    if logits.shape != (N, num_classes):
        raise NetworkError(
            f"the network {name!r} gives an output of shape {tuple(logits.shape)} for {N} images, and must give one "
            f"of ({N}, {num_classes}): a logit for each of the {num_classes} classes"
        )
    if not logits.is_floating_point():
        raise NetworkError(
            f"the network {name!r} gives {logits.dtype}, and must give logits: real numbers, not classes"
        )
    if not logits.isfinite().all():
        raise NetworkError(f"the network {name!r} gives numbers that are not finite, before any training")


def check_gradients(name: str, logits: Tensor, num_classes: int) -> None:
    loss = F.cross_entropy(logits, torch.arange(N) % num_classes)
    if not loss.requires_grad:
        raise NetworkError(
            f"the network {name!r} passes no gradient to any of its parameters; look for no_grad, detach, argmax or "
            "requires_grad=False"
        )
    loss.backward()


def hints(model: nn.Module, name: str, logits: Tensor) -> Iterator[str]:
    """What works and yet is hardly meant."""
    if (logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones(N), atol=1e-3):
        yield (
            f"each row of what {name} gives sums to 1, as after a softmax; the loss takes a softmax itself, and of "
            "probabilities it learns slowly and less: let the network end in its last linear layer (chapter 1, softmax)"
        )
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        yield f"{idle[0]}{f' and {len(idle) - 1} more' if len(idle) > 1 else ''} takes no part in what {name} computes"


def input_shape(recipe: Recipe, num_classes: int, images: tuple[int, ...]) -> tuple[int, ...]:
    """Of one input: an image's own shape, or that of the features that another network makes of it."""
    if not recipe.features_from:
        return images
    source = KNOWN[recipe.features_from].model if recipe.features_from in KNOWN else recipe.features_from
    return ([m.in_features for m in models.build(source, num_classes).modules() if isinstance(m, nn.Linear)][-1],)


def seconds_per_image(recipe: Recipe, split: DeviceSplit, num_classes: int, device: torch.device) -> float:
    """How long an image of the last epoch takes here in training, by steps of a network that is then thrown away.

    What a step takes whatever its images (an optimiser's work) is told apart by steps of two sizes, where batches are
    too large to be tried.
    """
    few = DeviceSplit(split.inputs[:MOST], split.labels[:MOST])
    run = Run.start(dataclasses.replace(recipe, pretrained=False), 0, few, num_classes, device)
    run.compiled = steps_for(recipe, run.model, few.inputs)
    run.model.train()
    inputs, labels = next(chunks(recipe, few, 0, recipe.epochs - 1, MOST))
    train_chunk = train_compiled if run.compiled else train_eagerly

    def seconds_of(n: int) -> float:
        seconds: list[float] = []
        while len(seconds) < LEAST or (sum(seconds) < SECONDS and len(seconds) < 50):
            began = time.perf_counter()
            _, right = train_chunk(run, inputs[:n], labels[:n], min(recipe.batch_size, n), 0.0, few)
            right.item()  # waits for a GPU
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    n, whole = len(labels), seconds_of(len(labels))
    if recipe.batch_size <= n or n < 4:
        return whole / n
    image = max(whole - seconds_of(n // 4), 0.0) / (n - n // 4)
    return image + max(whole - image * n, 0.0) / recipe.batch_size


def work(recipe: Recipe, split: DeviceSplit) -> list[float]:
    """What an image of each epoch costs, by its pixels."""
    side = split.shape[-1]
    return [(recipe.image_side(epoch, side) / side) ** 2 for epoch in range(recipe.epochs)]


def training_seconds(recipe: Recipe, data: Data, device: torch.device) -> float:
    """How long one seed takes, by a trial of its steps: its epochs, validation after each, and the last measurement."""
    few = data.first(recipe.train_images)
    num_classes = len(data.info.classes)
    if recipe.features_from:  # a small network on stored features: the network's own steps on noise as wide
        (width,) = input_shape(recipe, num_classes, tuple(data.train.images.shape[1:]))
        split = DeviceSplit(torch.randn(len(few.train), width, device=device), few.train.labels.to(device))
    else:
        split = DeviceSplit.of(few.train, device)
    with threads_for(recipe, device):
        per_image = seconds_per_image(recipe, split, num_classes, device)
    epochs = work(recipe, split)
    last = epochs[-1]
    trained = sum(epochs) * len(split) / last
    views = len(evaluate.views(torch.zeros(1, 1, 2, 2), recipe.tta))
    seen = (0 if recipe.train_on_val else len(data.val)) * (sum(epochs) + views) + len(split) + len(data.test) * views
    return per_image * (trained + FORWARD * seen / last)
