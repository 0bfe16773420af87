"""Where a training runs, and what it may use there."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from labreport.cpus import available_cpus
from labreport.facts.recipes import Recipe
from labreport.records.provenance import environment, output

TINY_BATCH = 16  # up to here a second CPU thread gains a quarter at most, and a third nothing


class DeviceError(RuntimeError):
    """A device cannot train; the message names it and the way out."""


@functools.cache
def best_device() -> torch.device:
    """The GPU where one can train, else the CPU; a line says why a GPU that is there is not used."""
    if torch.cuda.is_available():
        wanted = torch.device("cuda")
    elif torch.backends.mps.is_available():
        wanted = torch.device("mps")
    else:
        if card := _card():
            print(f"{card} is there, but {_BUILD} cannot use it; {_WAY_OUT}; training on the CPU", file=sys.stderr)
        return torch.device("cpu")
    try:
        check_device(wanted)
    except DeviceError as error:
        print(f"{error}; training on the CPU", file=sys.stderr)
        return torch.device("cpu")
    return wanted


@functools.cache
def check_device(device: torch.device) -> None:
    """Try the device on a training step of a small network.

    Raises:
        DeviceError: the step fails there, or gives another result than on the CPU.
    """
    if device.type == "cpu":
        return
    try:
        here, there = _gradient(torch.device("cpu")), _gradient(device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split(". ")[0].split())
        raise DeviceError(f"{_name(device)} cannot train with {_BUILD} ({reason:.150}); {_WAY_OUT}") from error
    if not torch.allclose(here, there, rtol=0.01, atol=0.01 * float(here.abs().max())):
        raise DeviceError(f"{_name(device)} computes other gradients than the CPU with {_BUILD}; {_WAY_OUT}")


_BUILD = f"PyTorch {torch.__version__} (CUDA {torch.version.cuda})"
_WAY_OUT = "update the driver, or install a build of PyTorch for it (pytorch.org/get-started), or name the device cpu"


def _gradient(device: torch.device) -> torch.Tensor:
    """The first kernels' gradient in a network that has what the networks here have."""
    generator = torch.Generator().manual_seed(0)
    images, kernels = (torch.randn(*shape, generator=generator) for shape in ((8, 3, 12, 12), (4, 3, 3, 3)))
    kernels = kernels.to(device).requires_grad_()
    x = F.max_pool2d(F.conv2d(images.to(device), kernels, padding=1), 2)
    logits = F.relu(F.batch_norm(x, None, None, training=True)).flatten(1)
    F.cross_entropy(logits, torch.arange(8, device=device)).backward()
    assert kernels.grad is not None
    return kernels.grad


def _name(device: torch.device) -> str:
    try:
        return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    except (RuntimeError, AssertionError):
        return _card() or str(device)


def _card() -> str:
    """The first card that `nvidia-smi` lists, with its driver; empty where there is none."""
    said = output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    name, _, driver = said.partition("\n")[0].partition(", ")
    return f"{name} (driver {driver})" if name else ""


@contextmanager
def memory_told(device: torch.device, batch_size: int) -> Iterator[None]:
    """Turn torch's errors for want of memory into a sentence.

    Raises:
        DeviceError: the device has too little memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        raise DeviceError(
            f"{_name(device)} has too little memory for batches of {batch_size}; lower batch_size, free memory there, "
            "or name another device"
        ) from error


def place(device: torch.device) -> str:
    """The processor or card, short, with the CPU threads in use."""
    here = environment(device)
    threads = f", {here.threads} thread{'s' * (here.threads > 1)}" if device.type == "cpu" else ""
    return here.device.partition(" (")[0] + threads


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
