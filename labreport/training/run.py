"""A training in progress: its images on the device, its network and optimisers, how far it has come, its checkpoint."""

from __future__ import annotations

import dataclasses
import io
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from labreport.facts.recipes import Recipe
from labreport.files import write_atomically
from labreport.images import augment
from labreport.images.splits import Data, Images
from labreport.networks import models, shortcuts
from labreport.networks.pretrained import start_from_imagenet
from labreport.records.provenance import commit, environment
from labreport.records.record import Environment, Epoch, Stretch
from labreport.training.compiled import CompiledSteps
from labreport.training.cuda_graphs import GraphedSteps
from labreport.training.device import supports_bf16
from labreport.training.optimizers import build_optimizers

WHITENED_FROM = 5000  # training images


class TrainingError(RuntimeError):
    """A training cannot go on."""


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

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input, channels first."""
        return (self.inputs.shape[3], *self.inputs.shape[1:3]) if self.inputs.ndim == 4 else self.inputs.shape[1:]


def splits_for(recipe: Recipe, data: Data, device: torch.device) -> dict[str, DeviceSplit]:
    """`train`, `val` and `test` on the device; with `train_on_val`, `train` holds the validation images as well."""
    splits = {name: DeviceSplit.of(getattr(data, name), device) for name in ("train", "val", "test")}
    if recipe.train_on_val:
        both = splits["train"], splits["val"]
        splits["train"] = DeviceSplit(torch.cat([s.inputs for s in both]), torch.cat([s.labels for s in both]))
    return splits


@dataclass(eq=False)
class Run:
    """A training in progress. `weights` names the weights started from, empty for random ones."""

    recipe: Recipe
    seed: int
    device: torch.device
    autocast: bool
    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    weights: str = ""
    history: list[Epoch] = dataclasses.field(default_factory=list)
    stretches: list[Stretch] = dataclasses.field(default_factory=list)
    untrained_val_loss: float = math.nan
    warm: bool = False  # whether a chunk has run eagerly on this device, as recording a CUDA graph asks for
    graph: GraphedSteps | None = None
    graph_refused: bool = False
    compiled: CompiledSteps | None = None  # does the steps instead of torch
    resumed: int = 0  # epochs that an earlier process trained
    beside: int = 0  # other seeds that train in step with it

    @classmethod
    def start(cls, recipe: Recipe, seed: int, train: DeviceSplit, num_classes: int, device: torch.device) -> Run:
        """A fresh run, its weights drawn from the seed; a whitening layer is set from training images."""
        torch.manual_seed(seed)
        model = models.build(recipe.model, num_classes)
        weights = start_from_imagenet(model) if recipe.pretrained else ""
        if recipe.whiten:
            sample = train.inputs[:WHITENED_FROM].permute(0, 3, 1, 2).cpu()
            model.whiten(augment.normalize(sample, recipe.normalization))  # type: ignore[operator]
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if train.inputs.ndim == 4:
            shortcuts.install(model, train.inputs.shape[1])
        autocast = recipe.precision == "bf16" and supports_bf16(device)
        return cls(recipe, seed, device, autocast, model, build_optimizers(recipe, model), weights)

    def environment(self) -> Environment:
        """Machine, versions and precision of this process."""
        here = environment(self.device, bf16=self.autocast)
        if self.compiled:
            here = dataclasses.replace(here, precision=f"{here.precision}, step compiled by {self.compiled.compiler}")
        if self.beside:
            said = f"{here.precision}, {self.beside + 1} seeds in step, the time shared"
            here = dataclasses.replace(here, precision=said)
        return here

    def add(self, row: Epoch) -> None:
        """Note an epoch that has been trained here, now."""
        self.history.append(row)
        here = Stretch(self.resumed + 1, row.epoch, row.seconds, commit(), self.environment())
        if row.epoch > self.resumed + 1:
            here = dataclasses.replace(here, seconds=row.seconds + self.stretches.pop().seconds)
        self.stretches.append(here)

    def save(self, path: Path, code: dict[str, str]) -> None:
        """Write the checkpoint; `code` are the digests of the code that trained it."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "history": [dataclasses.asdict(row) for row in self.history],
            "stretches": [dataclasses.asdict(stretch) for stretch in self.stretches],
            "untrained_val_loss": self.untrained_val_loss,
            "weights": self.weights,
            "code": code,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(path, buffer.getvalue())

    def resume(self, path: Path, code: dict[str, str]) -> str:
        """Go on from the checkpoint at `path`, if there is one. Returns why one that is there is not used, or nothing.

        Raises:
            TrainingError: the file is there but is not this run's checkpoint.
        """
        if not path.exists():
            return ""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TrainingError(f"{path}: this checkpoint cannot be read ({error.strerror})") from error
        try:
            state = torch.load(io.BytesIO(content), map_location=self.device, weights_only=True)
            if (state["code"], state["weights"]) != (code, self.weights):
                parts = code.keys() | state["code"].keys()
                changed = sorted(p for p in parts if code.get(p) != state["code"].get(p)) or ["weights"]
                return f"its {len(state['history'])} epochs were trained by other code ({', '.join(changed)})"
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                # The device's, not the run's: a rate as a tensor, and whether a graph may record the step.
                own = [
                    {k: group[k] for k in ("lr", "capturable", "fused") if k in group}
                    for group in optimizer.param_groups
                ]
                optimizer.load_state_dict(saved)
                for group, kept in zip(optimizer.param_groups, own, strict=True):
                    group.update(kept)  # type: ignore[arg-type]
            self.history = [Epoch(**row) for row in state["history"]]
            self.stretches = [
                Stretch(**{**stretch, "environment": Environment(**stretch["environment"])})
                for stretch in state["stretches"]
            ]
            self.untrained_val_loss = state["untrained_val_loss"]
            self.resumed = len(self.history)
        except Exception:  # torch raises nearly any type, with advice that is wrong here and stays unsaid
            raise TrainingError(
                f"{path}: damaged, or not a checkpoint of this run; move it away to train this run from its start"
            ) from None
        return ""
