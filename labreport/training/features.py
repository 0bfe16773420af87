"""Features of a network that keeps its ImageNet weights: computed once, kept, and shared by all seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from labreport import paths
from labreport.digests import DIGITS, network_digest
from labreport.facts.recipes import Recipe
from labreport.files import write_atomically
from labreport.images.splits import Data, Images
from labreport.networks import costs, models
from labreport.records.record import RunRecord, weights_digest
from labreport.training.evaluate import predict
from labreport.training.owner import owned
from labreport.training.run import DeviceSplit, Run, TrainingError

SPLITS = ("train", "val", "test")
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
    model.set_submodule(last, nn.Identity())


def frozen_features(recipe: Recipe, data: Data, seed: int, profile: str, device: torch.device) -> tuple[Costs, Data]:
    """The images replaced by their features (N, F), kept in `runs/`, and what the network and its work cost.

    Of the work only that on the training images counts, as in every training.

    Raises:
        TrainingError: the file with the features is damaged.
        StorageError: it cannot be written.
    """
    run = feature_network(recipe, data, seed, device)
    builder = models.find(recipe.features_from)
    plain = builder(len(data.info.classes))  # costs are those of the network without shortcuts
    behead(plain)
    parts = (network_digest(plain, builder), weights_digest(run.weights), data.info.fingerprint)
    named = "\0".join((*parts, recipe.normalization, str(run.autocast)))
    path = paths.runs(profile) / f"features-{hashlib.sha256(named.encode()).hexdigest()[:DIGITS]}.safetensors"
    with owned(path.with_suffix(""), f"features for {recipe.name}"):
        if not path.exists():
            features, seconds = _computed(run, data, recipe.name)
            write_atomically(path, save(features, metadata={"seconds": repr(seconds)}))
        features, seconds = _kept(path)
    flops = costs.flops_per_input(plain, (3, *data.train.images.shape[-2:]))[0]
    size = sum(p.numel() * p.element_size() for p in plain.parameters())
    spent = Costs(seconds, sum(p.numel() for p in plain.parameters()), size, flops, flops * len(data.train))
    train, val, test = (Images(features[name], getattr(data, name).labels) for name in SPLITS)
    return spent, dataclasses.replace(data, train=train, val=val, test=test)


def _computed(run: Run, data: Data, label: str) -> tuple[dict[str, Tensor], float]:
    """The features of every split, and the seconds that those of the training images took."""
    splits = {name: getattr(data, name) for name in SPLITS}
    features, seconds = {}, {}
    with tqdm(total=sum(map(len, splits.values())), desc=f"{label}, features", unit="img", unit_scale=True,
              mininterval=0.5 if sys.stderr.isatty() else 10.0, file=sys.stderr) as bar:  # fmt: skip
        for name, split in splits.items():
            start, parts = time.perf_counter(), []
            whole = DeviceSplit.of(split, run.device)
            for inputs, labels in zip(whole.inputs.split(AT_ONCE), whole.labels.split(AT_ONCE), strict=True):
                parts.append(predict(run, DeviceSplit(inputs, labels)).cpu())
                bar.update(len(labels))
            features[name] = torch.cat(parts)
            seconds[name] = time.perf_counter() - start
    return features, seconds["train"]


def _kept(path: Path) -> tuple[dict[str, Tensor], float]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in SPLITS}, float(file.metadata()["seconds"])
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: damaged; delete it to compute these features again") from error
