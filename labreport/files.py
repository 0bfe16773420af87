"""Writing files so that a reader finds the old one or the new one, never half of one."""

from __future__ import annotations

import os
import platform
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_PARTIAL = re.compile(r"\.(?P<host>[^ ]+)\.(?P<pid>\d+)\.[0-9a-f]{12}\.partial$")


class StorageError(RuntimeError):
    """Something cannot be written; the message names the file, the reason and the way out."""


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Say in one sentence what stands in the way of writing to `place`.

    Raises:
        StorageError: the disk is full, a limit on file sizes is reached, or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{place}: cannot be written ({error.strerror or error}); make room there, or name a folder that can be "
            "written with LABREPORT_HOME; what was there before is unchanged"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, then rename. The temporary name is this process's alone, on whatever machine it runs.

    What killed writers have left in the folder is removed along the way.

    Raises:
        StorageError: as `writing`; what was at `path` before is untouched.
    """
    partial = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:12]}.partial")
    with writing(path):
        clear_leftovers(path.parent)  # first: it may make the room that is wanted
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # else a machine that stops may keep the new name and not the content
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def clear_leftovers(folder: Path, minutes: float = 1.0) -> None:
    """Remove what writers that were killed have left in `folder`: of dead processes, and after a day of other machines.

    A minute's grace, since a process number of another container on this machine may not be known here.
    """
    for partial in folder.glob(".*.partial"):
        try:
            found = _PARTIAL.search(partial.name)
            abandoned = (
                found is not None and found["host"].endswith(f".{_host()}") and not psutil.pid_exists(int(found["pid"]))
            )
            if time.time() - partial.stat().st_mtime > (60 * minutes if abandoned else 86_400):
                partial.unlink()
        except OSError:  # gone already, or not ours to remove
            continue


def _host() -> str:
    return re.sub(r"[^\w-]", "-", platform.node()) or "unnamed"
