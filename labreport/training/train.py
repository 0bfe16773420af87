"""`train()`: one recipe, one seed, from the start, a checkpoint or the store to a finished record."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from labreport import paths
from labreport.evidence.notes import notes
from labreport.evidence.tables import duration, percent
from labreport.facts.recipes import KNOWN, Recipe, for_profile
from labreport.files import clear_leftovers, write_atomically, writing
from labreport.images.splits import Data, Images
from labreport.networks import costs, models, pretrained
from labreport.records.record import DataInfo, Epoch, RunRecord, run_key, weights_digest
from labreport.records.store import Store
from labreport.training.compiled import steps_for
from labreport.training.device import best_device, check_device, keep_freed_memory, memory_told, place, threads_for
from labreport.training.evaluate import predict, predictions, score
from labreport.training.features import Costs, behead, frozen_features
from labreport.training.identity import code_of, network_of
from labreport.training.optimizers import set_rates
from labreport.training.owner import owned
from labreport.training.progress import Lines, Progress, Stage, Watch, each_step
from labreport.training.run import DeviceSplit, Run, TrainingError, splits_for
from labreport.training.steps import chunk_trainer, train_eagerly, train_epoch
from labreport.training.trial import input_shape, seconds_per_image, try_network, work

TRAIN_SCORE_IMAGES = 5000  # that the training accuracy is measured on where time is short
WORTH_A_TRIAL = 2000  # images in all; the trial of a training of fewer would take as long as a large part of it


class Stopped(KeyboardInterrupt):
    """A training was interrupted; the message says what is kept."""


def train(
    recipe: Recipe,
    data: Data,
    seed: int = 0,
    *,
    profile: str = "quick",
    device: torch.device | str | None = None,
    on_epoch: Callable[[Run], None] | None = None,
    watch: Watch | None = None,
) -> RunRecord:
    """Train `recipe` on `data` and return its record: stored, resumed, or from the start.

    A finished run of the same settings, network, data and seed is returned as it is; an interrupted one goes on from
    its last whole epoch; one that another process is at is waited for. `on_epoch` is called after every epoch, and
    `watch` is told how far the training is, about once a second; by default it is written in lines. The test split is
    read once, after training.

    Raises:
        TrainingError: the loss is not finite, or a checkpoint cannot be read.
        WeightsUnavailable, WeightsError: pretrained weights are wanted and cannot be had, or not be used.
        DeviceError: the device cannot train, or has too little memory.
        StorageError: a checkpoint or the record cannot be written.
        ValueError: the recipe names something that does not exist, or a network that cannot be trained.
        Stopped: the training was interrupted; what it had reached is kept.
    """
    device = torch.device(device) if device else best_device()
    check_device(device)
    watch = watch or Lines()
    num_classes = len(data.info.classes)
    hints = try_network(recipe, num_classes, input_shape(recipe, num_classes, tuple(data.train.images.shape[1:])))
    network = network_of(recipe, num_classes)
    weights = pretrained.weights_name() if recipe.pretrained else ""
    store = Store(paths.records(profile), {data.info.fingerprint: data.test.labels.numpy()})
    stem = stem_of(recipe, data.info, seed, network, weights, profile)
    start = Stage(recipe.title or recipe.name, seed, recipe.epochs, 0, notes=hints)
    look_up = functools.partial(find, store, recipe, seed, data.info, network, weights)
    if stored := look_up():
        watch(stage_of(stored, hints))
        return stored
    with owned(stem, start, watch) as tell:
        stored = look_up()  # whoever had the run until now may have finished it
        if stored is None:
            beside = (*other_networks(store, recipe, seed, data.info), *other_checkpoints(stem))
            start = dataclasses.replace(start, notes=(*hints, *beside))
            with memory_told(device, recipe.batch_size):
                stored = _train(recipe, data, profile, device, stem, on_epoch or (lambda _: None), start, tell)
            store.save(stored)
        else:
            tell(stage_of(stored, hints))
        clear_up(stem)
    return stored


def clear_up(stem: Path) -> None:
    """Remove what the training of a finished run has left in `runs`, as far as that can be written."""
    clear_leftovers(stem.parent)
    for kind in (".checkpoint", ".checkpoint-of-other-code", ".progress.json"):
        with contextlib.suppress(OSError):
            stem.with_suffix(kind).unlink(missing_ok=True)


def find(
    store: Store, recipe: Recipe, seed: int, data: DataInfo, network: str, weights: str | None = ""
) -> RunRecord | None:
    """The record of exactly that run, or None; with `weights` None, whatever weights it started from.

    What its training left, where it was killed after it had written the record, is removed.
    """
    for record in store.runs(recipe.name, recipe.settings(), seed, data.fingerprint):
        same_weights = weights is None or weights_digest(weights) == weights_digest(record.weights)
        if record.is_of_network(network) and same_weights:
            clear_up(paths.runs(record.profile) / record.stem)
            return record
    return None


def stem_of(recipe: Recipe, data: DataInfo, seed: int, network: str, weights: str, profile: str) -> Path:
    """What the names of that run's files in `runs/` begin with."""
    key = run_key(recipe.settings(), network, weights, data.fingerprint, seed)
    return paths.runs(profile) / f"{recipe.name}-seed{seed}-{key}"


