"""Whether today's code still gives what stored records say: their first epochs trained again."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from labreport.facts.recipes import Recipe
from labreport.images.splits import Data
from labreport.networks import pretrained
from labreport.records.provenance import commit
from labreport.records.record import Epoch, RunRecord, Verification, weights_digest
from labreport.records.store import Store
from labreport.training.compiled import steps_for
from labreport.training.device import best_device, keep_freed_memory, threads_for
from labreport.training.evaluate import predict, score
from labreport.training.identity import code_of
from labreport.training.progress import Lines
from labreport.training.run import Run, TrainingError, splits_for
from labreport.training.steps import train_epoch
from labreport.training.train import extract_features

# On another kind of machine sums are rounded in another order, and a training's path follows its rounding. After one
# epoch the loss may then differ by this share of itself, and the accuracy by this much.
LOSS_TOLERANCE, ACCURACY_TOLERANCE = 0.05, 0.02

SAME_CODE, EXACT, CLOSE, DIFFERENT = "same code", "found again, exactly", "found again, within tolerance", "DIFFERENT"


@dataclass(frozen=True)
class Check:
    """One record's verdict; `found` is the first epoch as today's code trains it, where it was trained."""

    record: RunRecord
    same_code: bool
    found: Epoch | None
    verdict: str

    @property
    def checked(self) -> bool:
        """Whether its code is unchanged, or its first epoch was trained again."""
        return self.verdict in (SAME_CODE, EXACT, CLOSE, DIFFERENT)

    @property
    def row(self) -> dict[str, str]:
        """For a table."""
        stored = self.record.history[0]
        return {
            "record": self.record.stem,
            "same code": "yes" if self.same_code else "no",
            "first epoch stored": _text(stored),
            "found": _text(self.found) if self.found else "—",
            "verdict": self.verdict,
        }


def _text(row: Epoch) -> str:
    validation = f", val. {row.val_accuracy:.2%}" if row.val_accuracy is not None else ""
    return f"loss {row.train_loss:.6f}, {row.train_accuracy:.2%}{validation}"


def verify(
    store: Store, records: Sequence[RunRecord], data: Data, device: str | None = None, *, again: bool = False
) -> Iterator[Check]:
    """Train the first epoch of each record whose code has changed since, or with `again` of each, and compare.

    A record that is found again is stamped with today's code, in the store.

    Raises:
        StorageError: a stamp cannot be written.
    """
    keep_freed_memory()
    where = torch.device(device) if device else best_device()
    for record in records:
        recipe = Recipe(**record.recipe)
        try:
            code = code_of(recipe, len(record.data.classes), record.ways)
            if (same_code := record.is_of(code)) and not again:
                yield Check(record, True, None, SAME_CODE)
                continue
            found, same_kind = first_epoch(record, recipe, data, where)
        except (TrainingError, pretrained.WeightsUnavailable, ValueError) as error:
            yield Check(record, False, None, f"not checked: {error}")
            continue
        verdict = compare(record.history[0], found, same_kind)
        if verdict != DIFFERENT and not same_code:
            today = datetime.datetime.now(datetime.UTC).date().isoformat()
            device_name = record.environment.device if same_kind else str(where)
            stamp = Verification(code, commit(), device_name, verdict == EXACT, today)
            store.save_facts(dataclasses.replace(record, verified=(*record.verified, stamp)))
        yield Check(record, same_code, found, verdict)


def first_epoch(record: RunRecord, recipe: Recipe, data: Data, device: torch.device) -> tuple[Epoch, bool]:
    """The first epoch of a record's training, and whether it ran on the same kind of machine.

    Raises:
        ValueError: the data or the weights started from are other ones.
        TrainingError: the trained network that the recipe builds on is missing.
    """
    if data.info.fingerprint != record.data.fingerprint:
        raise ValueError(f"it is of other images ({record.data.source}, {record.data.fingerprint})")
    if recipe.pretrained and weights_digest(pretrained.weights_name()) != weights_digest(record.weights):
        raise ValueError(f"it started from other weights ({record.weights})")
    inputs = data = data.first(recipe.train_images)
    if recipe.features_from:
        inputs = extract_features(recipe, data, record.seed, record.profile, device, Lines())[1]
    first = record.stretches[0].environment
    splits = splits_for(recipe, inputs, device)
    with threads_for(recipe, device, first.threads):
        run = Run.start(recipe, record.seed, splits["train"], len(data.info.classes), device)
        run.compiled = steps_for(recipe, run.model, splits["train"].inputs) if "compiled" in record.ways else None
        same_kind = run.environment().same_kind(first)
        val = splits["val"]
        predict(run, val)  # as before every training: it may choose kernels
        trained = train_epoch(run, splits["train"], 0)
        after = None if recipe.train_on_val else score(predict(run, val, epoch=0), val.labels)
    loss, accuracy = (after.loss, after.accuracy) if after else (None, None)
    return Epoch(1, recipe.lr, trained.loss, trained.accuracy, loss, accuracy, 0.0), same_kind


def compare(stored: Epoch, found: Epoch, same_kind: bool) -> str:
    """The verdict on a first epoch found again: exactly on the same kind of machine, within a tolerance elsewhere."""
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    if all(getattr(stored, name) == getattr(found, name) for name in names):
        return EXACT
    close = math.isclose(stored.train_loss, found.train_loss, rel_tol=LOSS_TOLERANCE)
    close &= abs(stored.train_accuracy - found.train_accuracy) <= ACCURACY_TOLERANCE
    return CLOSE if close and not same_kind else DIFFERENT
