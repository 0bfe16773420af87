"""The processors that count are those that this process may use."""

import os
import subprocess
import sys

import pytest

from labreport.cpus import available_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_without_limits_it_is_the_affinity(tmp_path):
    assert available_cpus(tmp_path) == 8


@pytest.mark.parametrize(
    ("quota", "cpus"), [("150000 100000", 1), ("400000 100000", 4), ("max 100000", 8), ("5000 100000", 1)]
)
def test_a_quota_of_control_groups_version_2(tmp_path, quota, cpus):
    write(tmp_path, proc__self__cgroup="0::/pod/job\n", sys__fs__cgroup__pod__cpu_dot_max=f"{quota}\n")
    write(tmp_path, sys__fs__cgroup__pod__job__cpu_dot_max="max 100000\n")
    assert available_cpus(tmp_path) == cpus


def test_a_quota_of_control_groups_version_1(tmp_path):
    write(tmp_path, proc__self__cgroup="3:cpu,cpuacct:/job\n2:memory:/job\n")
    for name, text in {"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"}.items():
        folder = tmp_path / "sys/fs/cgroup/cpu/job"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert available_cpus(tmp_path) == 2


def test_slurms_share_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert available_cpus(tmp_path) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="taskset is Linux's")
def test_affinity_is_seen_by_a_new_process():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code += "; from labreport.cpus import available_cpus; print(available_cpus())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1"
