"""The synthetic stand-in for CIFAR-10: ten classes of drawn shapes."""

from __future__ import annotations

import numpy as np
import torch

from labreport.images.splits import Data, DataError, Images, make_data

SHAPES = ("disc", "ring", "square", "frame", "triangle", "cross", "stripes", "checkers", "crescent", "star")


def synthetic(n_train: int = 8_000, n_val: int = 1_000, n_test: int = 2_000, seed: int = 0) -> Data:
    """The stand-in: ten classes of drawn shapes (`SHAPES`) with random place, size, turn, colours and noise.

    The same arguments give the same pixels; each split is drawn from a random stream of its own.
    """
    sizes = (n_train, n_val, n_test)
    if min(sizes) < 1:
        raise DataError(f"synthetic data of {sizes} images: every split needs at least 1 image")
    splits = [_draw(n, np.random.default_rng([seed, i])) for i, n in enumerate(sizes)]
    return make_data("synthetic stand-in", SHAPES, *splits)


def _draw(n: int, random: np.random.Generator) -> Images:
    """`n` images of shapes, brighter or darker than their ground, the classes in random order and equally frequent."""
    labels = random.permutation(np.arange(n) % 10)
    u, v = _shape_coordinates(n, random)
    masks = np.empty((n, 32, 32), dtype=bool)
    for label, shape in enumerate(SHAPES):
        masks[labels == label] = _inside(shape, u[labels == label], v[labels == label])
    sign = random.choice(np.array([-1, 1], dtype=np.int16), (n, 1, 1, 1))
    contrast = random.integers(30, 120, (n, 3, 1, 1), dtype=np.int16) * sign
    ground = 128 - contrast // 2 + random.integers(-50, 51, (n, 3, 1, 1), dtype=np.int16)
    # Each class is tinted a little: a network learns that first, and the shapes later.
    hue = 2 * np.pi * (labels[:, None] / 10 + np.arange(3) / 3)
    figure = ground + contrast + (32 * np.cos(hue)).astype(np.int16)[:, :, None, None]
    noise = random.integers(-40, 41, (n, 3, 32, 32), dtype=np.int16)
    pixels = np.clip(np.where(masks[:, None], figure, ground) + noise, 0, 255).astype(np.uint8)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


def _shape_coordinates(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's place in its shape's own frame: two (n, 32, 32) arrays, in which the shape fills [-1, 1]²."""
    centre = random.uniform(11, 20, (2, n, 1, 1)).astype(np.float32)
    radius = random.uniform(6, 13, (n, 1, 1)).astype(np.float32)
    angle = random.uniform(-0.5, 0.5, (n, 1, 1)).astype(np.float32)  # radians
    axis = np.arange(32, dtype=np.float32)
    y, x = (axis[:, None] - centre[0]) / radius, (axis - centre[1]) / radius
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which pixels belong to a shape, from their coordinates in its frame."""
    distance = np.hypot(u, v)
    side = np.maximum(np.abs(u), np.abs(v))
    match shape:
        case "disc":
            return distance < 0.9
        case "ring":
            return (distance < 1.0) & (distance > 0.6)
        case "square":
            return side < 0.8
        case "frame":
            return (side < 0.9) & (side > 0.5)
        case "triangle":
            return (v < 0.8) & (np.abs(u) < (v + 1.0) / 1.8)
        case "cross":
            return (side < 1.0) & (np.minimum(np.abs(u), np.abs(v)) < 0.3)
        case "stripes":
            return (side < 0.9) & (np.sin(7.0 * u) > 0)
        case "checkers":
            return (side < 0.9) & (np.sin(5.0 * u) * np.sin(5.0 * v) > 0)
        case "crescent":
            return (distance < 1.0) & (np.hypot(u - 0.5, v) > 0.8)
        case "star":
            return distance < 0.65 + 0.35 * np.cos(5.0 * np.arctan2(u, -v))
    raise ValueError(f"{shape}: not one of the shapes {SHAPES}")
