"""ImageNet weights: from torch's cache, or a sentence on why not."""

import pytest
import torch

from labreport.networks import models
from labreport.networks.pretrained import WeightsUnavailable, start_from_imagenet


def test_missing_pretrained_weights_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("LABREPORT_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailable, match="resnet18-f37072fd"):
        start_from_imagenet(models.build("resnet18"))


def test_pretrained_weights_are_loaded_from_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LABREPORT_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = models.resnet18(1000).state_dict()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(weights, tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
    model = models.build("resnet18")
    start_from_imagenet(model)
    torch.testing.assert_close(model.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])
    assert model.fc.out_features == 10
