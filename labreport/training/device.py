"""Where a training runs, and what it may use there."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from labreport.cpus import available_cpus
from labreport.facts.recipes import Recipe

TINY_BATCH = 16  # up to here a second CPU thread gains a quarter at most, and a third nothing


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def supports_bf16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are fast and right here: checked, since some CPUs got 2×2 kernels wrong."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.cpu._is_avx512_bf16_supported():
        return False
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    kernels = torch.randn(24, 3, 2, 2, generator=generator)
    exact = F.conv2d(images, kernels)
    rounded = F.conv2d(images.bfloat16(), kernels.bfloat16()).float()
    return bool((exact - rounded).abs().max() < 0.02 * exact.abs().max())


def keep_freed_memory() -> None:
    """Let glibc keep the memory that tensors free, instead of giving it back to the kernel at once.

    A large batch's activations are hundreds of megabytes at every step; fresh pages for them, zeroed by the kernel,
    took a third of the CPU time of `fast94`. Elsewhere (macOS, musl) nothing happens. See mallopt(3).
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_max = -1, -4
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)  # large blocks come from the heap, too
        libc.mallopt(m_trim_threshold, -1)  # and the heap's free end stays


@contextmanager
def threads_for(recipe: Recipe, device: torch.device, threads: int | None = None) -> Iterator[None]:
    """`threads` CPU threads; by default as many as torch and this process's share of the machine allow.

    Two at most for tiny batches, where more only wait.
    """
    before = torch.get_num_threads()
    tiny = device.type == "cpu" and recipe.batch_size <= TINY_BATCH
    torch.set_num_threads(threads or min(before, available_cpus(), *([2] if tiny else [])))
    try:
        yield
    finally:
        torch.set_num_threads(before)
