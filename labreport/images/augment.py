"""Batched augmentation on the device: one gather moves, mirrors and crops a whole batch; no image is touched alone.

Images stay uint8 and channels-last until the gather, which is what makes it cheap; normalisation follows.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = (0.4914, 0.4822, 0.4465)  # per channel, of CIFAR-10's training images in [0, 1]
STD = (0.2470, 0.2435, 0.2616)


def normalize(images: Tensor, kind: str = "standard") -> Tensor:
    """uint8 images (N, 3, H, W) → float32: minus the mean, and for `standard` divided by the deviation, per channel.

    `mean` is what the lab report states for its ResNet: the average subtracted, nothing else.
    """
    shift, scale = _shift_and_scale(kind, images.device)
    return torch.addcmul(shift, images.float(), scale)


@functools.cache
def _shift_and_scale(kind: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """(x / 255 − mean) / std as one multiply-add a pixel: (1, 3, 1, 1) each."""
    # Kept, since making them waits for a GPU; ordinary tensors for training, even where a prediction asks first.
    with torch.inference_mode(False):
        mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1)
        std = torch.tensor(STD if kind == "standard" else (1.0, 1.0, 1.0), device=device).view(1, 3, 1, 1)
        return -mean / std, 1 / (255 * std)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Fold positions outside 0…size−1 back in, as reflection padding does: −1 → 1, size → size − 2."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


def geometry(
    images: Tensor, index: Tensor, mirrored: Tensor | None, translate: int, generator: torch.Generator
) -> Tensor:
    """Take images[index], mirror those marked, and shift each by up to `translate` pixels, reflected at the border.

    images: (N, H, W, 3) uint8. index: (B,) int64. mirrored: (B,) bool, or None for none. Returns (B, 3, H, W) uint8,
    channels-last.
    """
    if not translate and mirrored is None:
        return images[index].permute(0, 3, 1, 2)
    height, width = images.shape[1:3]
    rows = torch.arange(height, device=images.device).expand(len(index), -1)
    columns = torch.arange(width, device=images.device).expand(len(index), -1)
    if translate:
        shift = torch.randint(-translate, translate + 1, (2, len(index), 1), generator=generator, device=images.device)
        rows, columns = _reflect(rows + shift[0], height), _reflect(columns + shift[1], width)
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    # One flat gather of whole pixels: each is 3 bytes at ((image · H) + row) · W + column.
    pixels = (index[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
    taken = images.reshape(-1, 3)[pixels.reshape(-1)]
    return taken.view(len(index), height, width, 3).permute(0, 3, 1, 2)


def cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set a random side × side square of each image (B, C, H, W) to 0, the mean colour of normalised images."""
    batch, _, height, width = images.shape
    corner = torch.rand((2, batch, 1), generator=generator, device=images.device)
    top, left = (corner[0] * (height - side + 1)).floor(), (corner[1] * (width - side + 1)).floor()
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_rows, in_columns = (rows >= top) & (rows < top + side), (columns >= left) & (columns < left + side)
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0.0)


def mirror_mask(kind: str, index: Tensor, epoch: int, coin: Tensor, generator: torch.Generator) -> Tensor | None:
    """Which images of `index` (B,) to mirror: None for `none`, a `random` half, or `alternating`.

    Alternating flip (K. Jordan, arXiv:2404.00498): `coin` (N,) bool decides once which images start mirrored; from then
    on each is mirrored every other epoch, so that two epochs show both sides of every image.
    """
    if kind == "alternating":
        return coin[index] ^ (epoch % 2 == 1)
    if kind == "random":
        return torch.rand(len(index), generator=generator, device=index.device) < 0.5
    return None


def resize(images: Tensor, side: int) -> Tensor:
    """Normalised images (B, C, H, W) at side × side pixels, bilinear, antialiased; as they are if of that size."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