def stage_of(record: RunRecord, hints: tuple[str, ...] = ()) -> Stage:
    """A finished training that the store has."""
    said = tuple(notes(record.history, len(record.data.classes), record.recipe["lr"]).values())
    ended = f"from the store (trained on {record.finished[:10]}): {result(record)}"
    epochs, images = len(record.history), record.recipe.get("train_images") or record.data.n_train
    stage = Stage(record.title, record.seed, epochs, images, history=record.history)
    return dataclasses.replace(stage, notes=hints + said, ended=ended)


def result(record: RunRecord) -> str:
    """What came out, in a few words."""
    validation = f", validation {percent(record.val_score.accuracy)}" if record.val_score else ""
    epochs = f"{len(record.history)} epochs" if len(record.history) > 1 else "1 epoch"
    return f"{epochs} in {duration(record.seconds)}{validation}, test {percent(record.test_score.accuracy)}"


def other_networks(store: Store, recipe: Recipe, seed: int, data: DataInfo) -> list[str]:
    """Why a run is trained although the store has one of the same name, settings and data."""
    return [
        f"trained again, since its network or its first weights are other ones than in the run of "
        f"{record.finished[:10]}; that record stays ({record.stem})"
        for record in store.runs(recipe.name, recipe.settings(), seed, data.fingerprint)
    ]


def other_checkpoints(stem: Path) -> list[str]:
    """Why a run begins at its start although there are checkpoints of runs of its name and seed."""
    if stem.with_suffix(".checkpoint").exists():
        return []
    return [
        f"starts at the beginning, since {path} is of another network, other settings or other data; that one stays"
        for path in stem.parent.glob(f"{stem.name.rpartition('-')[0]}-*.checkpoint")
    ]


def _train(
    recipe: Recipe,
    data: Data,
    profile: str,
    device: torch.device,
    stem: Path,
    on_epoch: Callable[[Run], None],
    start: Stage,
    tell: Watch,
) -> RunRecord:
    keep_freed_memory()
    checkpoint, num_classes, seed = stem.with_suffix(".checkpoint"), len(data.info.classes), start.seed
    data = data.first(recipe.train_images)
    backbone, inputs = None, data
    if recipe.features_from:
        backbone, inputs = extract_features(recipe, data, seed, profile, device, tell)
    splits = splits_for(recipe, inputs, device)
    key = stem.name.rpartition("-")[2]

    def after_epoch(run: Run) -> None:
        run.save(checkpoint, code)
        progress.end_epoch(run.history, notes(run.history, num_classes, recipe.lr))
        on_epoch(run)

    with threads_for(recipe, device):
        start = dataclasses.replace(start, images=steps_images(recipe, splits["train"]), device=place(device))
        progress = Progress(start, work(recipe, splits["train"]), tell)
        try:
            worth_it = recipe.epochs * start.images >= WORTH_A_TRIAL
            per_image = seconds_per_image(recipe, splits["train"], num_classes, device) if worth_it else None
            run = Run.start(recipe, seed, splits["train"], num_classes, device)
            run.compiled = steps_for(recipe, run.model, splits["train"].inputs)
            ways = [*(["graphs"] if device.type == "cuda" else []), *(["compiled"] if run.compiled else [])]
            code = code_of(recipe, num_classes, ways)
            resume(run, checkpoint, code, progress)
            progress.begin(run.history, per_image)
            fit(run, splits, progress, after_epoch)
            record = finish(run, splits, data, code, key, profile)
        except KeyboardInterrupt as error:
            progress.tell(ended=(stopped := stopped_at(progress.stage)))
            raise Stopped(f"{progress.stage.label}: {stopped}") from error
        except TrainingError as error:
            progress.tell(ended=f"stopped: {error}")
            raise
    keep_weights(run, stem)
    record = backbone.added_to(record) if backbone else record
    progress.tell(ended=result(record))
    return record


def resume(run: Run, checkpoint: Path, code: dict[str, str], progress: Progress) -> None:
    """Go on from the run's checkpoint, if it has one; one that other code trained is kept aside until the run ends."""
    if unused := run.resume(checkpoint, code):
        aside = checkpoint.with_suffix(".checkpoint-of-other-code")
        with writing(aside):
            checkpoint.replace(aside)
        progress.say(
            f"starts over, since of its checkpoint {unused}; until the run is finished that one is kept as {aside}"
        )


def stopped_at(stage: Stage) -> str:
    """Where an interrupted training stands, and what to do."""
    done = len(stage.history)
    if not stage.since:
        return "stopped before its first step; run this again to train it"
    at = "after its last epoch" if done == stage.epochs else f"in epoch {done + 1}"
    kept = f"epoch {done} is kept" if done else "no epoch was done yet"
    return f"stopped {at}; {kept}; run this again to go on"


