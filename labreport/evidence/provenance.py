"""Where records are from, as a table and as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from labreport.evidence.tables import counted, duration, machine, mark, percent
from labreport.records.record import RunRecord, Stretch, Verification


def provenance_table(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Where every record is from: its key, result, commit and machine, a line each."""
    rows = [
        (
            f"{r.name}, seed {r.seed}{mark([r])}",
            r.key,
            percent(r.test_score.accuracy),
            r.finished[:10],
            r.commit or "unknown",
            machine(r),
            duration(r.seconds),
        )
        for r in records
    ]
    return pd.DataFrame(rows, columns=["Run", "Key", "Test accuracy", "Finished", "Commit", "Machine", "Training"])


def differing(records_by_name: Mapping[str, Sequence[RunRecord]]) -> str:
    """Which systems' seeds were trained on different devices, or with other threads or precisions; else empty."""
    found = []
    for records in records_by_name.values():
        environments = [stretch.environment for record in records for stretch in record.stretches]
        kinds = {
            kind: sorted({str(getattr(e, kind)) for e in environments}) for kind in ("device", "threads", "precision")
        }
        if words := [f"{kind} ({' / '.join(values)})" for kind, values in kinds.items() if len(values) > 1]:
            found.append(f"{records[0].title}, in {' and '.join(words)}")
    return f"Seeds of one system that differ: {'; '.join(found)}." if found else ""


def description(record: RunRecord) -> str:
    """All that a record knows of its training, a line each."""
    r, data = record, record.data
    first, last = r.history[0], r.history[-1]
    scores = {"training": r.train_score, "validation": r.val_score, "test": r.test_score}
    lines = [
        f"{r.title} ({r.name}), seed {r.seed}, key {r.key}, profile {r.profile}, schema {r.schema}",
        f"finished    {r.finished}",
        f"data        {data.source}, fingerprint {data.fingerprint}, {data.n_train:,} training images",
        f"settings    {', '.join(f'{name}={value}' for name, value in r.recipe.items())}",
        f"network     {r.network or 'unknown'}, {r.parameters:,} parameters",
        f"weights     {r.weights or 'random'}",
        f"code        {', '.join(f'{part} {digest}' for part, digest in r.code.items()) or 'unknown'}",
        *map(_stretch, r.stretches),
        *map(_verification, r.verified),
        f"losses      {first.train_loss:.4f} in the first epoch, {last.train_loss:.4f} in the last ({last.epoch})",
    ]
    lines += [
        f"{name:<12}{percent(s.accuracy)} of {s.n:,} images, loss {s.loss:.4f}" for name, s in scores.items() if s
    ]
    return "\n".join(lines)


def _stretch(stretch: Stretch) -> str:
    e = stretch.environment
    return (
        f"epochs      {stretch.first} to {stretch.last} in {duration(stretch.seconds)}, "
        f"commit {stretch.commit or 'unknown'}\n"
        f"            {', '.join(filter(None, (e.device, e.extensions, counted(e.threads, 'thread'), e.precision)))}\n"
        f"            PyTorch {e.torch}, Python {e.python}, {e.system or 'system unknown'}"
    )


def _verification(stamp: Verification) -> str:
    how = "exactly" if stamp.exact else "within tolerance"
    commit = stamp.commit or "unknown"
    return f"verified    {stamp.day}: first epoch found again, {how}, by commit {commit} on {stamp.device}"
