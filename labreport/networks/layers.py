"""A network layer by layer: what each gives, holds, costs, and sees of the image."""

from __future__ import annotations

import ast
import copy
import inspect
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from labreport.digests import is_own

N = 8  # random images, whose gradients together find what a layer sees
MOST = 24  # rows; where layers are more, blocks of them are shown


@dataclass(frozen=True)
class Layer:
    """One layer or block. `shape` is that of its output for one image, `flops` those of one image.

    `sees` is the extent (rows, columns) of the pixels that can reach the middle of its output, found by autograd with
    random weights, within the image; None where the inputs are no images.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: int
    sees: tuple[int, int] | None


def layers(model: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """The layers of `model` in the order in which they are used on an input of `shape`, with at most about 24 rows."""
    model = copy.deepcopy(model).cpu().eval()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(N, *shape, generator=generator, requires_grad=True)
    for weight in model.parameters():
        if weight.ndim > 1:  # with filters that begin as the identity, a layer would see less than it can
            nn.init.kaiming_normal_(weight, generator=generator)
    rows = parts(model)
    outputs: dict[str, Tensor] = {}
    flops = dict.fromkeys(rows, 0)
    counter = FlopCounterMode(display=False)

    def before(name: str, *_: object) -> None:
        flops[name] -= counter.get_total_flops()

    def after(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        flops[name] += counter.get_total_flops()
        outputs[name] = output

    for name, module in rows.items():
        module.register_forward_pre_hook(partial(before, name))
        module.register_forward_hook(partial(after, name))
    with counter:
        model(inputs)
    return [
        Layer(name, kind(rows[name]), tuple(out.shape[1:]), count(rows[name]), flops[name] // N, seen(out, inputs))
        for name, out in outputs.items()
    ]


def parts(model: nn.Module) -> dict[str, nn.Module]:
    """The model's layers by name; where they are more than `MOST`, the blocks that hold them. Lists are taken apart."""
    rows = dict(model.named_children())
    while True:
        inner = {
            name: {f"{name}.{n}": child for n, child in module.named_children()} or {name: module}
            for name, module in rows.items()
        }
        wider = {n: m for found in inner.values() for n, m in found.items()}
        if len(wider) > MOST:
            lists = {name for name, module in rows.items() if isinstance(module, nn.ModuleList | nn.ModuleDict)}
            wider = {n: m for name in rows for n, m in (inner[name] if name in lists else {name: rows[name]}).items()}
        if wider == rows:
            return rows
        rows = wider


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def kind(module: nn.Module) -> str:
    """`Conv2d 3→16, 2×2`, `Linear 576→64`, or the class's name."""
    name = type(module).__name__
    if isinstance(module, nn.Conv2d):
        return f"{name} {module.in_channels}→{module.out_channels}, {'×'.join(map(str, module.kernel_size))}"
    if isinstance(module, nn.Linear):
        return f"{name} {module.in_features}→{module.out_features}"
    return name


def seen(output: Tensor, inputs: Tensor) -> tuple[int, int] | None:
    """The extent of the pixels with a gradient in the middle of `output`."""
    if inputs.ndim != 4:
        return None
    middle = output[..., output.shape[-2] // 2, output.shape[-1] // 2] if output.ndim == 4 else output
    weights = torch.randn(middle.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((middle * weights).sum(), inputs, retain_graph=True)
    places = (gradient.abs().sum((0, 1)) > 0).nonzero()
    rows, columns = (places.max(0).values - places.min(0).values + 1).tolist() if len(places) else (0, 0)
    return rows, columns


def source(builder: Callable[..., nn.Module], model: nn.Module) -> str:
    """The own code that `model` was built by; empty where its source is not at hand."""
    builder = builder.func if isinstance(builder, partial) else builder
    own = [thing for thing in dict.fromkeys([builder, *(type(m) for m in model.modules())]) if is_own(thing)]
    return "\n\n\n".join(filter(None, map(_source, own)))


def _source(thing: Callable[..., nn.Module] | type[nn.Module]) -> str:
    """The code of a function or class, of one in a notebook's cell as well, where `inspect` finds functions only."""
    try:
        return inspect.getsource(thing).strip()
    except (OSError, TypeError):
        methods = [member for member in vars(thing).values() if inspect.isfunction(member)]
    for method in methods:
        cell = "".join(linecache.getlines(method.__code__.co_filename))
        for node in ast.walk(ast.parse(cell)):
            if isinstance(node, ast.ClassDef) and node.name == thing.__name__:
                return ast.get_source_segment(cell, node) or ""
    return ""
