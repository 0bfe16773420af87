"""Many training steps as one CUDA graph.

At batch 10 a step's forty-odd kernels are done before Python has launched the next one: the launches are the time. A
graph records the kernels of many steps once and replays them in a single launch, over buffers that stay where they
are. Random numbers still change: torch's CUDA generator hands each replay a new offset (and the new seed, if reseeded).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

STEPS_PER_GRAPH = 100  # about 4,000 kernels of a small network: long enough to hide the launch, quick to record


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream that graphs are recorded on: of the device that trains, which need not be the current one."""
    return torch.cuda.Stream(device)


@contextmanager
def warming_up(device: torch.device) -> Iterator[None]:
    """A side stream for the eager steps before a recording, as torch's notes on CUDA graphs ask for."""
    side, here = _stream(device), torch.cuda.current_stream(device)
    side.wait_stream(here)
    with torch.cuda.stream(side):
        yield
    here.wait_stream(side)


class GraphedSteps:
    """`step(inputs, labels) → (loss, hits)` on each batch of a chunk, recorded once and replayed.

    Record it after some steps have run in `warming_up`: by then the optimisers have their buffers, and cuDNN its
    algorithms.
    inputs: (S · B, …), labels: (S · B,); later chunks must have the same shapes.
    """

    def __init__(
        self, step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], inputs: Tensor, labels: Tensor, batch: int
    ):
        self._inputs, self._labels = inputs.clone(), labels.clone()
        self._loss_sum = torch.zeros((), device=inputs.device)
        self._hits = torch.zeros((), dtype=torch.int64, device=inputs.device)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(inputs.device)
        # Records without running, so the training does not move.
        with torch.cuda.graph(self._graph, stream=_stream(inputs.device)):
            for batch_inputs, batch_labels in zip(self._inputs.split(batch), self._labels.split(batch), strict=True):
                loss, hits = step(batch_inputs, batch_labels)
                self._loss_sum += loss * len(batch_labels)
                self._hits += hits

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Train on a chunk. Returns its summed loss and right answers; both are overwritten by the next call."""
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        self._loss_sum.zero_()
        self._hits.zero_()
        self._graph.replay()
        return self._loss_sum, self._hits
