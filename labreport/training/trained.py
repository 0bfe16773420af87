"""Trained networks, ready to be asked: the reference run's, which come with the code, or one's own.

network = load("fast94")
network.predict("photo.jpg")
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from labreport import paths
from labreport.evidence.statistics import wilson_interval
from labreport.evidence.tables import title
from labreport.facts.recipes import KNOWN, RECIPES, Recipe, for_profile
from labreport.files import write_atomically
from labreport.images import augment, cifar10
from labreport.images.photos import to_images
from labreport.images.splits import Data, Images
from labreport.networks import models
from labreport.networks.pretrained import start_from_imagenet
from labreport.records.record import RunRecord, Score, weights_digest
from labreport.records.store import Store
from labreport.training.evaluate import predict, score
from labreport.training.features import behead
from labreport.training.run import DeviceSplit, Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LARGEST = 10_000_000  # bytes of a file of weights that comes with the code
SAMPLE = 1_000  # test images on which a network is measured again when it is loaded
TOLERANCE = 0.02  # accuracy on them: another processor rounds otherwise


class WeightsError(ValueError):
    """A trained network cannot be had, or is not what its record says; the message names it and the way out."""


# --- asking ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says of N pictures. images: (N, 3, 32, 32) uint8. probabilities: (N, num_classes) float32."""

    images: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    title: str  # the network's

    @property
    def answers(self) -> list[str]:
        """The most probable class of each picture."""
        return [self.classes[k] for k in self.probabilities.argmax(axis=1)]

    def table(self, names: Sequence[str] | None = None, best: int = 3) -> pd.DataFrame:
        """The `best` most probable classes of each picture, with their probabilities."""
        import pandas as pd

        order = (-self.probabilities).argsort(axis=1, kind="stable")[:, :best]
        rows = [
            [f"{self.classes[k]} {100 * said[k]:.1f} %" for k in places]
            for said, places in zip(self.probabilities, order, strict=True)
        ]
        ranks = ["answer", "second", "third", *(f"{n}th" for n in range(4, best + 1))][:best]
        frame = pd.DataFrame(rows, columns=ranks)
        frame.insert(0, "picture", list(names) if names else range(1, len(rows) + 1))
        return frame

    def figure(self) -> Figure:
        """Each picture beside its ten bars."""
        from labreport.evidence.pictures import bars

        return bars(self.images, {self.title: self.probabilities}, self.classes)

    def _repr_png_(self) -> bytes:
        from labreport.evidence.figures import style

        buffer = io.BytesIO()
        with style():
            self.figure().savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network, on the CPU, in evaluation mode. Show it to see how good it is.

    `model` takes normalised images (N, 3, 32, 32) and gives logits; `recipe` says how they are normalised and averaged.
    `test` is the record's score, on all test images; `measured` what was found again here, on some of them, if on any.
    """

    name: str
    title: str
    recipe: Recipe
    classes: tuple[str, ...]
    model: nn.Module
    record: str  # its stem
    test: Score  # the record's, on all test images
    profile: str  # that trained it
    measured: Score | None = None

    def __repr__(self) -> str:
        said = f"{self.title} ({self.record}): {_share(self.test, 2)} test images right"
        again = self.measured
        return said + (f"; measured again: {_share(again, 1, 'first ')}" if again else "")

    def logits(self, images: Tensor) -> Tensor:
        """uint8 images (N, 3, 32, 32) → (N, num_classes), with the test-time average that the recipe asks for."""
        split = DeviceSplit.of(Images(images, torch.zeros(len(images), dtype=torch.int64)), torch.device("cpu"))
        return predict(Run(self.recipe, 0, torch.device("cpu"), False, self.model, []), split, self.recipe.tta)

    def predict(self, pictures: Any) -> Answers:
        """Classes and probabilities of pictures: paths, PIL images, arrays, tensors, one or a list, of any size.

        Raises:
            PhotoError: something is not a picture that can be read.
        """
        images = to_images(pictures)
        return Answers(images.numpy(), self.logits(images).softmax(1).numpy(), self.classes, self.title)

    def normalized(self, image: Tensor) -> Tensor:
        """One uint8 image (3, 32, 32) as the model takes it: (1, 3, 32, 32) float32."""
        return augment.normalize(image[None], self.recipe.normalization)

    def score(self, images: Images) -> Score:
        """Loss and accuracy on labelled images."""
        return score(self.logits(images.images), images.labels)


def _share(found: Score, digits: int, which: str = "") -> str:
    """“94.30 % of 10,000”, with Wilson's interval: one network says nothing of other seeds."""
    low, high, _ = wilson_interval(round(found.accuracy * found.n), found.n)
    percent = f"{100 * found.accuracy:.{digits}f} % ({100 * low:.{digits}f}–{100 * high:.{digits}f})"
    return f"{percent} of the {which}{found.n:,}"


