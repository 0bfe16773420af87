"""The three splits of a dataset, what names them, and how the validation images are chosen."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from labreport.records.record import CAVEATS, DataInfo

SPLIT_SEED = 10  # of the validation split; not a run's seed, so that all runs are measured on the same images


class DataError(ValueError):
    """The data that was asked for cannot be used; the message names the file and the way out."""


@dataclass(frozen=True, eq=False)
class Images:
    """One split. images: (N, 3, 32, 32) uint8, red, green, blue, of any memory order; labels: (N,) int64 in [0, 9]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Data:
    """The three splits, and where they come from: a file format and a folder, unless they were drawn."""

    train: Images
    val: Images
    test: Images
    info: DataInfo
    format: str = "drawn by this code"
    place: Path | None = None

    @property
    def caveat(self) -> str:
        """What a reader must know about the images; empty for official CIFAR-10."""
        return CAVEATS[self.info.source]

    def first(self, n: int) -> Data:
        """The same with the first `n` training images only; 0: with all."""
        few = Images(self.train.images[:n], self.train.labels[:n])
        return dataclasses.replace(self, train=few) if n else self


def make_data(source: str, classes: tuple[str, ...], train: Images, val: Images, test: Images) -> Data:
    """Three splits and their description."""
    info = DataInfo(source, fingerprint(train, val, test), classes, len(train), len(val), len(test))
    return Data(train, val, test, info)


def fingerprint(*splits: Images) -> str:
    """16 hex digits of a sha256 over every split's length, pixels and labels: another split is another fingerprint."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(len(split).to_bytes(8, "little"))
        for images in split.images.split(1_000):  # channels first, whatever their order in memory
            digest.update(images.contiguous().numpy().data)
        digest.update(split.labels.numpy().astype(np.uint8).data)
    return digest.hexdigest()[:16]


def choose_validation(labels: np.ndarray, val_size: int, folder: Path) -> np.ndarray:
    """Which training images become validation images: a seeded choice of `val_size` / 10 of every class."""
    random = np.random.RandomState(SPLIT_SEED)  # its stream is frozen across numpy versions, default_rng's is not
    in_val = np.zeros(len(labels), dtype=bool)
    per_class = val_size // 10
    for label in range(10):
        indices = np.flatnonzero(labels == label)
        if len(indices) <= per_class:
            raise DataError(
                f"{folder}: {len(indices)} training images have label {label}, too few to set {per_class} of them "
                "aside for validation; get the official files"
            )
        in_val[random.permutation(indices)[:per_class]] = True
    return in_val
