"""Optimisers and learning-rate schedules, as a recipe names them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labreport.facts.recipes import Recipe
from labreport.training.device import supports_bf16


def orthogonalize(matrix: Tensor, dtype: torch.dtype = torch.bfloat16, steps: int = 3) -> Tensor:
    """A matrix of the same singular vectors with all singular values near 1, by Newton–Schulz iteration in `dtype`.

    The quintic's coefficients (3.4445, −4.7750, 2.0315) are K. Jordan's (Muon, 2024): steepest at zero, so that a few
    steps suffice; they leave singular values between about 0.5 and 1.5, which is enough for a step direction.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.to(dtype) if matrix.shape[0] <= matrix.shape[1] else matrix.to(dtype).T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if matrix.shape[0] <= matrix.shape[1] else x.T).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: each filter tensor (O, I, kh, kw) moves along the orthogonal factor of its momentum.

    Before the step the tensor is scaled to norm √O, as airbench does, so that `lr` is a relative step size. `dtype` is
    that of the orthogonalisation.
    """

    def __init__(self, params, lr: float, momentum: float, dtype: torch.dtype = torch.bfloat16):
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                buffer = state["momentum_buffer"]
                buffer.mul_(group["momentum"]).add_(weight.grad)
                direction = weight.grad.add(buffer, alpha=group["momentum"])  # Nesterov
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                weight.sub_(group["lr"] * orthogonalize(direction.flatten(1), self._dtype).view_as(weight))


# Notebook 05's rates beside the filters' own, from airbench94_muon, whose loss is a sum over the batch. Ours is a mean,
# so the rates are multiplied by the batch size, which leaves rate × decay a sample as it is.
BIAS_LR, HEAD_LR = 0.053, 0.67
WHITENING_BIAS_EPOCHS = 3


def build_optimizers(recipe: Recipe, model: nn.Module) -> list[torch.optim.Optimizer]:
    """The recipe's optimiser, or for `muon` two: Muon on the filters, SGD with Nesterov momentum on the rest.

    Raises:
        ValueError: the recipe names an optimiser that does not exist.
    """
    if recipe.optimizer not in OPTIMIZERS:
        raise ValueError(
            f"recipe {recipe.name!r}: no optimizer {recipe.optimizer!r}; there are {', '.join(OPTIMIZERS)}"
        )
    return OPTIMIZERS[recipe.optimizer](recipe, model)


def _rate(recipe: Recipe, parameters: list[nn.Parameter]) -> float | Tensor:
    """The learning rate; on a GPU as a tensor there, which can change under a CUDA graph that was recorded with it."""
    return torch.tensor(recipe.lr, device=parameters[0].device) if parameters[0].is_cuda else recipe.lr


def _fused(parameters: list[nn.Parameter]) -> bool:
    """Whether torch has the optimisers as one kernel there."""
    return parameters[0].device.type in ("cpu", "cuda")


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _sgd(recipe: Recipe, model: nn.Module) -> list[torch.optim.Optimizer]:
    trainable = _trainable(model)
    settings = {"momentum": recipe.momentum, "nesterov": recipe.nesterov, "weight_decay": recipe.weight_decay}
    return [torch.optim.SGD(trainable, lr=_rate(recipe, trainable), fused=_fused(trainable), **settings)]  # type: ignore[arg-type]


def _adam(recipe: Recipe, model: nn.Module) -> list[torch.optim.Optimizer]:
    trainable = _trainable(model)
    settings = {"fused": _fused(trainable), "capturable": trainable[0].is_cuda}
    return [torch.optim.Adam(trainable, lr=_rate(recipe, trainable), weight_decay=recipe.weight_decay, **settings)]  # type: ignore[arg-type]


def _muon(recipe: Recipe, model: nn.Module) -> list[torch.optim.Optimizer]:
    filters = [p for p in _trainable(model) if p.ndim == 4]
    biases = [p for name, p in model.named_parameters() if p.ndim == 1 and p.requires_grad and "whitening" not in name]
    bias_lr, head_lr = BIAS_LR * recipe.batch_size, HEAD_LR * recipe.batch_size
    groups = [
        {"params": [model.whitening.bias], "lr": bias_lr, "until_epoch": WHITENING_BIAS_EPOCHS},  # type: ignore[union-attr]
        {"params": biases, "lr": bias_lr},
        {"params": [model.head.weight], "lr": head_lr},  # type: ignore[union-attr]
    ]
    for group in groups:  # airbench's decay is a share of the weight a sample, whatever the rate
        group["weight_decay"] = recipe.weight_decay * recipe.batch_size / group["lr"]  # type: ignore[operator]
    sgd = torch.optim.SGD(groups, lr=bias_lr, momentum=0.85, nesterov=True, fused=_fused(filters))
    # A processor without bfloat16 imitates it: a step's orthogonalisation takes 2.7 s there, and 0.06 s in float32.
    dtype = torch.bfloat16 if supports_bf16(filters[0].device) else torch.float32
    return [Muon(filters, recipe.lr, recipe.momentum, dtype), sgd]


OPTIMIZERS = {"sgd": _sgd, "adam": _adam, "muon": _muon}


def rate_factor(recipe: Recipe, epoch: float, until: float | None = None) -> float:
    """The factor on the learning rate after `epoch` (fractional) epochs; `until` ends a linear decay earlier.

    Raises:
        ValueError: the recipe names a schedule that does not exist.
    """
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "step":
        return recipe.gamma ** (int(epoch) // recipe.step_size)
    share = min(epoch / (until or recipe.epochs), 1.0)
    if recipe.schedule == "linear":
        if share < recipe.warmup:
            return share / recipe.warmup
        return (1 - share) / (1 - recipe.warmup)
    raise ValueError(f"recipe {recipe.name!r}: no schedule {recipe.schedule!r}; there are constant, step, linear")


def set_rates(recipe: Recipe, optimizers: list[torch.optim.Optimizer], epoch: float) -> float:
    """Set every group's rate for this moment of the training; returns the recipe's own current rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if "initial_lr" not in group:  # reading a rate from a GPU waits for it, so only once
                group["initial_lr"] = float(group["lr"])
            rate = group["initial_lr"] * rate_factor(recipe, epoch, group.get("until_epoch"))
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
    return recipe.lr * rate_factor(recipe, epoch)
