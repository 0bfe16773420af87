"""The lab report's appendix, written as its reader would: what our own loop is tested and measured against.

One image at a time through torchvision's transforms, a DataLoader, networks layer by layer in the order that the report
gives, default precision, memory layout and optimisers, `.item()` at every step. Weights have the names that they have
in `labreport.networks.models`, so either side's can be loaded into the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from labreport.facts.recipes import Recipe
from labreport.images import augment
from labreport.images import cifar10 as data
from labreport.networks import models


class Baseline(models.Baseline):
    """Convolution, ReLU, pooling, in the order of section II."""

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.max_pool2d(F.relu(conv(x)), 2, 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class FirstOptimization(models.FirstOptimization):
    """Convolution, batch norm, ReLU, pooling, then the 1×1 convolution: section III-A."""

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for block in self.convs:
            conv, norm, *_ = block.children()
            x = F.max_pool2d(F.relu(norm(conv(x))), 2, 2)
        return self.fc2(F.relu(self.fc1(self.reduce(x).flatten(1))))


class FineTuned(models.FineTuned):
    """`Net` of the appendix: `self.pool(F.relu(self.conv1(x)))`, and so on."""

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.max_pool2d(F.relu(conv(x)), 2, 2)
        x = self.dropout(F.relu(self.fc1(self.dropout(x.view(-1, 64 * 4 * 4)))))
        return self.fc2(x)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "baseline": Baseline,
    "first_optimization": FirstOptimization,
    "fine_tuned": FineTuned,
    "resnet18": models.resnet18,
}


class ImageDataset(Dataset):
    """Images in memory that become PIL images and pass a transform one by one, as torchvision's CIFAR10 does it."""

    def __init__(self, images: data.Images, transform: Callable[[Image.Image], Tensor]):
        self.data = images.images.permute(0, 2, 3, 1).contiguous().numpy()  # (N, H, W, C)
        self.targets = images.labels.tolist()
        self.transform = transform

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]

    def __len__(self) -> int:
        return len(self.data)


def transform_for(recipe: Recipe) -> Callable[[Image.Image], Tensor]:
    """The recipe's augmentation and normalisation in torchvision's per-image transforms."""
    from labreport._torchvision import torchvision

    transforms = torchvision.transforms
    steps = []
    if recipe.translate:
        steps.append(transforms.RandomCrop(32, padding=recipe.translate, padding_mode="reflect"))
    if recipe.flip == "random":
        steps.append(transforms.RandomHorizontalFlip())
    std = augment.STD if recipe.normalization == "standard" else (1.0, 1.0, 1.0)
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(augment.MEAN, std)])


class AppendixLoop:
    """The training loop of the appendix, on `recipe`'s network with its batch size, augmentation and optimiser."""

    def __init__(self, recipe: Recipe, images: data.Images, workers: int, device: torch.device):
        torch.manual_seed(0)
        self.device = device
        self.model = NETWORKS[recipe.model]().to(device)
        parameters = self.model.parameters()
        self.optimizer: torch.optim.Optimizer
        if recipe.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(parameters, lr=recipe.lr, momentum=recipe.momentum)
        else:
            self.optimizer = torch.optim.Adam(parameters, lr=recipe.lr)
        self.criterion = nn.CrossEntropyLoss()
        dataset = ImageDataset(images, transform_for(recipe))
        self.loader = DataLoader(dataset, recipe.batch_size, shuffle=True, num_workers=workers)
        self.batches = self._endless()

    def _endless(self) -> Generator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def run(self, images: int, threads: int | None = None) -> None:
        """Train on the next `images` images, in whole batches, with `threads` threads or torch's own number."""
        torch.set_num_threads(threads or torch.get_num_threads())
        self.model.train()
        seen, train_loss = 0, 0.0
        while seen < images:
            inputs, target = next(self.batches)
            inputs, target = inputs.to(self.device), target.to(self.device)
            self.optimizer.zero_grad()
            output = self.model(inputs)
            loss = self.criterion(output, target)
            loss.backward()
            self.optimizer.step()
            train_loss += loss.item() * len(target)
            seen += len(target)

    def close(self) -> None:
        """End the loader's workers."""
        self.batches.close()
