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
import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

STEPS_PER_GRAPH = 100  # about 4,000 kernels of a small network: long enough to hide the launch, quick to record

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class NotRecorded(RuntimeError):
    """No graph can record these steps; the message says why."""


@functools.cache
def _stream(device: torch.device, branch: int) -> torch.cuda.Stream:
    """A stream to record on, one a branch: of the device that trains, which need not be the current one."""
    return torch.cuda.Stream(device)


@contextmanager
def warming_up(device: torch.device, branch: int = 0) -> Iterator[list[warnings.WarningMessage]]:
    """A side stream for the eager steps before a recording, as torch's notes on CUDA graphs ask for.

    `device` is a tensor's, since torch.device("cuda") is not equal to torch.device("cuda:0"). Yields what torch warns
    of meanwhile, for `check_waits`.
    """
    side, here, mode = _stream(device, branch), torch.cuda.current_stream(device), torch.cuda.get_sync_debug_mode()
    side.wait_stream(here)
    with warnings.catch_warnings(record=True) as told, torch.cuda.stream(side):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield told
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    here.wait_stream(side)


def check_waits(told: Sequence[warnings.WarningMessage], steps: int) -> None:
    """Refuse steps that cannot be recorded before it is tried.

    A recording that fails leaves torch's allocator and generator in a state that nothing mends (pytorch/pytorch, pull
    request 180395).

    Raises:
        NotRecorded: each of the `steps` of a warm-up waited for the device, with .item() say.
    """
    if sum("synchronizing CUDA operation" in str(warning.message) for warning in told) >= steps:
        raise NotRecorded("its steps wait for the device, with .item() say")


class GraphedSteps:
    """`step(inputs, labels) → (loss, hits)` of each branch on each batch of its chunk, recorded once and replayed.

    Record it after some steps of each branch have run in `warming_up`: by then the optimisers have their buffers, and
    cuDNN its algorithms. Drop one graph before the next is recorded, since they share the streams.
    inputs: (S · B, …) a branch, labels: (S · B,) a branch; later chunks must have the same shapes.

    Raises:
        NotRecorded: torch cannot record the steps.
        torch.OutOfMemoryError: the device has too little memory.
    """

    def __init__(self, steps: Sequence[Step], inputs: Sequence[Tensor], labels: Sequence[Tensor], batch: int):
        device = inputs[0].device
        self._inputs, self._labels = [chunk.clone() for chunk in inputs], [chunk.clone() for chunk in labels]
        self._loss_sums = [torch.zeros((), device=device) for _ in steps]
        self._hits = [torch.zeros((), dtype=torch.int64, device=device) for _ in steps]
        self._graph = torch.cuda.CUDAGraph()
        gc.collect()  # an older graph, if a cycle of references still held it
        torch.cuda.synchronize(device)
        try:
            # Records without running, so the training does not move. torch.cuda.graph leaves its stream the current one
            # where ending the capture fails, so another context restores it.
            with torch.cuda.stream(torch.cuda.current_stream(device)):
                self._record_all(steps, batch, _stream(device, 0))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first = error.__context__ or error  # what ending the capture says comes after the cause
            raise NotRecorded(" ".join(str(first).split("\n")[0].split())) from error

    def _record_all(self, steps: Sequence[Step], batch: int, trunk: torch.cuda.Stream) -> None:
        with torch.cuda.graph(self._graph, stream=trunk):
            others = [_stream(self._inputs[0].device, branch) for branch in range(1, len(steps))]
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
