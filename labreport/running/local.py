"""Several seeds of one recipe at once, a process each with one CPU thread.

At batch 10 a second thread gains a quarter at most, but a second process nearly doubles the images a second:
`python -m labreport bench --rows 'seeds-*'` measures it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labreport.facts.recipes import Recipe


def jobs_for(recipe: Recipe, device: str | None) -> int:
    """How many seeds to train at once: one a core where the batches are tiny and the device is the CPU, else one."""
    from labreport.training.device import TINY_BATCH, best_device

    on_cpu = (device or best_device().type) == "cpu"
    return os.cpu_count() or 1 if on_cpu and recipe.batch_size <= TINY_BATCH else 1


def train_side_by_side(
    recipe: str,
    seeds: Sequence[int],
    jobs: int,
    *,
    profile: str,
    data_dir: Path | str | None = None,
    device: str | None = None,
    threads: int = 1,
) -> int:
    """Train `seeds` of the suite's recipe of that name, `jobs` at a time; returns the first exit status that is not 0.

    The processes' lines go to this one's stderr. If this one is interrupted, they are ended; their checkpoints stay.
    """
    command = [sys.executable, "-m", "labreport", "train", recipe, "--threads", str(threads), "--profile", profile]
    for option, value in (("data", data_dir), ("device", device)):
        command += [f"--{option}", str(value)] if value else []
    processes: list[subprocess.Popen] = []

    def run(seed: int) -> int:
        with subprocess.Popen([*command, "--seeds", str(seed)], stderr=subprocess.PIPE, text=True) as process:
            processes.append(process)
            for line in process.stderr:  # a bar's states end in \r, which text mode reads as a line's end
                if line.strip():
                    print(line.rstrip(), file=sys.stderr, flush=True)
        return process.returncode

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return next((status for status in pool.map(run, seeds) if status), 0)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise
