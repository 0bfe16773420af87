"""Every shortcut against the plain network: the same outputs, the same gradients, the same training."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labreport.networks import models, shortcuts


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [(1, 3, 1, 1), (2, 3, 2, 1), (2, 1, 2, 0), (3, 3, 1, 0), (3, 2, 2, 0), (1, 3, 2, 2), (3, 5, 3, 1), (4, 3, 1, 1)],
)
def test_one_pixel_convolution(size, kernel, stride, padding):
    """Outputs and all three gradients, also where more than one pixel comes out and the shortcut steps aside."""
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, kernel, stride, padding).double()
    x = torch.randn(4, 5, size, size, dtype=torch.float64, requires_grad=True)
    expected = plain(x)
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, (x, plain.weight, plain.bias), upstream)
    short = shortcuts.OnePixelConv2d.of(plain)
    got = short(x)
    torch.testing.assert_close(got, expected)
    for mine, theirs in zip(torch.autograd.grad(got, (x, short.weight, short.bias), upstream), gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_install_finds_the_one_pixel_convolutions_and_changes_nothing_else():
    torch.manual_seed(0)
    model = models.build("resnet18")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = torch.random.get_rng_state()
    shortcuts.install(model, side=32)
    assert torch.equal(torch.random.get_rng_state(), before)
    short = [name for name, module in model.named_modules() if isinstance(module, shortcuts.OnePixelConv2d)]
    layers = ("0.conv1", "0.conv2", "0.downsample.0", "1.conv1", "1.conv2")
    assert short == [f"layer4.{layer}" for layer in layers]
    assert model.training
    assert list(model.state_dict()) == list(state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_the_visible_pixels_of_the_baseline_are_those_that_reach_its_output():
    seen = shortcuts.seen_pixels(models.build("baseline"), 32)
    visible = models.Baseline.visible
    assert seen[:visible, :visible].all()
    assert seen.sum() == visible**2


def test_idle_weights_by_hand():
    """Eight of nine taps of three 512×512 kernels on one pixel; five of nine of the 256×512 ones, on 2×2 pixels."""
    torch.manual_seed(0)
    assert shortcuts.idle_weights(models.build("resnet18"), 32) == 3 * 512 * 512 * 8 + 256 * 512 * 5


def test_the_baseline_says_the_same_of_the_visible_pixels_alone():
    model, images = models.build("baseline"), torch.randn(8, 3, 32, 32)
    visible = models.Baseline.visible
    torch.testing.assert_close(model(images[..., :visible, :visible]), model(images))
    padded = F.pad(images[..., :visible, :visible], (0, 32 - visible, 0, 32 - visible), value=9.0)
    torch.testing.assert_close(model(padded), model(images))
