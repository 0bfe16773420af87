"""Trainings on this machine, several at once: a process each, with one CPU thread where the batches are tiny.

At batch 10 a second thread gains a quarter at most, and nothing for compiled steps, but a second process nearly doubles
the images a second: `python -m labreport bench --rows 'seeds-*'` measures it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import torch

from labreport.cpus import available_cpus
from labreport.facts.recipes import Recipe
from labreport.networks.pretrained import named_weights
from labreport.records.record import DataInfo, RunRecord
from labreport.records.store import Store
from labreport.running.plan import NotTrained, Place, Training
from labreport.running.signals import PARENT
from labreport.training.device import TINY_BATCH, best_device
from labreport.training.identity import network_of
from labreport.training.train import find


def jobs_for(recipe: Recipe, device: str | None) -> int:
    """How many seeds to train at once: one a core where the batches are tiny and the device is the CPU, else one."""
    on_cpu = (device or best_device().type) == "cpu"
    return available_cpus() if on_cpu and recipe.batch_size <= TINY_BATCH else 1


@contextmanager
def this_machine(
    store: Store,
    info: DataInfo,
    profile: str,
    data_dir: Path | None = None,
    device: str | None = None,
    jobs: int | None = None,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Iterator[Place]:
    """This machine as a place for the suite's own recipes: all its CPUs; or all its GPUs, or the one that is named.

    The processes' lines go to `say`, by default to this one's stderr. If this one is interrupted, they are ended; their
    checkpoints stay.
    """
    device = device or best_device().type
    count = torch.cuda.device_count() if device == "cuda" else int(device.startswith("cuda"))
    at_once = max(jobs or 1, count or available_cpus())
    devices: SimpleQueue[str] = SimpleQueue()
    for number in range(at_once):
        devices.put(f"cuda:{number % count}" if device == "cuda" else device)
    processes: list[subprocess.Popen] = []

    def train(training: Training) -> RunRecord:
        free = devices.get()
        try:
            run(_command(training, profile, data_dir, free), processes, say)
        finally:
            devices.put(free)
        network = network_of(training.recipe, len(info.classes))
        weights = named_weights() if training.recipe.pretrained else None
        record = find(store, training.recipe, training.seed, info, network, weights)
        if record is None:
            raise NotTrained(f"its process ended well and left no record in {store.folder}")
        return record

    with ThreadPoolExecutor(at_once) as pool:
        try:
            yield Place(lambda training: pool.submit(train, training), available_cpus(), count, jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise


def _command(training: Training, profile: str, data_dir: Path | None, device: str) -> list[str]:
    command = [sys.executable, "-m", "labreport", "train", training.recipe.name, "--seeds", str(training.seed)]
    command += ["--profile", profile, "--device", device, "--threads", str(training.cpus)]
    return command + (["--data", str(data_dir)] if data_dir else [])


def run(command: list[str], processes: list[subprocess.Popen], say: Callable[[str], None]) -> None:
    """Run one command of labreport's, which ends when this process does; add its process to `processes`.

    Its lines go to `say`.

    Raises:
        NotTrained: it failed; the message is its last line.
    """
    last = "nothing was said"
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a key pressed at the terminal is for this process, which then ends that one
        env=os.environ | {PARENT: str(os.getpid())},
    ) as process:
        processes.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip():
                last = line.strip()
                say(last)
    if process.returncode:
        raise NotTrained(f"{last.removeprefix('labreport: ')} (exit status {process.returncode})")
