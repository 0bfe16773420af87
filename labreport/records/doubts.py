"""Whether a record can be believed: what is stored twice must agree, and nothing can hold what it cannot be."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import types
import typing
from collections.abc import Iterator
from typing import Any

import numpy as np

from labreport.records.record import CAVEATS, RunRecord, Score, run_key

# sha256 over the test labels as bytes, by the data's fingerprint: of the official files, split as this suite does.
KNOWN_LABELS = {"5c092fbd3a0ac3c3": "cec8a24a1e92aa2e"}


def doubts(record: RunRecord, stem: str, key: str) -> list[str]:
    """What speaks against a record that was read from the files `stem`, in words; empty where nothing does.

    `key` is that of its predictions' file.
    """
    if wrong := list(_mistyped(record, RunRecord, "")):
        return [f"{', '.join(wrong)} cannot be what is stored there"]
    found = []
    if stem != record.stem or record.recipe.get("name") != record.name:
        found.append(f"the file's name is not {record.stem}")
    if record.schema > 1:
        computed = run_key(record.recipe, record.network, record.weights, record.data.fingerprint, record.seed)
        if not key == record.key == computed:
            found.append("its key is not that of its settings, network, data and seed")
    if record.data.source not in CAVEATS:
        found.append(f"there is no data source {record.data.source!r}")
    digest = hashlib.sha256(record.predictions.labels.astype(np.uint8).tobytes()).hexdigest()[:16]
    labels = [_OTHER_LABELS] if digest != KNOWN_LABELS.get(record.data.fingerprint, digest) else []
    return [*found, *_history(record), *_scores(record), *labels]


def other_labels(record: RunRecord, test_labels: np.ndarray | None) -> list[str]:
    """The same of a record whose data is at hand, with the labels `test_labels` (N,)."""
    other = test_labels is not None and not np.array_equal(record.predictions.labels, test_labels)
    return [_OTHER_LABELS] if other else []


_OTHER_LABELS = "its labels are not those of its data's test images"


def _mistyped(value: Any, hint: Any, name: str) -> Iterator[str]:
    """The names of those fields that do not hold what their annotation says."""
    kinds = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        if all(any(_mistyped(value, kind, name)) for kind in kinds):
            yield name
    elif typing.get_origin(hint) is tuple and isinstance(value, tuple):
        for item in value:
            yield from _mistyped(item, kinds[0], name)
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, hint):
        for field, kind in _hints(hint).items():
            yield from _mistyped(getattr(value, field), kind, f"{name}.{field}".strip("."))
    elif isinstance(value, bool) != (hint is bool) or not isinstance(
        value, (int, float) if hint is float else typing.get_origin(hint) or hint
    ):
        yield name


_hints = functools.cache(typing.get_type_hints)


def _history(record: RunRecord) -> Iterator[str]:
    epochs = record.recipe.get("epochs", 0)
    if [row.epoch for row in record.history] != list(range(1, epochs + 1)):
        yield f"its history has {len(record.history)} of {epochs} epochs, or not in their order"
    trained, stretches = (sum(part.seconds for part in parts) for parts in (record.history, record.stretches))
    if record.schema > 1 and not math.isclose(trained, stretches, rel_tol=1e-6):
        yield f"its epochs took {trained:.1f} s, but its stretches {stretches:.1f} s"


def _scores(record: RunRecord) -> Iterator[str]:
    said, data = record.predictions, record.data
    n, classes = said.log_probabilities.shape
    if not n == len(said.labels) == data.n_test == record.test_score.n or classes != len(data.classes):
        yield f"its predictions are of {n} images and {classes} classes"
        return
    if said.labels.max() >= classes or (said.example_indices >= n).any():
        yield "its predictions are of classes or images that there are not"
        return
    seen, stated = said.score(), record.test_score
    # Schema 1 measured the loss in double precision before it was rounded for storage.
    if seen.accuracy != stated.accuracy or abs(seen.loss - stated.loss) > 1e-4 * max(1.0, stated.loss):
        yield f"test accuracy {stated.accuracy:.2%}, but {seen.accuracy:.2%} in its predictions"
    for name, score in (("training", record.train_score), ("validation", record.val_score)):
        if score and not _counted(score):
            yield f"a {name} accuracy of {score.accuracy!r} is no share of {score.n} images"


def _counted(score: Score) -> bool:
    """Whether an accuracy is a whole number of images."""
    hits = score.accuracy * score.n
    return 0 <= score.accuracy <= 1 and math.isclose(hits, round(hits), abs_tol=1e-6)
