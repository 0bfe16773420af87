"""Features of a network that keeps its ImageNet weights: computed once, kept, and shared by all seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from labreport import paths
from labreport.digests import DIGITS, network_digest
from labreport.facts.recipes import Recipe
from labreport.files import write_atomically
from labreport.images.splits import Data, Images
from labreport.networks import costs, models
from labreport.records.record import RunRecord, weights_digest
from labreport.training.device import place
from labreport.training.evaluate import predict
from labreport.training.owner import owned
from labreport.training.progress import Progress, Stage, Watch
from labreport.training.run import DeviceSplit, Run, TrainingError

SPLITS = ("train", "val", "test")
A_FILE = 5000  # images: as many are computed again at most, when a process was killed
AT_ONCE = 100  # images: at 224 pixels a first layer's maps are 160 MB then


@dataclass(frozen=True)
class Costs:
    """What a network costs, in the units of a record."""

    seconds: float
    parameters: int
    size_bytes: int
    forward_flops: int
    train_flops: int

    @classmethod
    def of(cls, record: RunRecord) -> Costs:
        """Those of a trained network."""
        return cls(**{field.name: getattr(record, field.name) for field in dataclasses.fields(cls)})

    def added_to(self, record: RunRecord) -> RunRecord:
        """The record with these costs of its feature network: without that it could not have been trained."""
        return dataclasses.replace(record, **{k: v + getattr(record, k) for k, v in dataclasses.asdict(self).items()})


def feature_network(recipe: Recipe, data: Data, seed: int, device: torch.device) -> Run:
    """The recipe's feature network with ImageNet weights, its last linear layer taken off.

    Raises:
        WeightsUnavailable, WeightsError: the weights cannot be had, or not be used.
    """
    source = dataclasses.replace(recipe, model=recipe.features_from, features_from="")
    run = Run.start(source, seed, DeviceSplit.of(data.train, device), len(data.info.classes), device)
    behead(run.model)
    return run


def behead(model: nn.Module) -> None:
    """Take the last linear layer off, so that the model gives what that layer would have seen."""
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    nothing = nn.Identity()
    nothing.in_features = model.get_submodule(last).in_features  # which a network may scale its logits by
    model.set_submodule(last, nothing)


def frozen_features(
    recipe: Recipe, data: Data, seed: int, profile: str, device: torch.device, watch: Watch
) -> tuple[Costs, Data]:
    """The images replaced by their features (N, F), kept in `runs/`, and what the network and its work cost.

    Of the work only that on the training images counts, as in every training.

    Raises:
        TrainingError: a file with features is damaged.
        StorageError: it cannot be written.
    """
    run = feature_network(recipe, data, seed, device)
    builder = models.find(recipe.features_from)
    plain = builder(len(data.info.classes))  # costs are those of the network without shortcuts
    behead(plain)
    parts = (network_digest(plain, builder), weights_digest(run.weights), data.info.fingerprint)
    named = "\0".join((*parts, recipe.normalization, str(run.autocast), str(len(data.train))))
    folder = paths.runs(profile) / f"features-{hashlib.sha256(named.encode()).hexdigest()[:DIGITS]}"
    images = sum(len(getattr(data, name)) for name in SPLITS)
    start = Stage(f"{recipe.title or recipe.name}: features", seed, 1, images, device=place(device))
    with owned(folder, start, watch) as tell:
        found = _features(run, data, folder, Progress(start, [1.0], tell))
    seconds = sum(spent for _, spent in found["train"])
    flops = costs.flops_per_input(plain, (3, *data.train.images.shape[-2:]))[0]
    size = sum(p.numel() * p.element_size() for p in plain.parameters())
    spent = Costs(seconds, sum(p.numel() for p in plain.parameters()), size, flops, flops * len(data.train))
    train, val, test = (
        Images(torch.cat([part for part, _ in found[name]]), getattr(data, name).labels) for name in SPLITS
    )
    return spent, dataclasses.replace(data, train=train, val=val, test=test)


def _features(run: Run, data: Data, folder: Path, progress: Progress) -> dict[str, list[tuple[Tensor, float]]]:
    """Every split's features in parts, with the seconds that each took; what an earlier process did is kept."""
    splits = {name: DeviceSplit.of(getattr(data, name), run.device) for name in SPLITS}
    found: dict[str, list[tuple[Tensor, float]]] = {name: [] for name in SPLITS}
    progress.begin(())
    for name, split in splits.items():
        for start in range(0, len(split), A_FILE):
            path = folder / f"{name}-{start:05}.safetensors"
            inputs = split.inputs[start : start + A_FILE]
            if path.exists():
                progress.count(len(inputs))
            else:
                began = time.perf_counter()
                features = torch.cat([_some(run, some, progress) for some in inputs.split(AT_ONCE)])
                seconds = time.perf_counter() - began
                write_atomically(path, save({"features": features}, metadata={"seconds": repr(seconds)}))
            found[name].append(_kept(path))
    progress.tell(ended=f"of {progress.stage.images:,} images, kept in {folder}")
    return found


def _some(run: Run, inputs: Tensor, progress: Progress) -> Tensor:
    features = predict(run, DeviceSplit(inputs, inputs.new_zeros(len(inputs), dtype=torch.int64)))
    progress.count(len(inputs))
    return features.cpu()


def _kept(path: Path) -> tuple[Tensor, float]:
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor("features"), float(file.metadata()["seconds"])
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: damaged; move it away to compute these features again") from error
