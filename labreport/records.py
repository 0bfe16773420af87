"""What one training run leaves behind, and its store on disk.

A record is two files with one stem, `<recipe>-seed<seed>-<key>`: a JSON file with everything small, and an `.npz` file
with the per-image predictions. Every number of the report can be recomputed from the two.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

CAVEATS = {  # by `DataInfo.source`: what must be said beside every result
    "official": "",
    "unverified copy": "unverified copy of CIFAR-10 (md5 differs)",
    "synthetic stand-in": "synthetic stand-in, not CIFAR-10",
}


class RecordError(ValueError):
    """A record on disk cannot be read."""


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
    """Which images a run saw. `source` is `official`, `unverified copy` or `synthetic stand-in`."""

    source: str
    fingerprint: str
    classes: tuple[str, ...]
    n_train: int
    n_val: int
    n_test: int


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the trained network said of each test image, and the few images that the figures show.

    labels, predicted: (N,) uint8. confidence: (N,) float32, the predicted class's probability.
    nll: (N,) float32, minus the log-probability of the true class, so that its mean is the test loss.
    example_indices: (E,) int64 places in the test set; example_images: (E, 3, 32, 32) uint8, half of them the most
    confident right answers (one a class), half the most confident wrong ones.
    first_kernels: (O, C, kh, kw) float32, the first convolution's learned weights (empty without one).
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    nll: np.ndarray
    example_indices: np.ndarray
    example_images: np.ndarray
    first_kernels: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool: where the predicted class is the label."""
        return self.predicted == self.labels


@dataclass(frozen=True)
class RunRecord:
    """One finished training. `recipe` holds the effective recipe's settings, as `Recipe.settings()` gives them.

    `untrained_val_loss` is the validation loss before the first step (about ln 10 for ten classes). `train_score` and
    `val_score` are measured once after training, `test_score` from `predictions`; a test-time average is in the latter
    two only. `val_score` is None where the validation images were trained on. `seconds` is the training's wall time
    without evaluation of the test set.
    `parameters` counts trainable and frozen numbers; `size_bytes` is their size in memory. `forward_flops` is a forward
    pass of one image, `train_flops` the whole training's forward and backward passes; one multiply-add is two.
    `environment` names versions, device and threads.
    """

    name: str
    title: str
    profile: str
    seed: int
    key: str
    recipe: dict
    data: DataInfo
    environment: dict
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
    predictions: Predictions = field(repr=False, compare=False)

    @property
    def stem(self) -> str:
        return f"{self.name}-seed{self.seed}-{self.key}"


def run_key(settings: dict, fingerprint: str, seed: int) -> str:
    """Twelve hex digits that name a run: the same recipe settings, data and seed give the same key."""
    text = json.dumps([settings, fingerprint, seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Store:
    """The records in one folder."""

    folder: Path

    def save(self, record: RunRecord) -> Path:
        """Write `record`; its JSON file comes last, so a record that is listed is whole. Returns the JSON's path."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **vars(record.predictions))
        path = self.folder / f"{record.stem}.json"
        write_atomically(path.with_suffix(".npz"), buffer.getvalue())
        fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != "predictions"}
        text = json.dumps(fields, default=dataclasses.asdict, indent=1, allow_nan=False)
        write_atomically(path, (text + "\n").encode())
        return path

    def all(self, name: str = "*") -> list[RunRecord]:
        """Every record of the folder, or of one recipe in it, by recipe name, seed and key."""
        records = [self.load(path) for path in self.folder.glob(f"{name}-seed*.json")]
        return sorted(records, key=lambda r: (r.name, r.seed, r.key))

    def find(self, name: str, settings: dict, seed: int, fingerprint: str) -> RunRecord | None:
        """The record of exactly that run, or None."""
        key = run_key(settings, fingerprint, seed)
        path = self.folder / f"{name}-seed{seed}-{key}.json"
        return self.load(path) if path.exists() else None

    def load(self, path: Path) -> RunRecord:
        """Read one record.

        Raises:
            RecordError: a file is missing, cut off, or not of this version's form.
        """
        try:
            raw = json.loads(path.read_text())
            arrays = io.BytesIO(path.with_suffix(".npz").read_bytes())  # numpy leaves a damaged file open
            with np.load(arrays, allow_pickle=False) as archive:
                predictions = Predictions(**archive)
            raw["data"] = DataInfo(**{**raw["data"], "classes": tuple(raw["data"]["classes"])})
            raw["history"] = tuple(Epoch(**row) for row in raw["history"])
            for split in ("train_score", "val_score", "test_score"):
                raw[split] = raw[split] and Score(**raw[split])
            return RunRecord(**raw, predictions=predictions)
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RecordError(
                f"{path}: not a readable run record ({error}); delete it to train this run again"
            ) from error
