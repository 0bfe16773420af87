"""One `train()` for every recipe: the loop, checkpoints and resume, evaluation, and the record at the end.

Each epoch seeds its own randomness from (seed, epoch). So nothing of a generator's state has to be saved: a run that
was killed and resumed sees the same batches, augmentations and dropout masks as an unbroken one.
"""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import datetime
import io
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from labreport import augment, cuda_graphs, models, paths, shortcuts
from labreport.data import Data, Images
from labreport.optimizers import build_optimizers, set_rates
from labreport.recipes import RECIPES, Recipe, for_profile
from labreport.records import Epoch, Predictions, RunRecord, Score, Store, run_key, write_atomically

CHUNK = 5000  # images augmented at once: large enough to hide the call's cost, small enough for the cache and memory
EVAL_BATCH = 500
TINY_BATCH = 16  # up to here a second CPU thread gains a quarter at most, and a third nothing


class TrainingError(RuntimeError):
    """A training cannot go on."""


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def supports_bf16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are fast and right here: checked, since some CPUs got 2×2 kernels wrong."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.cpu._is_avx512_bf16_supported():
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


# --- what one run works with ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DeviceSplit:
    """One split on the device: images (N, H, W, 3) uint8, or features (N, F) float32; labels (N,) int64."""

    inputs: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: Images, device: torch.device) -> DeviceSplit:
        pixels = images.images
        inputs = pixels.permute(0, 2, 3, 1).contiguous() if pixels.ndim == 4 else pixels
        return cls(inputs.to(device), images.labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)


def splits_for(recipe: Recipe, data: Data, device: torch.device) -> dict[str, DeviceSplit]:
    """`train`, `val` and `test` on the device; with `train_on_val`, `train` holds the validation images as well."""
    splits = {name: DeviceSplit.of(getattr(data, name), device) for name in ("train", "val", "test")}
    if recipe.train_on_val:
        both = splits["train"], splits["val"]
        splits["train"] = DeviceSplit(torch.cat([s.inputs for s in both]), torch.cat([s.labels for s in both]))
    return splits


def network(recipe: Recipe, train: DeviceSplit, num_classes: int) -> nn.Module:
    """The recipe's network with new weights, on the CPU; a whitening layer is set from training images."""
    model = models.build(recipe.model, num_classes)
    if recipe.whiten:
        sample = train.inputs[:CHUNK].permute(0, 3, 1, 2).cpu()
        model.whiten(augment.normalize(sample, recipe.normalization))
    return model


@dataclass(eq=False)
class Run:
    """A training in progress: the network, its optimisers, and how far it has come."""

    recipe: Recipe
    seed: int
    device: torch.device
    autocast: bool
    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    history: list[Epoch] = dataclasses.field(default_factory=list)
    untrained_val_loss: float = math.nan
    warm: bool = False  # whether a chunk has run eagerly on this device, as recording a CUDA graph asks for
    graph: cuda_graphs.GraphedSteps | None = None

    @classmethod
    def start(cls, recipe: Recipe, seed: int, train: DeviceSplit, num_classes: int, device: torch.device) -> Run:
        """A fresh run, its weights drawn from the seed."""
        torch.manual_seed(seed)
        model = network(recipe, train, num_classes).to(device, memory_format=torch.channels_last)
        if train.inputs.ndim == 4:
            shortcuts.install(model, train.inputs.shape[1])
        autocast = recipe.precision == "bf16" and supports_bf16(device)
        return cls(recipe, seed, device, autocast, model, build_optimizers(recipe, model))

    def state(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "history": [dataclasses.asdict(row) for row in self.history],
            "untrained_val_loss": self.untrained_val_loss,
        }

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        torch.save(self.state(), buffer)
        write_atomically(path, buffer.getvalue())

    def resume(self, path: Path) -> None:
        """Go on from the checkpoint at `path`, if there is one.

        Raises:
            TrainingError: the file is there but is not this run's checkpoint.
        """
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                # The device's, not the run's: a rate as a tensor, and whether a graph may record the step.
                own = [{k: group[k] for k in ("lr", "capturable") if k in group} for group in optimizer.param_groups]
                optimizer.load_state_dict(saved)
                for group, kept in zip(optimizer.param_groups, own, strict=True):
                    group.update(kept)
            self.history = [Epoch(**row) for row in state["history"]]
            self.untrained_val_loss = state["untrained_val_loss"]
        except Exception as error:
            raise TrainingError(f"{path}: not a readable checkpoint ({error}); delete it to start over") from error


