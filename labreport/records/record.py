"""What one training run leaves behind.

On disk a record is two files with one stem, `<recipe>-seed<seed>-<key>`: a JSON file with everything small, and an
`.npz` file with what the network says of each test image. Every number of the report can be recomputed from the two.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

SCHEMA = 2  # 1: predicted classes and confidences instead of all log-probabilities; no network, code and commit

CAVEATS = {  # by `DataInfo.source`: what must be said beside every result
    "official": "",
    "official images, other files": "",
    "unverified copy": "unverified copy of CIFAR-10 (md5 differs)",
    "synthetic stand-in": "synthetic stand-in, not CIFAR-10",
}


WAYS = ("graphs", "branches", "compiled")  # of doing the steps: labreport.training.identity has their code


@dataclass(frozen=True)
class Epoch:
    """One row of a training's history. Losses are means over images, in nats; accuracies lie in [0, 1].

    `train_*` are running figures over the epoch's augmented batches, in training mode; `val_*` are measured after it,
    on images of the size that the epoch was trained on, and are None where the validation images are trained on, too.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy (nats) and accuracy in [0, 1] over `n` images, measured in evaluation mode."""

    loss: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class DataInfo:
    """Which images a run saw. `source` is one of `CAVEATS`."""

    source: str
    fingerprint: str
    classes: tuple[str, ...]
    n_train: int
    n_val: int
    n_test: int


@dataclass(frozen=True)
class Environment:
    """Machine and versions of a stretch of training: what a reader needs to judge its time and numbers.

    `device` is the processor's or the card's model; `extensions` the processor's vector extensions or the card's
    driver. No host name.
    """

    device: str
    extensions: str
    threads: int
    precision: str
    torch: str
    python: str
    system: str = ""

    def same_kind(self, other: Environment) -> bool:
        """Whether the same training gives the same bits on both."""
        ours, theirs = ((e.device, e.extensions, e.threads, e.precision, e.torch, e.system) for e in (self, other))
        return ours == theirs


@dataclass(frozen=True)
class Stretch:
    """Epochs trained without a break, from `first` to `last`, and where. A resumed run has several.

    `commit` is the code's, with `+` where files of the package differ from it, or empty outside a checkout.
    """

    first: int
    last: int
    seconds: float
    commit: str
    environment: Environment


@dataclass(frozen=True)
class Verification:
    """Later code that trained the first epoch again and found the stored first row."""

    code: dict[str, str]
    commit: str
    device: str
    exact: bool
    day: str


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the trained network said of each test image, and the few images that the figures show.

    labels: (N,) uint8. log_probabilities: (N, num_classes) float16, whose largest is the network's answer. In a record
    of schema 1 all but the answer's and the true class's are nan, and they are float32.
    example_indices: (E,) int64 places in the test set; example_images: (E, 3, 32, 32) uint8, half of them the most
    confident right answers (one a class), half the most confident wrong ones.
    first_kernels: (O, C, kh, kw) float32, the first convolution's learned weights (empty without one).
    """

    labels: np.ndarray
    log_probabilities: np.ndarray
    example_indices: np.ndarray
    example_images: np.ndarray
    first_kernels: np.ndarray

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N,) uint8: the class with the highest probability."""
        return np.nanargmax(self.log_probabilities, axis=1).astype(np.uint8)

    @cached_property
    def confidence(self) -> np.ndarray:
        """(N,) float32: the predicted class's probability."""
        return np.exp(np.nanmax(self.log_probabilities, axis=1).astype(np.float32))

    @cached_property
    def nll(self) -> np.ndarray:
        """(N,) float32: minus the log-probability of the true class, so that its mean is the test loss."""
        return -self.log_probabilities[np.arange(len(self.labels)), self.labels].astype(np.float32)

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool: where the predicted class is the label."""
        return self.predicted == self.labels

    def score(self) -> Score:
        """Loss and accuracy over all images."""
        return Score(float(self.nll.mean(dtype=float)), float(self.correct.mean()), len(self.labels))


@dataclass(frozen=True)
class RunRecord:
    """One finished training. `recipe` holds the effective recipe's settings, as `Recipe.settings()` gives them.

    `network` and `code` are digests: of what the network computes, and of the suite's code that decided the result, by
    part (see `labreport.digests`); `weights` names the weights started from and their sha256, where there were any.
    `untrained_val_loss` is the validation loss before the first step (about ln 10 for ten classes). `train_score` and
    `val_score` are measured once after training, `test_score` from `predictions`; a test-time average is in the latter
    two only. `val_score` is None where the validation images were trained on. `seconds` is the training's wall time
    without evaluation of the test set, over all `stretches`.
    `parameters` counts trainable and frozen numbers; `size_bytes` is their size in memory. `forward_flops` is a forward
    pass of one image, `train_flops` the whole training's forward and backward passes; one multiply-add is two.
    """

    name: str
    title: str
    profile: str
    seed: int
    key: str
    recipe: dict
    network: str
    weights: str
    code: dict[str, str]
    data: DataInfo
    stretches: tuple[Stretch, ...]
    history: tuple[Epoch, ...]
    untrained_val_loss: float
    train_score: Score
    val_score: Score | None
    test_score: Score
    seconds: float
    parameters: int
    size_bytes: int
    forward_flops: int
    train_flops: int
    finished: str
    schema: int = SCHEMA
    verified: tuple[Verification, ...] = ()
    predictions: Predictions = field(kw_only=True, repr=False, compare=False)

    @property
    def stem(self) -> str:
        return f"{self.name}-seed{self.seed}-{self.key}"

    @property
    def environment(self) -> Environment:
        """Where the last stretch was trained."""
        return self.stretches[-1].environment

    @property
    def commit(self) -> str:
        """The commit of the last stretch's code, or empty."""
        return self.stretches[-1].commit

    @property
    def weights_caveat(self) -> str:
        """What must be said beside its numbers because of the weights it started from; empty for torchvision's."""
        return "" if self.weights.startswith("torchvision ") else self.weights.rpartition(", sha256 ")[0]

    @property
    def ways(self) -> tuple[str, ...]:
        """Which code did its training steps, where that was not the plain one: of CUDA graphs, or compiled."""
        return tuple(way for way in WAYS if way in self.code)

    def is_of_network(self, network: str) -> bool:
        """Whether it is of the network with this digest, or was found again with it."""
        return network in (self.network, *(stamp.code["network"] for stamp in self.verified))

    def is_of(self, code: dict[str, str]) -> bool:
        """Whether `code` made this record, or has found its first epoch again."""
        return code in (self.code, *(verification.code for verification in self.verified))


def run_key(settings: dict, network: str, weights: str, fingerprint: str, seed: int) -> str:
    """Twelve hex digits that name a run by what is computed.

    `settings` are a recipe's, whose name for its network does not count: `network` is that network's digest. Nor
    does what `weights` are called, but for their digest.
    """
    computed = {name: value for name, value in settings.items() if name != "model"}
    text = json.dumps([computed, network, weights_digest(weights), fingerprint, seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def weights_digest(weights: str) -> str:
    """Of what names the weights that a training starts from, the part that does: their sha256, or nothing."""
    return weights.rpartition("sha256 ")[2]