# --- loading ---------------------------------------------------------------------------------------------------------


def reference_folder() -> Path:
    """The committed weights of the reference run, whatever this session's home is."""
    return paths.REPOSITORY / "figures" / "paper" / "weights"


def names(profile: str | None = None) -> list[str]:
    """Which trained networks there are: of the reference run, or with a profile those that it has trained here."""
    if profile is None:
        found = {path.stem for path in reference_folder().glob("*.safetensors")}
    else:
        stems = (path.stem for path in paths.runs(profile).glob("*.safetensors"))
        recorded = (stem for stem in stems if (paths.records(profile) / f"{stem}.json").exists())
        found = {stem.rpartition("-seed")[0] for stem in recorded}
    return sorted(found, key=lambda name: (list(RECIPES).index(name) if name in RECIPES else len(RECIPES), name))


def best_known() -> str:
    """The name of the best network that can be loaded: the last one in the report's order.

    Raises:
        WeightsError: there is none.
    """
    if found := names() or names(_session_profile()):
        return found[-1]
    raise WeightsError(
        f"there is no trained network: {reference_folder()} is empty, and the profile {_session_profile()} has trained "
        "none; `python -m labreport train fine_tuned` trains one"
    )


def _session_profile() -> str:
    return os.environ.get("LABREPORT_PROFILE") or "quick"


def load(name: str, data: Data | None = None, profile: str | None = None, *, check: bool = True) -> Network:
    """The trained network of a recipe: the reference run's first seed; with `profile`, what that has trained here.

    Where the reference run has none of this name, one that `$LABREPORT_PROFILE` (else quick) has trained is taken.
    Where CIFAR-10 is at hand, or `data` is given, its accuracy is measured again on the first 1,000 test images,
    unless `check` is false.

    Raises:
        WeightsError: there is no such network, its file is damaged, or it is not as good as its record says.
    """
    own = profile or _session_profile()
    data = data or (cifar10.at_hand() if check else None)
    if profile is None and name in names():
        network, said = _reference(name)
    elif name in names(own):
        network, said = _own(name, own, data), {}
    else:
        known = ", ".join(dict.fromkeys([*names(), *names(own)])) or "none"
        raise WeightsError(
            f"no trained network is named {name!r} here; there are {known}; "
            f"`python -m labreport train {name if name in RECIPES else 'RECIPE'}` trains one"
        )
    if not check or data is None or data.info.classes != network.classes:
        return network
    measured = _measured(network, data, rounded=bool(said))
    stated = said.get("accuracy_of_first") if data.info.fingerprint == said.get("fingerprint") else None
    if stated is not None and abs(measured.accuracy - stated) > TOLERANCE:
        raise WeightsError(
            f"{name}: {measured.accuracy:.1%} of the first {measured.n:,} test images are right, but {stated:.1%} were "
            "when its weights were stored, so code of the network or of the images has changed; restore it, or train "
            "the recipe anew and run `python -m labreport weights`"
        )
    return dataclasses.replace(network, measured=measured)