# --- the loop -------------------------------------------------------------------------------------------------------


def epoch_generator(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """The epoch's own randomness; dropout, which draws from torch's global generator, is seeded along."""
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(mixed)
    return torch.Generator(device).manual_seed(mixed)


def chunks(recipe: Recipe, split: DeviceSplit, seed: int, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's augmented, normalised images, `size` at a time: (S, 3, H, W) float32 channels-last, labels (S,).

    The images come in a new order each epoch; what does not fill a batch is left out of that epoch.
    """
    device = split.labels.device
    generator = epoch_generator(seed, epoch, device)
    batch = min(recipe.batch_size, len(split))
    order = torch.randperm(len(split), generator=generator, device=device)[: len(split) // batch * batch]
    coin = torch.rand(len(split), generator=torch.Generator(device).manual_seed(seed), device=device) < 0.5
    for index in order.split(max(size // batch, 1) * batch):
        yield _prepare(recipe, split, index, epoch, coin, generator), split.labels[index]


def _prepare(
    recipe: Recipe, split: DeviceSplit, index: Tensor, epoch: int, coin: Tensor, generator: torch.Generator
) -> Tensor:
    if split.inputs.ndim == 2:
        return split.inputs[index]
    mirrored = augment.mirror_mask(recipe.flip, index, epoch, coin, generator)
    images = augment.geometry(split.inputs, index, mirrored, recipe.translate, generator)
    visible = getattr(models.MODELS[recipe.model], "visible", None)
    if not recipe.cutout:  # whose squares may lie anywhere on the whole image
        images = images[..., :visible, :visible]
    images = augment.normalize(images, recipe.normalization)
    if recipe.cutout:
        images = augment.cutout(images, recipe.cutout, generator)
    return augment.resize(images, image_side(recipe, epoch, images.shape[-1]))


def image_side(recipe: Recipe, epoch: int, side: int) -> int:
    """How many pixels a side the images of this epoch have."""
    return recipe.low_resolution if epoch < recipe.low_resolution_epochs else side


def train_epoch(run: Run, split: DeviceSplit, epoch: int, advance: Callable[[int], None] = lambda _: None) -> Score:
    """One pass over the training images; `advance` is told of every chunk. Returns the running loss and accuracy.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    run.model.train()
    recipe = run.recipe
    batch = min(recipe.batch_size, len(split))
    graphs = use_graphs(run)
    size = graph_steps(len(split), batch) * batch if graphs else CHUNK
    # Read at the end only: every look at a number would let the GPU run out of work.
    loss_sum = torch.zeros((), dtype=torch.float64, device=run.device)
    hits, seen = torch.zeros((), dtype=torch.int64, device=run.device), 0
    for inputs, labels in chunks(recipe, split, run.seed, epoch, size):
        start = epoch + seen / len(split)
        chunk_loss, chunk_hits = (train_replayed if graphs else train_eagerly)(run, inputs, labels, batch, start, split)
        loss_sum += chunk_loss
        hits += chunk_hits
        seen += len(labels)
        advance(len(labels))
    loss = loss_sum.item() / seen
    if not math.isfinite(loss):
        raise TrainingError(
            f"{recipe.name}, seed {run.seed}: the loss is {loss} in epoch {epoch + 1}; "
            f"lower the learning rate ({recipe.lr:g}); what was reached before this epoch is kept"
        )
    return Score(loss, hits.item() / seen, seen)


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


def train_replayed(
    run: Run, inputs: Tensor, labels: Tensor, batch: int, start: float, split: DeviceSplit
) -> tuple[Tensor, Tensor]:
    """A chunk as one CUDA graph, recorded at the second chunk; a shorter one, at the end of an epoch, runs eagerly."""
    if not run.warm:
        run.warm = True
        with cuda_graphs.warming_up(inputs.device):
            return train_eagerly(run, inputs, labels, batch, start, split)
    if len(labels) < graph_steps(len(split), batch) * batch:
        return train_eagerly(run, inputs, labels, batch, start, split)
    set_rates(run.recipe, run.optimizers, start)
    if run.graph is None:
        run.graph = cuda_graphs.GraphedSteps(partial(train_step, run), inputs, labels, batch)
    return run.graph(inputs, labels)


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


# --- evaluation -----------------------------------------------------------------------------------------------------


def _views(images: Tensor, tta: str) -> list[tuple[float, Tensor]]:
    """The views that a test-time average sees, weighted: the image and its mirror image, and two shifts of each."""
    if tta == "none":
        return [(1.0, images)]
    if tta == "flip":
        return [(0.5, images), (0.5, images.flip(-1))]
    side = images.shape[-1]
    padded = F.pad(images, (1, 1, 1, 1), "reflect")
    shifted = [padded[:, :, :side, :side], padded[:, :, 2:, 2:]]
    weighted = [(0.25, images), *((0.125, view) for view in shifted)]
    return [(weight, side_view) for weight, view in weighted for side_view in (view, view.flip(-1))]


@torch.inference_mode()
def predict(run: Run, split: DeviceSplit, tta: str = "none", epoch: int | None = None) -> Tensor:
    """Logits (N, num_classes) float32 of a whole split, in evaluation mode, in its order.

    The images have the size that they have in training at `epoch`, or by default their own.
    """
    run.model.eval()
    logits = []
    for inputs in split.inputs.split(EVAL_BATCH):
        if inputs.ndim == 4:
            inputs = augment.normalize(inputs.permute(0, 3, 1, 2), run.recipe.normalization)
            side = inputs.shape[-1] if epoch is None else image_side(run.recipe, epoch, inputs.shape[-1])
            inputs = augment.resize(inputs, side).contiguous(memory_format=torch.channels_last)
        views = _views(inputs, tta) if inputs.ndim == 4 else [(1.0, inputs)]
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.autocast):
            logits.append(sum(weight * run.model(view).float() for weight, view in views))
    return torch.cat(logits)


def score(logits: Tensor, labels: Tensor) -> Score:
    """Mean cross-entropy and accuracy of logits (N, num_classes) against labels (N,)."""
    hits = (logits.argmax(1) == labels).sum().item()
    return Score(F.cross_entropy(logits, labels).item(), hits / len(labels), len(labels))


def _predictions(run: Run, logits: Tensor, labels: Tensor, pictures: Tensor) -> Predictions:
    log_probabilities = logits.log_softmax(1).cpu()
    confidence, predicted = log_probabilities.exp().max(1)
    labels = labels.cpu()
    ranking = confidence.argsort(descending=True, stable=True)
    right = ranking[predicted[ranking] == labels[ranking]]
    best_of_class = [right[labels[right] == label][:1] for label in labels.unique()]
    wrong = ranking[predicted[ranking] != labels[ranking]]
    examples = torch.cat([*best_of_class, wrong[: len(best_of_class)]])
    first = next((m.weight for m in run.model.modules() if isinstance(m, nn.Conv2d)), torch.empty(0))
    return Predictions(
        labels=labels.numpy().astype(np.uint8),
        predicted=predicted.numpy().astype(np.uint8),
        confidence=confidence.numpy().astype(np.float32),
        nll=-log_probabilities.gather(1, labels[:, None])[:, 0].numpy().astype(np.float32),
        example_indices=examples.numpy(),
        example_images=pictures[examples].cpu().numpy(),
        first_kernels=first.detach().float().cpu().numpy(),
    )


# --- what a network costs -------------------------------------------------------------------------------------------


def flops_per_input(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """FLOPs of a forward, and of a forward and backward pass, for one input of `shape`, by torch's counter.

    It counts convolutions and matrix products, a multiply-add as two; the gradient of the input is not computed.
    """
    model = copy.deepcopy(model).cpu().train()
    inputs = torch.zeros(2, *shape)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(inputs)
    with FlopCounterMode(display=False) as both:
        model(inputs).sum().backward()
    return forward.get_total_flops() // 2, both.get_total_flops() // 2


def training_flops(recipe: Recipe, model: nn.Module, shape: tuple[int, ...], n_train: int) -> int:
    """FLOPs of the whole training: every image of every epoch, at the size that the epoch shows it in."""
    images = min(n_train // recipe.batch_size * recipe.batch_size or n_train, n_train)
    sides = [image_side(recipe, epoch, shape[-1]) for epoch in range(recipe.epochs)]
    shapes = {side: (*shape[:-2], side, side) if len(shape) == 3 else shape for side in set(sides)}
    return sum(flops_per_input(model, shapes[side])[1] * sides.count(side) for side in shapes) * images


def environment(run: Run) -> dict:
    """Versions, machine and precision: what a reader needs to judge the run's time and numbers."""
    cuda = run.device.type == "cuda"
    tf32 = cuda and torch.backends.cudnn.conv.fp32_precision == "tf32"  # torch's default on Ampere and later
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(run.device) if cuda else f"CPU ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "precision": "bf16 autocast" if run.autocast else "fp32, TF32 in convolutions" if tf32 else "fp32",
    }


# --- train() --------------------------------------------------------------------------------------------------------


def train(
    recipe: Recipe,
    data: Data,
    seed: int = 0,
    *,
    profile: str = "quick",
    device: torch.device | str | None = None,
    on_epoch: Callable[[Run], None] | None = None,
) -> RunRecord:
    """Train `recipe` on `data` and return its record: stored, resumed, or from the start.

    A finished run of the same settings, data and seed is returned as it is; an interrupted one goes on from its last
    whole epoch. `on_epoch` is called after every epoch, for a live curve. The test split is read once, after training.

    Raises:
        TrainingError: the loss is not finite, or a checkpoint cannot be read.
        ValueError: the recipe names something that does not exist.
    """
    store, settings = Store(paths.records(profile)), recipe.settings()
    stored = store.find(recipe.name, settings, seed, data.info.fingerprint)
    if stored is not None:
        return stored
    device = torch.device(device) if device else best_device()
    keep_freed_memory()
    key = run_key(settings, data.info.fingerprint, seed)
    stem = paths.runs(profile) / f"{recipe.name}-seed{seed}-{key}"
    backbone, inputs = None, data
    if recipe.features_from:
        backbone, inputs = extract_features(recipe, data, seed, profile, device)
    splits = splits_for(recipe, inputs, device)
    with threads_for(recipe, device):
        run = Run.start(recipe, seed, splits["train"], len(data.info.classes), device)
        run.resume(stem.with_suffix(".checkpoint"))
        fit(run, splits, stem.with_suffix(".checkpoint"), on_epoch)
        record = finish(run, splits, data, key, profile)
    if backbone:
        record = with_backbone(record, backbone)
    write_atomically(stem.with_suffix(".safetensors"), save(_plain(run.model.state_dict())))
    store.save(record)
    stem.with_suffix(".checkpoint").unlink(missing_ok=True)
    return record


@contextmanager
def threads_for(recipe: Recipe, device: torch.device, threads: int | None = None) -> Iterator[None]:
    """`threads` CPU threads; by default torch's own number, but two at most for tiny batches, where more only wait."""
    before = torch.get_num_threads()
    if threads is None and device.type == "cpu" and recipe.batch_size <= TINY_BATCH:
        threads = min(before, 2)
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in state.items()}


def fit(run: Run, splits: dict[str, DeviceSplit], checkpoint: Path, on_epoch: Callable | None = None) -> None:
    """The remaining epochs, each followed by validation, a checkpoint and a line of progress."""
    recipe, train_split, val_split = run.recipe, splits["train"], splits["val"]
    if not run.history:
        run.untrained_val_loss = score(predict(run, val_split), val_split.labels).loss
    label = f"{recipe.name}, seed {run.seed}"
    done = len(run.history) * len(train_split)
    # A terminal sees the bar move; a log file gets a line now and then.
    interval = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(total=recipe.epochs * len(train_split), initial=done, desc=label, unit="img", unit_scale=True,
              mininterval=interval, file=sys.stderr) as bar:  # fmt: skip
        for epoch in range(len(run.history), recipe.epochs):
            rate = set_rates(recipe, run.optimizers, epoch)
            start = time.perf_counter()
            trained = train_epoch(run, train_split, epoch, bar.update)
            seconds = time.perf_counter() - start
            val_loss = val_accuracy = None
            shown = f"train {trained.accuracy:.2%}"
            if not recipe.train_on_val:
                val = score(predict(run, val_split, epoch=epoch), val_split.labels)
                val_loss, val_accuracy = val.loss, val.accuracy
                shown = f"val {val_accuracy:.2%}"
            row = Epoch(epoch + 1, rate, trained.loss, trained.accuracy, val_loss, val_accuracy, seconds)
            run.history.append(row)
            run.save(checkpoint)
            bar.set_postfix_str(f"epoch {epoch + 1}/{recipe.epochs}, {shown}", refresh=False)
            if on_epoch:
                on_epoch(run)


def finish(run: Run, splits: dict[str, DeviceSplit], data: Data, key: str, profile: str) -> RunRecord:
    """Measure the trained network once on every split and write down what it cost."""
    recipe = run.recipe
    plain = network(recipe, splits["train"], len(data.info.classes))  # costs are those of the network without shortcuts
    # Six views of every training image would take as long as an epoch, to no one's use.
    train_score = score(predict(run, splits["train"]), splits["train"].labels)
    val_score = None
    if not recipe.train_on_val:
        val_score = score(predict(run, splits["val"], recipe.tta), splits["val"].labels)
    test = splits["test"]
    logits = predict(run, test, recipe.tta).double()
    inputs = splits["train"].inputs
    shape = (inputs.shape[3], *inputs.shape[1:3]) if inputs.ndim == 4 else tuple(inputs.shape[1:])
    return RunRecord(
        name=recipe.name,
        title=recipe.title or recipe.name,
        profile=profile,
        seed=run.seed,
        key=key,
        recipe=recipe.settings(),
        data=data.info,
        environment=environment(run),
        history=tuple(run.history),
        untrained_val_loss=run.untrained_val_loss,
        train_score=train_score,
        val_score=val_score,
        test_score=score(logits, test.labels),
        seconds=sum(row.seconds for row in run.history),
        parameters=sum(p.numel() for p in plain.parameters()),
        size_bytes=sum(p.numel() * p.element_size() for p in plain.parameters()),
        forward_flops=flops_per_input(plain, shape)[0],
        train_flops=training_flops(recipe, plain, shape, len(inputs)),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        predictions=_predictions(run, logits, test.labels, data.test.images),
    )


def with_backbone(record: RunRecord, backbone: RunRecord) -> RunRecord:
    """The record with its feature network's costs added: without that network it could not have been trained."""
    costs = ("seconds", "parameters", "size_bytes", "forward_flops", "train_flops")
    return dataclasses.replace(record, **{name: getattr(record, name) + getattr(backbone, name) for name in costs})


def extract_features(
    recipe: Recipe, data: Data, seed: int, profile: str, device: torch.device
) -> tuple[RunRecord, Data]:
    """Train (or load) the recipe's feature network, and replace every image by its features (N, F)."""
    source = for_profile(RECIPES[recipe.features_from], profile)
    record = train(source, data, seed, profile=profile, device=device)
    weights = paths.runs(profile) / f"{record.stem}.safetensors"
    if not weights.exists():
        raise TrainingError(
            f"{recipe.name} needs the weights of {record.stem}, and {weights} is missing; "
            f"delete {paths.records(profile) / record.stem}.json to train that network again"
        )
    run = Run.start(source, seed, DeviceSplit.of(data.train, device), len(data.info.classes), device)
    run.model.load_state_dict(load_file(weights))
    run.model.classifier = nn.Identity()
    features = {
        name: Images(predict(run, DeviceSplit.of(split, device)).clone(), split.labels)
        for name, split in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    return record, dataclasses.replace(data, **features)
