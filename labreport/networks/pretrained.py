"""ImageNet weights for torchvision's ResNet-18: from torch's cache or torchvision's server, checked by their hash."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor, nn


class WeightsUnavailable(RuntimeError):
    """Pretrained weights are not on disk and cannot be downloaded."""


def weights_name() -> str:
    """What names the weights that `start_from_imagenet` would use: where they are from, and their sha256.

    Raises:
        WeightsUnavailable: as there.
    """
    return _download()[1]


def start_from_imagenet(model: nn.Module) -> str:
    """Give torchvision's ResNet-18 its ImageNet weights, all but the last layer's. Returns what names the weights.

    Raises:
        WeightsUnavailable: the weights are neither in torch's cache nor to be had from the network.
    """
    state, name = _download()
    body = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    model.load_state_dict(body | {key: value for key, value in model.state_dict().items() if key.startswith("fc.")})
    return name


def _download() -> tuple[dict[str, Tensor], str]:
    """Torchvision's weights: from torch's cache, or downloaded with progress and checked by their hash."""
    from labreport._torchvision import torchvision

    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not cached.exists() and os.environ.get("LABREPORT_OFFLINE", "0") not in ("", "0"):
        raise WeightsUnavailable(f"{cached.name} is not in torch's cache, and LABREPORT_OFFLINE forbids its download")
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; or the file's hash is not the one in its name
        raise WeightsUnavailable(f"the pretrained weights cannot be had from {weights.url}: {error}") from error
    return state, f"torchvision IMAGENET1K_V1, sha256 {hashlib.sha256(cached.read_bytes()).hexdigest()[:16]}"
