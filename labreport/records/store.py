"""Records on disk: written whole, checked when read, and left out by name where they cannot be believed."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from labreport.files import write_atomically, writing
from labreport.records.doubts import doubts, other_labels
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
    """The records in one folder. `test_labels` are those of the data at hand, by its fingerprint: (N,) integers."""

    folder: Path
    test_labels: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)

    def save(self, record: RunRecord) -> Path:
        """Write `record`; its JSON file comes last, so a record that is listed is whole. Returns the JSON's path.

        Files of this name that could not be read or believed are set aside, under another name.
        """
        self._set_aside(self._path(record))
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

    def _set_aside(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            self.load(path)
        except RecordError:
            for file in filter(Path.exists, (path, path.with_suffix(".npz"))):
                with writing(file):
                    file.replace(file.with_name(f"{file.name}.left-out"))
            print(f"{path}: was left out, and is kept as {path.name}.left-out", file=sys.stderr)

    def _path(self, record: RunRecord) -> Path:
        return self.folder / f"{record.stem}.json"

    def scan(self, name: str = "*", seed: int | str = "") -> Scan:
        """Every record of the folder; or of one recipe in it, or of seeds that begin so."""
        scan = Scan([], [])
        for path in sorted(self.folder.glob(f"{name}-seed{seed}*.json")):
            try:
                scan.records.append(self.load(path))
            except RecordError as error:
                scan.left_out.append(str(error))
        scan.records.sort(key=lambda r: (r.name, r.seed, r.key))
        return scan

    def all(self, name: str = "*", seed: int | str = "") -> list[RunRecord]:
        """The readable ones of what `scan` finds, by recipe name, seed and key."""
        return self.scan(name, seed).records

    def runs(self, name: str, settings: dict, seed: int, fingerprint: str) -> list[RunRecord]:
        """The runs of these settings on this data with this seed, of whatever network."""
        return [
            record
            for record in self.all(name, seed)
            if (record.recipe, record.seed, record.data.fingerprint) == (settings, seed, fingerprint)
        ]

    def load(self, path: Path) -> RunRecord:
        """Read one record.

        Raises:
            RecordError: a file is missing or cut off, is of a newer version, or says two different things.
        """
        try:
            record, found = _read(path, *(_stamp(file) for file in (path, path.with_suffix(".npz"))))
            found = found or other_labels(record, self.test_labels.get(record.data.fingerprint))
        except RecordError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise RecordError(
                f"{path}: not a readable run record ({error}); it is left out: restore it from where it came from, or "
                "move it away and train the run again"
            ) from error
        if found:
            raise RecordError(
                f"{path}: cannot be believed ({'; '.join(found)}); it is left out: restore the two files of this run, "
                "or move them away and train it again"
            )
        return record


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a file's content."""
    now = path.stat()
    return now.st_ino, now.st_mtime_ns, now.st_size


@functools.lru_cache(maxsize=512)  # a notebook asks for the same records a hundred times
def _read(path: Path, *stamps: tuple[int, int, int]) -> tuple[RunRecord, list[str]]:
    """The record in `path` while its two files have these stamps, and what speaks against it."""
    raw = json.loads(path.read_text(), parse_constant=_refuse)
    schema = raw.get("schema", 1)
    if schema > SCHEMA:
        raise RecordError(
            f"{path}: written by a newer version (its records have schema {schema}, this one reads up to "
            f"{SCHEMA}); it is left out: use that version to read it"
        )
    with np.load(io.BytesIO(path.with_suffix(".npz").read_bytes()), allow_pickle=False) as archive:
        arrays = dict(archive)
    key = str(arrays.pop("key", raw["key"]))  # schema 1 had none
    record = _READERS[schema](raw, arrays)
    return record, doubts(record, path.stem, key)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no measured number")


def _read_current(raw: dict[str, Any], arrays: dict[str, np.ndarray]) -> RunRecord:
    raw["stretches"] = tuple(
        Stretch(**{**stretch, "environment": Environment(**stretch["environment"])}) for stretch in raw["stretches"]
    )
    raw["verified"] = tuple(Verification(**stamp) for stamp in raw["verified"])
    return RunRecord(**_common(raw), predictions=Predictions(**arrays))


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