def steps_images(recipe: Recipe, split: DeviceSplit) -> int:
    """Of an epoch: what does not fill a batch is left out of it."""
    batch = min(recipe.batch_size, len(split))
    return len(split) // batch * batch


def keep_weights(run: Run, stem: Path) -> None:
    """Write the trained network beside where its checkpoint was."""
    state = {name: tensor.cpu().contiguous() for name, tensor in run.model.state_dict().items()}
    write_atomically(stem.with_suffix(".safetensors"), save(state))


def fit(run: Run, splits: dict[str, DeviceSplit], progress: Progress, after_epoch: Callable[[Run], None]) -> None:
    """The remaining epochs, each followed by validation and `after_epoch`."""
    recipe, train_split, val_split = run.recipe, splits["train"], splits["val"]
    if not run.history:
        run.untrained_val_loss = score(predict(run, val_split), val_split.labels).loss
    # Where the network's Python code is not what runs, only chunks can be counted.
    chunks = chunk_trainer(run, min(recipe.batch_size, len(train_split))) is not train_eagerly
    with nullcontext() if chunks else each_step(run.model, progress.count):
        for epoch in range(len(run.history), recipe.epochs):
            rate = set_rates(recipe, run.optimizers, epoch)
            start = time.perf_counter()
            trained = train_epoch(run, train_split, epoch, progress.count if chunks else lambda _: None)
            seconds = time.perf_counter() - start
            val_loss = val_accuracy = None
            if not recipe.train_on_val:
                val = score(predict(run, val_split, epoch=epoch), val_split.labels)
                val_loss, val_accuracy = val.loss, val.accuracy
            run.add(Epoch(epoch + 1, rate, trained.loss, trained.accuracy, val_loss, val_accuracy, seconds))
            after_epoch(run)


def finish(
    run: Run, splits: dict[str, DeviceSplit], data: Data, code: dict[str, str], key: str, profile: str
) -> RunRecord:
    """Measure the trained network once on every split and write down what it cost."""
    recipe = run.recipe
    plain = models.build(recipe.model, len(data.info.classes))  # costs are those of the network without shortcuts
    # Six views of every training image would take as long as an epoch, to no one's use.
    trained = splits["train"]
    if profile != "paper":
        trained = DeviceSplit(trained.inputs[:TRAIN_SCORE_IMAGES], trained.labels[:TRAIN_SCORE_IMAGES])
    train_score = score(predict(run, trained), trained.labels)
    val_score = None
    if not recipe.train_on_val:
        val_score = score(predict(run, splits["val"], recipe.tta), splits["val"].labels)
    test = splits["test"]
    said = predictions(run.model, predict(run, test, recipe.tta), test.labels, data.test.images)
    shape = splits["train"].shape
    return RunRecord(
        name=recipe.name,
        title=recipe.title or recipe.name,
        profile=profile,
        seed=run.seed,
        key=key,
        recipe=recipe.settings(),
        network=code["network"],
        weights=run.weights,
        code=code,
        data=data.info,
        stretches=tuple(run.stretches),
        history=tuple(run.history),
        untrained_val_loss=run.untrained_val_loss,
        train_score=train_score,
        val_score=val_score,
        test_score=said.score(),
        seconds=sum(row.seconds for row in run.history),
        parameters=sum(p.numel() for p in plain.parameters()),
        size_bytes=sum(p.numel() * p.element_size() for p in plain.parameters()),
        forward_flops=costs.flops_per_input(plain, shape)[0],
        train_flops=costs.training_flops(recipe, plain, shape, len(splits["train"])),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        predictions=said,
    )


def extract_features(
    recipe: Recipe, data: Data, seed: int, profile: str, device: torch.device, watch: Watch
) -> tuple[Costs, Data]:
    """Every image replaced by its features (N, F), and what these cost.

    They are of a network that another recipe trains (or has trained), or of one with ImageNet weights, untrained.
    """
    if recipe.pretrained:
        return frozen_features(recipe, data, seed, profile, device, watch)
    source = for_profile(KNOWN[recipe.features_from], profile)
    record = train(source, data, seed, profile=profile, device=device, watch=watch)
    weights = paths.runs(profile) / f"{record.stem}.safetensors"
    run = Run.start(source, seed, DeviceSplit.of(data.train, device), len(data.info.classes), device)
    try:
        run.model.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        said = str(error).splitlines()[0]
        raise TrainingError(
            f"{recipe.name} needs the weights of {record.stem}, and {weights} is missing or damaged ({said}); restore "
            f"that file, or move {paths.records(profile) / record.stem}.json away to train that network again"
        ) from error
    behead(run.model)
    train_features, val_features, test_features = (
        Images(predict(run, DeviceSplit.of(split, device)).clone(), split.labels)
        for split in (data.train, data.val, data.test)
    )
    return Costs.of(record), dataclasses.replace(data, train=train_features, val=val_features, test=test_features)
