"""The networks, each written as the lab report states it or, where it says nothing, as small as the numbers allow.

All take normalised images (N, 3, H, W) and give logits (N, num_classes). `MODELS` names them; a recipe of your own can
name a class of your own: `MODELS["mine"] = MyNet`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Baseline(nn.Module):
    """Section II: three 2×2 convolutions (padding 1, 1, 0), ReLU and max-pooling. 48,122 parameters.

    Sizes: 32 → 33 → 16 → 17 → 8 → 7 → 3. The widths are chosen here; the report gives no source for this network.
    """

    # Every pooling drops an odd last row and column, and together they reach far: the last one needs 6 rows of its
    # convolution, which come from 7 rows, these from 14 of the one before, and these from 28 of the image.
    visible = 28  # pixels a side

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 2, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 2)
        self.fc1 = nn.Linear(64 * 3 * 3, 64)
        self.fc2 = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(F.max_pool2d(conv(x), 2))  # ReLU and max commute; this way round is cheaper
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class FirstOptimization(nn.Module):
    """Section III-A: batch norm after each convolution, and a 1×1 convolution that lowers the channels.

    Sizes: 32 → 33 → 16 → 17 → 8 → 9 → 4. The report states 75,186 parameters, and these widths give it.
    """

    def __init__(self, num_classes: int = 10):
        super().__init__()
        widths = (3, 16, 24, 48)
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(cin, cout, 2, padding=1), nn.BatchNorm2d(cout), nn.MaxPool2d(2), nn.ReLU())
            for cin, cout in pairwise(widths)
        )
        self.reduce = nn.Sequential(nn.Conv2d(48, 32, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.fc1 = nn.Linear(32 * 4 * 4, 128)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for block in self.convs:
            x = block(x)
        return self.fc2(F.relu(self.fc1(self.reduce(x).flatten(1))))


class FineTuned(nn.Module):
    """Section III-B and the appendix: the report's `Net`, to the letter. 541,094 parameters."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, num_classes)
        self.dropout = nn.Dropout(0.25)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(F.max_pool2d(conv(x), 2))
        x = F.relu(self.fc1(self.dropout(x.flatten(1))))
        return self.fc2(self.dropout(x))


def resnet18(num_classes: int = 10) -> nn.Module:
    """Section III-C: torchvision's ResNet-18 with a new last layer. 11,181,642 parameters for ten classes."""
    from labreport._torchvision import torchvision  # takes a second, and only the ResNets need it

    return torchvision.models.resnet18(num_classes=num_classes)


class UpscaledResNet18(nn.Module):
    """`resnet18` on images that are first enlarged, bilinearly, to `side` pixels: its stem was made for 224."""

    def __init__(self, num_classes: int = 10, side: int = 224):
        super().__init__()
        self.side = side
        self.resnet = resnet18(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.resnet(F.interpolate(images, size=(self.side, self.side), mode="bilinear"))


class DeepCNN(nn.Module):
    """Stands for reference [2]: a VGG-style network with batch norm and dropout. `features` ends before the classifier.

    Pooling comes early, so that the wide layers see small maps: five 3×3 convolutions at 32, 16, 8, 4 and 4 pixels.
    """

    def __init__(self, num_classes: int = 10):
        super().__init__()

        def block(cin: int, cout: int, pool: bool = True) -> list[nn.Module]:
            conv = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
            return [conv, *([nn.MaxPool2d(2)] if pool else []), nn.BatchNorm2d(cout), nn.ReLU()]

        self.features = nn.Sequential(
            *block(3, 64),
            *block(64, 128),
            *block(128, 256),
            *block(256, 256, pool=False),
            *block(256, 256, pool=False),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(256, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.features(images)))


class DenseSoftmax(nn.Module):
    """Stands for reference [3]: a dense network on extracted features (N, 256), closed by a softmax classifier."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.hidden1 = nn.Linear(256, 256)
        self.hidden2 = nn.Linear(256, 128)
        self.classifier = nn.Linear(128, num_classes)
        self.dropout = nn.Dropout(0.3)

    def forward(self, features: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.hidden1(features)))
        x = self.dropout(F.relu(self.hidden2(x)))
        return self.classifier(x)


class LinearHead(nn.Module):
    """One linear layer on the features (N, 512) of a ResNet-18. 5,130 parameters."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.classifier = nn.Linear(512, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.classifier(features)


class _FastGroup(nn.Module):
    """`depth` 3×3 convolutions with batch norm and GELU; pooling after the first; from three on, a residual."""

    def __init__(self, cin: int, cout: int, depth: int, identity: bool):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(cin if i == 0 else cout, cout, 3, padding=1, bias=False) for i in range(depth)
        )
        # Running statistics must follow a training of a few hundred steps, hence the high momentum.
        self.norms = nn.ModuleList(nn.BatchNorm2d(cout, momentum=0.4, eps=1e-12) for _ in range(depth))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            if identity:
                nn.init.dirac_(conv.weight[: conv.in_channels])  # type: ignore[index]  # identity first
            norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norms[0](F.max_pool2d(self.convs[0](x), 2)))
        skip = x
        for i in range(1, len(self.convs)):
            x = self.norms[i](self.convs[i](x))
            if i >= 2 and i == len(self.convs) - 1:
                x = x + skip
            x = F.gelu(x)
        return x


