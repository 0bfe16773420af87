"""The trainings of one profile on disk: which there are, and how to be rid of one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from labreport import paths
from labreport.evidence.tables import NONE, percent
from labreport.facts.recipes import KNOWN
from labreport.records.store import Store

_STEM = re.compile(r"(?P<name>.+)-seed(?P<seed>\d+)-(?P<key>[0-9a-f]{12})$")


def listed(profile: str) -> pd.DataFrame:
    """One's own trainings first, then those of the suite's recipes: finished, under way, or interrupted."""
    from labreport.training.owner import in_progress

    rows: list[tuple[str, int, str, int | str, str, str, str]] = [
        (r.name, r.seed, "finished", len(r.history), percent(r.test_score.accuracy), r.finished[:10], r.key)
        for r in Store(paths.records(profile)).all()
    ]
    for stem, match in _unfinished(profile):
        stage = in_progress(stem)
        state, epochs = ("under way", len(stage.history)) if stage else ("interrupted", NONE)
        rows.append((match["name"], int(match["seed"]), state, epochs, NONE, NONE, match["key"]))
    rows.sort(key=lambda row: (row[0] in KNOWN, row[:2]))
    return pd.DataFrame(rows, columns=["Recipe", "Seed", "State", "Epochs", "Test accuracy", "Finished", "Key"])


def _unfinished(profile: str) -> Iterator[tuple[Path, re.Match[str]]]:
    finished = {record.stem for record in Store(paths.records(profile)).all()}
    for path in sorted(paths.runs(profile).glob("*.checkpoint")):
        if (match := _STEM.match(path.stem)) and path.stem not in finished:
            yield path.with_suffix(""), match


def delete(profile: str, key: str) -> str:
    """Delete one training: its record, weights and checkpoint. Returns what was deleted.

    Raises:
        ValueError: there is no such training, it is under way, or it belongs to the reference run.
    """
    places = (paths.records(profile), paths.runs(profile))
    found = sorted(path for place in places for path in place.glob(f"*-seed*-{key}.*")) if key.isalnum() else []
    if not found:
        raise ValueError(f"no training of the profile {profile} has the key {key!r}; lab.runs() lists them")
    name = found[0].name.partition(".")[0]
    if profile == "paper" and name.partition("-seed")[0] in KNOWN:
        raise ValueError(f"{name} is of the suite's own recipe, and may be the reference run's; it is not deleted")
    paths.runs(profile).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(paths.runs(profile) / f"{name}.lock", timeout=0):
            # The record's JSON file first: without it the other files are no record.
            for path in sorted(found, key=lambda path: path.suffix != ".json"):
                path.unlink(missing_ok=True)
    except Timeout as error:
        raise ValueError(f"{name} is under way in another process; stop that one first") from error
    return f"{name} is deleted: {', '.join(path.suffix[1:] for path in found)}"
