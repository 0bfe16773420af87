"""Many training steps as one CUDA graph, of one network or of several side by side.

At batch 10 a step's forty-odd kernels are done before Python has launched the next one: the launches are the time. A
graph records the kernels of many steps once and replays them in a single launch, over buffers that stay where they
are. Random numbers still change: torch's CUDA generator hands each replay a new offset (and the new seed, if reseeded).

Such kernels also leave most of a GPU idle. So several networks' steps can be recorded as parallel branches of one
graph: each on a stream of its own that forks from the recording stream and joins it again, as torch's notes on CUDA
graphs ("Usage with multiple streams") ask for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

STEPS_PER_GRAPH = 100  # about 4,000 kernels of a small network: long enough to hide the launch, quick to record

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@functools.cache
def _stream(device: torch.device, branch: int = 0) -> torch.cuda.Stream:
    """A stream to record on, one a branch: of the device that trains, which need not be the current one."""
    return torch.cuda.Stream(device)


@contextmanager
def warming_up(device: torch.device, branch: int = 0) -> Iterator[None]:
    """A side stream for the eager steps before a recording, as torch's notes on CUDA graphs ask for."""
    side, here = _stream(device, branch), torch.cuda.current_stream(device)
    side.wait_stream(here)
    with torch.cuda.stream(side):
        yield
    here.wait_stream(side)


class GraphedSteps:
    """`step(inputs, labels) → (loss, hits)` of each branch on each batch of its chunk, recorded once and replayed.

    Record it after some steps of each branch have run in `warming_up`: by then the optimisers have their buffers, and
    cuDNN its algorithms.
    inputs: (S · B, …) a branch, labels: (S · B,) a branch; later chunks must have the same shapes.
    """

    def __init__(self, steps: Sequence[Step], inputs: Sequence[Tensor], labels: Sequence[Tensor], batch: int):
        device = inputs[0].device
        self._inputs, self._labels = [chunk.clone() for chunk in inputs], [chunk.clone() for chunk in labels]
        self._loss_sums = [torch.zeros((), device=device) for _ in steps]
        self._hits = [torch.zeros((), dtype=torch.int64, device=device) for _ in steps]
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        trunk = _stream(device)
        # Records without running, so the training does not move.
        with torch.cuda.graph(self._graph, stream=trunk):
            others = [_stream(device, branch) for branch in range(1, len(steps))]
            for stream in others:  # all fork before the trunk does work of its own, or they would wait for that
                stream.wait_stream(trunk)
            for branch, (stream, step) in enumerate(zip((trunk, *others), steps, strict=True)):
                with torch.cuda.stream(stream):
                    self._record(branch, step, batch)
            for stream in others:
                trunk.wait_stream(stream)

    def _record(self, branch: int, step: Step, batch: int) -> None:
        for inputs, labels in zip(self._inputs[branch].split(batch), self._labels[branch].split(batch), strict=True):
            loss, hits = step(inputs, labels)
            self._loss_sums[branch] += loss * len(labels)
            self._hits[branch] += hits

    def __call__(self, inputs: Sequence[Tensor], labels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Train each branch on its chunk.

        Returns each one's summed loss and right answers; the next call overwrites them.
        """
        for buffer, chunk in zip(self._inputs + self._labels, [*inputs, *labels], strict=True):
            buffer.copy_(chunk)
        for result in self._loss_sums + self._hits:
            result.zero_()
        self._graph.replay()
        return list(zip(self._loss_sums, self._hits, strict=True))
