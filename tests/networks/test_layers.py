"""Layer tables against arithmetic."""

import functools

import pytest
import torch
from torch import nn

from labreport.networks import layers, models


def test_the_baseline_by_hand():
    """Output sizes, parameters, FLOPs and receptive fields of 2×2 convolutions with poolings between them."""
    conv1, conv2, conv3, fc1, fc2 = layers.layers(models.Baseline(), (3, 32, 32))
    assert conv1 == layers.Layer("conv1", "Conv2d 3→16, 2×2", (16, 33, 33), 208, 2 * 33 * 33 * 16 * 12, (2, 2))
    assert conv2.shape == (32, 17, 17) and conv2.sees == (5, 5)  # 2 + 1 for the pooling + 2
    assert conv3.shape == (64, 7, 7) and conv3.sees == (11, 11)  # 5 + 2 + 4
    assert fc1.sees == fc2.sees == (28, 28)  # what chapter 2 shows by pixels
    assert fc2.parameters == 650 and fc2.flops == 2 * 64 * 10


@pytest.mark.parametrize("name", ["resnet18", "deep_cnn", "fast94"])
def test_the_rows_add_up_to_the_network(name):
    from labreport.networks.costs import flops_per_input

    model = models.build(name)
    found = layers.layers(model, (3, 32, 32))
    assert len(found) <= 25
    assert sum(layer.parameters for layer in found) == layers.count(model)
    assert sum(layer.flops for layer in found) == flops_per_input(model, (3, 32, 32))[0]
    assert found[-1].sees == (32, 32)


def test_the_table_leaves_the_model_and_the_random_numbers_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 10)).train()
    state = torch.get_rng_state()
    layers.layers(model, (3, 2, 2))
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


def test_source_is_all_own_code_and_none_of_a_library():
    fast = layers.source(functools.partial(models.FastNet, identity=False), models.FastNet())
    assert "class FastNet" in fast and "class _FastGroup" in fast
    resnet = layers.source(models.resnet18, models.resnet18())
    assert resnet.startswith("def resnet18") and "BasicBlock" not in resnet
    assert layers.source(nn.Linear, nn.Linear(2, 2)) == ""