class FastNet(nn.Module):
    """The network of notebook 05, after airbench (K. Jordan, arXiv:2404.00498): whitening, three groups, a scaled head.

    `whiten` sets the first, 2×2 convolution from training images and freezes it. `identity` starts the first filters of
    the others as the identity. The head sees each channel's maximum, so any image of at least 16 pixels a side will do.
    """

    def __init__(
        self, num_classes: int = 10, widths: tuple[int, ...] = (64, 256, 256), depth: int = 2, identity: bool = True
    ):
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2)
        nn.init.zeros_(self.whitening.bias)  # type: ignore[arg-type]
        self.groups = nn.Sequential(*(_FastGroup(a, b, depth, identity) for a, b in pairwise((24, *widths))))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        with torch.no_grad():
            self.head.weight /= self.head.weight.std()

    @torch.no_grad()
    def whiten(self, images: Tensor, eps: float = 5e-4) -> None:
        """Set the first layer to the eigenvectors of the 2×2 patches of `images` (N, 3, H, W), and their negatives.

        It is not trained from then on.
        """
        patches = F.unfold(images.float(), 2).transpose(1, 2).reshape(-1, 12)
        eigenvalues, eigenvectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (eigenvectors / torch.sqrt(eigenvalues + eps)).T.reshape(12, 3, 2, 2)
        self.whitening.weight.copy_(torch.cat((filters, -filters)))
        self.whitening.weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.groups(F.gelu(self.whitening(images)))
        return self.head(x.amax((2, 3))) / self.head.in_features


def fast96_net(num_classes: int = 10) -> nn.Module:
    """The wide, residual form of FastNet for GPUs (airbench96)."""
    return FastNet(num_classes, widths=(128, 384, 512), depth=3)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "baseline": Baseline,
    "first_optimization": FirstOptimization,
    "fine_tuned": FineTuned,
    "resnet18": resnet18,
    "resnet18_at_64": partial(UpscaledResNet18, side=64),
    "resnet18_at_128": partial(UpscaledResNet18, side=128),
    "resnet18_at_224": UpscaledResNet18,
    "deep_cnn": DeepCNN,
    "dense_softmax": DenseSoftmax,
    "linear": LinearHead,
    "fast94": FastNet,
    "fast94_random": partial(FastNet, identity=False),
    "fast96": fast96_net,
}


def find(name: str) -> Callable[..., nn.Module]:
    """The class or function that builds the network of that name.

    Raises:
        ValueError: there is no such network.
    """
    if name not in MODELS:
        raise ValueError(f"no model is named {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def build(name: str, num_classes: int = 10) -> nn.Module:
    """A new network with random weights (from torch's generator), by its name in `MODELS`.

    Raises:
        ValueError: there is no such network.
    """
    return find(name)(num_classes)
