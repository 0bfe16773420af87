"""One epoch: images augmented in chunks, steps of gradient descent, and what the epoch scored.

Each epoch seeds its own randomness from (seed, epoch). So nothing of a generator's state has to be saved: a run that
was killed and resumed sees the same batches, augmentations and dropout masks as an unbroken one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labreport.facts.recipes import Recipe
from labreport.images import augment
from labreport.records.record import Score
from labreport.training import cuda_graphs
from labreport.training.optimizers import set_rates
from labreport.training.run import DeviceSplit, Run, TrainingError

CHUNK = 5000  # images augmented at once: large enough to hide the call's cost, small enough for the cache and memory


def epoch_generator(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """The epoch's own randomness; dropout, which draws from torch's global generator, is seeded along."""
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(mixed)
    return torch.Generator(device).manual_seed(mixed)


def chunks(
    recipe: Recipe, split: DeviceSplit, seed: int, epoch: int, size: int, visible: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's augmented, normalised images, `size` at a time: (S, 3, H, W) float32 channels-last, labels (S,).

    The images come in a new order each epoch; what does not fill a batch is left out of that epoch. Of each image the
    first `visible` rows and columns are given.
    """
    device = split.labels.device
    generator = epoch_generator(seed, epoch, device)
    batch = min(recipe.batch_size, len(split))
    order = torch.randperm(len(split), generator=generator, device=device)[: len(split) // batch * batch]
    coin = torch.rand(len(split), generator=torch.Generator(device).manual_seed(seed), device=device) < 0.5
    for index in order.split(max(size // batch, 1) * batch):
        yield _prepare(recipe, split, index, epoch, coin, generator, visible), split.labels[index]


def _prepare(
    recipe: Recipe,
    split: DeviceSplit,
    index: Tensor,
    epoch: int,
    coin: Tensor,
    generator: torch.Generator,
    visible: int | None,
) -> Tensor:
    if split.inputs.ndim == 2:
        return split.inputs[index]
    mirrored = augment.mirror_mask(recipe.flip, index, epoch, coin, generator)
    images = augment.geometry(split.inputs, index, mirrored, recipe.translate, generator)
    if not recipe.cutout:  # whose squares may lie anywhere on the whole image
        images = images[..., :visible, :visible]
    images = augment.normalize(images, recipe.normalization)
    if recipe.cutout:
        images = augment.cutout(images, recipe.cutout, generator)
    return augment.resize(images, recipe.image_side(epoch, images.shape[-1]))


def train_epoch(run: Run, split: DeviceSplit, epoch: int, advance: Callable[[int], None] = lambda _: None) -> Score:
    """One pass over the training images; `advance` is told of every chunk. Returns the running loss and accuracy.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    run.model.train()
    recipe = run.recipe
    batch = min(recipe.batch_size, len(split))
    train_chunk = chunk_trainer(run, batch)
    size = graph_steps(len(split), batch) * batch if train_chunk is train_replayed else CHUNK
    # Read at the end only: every look at a number would let the GPU run out of work.
    losses: list[Tensor] = []
    hits, seen = torch.zeros((), dtype=torch.int64, device=run.device), 0
    visible = getattr(run.model, "visible", None)
    for inputs, labels in chunks(recipe, split, run.seed, epoch, size, visible):
        start = epoch + seen / len(split)
        chunk_loss, chunk_hits = train_chunk(run, inputs, labels, batch, start, split)
        losses.append(chunk_loss.clone())  # a graph's next replay overwrites its own
        hits += chunk_hits
        seen += len(labels)
        advance(len(labels))
    loss = torch.stack(losses).cpu().double().sum().item() / seen  # on the CPU, since not every device has float64
    if not math.isfinite(loss):
        raise TrainingError(
            f"{recipe.name}, seed {run.seed}: the loss is {loss} in epoch {epoch + 1}; "
            f"lower the learning rate ({recipe.lr:g}); what was reached before this epoch is kept"
        )
    return Score(loss, hits.item() / seen, seen)


def chunk_trainer(run: Run, batch: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """How this run trains on a chunk: from a CUDA graph, by compiled steps, or step by step."""
    if use_graphs(run):
        return train_replayed
    if run.compiled is not None and run.compiled.batch == batch:
        return train_compiled
    return train_eagerly


def use_graphs(run: Run) -> bool:
    """CUDA graphs pay for small batches; a graph has one learning rate and one image size, so both must be steady."""
    recipe = run.recipe
    steady = recipe.schedule in ("constant", "step") and not recipe.low_resolution_epochs
    known = recipe.optimizer in ("sgd", "adam")
    return run.device.type == "cuda" and steady and known and recipe.batch_size <= 256


def graph_steps(n: int, batch: int) -> int:
    """How many steps one graph holds: of an epoch of `n` images a quarter at most, since a rest runs eagerly."""
    return max(min(cuda_graphs.STEPS_PER_GRAPH, n // batch // 4), 1)


def train_eagerly(
    run: Run, inputs: Tensor, labels: Tensor, batch: int, start: float, split: DeviceSplit
) -> tuple[Tensor, Tensor]:
    """A chunk, step by step, from fractional epoch `start`. Returns its summed loss and right answers."""
    loss_sum = torch.zeros((), device=run.device)
    hits = torch.zeros((), dtype=torch.int64, device=run.device)
    for step, (x, y) in enumerate(zip(inputs.split(batch), labels.split(batch), strict=True)):
        set_rates(run.recipe, run.optimizers, start + step * batch / len(split))
        loss, right = train_step(run, x, y)
        loss_sum += loss * len(y)
        hits += right
    return loss_sum, hits


def train_compiled(
    run: Run, inputs: Tensor, labels: Tensor, batch: int, start: float, split: DeviceSplit
) -> tuple[Tensor, Tensor]:
    """A chunk by the run's compiled steps, at the rate of its beginning."""
    assert run.compiled is not None
    set_rates(run.recipe, run.optimizers, start)
    return run.compiled(run.model, run.optimizers[0], inputs, labels)


def train_replayed(
    run: Run, inputs: Tensor, labels: Tensor, batch: int, start: float, split: DeviceSplit
) -> tuple[Tensor, Tensor]:
    """A chunk as one CUDA graph, recorded at the second chunk; a shorter one, at the end of an epoch, runs eagerly."""
    if not run.warm:
        run.warm = True
        with cuda_graphs.warming_up(inputs.device) as told:
            trained = train_eagerly(run, inputs, labels, batch, start, split)
        with refused(run):
            cuda_graphs.check_waits(told, len(labels) // batch)
        return trained
    if len(labels) < graph_steps(len(split), batch) * batch:
        return train_eagerly(run, inputs, labels, batch, start, split)
    set_rates(run.recipe, run.optimizers, start)
    if run.graph is None and not run.graph_refused:
        with refused(run):
            run.graph = cuda_graphs.GraphedSteps([partial(train_step, run)], [inputs], [labels], batch)
    if run.graph is None:
        return train_eagerly(run, inputs, labels, batch, start, split)
    return run.graph([inputs], [labels])[0]


@contextmanager
def refused(run: Run) -> Iterator[None]:
    """Where no graph can record the run's steps: say so, and let it train step by step."""
    try:
        yield
    except cuda_graphs.NotRecorded as error:
        print(f"{run.recipe.name}: trains step by step, since no CUDA graph records it ({error})", file=sys.stderr)
        run.graph_refused = True


def train_step(run: Run, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """One step of gradient descent. Returns the batch's mean loss and its number of right answers, on the device."""
    # No cache of cast weights: a CUDA graph would keep its first entries, and within one step it saves nothing.
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.autocast, cache_enabled=False):
        logits = run.model(inputs)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=run.recipe.label_smoothing)
    for optimizer in run.optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in run.optimizers:
        optimizer.step()
    return loss.detach(), (logits.detach().argmax(1) == labels).sum()
