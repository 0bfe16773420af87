"""Processes to be killed: forked from one that has loaded torch and computed nothing, so that each starts at once."""

from __future__ import annotations

import ctypes
import dataclasses
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from labreport import files, paths
from labreport.facts.recipes import Recipe
from labreport.images.synthetic import synthetic
from labreport.records.record import RunRecord
from labreport.records.store import Store
from labreport.training.train import train

TINY = Recipe(
    name="tiny",
    model="fine_tuned",  # with dropout, so that a resumed run must get its randomness right
    epochs=3,
    batch_size=20,
    optimizer="adam",
    lr=1e-3,
    flip="random",
    translate=2,
)
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["faults.warm"])
TESTS = str(Path(__file__).parents[1])


def train_tiny(seed: int = 0) -> RunRecord:
    """The training that every fault meets: three epochs of a hundred drawn images, less than a second."""
    return train(TINY, synthetic(n_train=100, n_val=40, n_test=60), seed)


def result(home: Path) -> tuple:
    """All of the tiny training's record that must not depend on how often it was killed: bit for bit."""
    (record,) = Store(home / "figures" / "quick" / "records").all("tiny")
    arrays = [getattr(record.predictions, f.name).tobytes() for f in dataclasses.fields(record.predictions)]
    (weights,) = (home / "runs" / "quick").glob(f"{record.stem}.safetensors")
    history = [dataclasses.replace(row, seconds=0.0) for row in record.history]
    scores = record.train_score, record.val_score, record.test_score, record.untrained_val_loss
    return record.key, record.code, history, scores, arrays, weights.read_bytes()


def ensure_server() -> None:
    """See that the process that others are forked from is there and has found `faults.warm`."""
    with paths.variables(PYTHONPATH=os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))):
        forkserver.ensure_running()


def start(home: Path, function: Callable, *arguments, **environment: str) -> ForkServerProcess:
    """`function(*arguments)` in a process of its own with its files in `home` and what it says in `home`.log.

    Its exit status is what the function returns where that is a number, else 0; an error's is 1.
    """
    ensure_server()
    process = FORKS.Process(target=_run, args=(home, function, arguments, environment))
    process.start()
    return process


def ended(process: ForkServerProcess) -> int:
    """Its exit status, once it has ended; minus a signal's number."""
    process.join(120)
    assert process.exitcode is not None, "still running after two minutes"
    return process.exitcode


def _run(home: Path, function: Callable, arguments: tuple, environment: dict[str, str]) -> None:
    os.environ |= {"LABREPORT_HOME": str(home), "LABREPORT_OFFLINE": "1", "LABREPORT_PROFILE": "smoke", **environment}
    log = os.open(said(home), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    status = function(*arguments)
    sys.exit(status if isinstance(status, int) else 0)


def said(home: Path) -> Path:
    """The file of what the processes of this home have said."""
    return home.with_name(f"{home.name}.log")


def command(*words: str) -> int:
    """`python -m labreport` with these words."""
    from labreport.__main__ import main

    return main(list(words))


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far; infinite once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kill_after(process: ForkServerProcess, seconds: float) -> int:
    """SIGKILL once it has computed for so long, which other work on the machine does not change. Its exit status."""
    while process.is_alive() and cpu_seconds(process.pid) < seconds:
        time.sleep(0.001)
    process.kill()
    return ended(process)


# --- faults at an exact place, set up in the process that meets them


def killed_in_write(number: int, when: str, function: Callable) -> None:
    """Run `function` and die by SIGKILL in its write of that number: `half` of it written, or `before` or `after` the
    rename, or at its `end`, when the record is there and nothing was cleared up."""
    writes = [0]
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half(descriptor: int) -> None:
        writes[0] += 1
        if writes[0] == number and when == "half":
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        if writes[0] == number and when == "before":
            die()
        done = replace(path, target)
        if writes[0] == number and when == "after":
            die()
        return done

    def removed(path: Path, missing_ok: bool = False) -> None:
        if when == "end" and path.suffix == ".checkpoint":
            die()
        unlink(path, missing_ok)

    files.os.fsync, Path.replace, Path.unlink = half, renamed, removed
    function()


def disk_full_at(number: int, function: Callable) -> int:
    """Run `function` on a disk that is full at its write of that number, and has room again at the next."""
    writes, fsync = [0], os.fsync

    def fail(descriptor: int) -> None:
        writes[0] += 1
        if writes[0] == number:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    files.os.fsync = fail
    return function()


def limited(size: int, *words: str) -> int:
    """A command that may write no file of more than `size` bytes, as `ulimit -f` says."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return command(*words)


NO_MOUNT = 77  # exit status where this machine does not let a test mount


def mounted(options: str, function: Callable, *arguments) -> int:
    """Run `function` with its home in a file system of its own, which nobody else sees and which ends with it."""
    home = paths.home()
    home.mkdir(exist_ok=True)
    if ctypes.CDLL(None, use_errno=True).unshare(0x20000):  # CLONE_NEWNS
        return NO_MOUNT
    for words in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", options, "none", str(home)]):
        if subprocess.run(["mount", *words], capture_output=True, check=False).returncode:
            return NO_MOUNT
    return function(*arguments)


def remount(options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(paths.home())], check=True)
