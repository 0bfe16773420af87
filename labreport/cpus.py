"""How many processors this process may use: on a shared machine not those that the machine has."""

from __future__ import annotations

import os
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """The least of affinity, the control group's quota and Slurm's `SLURM_CPUS_PER_TASK`; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    limits = (affinity, int(task) if task.isdigit() else affinity, *_quotas(root))
    return max(int(min(limits)), 1)


def _quotas(root: Path) -> list[float]:
    """Processors' worth of time that control groups allow, of version 1 and 2: of ours and of those that hold it."""
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for inner in (group, *group.parents):
            if controllers:
                folder = root / "sys/fs/cgroup/cpu" / inner
                text = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
            else:
                text = _read(root / "sys/fs/cgroup" / inner / "cpu.max")
            quota, _, period = text.strip().partition(" ")
            if quota.isdigit() and period.strip().isdigit():
                found.append(int(quota) / int(period))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