_found: dict[tuple[str, bool, str], Score] = {}  # in this process, since some networks take seconds


def _measured(network: Network, data: Data, rounded: bool) -> Score:
    """How good the network, with its weights rounded or not, is on the first test images."""
    key = network.record, rounded, data.info.fingerprint
    if key not in _found:
        _found[key] = network.score(Images(data.test.images[:SAMPLE], data.test.labels[:SAMPLE]))
    return _found[key]


def _reference(name: str) -> tuple[Network, dict[str, Any]]:
    """A network of the reference run, and what its file says of it."""
    path = reference_folder() / f"{name}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {}).get("labreport", "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it cannot be iterated over
        if said.pop("sha256", "") != digest(state, said):
            raise ValueError("its content is not what its sha256 says")
        model = _built(said["recipe"]["model"], len(said["classes"]), state)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path}: damaged ({reason}); restore it, for instance by `git checkout {path}`") from error
    source = said["recipe"].get("features_from")
    backbone = _reference(source)[0] if source else None
    if backbone and backbone.record != said["features"]:
        raise WeightsError(
            f"{path}: was trained on the features of {said['features']}, but beside it are the weights of "
            f"{backbone.record}; `python -m labreport weights` writes both anew"
        )
    recipe, model = _on_images(Recipe(**said["recipe"]), model, backbone)
    classes = tuple(said["classes"])
    return Network(name, said["title"], recipe, classes, model, said["record"], Score(**said["test"]), "paper"), said


def _own(name: str, profile: str, data: Data | None) -> Network:
    """A network that was trained here: on this data where there is a choice, the first seed, the latest."""
    records = [record for record in Store(paths.records(profile)).all(name) if _own_weights(record).exists()]
    if not records:
        raise WeightsError(
            f"{name}: its record in {paths.records(profile)} cannot be read or believed; "
            f"`python -m labreport show {name}` says why"
        )
    records.sort(key=lambda record: record.finished, reverse=True)
    wanted = data.info.fingerprint if data else None
    return _of_record(min(records, key=lambda record: (record.data.fingerprint != wanted, record.seed)))


def _own_weights(record: RunRecord) -> Path:
    return paths.runs(record.profile) / f"{record.stem}.safetensors"


def _of_record(record: RunRecord) -> Network:
    path = _own_weights(record)
    try:
        model = _built(record.recipe["model"], len(record.data.classes), load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: not the weights of the network {record.recipe['model']!r} ({str(error).splitlines()[0]}); "
            f"restore the file, or move {record.stem}.json away to train it again"
        ) from error
    recipe = Recipe(**record.recipe)
    if recipe.features_from and recipe.pretrained:
        model = nn.Sequential(OrderedDict(features=_with_imagenet_weights(record), head=model)).eval()
    else:
        source = _features_of(record)
        recipe, model = _on_images(recipe, model, _of_record(source) if source else None)
    classes = record.data.classes
    return Network(record.name, title([record]), recipe, classes, model, record.stem, record.test_score, record.profile)


def _with_imagenet_weights(record: RunRecord) -> nn.Module:
    """The network on whose features, with ImageNet weights, the record's head was trained."""
    body = models.build(record.recipe["features_from"])
    name = start_from_imagenet(body)
    if weights_digest(name) != weights_digest(record.weights):
        raise WeightsError(
            f"{record.stem}: stands on {record.weights}, and here are {name}; name the file with LABREPORT_WEIGHTS"
        )
    behead(body)
    return body.requires_grad_(False)


