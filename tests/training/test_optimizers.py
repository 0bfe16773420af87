"""Muon's orthogonalisation against the singular value decomposition; schedules against torch's own and by hand."""

import dataclasses

import pytest
import torch
from torch import nn

from labreport.facts.recipes import CHOICES, RECIPES
from labreport.networks import models
from labreport.training import optimizers


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (32, 32)])
def test_orthogonalize_keeps_singular_vectors_and_levels_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ optimizers.orthogonalize(matrix, steps=5) @ vt.T  # diagonal where the singular vectors are the same
    values = inner.diagonal()
    off_diagonal = inner - torch.diag(values)
    assert values.min() > 0.4
    assert values.max() < 1.4
    assert off_diagonal.abs().max() < 0.06


def test_muon_step_by_hand():
    weight = nn.Parameter(torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)))
    start = weight.detach().clone()
    gradient = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    weight.grad = gradient.clone()
    optimizers.Muon([weight], lr=0.1, momentum=0.6).step()
    scaled = start * 2 / start.norm()  # √4 filters
    direction = optimizers.orthogonalize((1.6 * gradient).flatten(1)).view_as(start)  # Nesterov: g + 0.6 · (0 + g)
    torch.testing.assert_close(weight.detach(), scaled - 0.1 * direction)


def test_step_schedule_is_torchs_step_lr():
    recipe = RECIPES["fine_tuned"]
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    for epoch in range(recipe.epochs):
        assert recipe.lr * optimizers.rate_factor(recipe, epoch + 0.5) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_linear_schedule_rises_then_falls_to_zero():
    recipe = dataclasses.replace(RECIPES["deep_cnn"], epochs=10, warmup=0.2)
    factors = [optimizers.rate_factor(recipe, epoch) for epoch in (0, 1, 2, 6, 10)]
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_unknown_names_are_told():
    assert tuple(optimizers.OPTIMIZERS) == CHOICES["optimizer"]
    for name, words in CHOICES.items():
        with pytest.raises(ValueError, match=f"no {name} 'sdg'.*{words[-1]}"):
            dataclasses.replace(RECIPES["baseline"], **{name: "sdg"})


def test_every_trainable_weight_has_an_optimizer():
    for name in ("baseline", "fine_tuned", "fast94"):
        model = models.build(RECIPES[name].model)
        groups = [g for o in optimizers.build_optimizers(RECIPES[name], model) for g in o.param_groups]
        held = [id(p) for group in groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_fast_recipe_rates_and_decay():
    """airbench94_muon at batch 2000: biases 0.053 and head 0.67 on summed losses; decay × rate 0.004 a step."""
    recipe = RECIPES["fast94"]
    _, sgd = optimizers.build_optimizers(recipe, models.build("fast94"))
    assert [group["lr"] / 2000 for group in sgd.param_groups] == pytest.approx([0.053, 0.053, 0.67])
    assert [group["lr"] * group["weight_decay"] for group in sgd.param_groups] == pytest.approx([0.004] * 3)
    optimizers.set_rates(recipe, [sgd], 1.5)
    assert sgd.param_groups[0]["lr"] / 2000 == pytest.approx(0.053 / 2)  # the whitening bias rests after epoch 3
    assert sgd.param_groups[2]["lr"] / 2000 == pytest.approx(0.67 * (1 - 1.5 / recipe.epochs))


def test_orthogonalize_gives_the_same_in_both_precisions():
    matrix = torch.randn(24, 54, generator=torch.Generator().manual_seed(0))
    exact, rounded = (optimizers.orthogonalize(matrix, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert (exact - rounded).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_muon_computes_in_bfloat16_only_where_that_is_not_imitated(monkeypatch, supported, dtype):
    seen = []
    monkeypatch.setattr(optimizers, "supports_bf16", lambda device: supported)
    monkeypatch.setattr(optimizers, "orthogonalize", lambda matrix, dtype: seen.append(dtype) or matrix)
    model = models.build("fast94")
    muon, _ = optimizers.build_optimizers(RECIPES["fast94"], model)
    for weight in muon.param_groups[0]["params"]:
        weight.grad = torch.ones_like(weight)
    muon.step()
    assert set(seen) == {dtype}
