"""The networks against what the lab report states of them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labreport.networks import models

PARAMETERS = {"baseline": 48_122, "first_optimization": 75_186, "fine_tuned": 541_094, "resnet18": 11_181_642}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts(name, count):
    assert sum(p.numel() for p in models.build(name).parameters()) == count


@pytest.mark.parametrize("name", [n for n in models.MODELS if n not in ("linear", "dense_softmax")])
def test_images_become_logits(name):
    assert models.build(name, num_classes=7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_fine_tuned_is_the_reports_net():
    """The report's forward pass (appendix), written out on the same weights."""
    model = models.build("fine_tuned").eval()
    images = torch.randn(4, 3, 32, 32)
    x = F.max_pool2d(F.relu(F.conv2d(images, model.conv1.weight, model.conv1.bias, padding=1)), 2, 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, model.conv2.weight, model.conv2.bias, padding=1)), 2, 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, model.conv3.weight, model.conv3.bias, padding=1)), 2, 2)
    x = F.relu(F.linear(x.reshape(-1, 64 * 4 * 4), model.fc1.weight, model.fc1.bias))
    torch.testing.assert_close(model(images), F.linear(x, model.fc2.weight, model.fc2.bias))
    assert model.dropout.p == 0.25
    assert (model.fc1.out_features, model.fc2.out_features) == (500, 10)


def test_baseline_layers_are_as_stated():
    convs = [m for m in models.build("baseline").modules() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size, c.stride, c.padding) for c in convs] == [
        ((2, 2), (1, 1), (1, 1)),
        ((2, 2), (1, 1), (1, 1)),
        ((2, 2), (1, 1), (0, 0)),
    ]


def test_first_optimization_normalises_after_each_convolution():
    modules = [m for m in models.build("first_optimization").modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    assert [type(m) for m in modules] == [nn.Conv2d, nn.BatchNorm2d] * 4
    one_by_one = modules[-2]
    assert one_by_one.kernel_size == (1, 1)
    assert one_by_one.out_channels < one_by_one.in_channels


def test_whitening_makes_patches_uncorrelated_with_unit_variance():
    torch.manual_seed(0)
    base = torch.randn(64, 3, 33, 33)
    images = base[:, :, 1:, 1:] + base[:, :, :-1, :-1]  # neighbouring pixels correlate
    model = models.build("fast94")
    model.whiten(images, eps=0.0)
    responses = F.conv2d(images, model.whitening.weight).transpose(0, 1).flatten(1)
    second_moments = responses @ responses.T / responses.shape[1]
    torch.testing.assert_close(second_moments[:12, :12], torch.eye(12), atol=1e-3, rtol=0)
    torch.testing.assert_close(responses[12:], -responses[:12])
    assert not model.whitening.weight.requires_grad


def test_the_first_filters_start_as_the_identity():
    """A filter of the identity gives back its input channel, whatever the image."""
    x = torch.randn(2, 24, 9, 9)
    conv = models.build("fast94").groups[0].convs[0]
    torch.testing.assert_close(conv(x)[:, :24], x)
    assert not torch.allclose(models.build("fast94_random").groups[0].convs[0](x)[:, :24], x)


def test_fast_net_takes_smaller_images():
    assert models.build("fast94")(torch.zeros(2, 3, 24, 24)).shape == (2, 10)


def test_unknown_model_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'vgg'.*baseline"):
        models.build("vgg")