def _features_of(record: RunRecord) -> RunRecord | None:
    """The record of the network whose features this one was trained on, if it was on any."""
    if "features_from" not in record.recipe:
        return None
    source = for_profile(KNOWN[record.recipe["features_from"]], record.profile)
    store = Store(paths.records(record.profile))
    found = store.runs(source.name, source.settings(), record.seed, record.data.fingerprint)
    if not (found := [candidate for candidate in found if _own_weights(candidate).exists()]):
        raise WeightsError(
            f"{record.stem}: needs the weights of {source.name}, seed {record.seed}, in {paths.runs(record.profile)}; "
            f"restore them, or train that network again"
        )
    return found[0]


def _built(name: str, num_classes: int, state: dict[str, Tensor]) -> nn.Module:
    model = models.build(name, num_classes)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _on_images(recipe: Recipe, model: nn.Module, backbone: Network | None) -> tuple[Recipe, nn.Module]:
    """A network on features and the network that gives them, as one that takes images."""
    if backbone is None:
        return recipe, model
    body = backbone.model
    behead(body)
    whole = nn.Sequential(OrderedDict(features=body, head=model))
    return dataclasses.replace(recipe, normalization=backbone.recipe.normalization), whole.eval()


# --- storing ---------------------------------------------------------------------------------------------------------


def export(record: RunRecord, data: Data, folder: Path) -> tuple[Path, Score] | None:
    """Write a run's weights, rounded to float16, with what they are; returns the file, and how good they then are.

    None where the file would be larger than 10 MB, and nothing is written then. What has one dimension (biases, and
    batch norm's numbers, some of which are below float16's range) keeps its precision. The accuracy is measured on
    `data`, which must be what the run was measured on.

    Raises:
        WeightsError: the weights are not there, or the data is another.
    """
    if data.info.fingerprint != record.data.fingerprint:
        raise WeightsError(
            f"{record.stem}: its data is {record.data.fingerprint}, not {data.info.fingerprint}; name its own"
        )
    state = {
        name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in load_file(_own_weights(record)).items()
    }
    if sum(tensor.nbytes for tensor in state.values()) > LARGEST:
        return None
    network = _of_record(record)
    own = network.model.get_submodule("head") if "features_from" in record.recipe else network.model
    own.load_state_dict(state)
    logits, labels = network.logits(data.test.images), data.test.labels
    source = _features_of(record)
    said = {
        "record": record.stem,
        "title": title([record]),
        "recipe": record.recipe,
        "network": record.network,
        "classes": record.data.classes,
        "fingerprint": record.data.fingerprint,
        "test": dataclasses.asdict(record.test_score),
        "accuracy_of_float16": score(logits, labels).accuracy,
        "accuracy_of_first": score(logits[:SAMPLE], labels[:SAMPLE]).accuracy,
        "features": source.stem if source else "",
    }
    path = folder / f"{record.name}.safetensors"
    text = json.dumps(said | {"sha256": digest(state, said)})
    write_atomically(path, save(state, {"labreport": text}))  # one entry, since several have no fixed order
    return path, score(logits, labels)


def export_all(data: Data) -> Iterator[str]:
    """Write the weights of every system of the paper profile that has a run on this data; yields a line on each."""
    folder = paths.figures("paper") / "weights"
    for name, recipe in RECIPES.items():
        runs = Store(paths.records("paper")).all(name)
        runs = [
            run for run in runs if run.recipe == recipe.settings() and run.data.fingerprint == data.info.fingerprint
        ]
        runs = [run for run in runs if _own_weights(run).exists()]
        if not runs:
            yield f"{name}: no run on this data with its weights in {paths.runs('paper')}"
        elif written := export(runs[0], data, folder):
            path, found = written
            yield (
                f"{name}: {path}, {path.stat().st_size / 1e6:.2f} MB; {found.accuracy:.2%} of the test images right, "
                f"{runs[0].test_score.accuracy:.2%} before rounding"
            )
        else:
            yield f"{name}: larger than {LARGEST / 1e6:.0f} MB as float16, so left out"


def digest(state: dict[str, Tensor], said: dict[str, Any]) -> str:
    """The sha256 of weights and of what is said of them."""
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()
