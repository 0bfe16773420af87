"""A command that ends when it is asked to: at once, with its children, and saying from where it goes on.

Batch systems send SIGUSR1 before a time limit and SIGTERM at it. Nothing has to be unwound: every file is written whole
or not at all, and the last whole epoch's checkpoint is on disk.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from labreport import paths

UNFINISHED = 75  # EX_TEMPFAIL of sysexits.h: try again
STATUS: dict[int, int] = {signal.SIGTERM: UNFINISHED, signal.SIGINT: 130}
if hasattr(signal, "SIGUSR1"):
    STATUS[signal.SIGUSR1] = UNFINISHED

COMMAND = "LABREPORT_COMMAND"  # names the command that a training belongs to, in every process of it
PARENT = "LABREPORT_PARENT"  # the number of the process that this one is to end with
POLL = 0.5  # seconds between two looks at whether the parent is there

_ending = threading.Lock()


@contextmanager
def ends_when_asked() -> Iterator[None]:
    """Within it SIGTERM and SIGUSR1 end this process with status 75, SIGINT with 130, and its children in any case.

    So does the end of the parent, where `LABREPORT_PARENT` names it. For the main thread; on POSIX systems only.
    """
    if os.name != "posix":
        yield
        return
    own = os.environ.setdefault(COMMAND, name := uuid.uuid4().hex) == name
    if parent := os.environ.pop(PARENT, ""):  # popped, since it is not the parent of our children
        end_with(int(parent))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # Python runs handlers in the main thread only, which can be in one call of torch for many seconds. The number of a
    # signal is written to this pipe at once, and a thread waits at its other end.
    wakeup = signal.set_wakeup_fd(writer)
    heard = [number for number in STATUS if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda *_: None) for number in heard}
    threading.Thread(target=_listen, args=(reader,), daemon=True).start()
    try:
        yield
    finally:
        _ending.acquire()  # waits for the end, if that has begun: it made the trainings fail that end here
        _ending.release()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        if own:
            del os.environ[COMMAND]


def end_with(parent: int) -> None:
    """End this process, and its children, as soon as the process `parent` is no longer its parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        _end(UNFINISHED)

    threading.Thread(target=watch, daemon=True).start()


def end_children() -> None:
    """Kill every process that descends from this one."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _listen(reader: int) -> None:
    while numbers := os.read(reader, 64):
        for number in numbers:
            if number in STATUS:
                _end(STATUS[number])
    os.close(reader)  # the command has ended by itself


def _end(status: int) -> None:
    _ending.acquire()
    end_children()
    with suppress(OSError):  # nobody may be left to read it
        os.write(2, f"\nlabreport: {unfinished(os.environ.get(COMMAND, ''))}\n".encode())
    os._exit(status)


def unfinished(command: str) -> str:
    """The sentence that says where a command's trainings go on."""
    epochs = []
    for path in sorted((paths.home() / "runs").glob("*/*.progress.json")):
        with suppress(OSError, ValueError, KeyError):
            seen = json.loads(path.read_text())
            if seen["command"] == command:
                name, _, seed = path.name.partition(".")[0].rpartition("-")[0].rpartition("-seed")
                # A checkpoint is written before its epoch is told here.
                newer = path.with_name(path.name.replace(".progress.json", ".checkpoint"))
                told_next = newer.exists() and newer.stat().st_mtime_ns > path.stat().st_mtime_ns
                at, last = seen["done"] + told_next, seen["epochs"]
                place = f"epoch {at + 1} of {last}" if at < last else f"the end of epoch {last}"
                epochs.append(f"{place} ({name}, seed {seed})")
    return f"unfinished; the same command goes on from {', '.join(epochs) or 'where it stopped'}"
