"""One owner a run: a lock that dies with its process, and how far the owner has come for whoever waits."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from labreport.files import write_atomically, writing
from labreport.training.progress import Stage, Watch

POLL = 2.0  # seconds between two looks at a run that another process owns
WRITE = 5.0  # seconds between two writings of a stage


@contextmanager
def owned(stem: Path, start: Stage, watch: Watch) -> Iterator[Watch]:
    """Hold the run whose files begin with `stem`, once no other process does; while one does, `watch` is told of it.

    Yields a function that tells stages to `watch`, and writes those of this run down for whoever waits for it; others
    are of a training that this one stands on.

    Raises:
        StorageError: the lock's folder cannot be written.
    """
    lock = FileLock(stem.with_suffix(".lock"))
    state = stem.with_suffix(".progress.json")
    written: tuple[int, float] | None = None  # epochs and time of the last stage there

    def tell(stage: Stage) -> None:
        nonlocal written
        done = len(stage.history)
        turn = written is None or done != written[0] or time.monotonic() - written[1] >= WRITE
        if turn and stage.label == start.label:
            written = done, time.monotonic()
            command = os.environ.get("LABREPORT_COMMAND", "")  # labreport.running.signals reads it here, and the epochs
            seen = {"done": done, "epochs": stage.epochs, "command": command, "stage": dataclasses.asdict(stage)}
            write_atomically(state, json.dumps(seen).encode())
        watch(stage)

    wait = 0.0
    while not _acquired(lock, stem.parent, wait):
        watch(dataclasses.replace(in_progress(stem) or start, elsewhere=True))
        wait = POLL
    try:
        yield tell
    finally:
        state.unlink(missing_ok=True)
        lock.release()


def _acquired(lock: FileLock, folder: Path, wait: float) -> bool:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            return False
    return True


def in_progress(stem: Path) -> Stage | None:
    """How far another process is with that run, as far as it has said."""
    try:
        return Stage.of(json.loads(stem.with_suffix(".progress.json").read_bytes())["stage"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
