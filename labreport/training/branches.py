"""An epoch of several seeds of a small network in step: on a GPU as parallel branches of one CUDA graph.

Each seed has the network, the optimiser, the order of images and the augmentations that it has alone. Dropout masks are
others than alone: torch has one generator of them for all that a GPU does, and the last seed's epoch sets it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from labreport.records.record import Score
from labreport.training import cuda_graphs
from labreport.training.optimizers import set_rates
from labreport.training.run import DeviceSplit, Run, TrainingError
from labreport.training.steps import chunks, graph_steps, train_eagerly, train_step

Chunks = tuple[tuple[Tensor, Tensor], ...]  # one a run


class Company:
    """Runs of one recipe that train in step, and their graph."""

    def __init__(self, runs: Sequence[Run]):
        self.runs = tuple(runs)
        self.warm = False  # whether a chunk has run eagerly, as recording a graph asks for
        self.graph: cuda_graphs.GraphedSteps | None = None

    def recorded(self, inputs: Sequence[Tensor], labels: Sequence[Tensor], batch: int) -> cuda_graphs.GraphedSteps:
        """A graph of all runs' steps, over chunks of these shapes."""
        steps = [partial(train_step, run) for run in self.runs]
        return cuda_graphs.GraphedSteps(steps, inputs, labels, batch)


def train_epoch_in_step(
    company: Company, split: DeviceSplit, epoch: int, advance: Callable[[int], None] = lambda _: None
) -> list[Score | None]:
    """One pass over the training images for each run; `advance` is told of every chunk, of one run's images.

    Returns each one's running loss and accuracy, or None where the loss is no longer finite.

    Raises:
        TrainingError: no CUDA graph can record the network.
    """
    runs = company.runs
    recipe, device = runs[0].recipe, runs[0].device
    batch = min(recipe.batch_size, len(split))
    size = graph_steps(len(split), batch) * batch
    for run in runs:
        run.model.train()
    # Read at the end only: every look at a number would let the GPU run out of work.
    losses: list[Tensor] = []
    hits, seen = torch.zeros(len(runs), dtype=torch.int64, device=device), 0
    visible = getattr(runs[0].model, "visible", None)
    for parts in zip(*(chunks(recipe, split, run.seed, epoch, size, visible) for run in runs), strict=True):
        try:
            trained = _train_chunks(company, parts, batch, epoch + seen / len(split), split, size)
        except cuda_graphs.NotRecorded as error:
            said = f"{recipe.name}: no CUDA graph records its seeds in step ({error}); train them one by one"
            raise TrainingError(said) from error
        losses.append(torch.stack([loss for loss, _ in trained]))
        hits += torch.stack([right for _, right in trained])
        seen += len(parts[0][1])
        advance(len(parts[0][1]))
    means = torch.stack(losses).cpu().double().sum(0) / seen  # on the CPU, since not every device has float64
    pairs = zip(means.tolist(), hits.tolist(), strict=True)
    return [Score(loss, right / seen, seen) if math.isfinite(loss) else None for loss, right in pairs]


def _train_chunks(
    company: Company, parts: Chunks, batch: int, start: float, split: DeviceSplit, size: int
) -> list[tuple[Tensor, Tensor]]:
    """Each run's chunk: from the graph, recorded at the second chunk, or eagerly, as a rest at the epoch's end is."""
    graphs = parts[0][1].is_cuda
    if graphs and company.warm and len(parts[0][1]) == size:
        for run in company.runs:
            set_rates(run.recipe, run.optimizers, start)
        all_inputs, all_labels = ([part[i] for part in parts] for i in (0, 1))
        company.graph = company.graph or company.recorded(all_inputs, all_labels, batch)
        return company.graph(all_inputs, all_labels)
    trained = []
    for branch, (run, (inputs, labels)) in enumerate(zip(company.runs, parts, strict=True)):
        train = partial(train_eagerly, run, inputs, labels, batch, start, split)
        trained.append(_warm_up(train, labels, batch, branch) if graphs and not company.warm else train())
    company.warm = True
    return trained


def _warm_up(
    train: Callable[[], tuple[Tensor, Tensor]], labels: Tensor, batch: int, branch: int
) -> tuple[Tensor, Tensor]:
    with cuda_graphs.warming_up(labels.device, branch) as told:
        trained = train()
    cuda_graphs.check_waits(told, len(labels) // batch)
    return trained
