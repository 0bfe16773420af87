"""One owner a run: a lock that dies with its process, and how far the owner has come for whoever waits."""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from labreport.files import write_atomically, writing

POLL = 2.0  # seconds between two looks at a run that another process owns


@contextmanager
def owned(stem: Path, label: str) -> Iterator[Callable[[int, int], None]]:
    """Hold the run whose files begin with `stem`, once no other process does; a line says when that means waiting.

    Yields a function to tell (epochs done, epochs in all).

    Raises:
        StorageError: the lock's folder cannot be written.
    """
    state = stem.with_suffix(".progress.json")
    lock = FileLock(stem.with_suffix(".lock"))
    since = datetime.datetime.now().isoformat(sep=" ", timespec="minutes")

    def tell(done: int, epochs: int) -> None:
        command = os.environ.get("LABREPORT_COMMAND", "")  # of labreport.running.signals, which reads it here
        seen = {"since": since, "done": done, "epochs": epochs, "command": command}
        write_atomically(state, json.dumps(seen).encode())

    with writing(stem.parent):
        stem.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, state, label)
    try:
        yield tell
    finally:
        state.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, state: Path, label: str) -> None:
    told = ""
    while True:
        try:
            lock.acquire(timeout=POLL if told else 0)
            return
        except Timeout:
            text = in_progress(state)
            if text != told:
                print(f"{label}: {text}; waiting for it", file=sys.stderr, flush=True)
                told = text


def in_progress(state: Path) -> str:
    """What is known of a run that another process is at."""
    try:
        seen = json.loads(state.read_text())
        return f"in progress in another process since {seen['since']}, epoch {seen['done']}/{seen['epochs']}"
    except (OSError, ValueError, KeyError):
        return "in progress in another process, in its first epoch"
