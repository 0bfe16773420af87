"""`train_together()`: several seeds of a small recipe in step, to finished records."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

from labreport import paths
from labreport.evidence.notes import notes
from labreport.facts.recipes import Recipe
from labreport.images.splits import Data
from labreport.records.record import Epoch, RunRecord
from labreport.records.store import Store
from labreport.training.branches import Company, train_epoch_in_step
from labreport.training.device import best_device, check_device, memory_told, place
from labreport.training.evaluate import predict, score
from labreport.training.identity import code_of, network_of
from labreport.training.optimizers import set_rates
from labreport.training.owner import owned
from labreport.training.progress import Lines, Progress, Stage, Watch
from labreport.training.run import DeviceSplit, Run, TrainingError, splits_for
from labreport.training.steps import use_graphs
from labreport.training.train import (
    Stopped,
    clear_up,
    find,
    finish,
    keep_weights,
    result,
    resume,
    stage_of,
    stem_of,
    steps_images,
    stopped_at,
)
from labreport.training.trial import input_shape, try_network, work


@dataclass(frozen=True, eq=False)
class Member:
    """One of the seeds that train in step."""

    run: Run
    stem: Path
    progress: Progress
    code: dict[str, str]
    num_classes: int

    @property
    def done(self) -> int:
        """Epochs."""
        return len(self.run.history)

    @property
    def checkpoint(self) -> Path:
        return self.stem.with_suffix(".checkpoint")

    def begun(self) -> Member:
        """Itself, from its start or its checkpoint on."""
        resume(self.run, self.checkpoint, self.code, self.progress)
        self.progress.begin(self.run.history)
        return self

    def finished(self, splits: dict[str, DeviceSplit], data: Data, profile: str, store: Store) -> RunRecord:
        """Its record, once all of it is stored."""
        record = finish(self.run, splits, data, self.code, self.stem.name.rpartition("-")[2], profile)
        keep_weights(self.run, self.stem)
        store.save(record)
        self.progress.tell(ended=result(record))
        clear_up(self.stem)
        return record


def pays(recipe: Recipe, device: torch.device | str | None) -> bool:
    """Whether seeds in step gain time: on a GPU, which one small network's steps leave idle for the most part."""
    alone = SimpleNamespace(recipe=recipe, device=torch.device(device) if device else best_device())
    plain = not (recipe.pretrained or recipe.features_from or recipe.train_on_val)
    return plain and use_graphs(alone)  # type: ignore[arg-type]


def train_together(
    recipe: Recipe,
    data: Data,
    seeds: Sequence[int],
    *,
    profile: str = "quick",
    device: torch.device | str | None = None,
    on_epoch: Callable[[int], None] = lambda _: None,
    watch: Watch | None = None,
) -> list[RunRecord]:
    """Train the seeds of `recipe` that the store lacks, all at once, and return the records of all.

    As `train()`, for recipes of which `pays` could say so. A seed's seconds are its share of the time that all took.
    `on_epoch` is told the number of every epoch that is done.

    Raises:
        TrainingError: as `train()` (the other seeds are trained to the end first), or no CUDA graph can record it.
        DeviceError, StorageError, ValueError, Stopped: as `train()`.
    """
    device = torch.device(device) if device else best_device()
    check_device(device)
    watch = watch or Lines()
    num_classes, info = len(data.info.classes), data.info
    hints = try_network(recipe, num_classes, input_shape(recipe, num_classes, tuple(data.train.images.shape[1:])))
    network = network_of(recipe, num_classes)
    store = Store(paths.records(profile), {info.fingerprint: data.test.labels.numpy()})
    data = data.first(recipe.train_images)
    splits = splits_for(recipe, data, device)
    code, images = code_of(recipe, num_classes, ["branches"]), steps_images(recipe, splits["train"])
    stage = Stage(recipe.title or recipe.name, 0, recipe.epochs, images, device=place(device), notes=hints)
    records: dict[int, RunRecord] = {}
    members: list[Member] = []
    with ExitStack() as stack:
        for seed in sorted(seeds):  # in one order, or two processes could each wait for the other
            start = dataclasses.replace(stage, seed=seed)
            stem = stem_of(recipe, info, seed, network, "", profile)
            tell = stack.enter_context(owned(stem, start, watch))
            if stored := find(store, recipe, seed, info, network):
                tell(stage_of(stored, hints))
                records[seed] = stored
                continue
            run = Run.start(recipe, seed, splits["train"], num_classes, device)
            progress = Progress(start, work(recipe, splits["train"]), tell)
            members.append(Member(run, stem, progress, code, num_classes).begun())
        with stopped_together(members), memory_told(device, recipe.batch_size):
            failed = _fit(members, splits, on_epoch)
        for member in (member for member in members if member not in failed):
            records[member.run.seed] = member.finished(splits, data, profile, store)
    if failed:
        raise TrainingError("; ".join(member.progress.stage.ended for member in failed))
    return [records[seed] for seed in seeds]


@contextmanager
def stopped_together(members: Sequence[Member]) -> Iterator[None]:
    """Say where each stands when all are interrupted.

    Raises:
        Stopped: they were.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        for member in members:
            member.progress.tell(ended=stopped_at(member.progress.stage))
        stage = members[0].progress.stage
        raise Stopped(f"{stage.title}: {stopped_at(stage)}") from error


def _fit(members: list[Member], splits: dict[str, DeviceSplit], on_epoch: Callable[[int], None]) -> list[Member]:
    """Train all to their last epoch. Returns those whose loss is no longer finite.

    Who has come further than others, because a process was killed between two checkpoints, waits for these.
    """
    failed: list[Member] = []
    company = Company([])
    for member in members:
        if not member.done:
            member.run.untrained_val_loss = score(predict(member.run, splits["val"]), splits["val"].labels).loss
    while remaining := [m for m in members if m not in failed and m.done < m.run.recipe.epochs]:
        epoch = min(member.done for member in remaining)
        now = [member for member in remaining if member.done == epoch]
        if company.runs != tuple(member.run for member in now):
            company = Company([member.run for member in now])
        failed += _epoch(company, now, splits, epoch)
        on_epoch(epoch + 1)
    return failed


def _epoch(company: Company, members: list[Member], splits: dict[str, DeviceSplit], epoch: int) -> list[Member]:
    """One epoch, validation and checkpoint of each. Returns those whose loss is no longer finite."""

    def advance(images: int) -> None:
        for member in members:
            member.progress.count(images)

    failed = []
    rates = [set_rates(run.recipe, run.optimizers, epoch) for run in company.runs]
    began = time.perf_counter()
    scores = train_epoch_in_step(company, splits["train"], epoch, advance)
    seconds = (time.perf_counter() - began) / len(members)
    for member, trained, rate in zip(members, scores, rates, strict=True):
        run, recipe = member.run, member.run.recipe
        if trained is None:
            failed.append(member)
            member.progress.tell(
                ended=f"{recipe.name}, seed {run.seed}: the loss is not finite in epoch {epoch + 1}; lower the "
                f"learning rate ({recipe.lr:g}); what was reached before this epoch is kept"
            )
            continue
        val = score(predict(run, splits["val"], epoch=epoch), splits["val"].labels)
        run.beside = len(members) - 1
        run.add(Epoch(epoch + 1, rate, trained.loss, trained.accuracy, val.loss, val.accuracy, seconds))
        run.save(member.checkpoint, member.code)
        member.progress.end_epoch(run.history, notes(run.history, member.num_classes, recipe.lr))
    return failed
