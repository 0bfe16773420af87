"""Records on disk: written whole, checked when read, and left out by name where they cannot be believed."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labreport.files import clear_leftovers, write_atomically
from labreport.records.record import (
    SCHEMA,
    DataInfo,
    Environment,
    Epoch,
    Predictions,
    RunRecord,
    Score,
    Stretch,
    Verification,
    run_key,
)


class RecordError(ValueError):
    """A record on disk cannot be read, or contradicts itself."""


@dataclass(frozen=True)
class Scan:
    """What a folder holds: its records by name, seed and key; and a sentence on each that had to be left out."""

    records: list[RunRecord]
    left_out: list[str]


@dataclass(frozen=True)
class Store:
    """The records in one folder."""

    folder: Path

    def save(self, record: RunRecord) -> Path:
        """Write `record`; its JSON file comes last, so a record that is listed is whole. Returns the JSON's path."""
        clear_leftovers(self.folder)
        buffer = io.BytesIO()
        arrays = {f.name: getattr(record.predictions, f.name) for f in dataclasses.fields(Predictions)}
        np.savez_compressed(buffer, key=np.array(record.key), **arrays)
        write_atomically(self._path(record).with_suffix(".npz"), buffer.getvalue())
        return self.save_facts(record)

    def save_facts(self, record: RunRecord) -> Path:
        """Write the JSON file alone, of a record whose predictions are stored."""
        fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != "predictions"}
        text = json.dumps(fields, default=dataclasses.asdict, indent=1, allow_nan=False)
        write_atomically(self._path(record), (text + "\n").encode())
        return self._path(record)

    def _path(self, record: RunRecord) -> Path:
        return self.folder / f"{record.stem}.json"

    def scan(self, name: str = "*") -> Scan:
        """Every record of the folder, or of one recipe in it."""
        scan = Scan([], [])
        for path in sorted(self.folder.glob(f"{name}-seed*.json")):
            try:
                scan.records.append(self.load(path))
            except RecordError as error:
                scan.left_out.append(str(error))
        scan.records.sort(key=lambda r: (r.name, r.seed, r.key))
        return scan

    def all(self, name: str = "*") -> list[RunRecord]:
        """Every readable record of the folder, or of one recipe in it, by recipe name, seed and key."""
        return self.scan(name).records

    def runs(self, name: str, settings: dict, seed: int, fingerprint: str) -> list[RunRecord]:
        """The runs of these settings on this data with this seed, of whatever network."""
        return [
            record
            for record in self.all(name)
            if (record.recipe, record.seed, record.data.fingerprint) == (settings, seed, fingerprint)
        ]

    def load(self, path: Path) -> RunRecord:
        """Read one record.

        Raises:
            RecordError: a file is missing or cut off, is of a newer version, or says two different things.
        """
        try:
            raw = json.loads(path.read_text())
            schema = raw.get("schema", 1)
            if schema > SCHEMA:
                raise RecordError(
                    f"{path}: written by a newer version (its records have schema {schema}, this one reads up to "
                    f"{SCHEMA}); it is left out: use that version to read it"
                )
            with np.load(io.BytesIO(path.with_suffix(".npz").read_bytes()), allow_pickle=False) as archive:
                arrays = dict(archive)
            record = _READERS[schema](raw, arrays)
            doubts = _contradictions(record, path, arrays)
        except RecordError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise RecordError(
                f"{path}: not a readable run record ({error}); it is left out: restore it from where it came from, or "
                "move it away and train the run again"
            ) from error
        if doubts:
            raise RecordError(
                f"{path}: contradicts itself ({doubts}); it is left out: restore the two files of this run"
            )
        return record


def _read_current(raw: dict[str, Any], arrays: dict[str, np.ndarray]) -> RunRecord:
    predictions = Predictions(**{name: array for name, array in arrays.items() if name != "key"})
    raw["stretches"] = tuple(
        Stretch(**{**stretch, "environment": Environment(**stretch["environment"])}) for stretch in raw["stretches"]
    )
    raw["verified"] = tuple(Verification(**stamp) for stamp in raw["verified"])
    return RunRecord(**_common(raw), predictions=predictions)


def _read_first(raw: dict[str, Any], arrays: dict[str, np.ndarray]) -> RunRecord:
    """Schema 1 kept each image's answer, its confidence and the true class's loss: two log-probabilities of ten."""
    rows = np.arange(len(arrays["labels"]))
    log_probabilities = np.full((len(rows), len(raw["data"]["classes"])), np.nan, dtype=np.float32)
    answer = np.log(arrays.pop("confidence"))
    below = np.nextafter(answer, np.float32(-np.inf))  # where two classes tied, the first was the answer
    log_probabilities[rows, arrays["labels"]] = np.minimum(-arrays.pop("nll"), below)
    log_probabilities[rows, arrays.pop("predicted")] = answer
    old = raw.pop("environment")
    environment = Environment(old["device"], "", old["threads"], old["precision"], old["torch"], old["python"])
    stretch = Stretch(1, len(raw["history"]), raw["seconds"], "", environment)
    raw |= {"network": "", "weights": "", "code": {}, "stretches": (stretch,), "schema": 1}
    return RunRecord(**_common(raw), predictions=Predictions(log_probabilities=log_probabilities, **arrays))


def _common(raw: dict[str, Any]) -> dict[str, Any]:
    raw["data"] = DataInfo(**{**raw["data"], "classes": tuple(raw["data"]["classes"])})
    raw["history"] = tuple(Epoch(**row) for row in raw["history"])
    for split in ("train_score", "val_score", "test_score"):
        raw[split] = raw[split] and Score(**raw[split])
    return raw


_READERS: dict[int, Callable[[dict[str, Any], dict[str, np.ndarray]], RunRecord]] = {1: _read_first, 2: _read_current}


def _contradictions(record: RunRecord, path: Path, arrays: dict[str, np.ndarray]) -> str:
    """What the two files say differently of what both hold; empty where they agree."""
    found = []
    if path.stem != record.stem:
        found.append(f"the file's name is not {record.stem}")
    if record.schema > 1:
        key = run_key(record.recipe, record.network, record.weights, record.data.fingerprint, record.seed)
        if not key == record.key == str(arrays["key"]):
            found.append("its key is not that of its settings, network, data and seed")
    seen, said = record.predictions.score(), record.test_score
    # Schema 1 measured the loss in double precision before it was rounded for storage.
    if (seen.accuracy, seen.n) != (said.accuracy, said.n) or abs(seen.loss - said.loss) > 1e-4 * max(1.0, said.loss):
        found.append(f"test accuracy {said.accuracy:.2%}, but {seen.accuracy:.2%} in its predictions")
    return "; ".join(found)
