"""slurm/report.sbatch on a real Slurm: ended by its time limit, queued again, resumed to its end; and cancelled."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from labreport import paths
from labreport.records.store import Store

# Trains four epochs, and in its first life stops for ever after the second.
CELL = """
import time
from pathlib import Path
from labreport import Lab
from labreport.training.train import train

def pause(run):
    if len(run.history) == 2 and not Path({paused!r}).exists():
        Path({paused!r}).touch()
        time.sleep(3600)

lab = Lab.open(profile, seed, data_dir, device)
train(lab.recipe("baseline"), lab.data, profile=lab.profile, device="cpu", on_epoch=pause)
"""


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def slurm_answers() -> bool:
    return bool(shutil.which("sbatch")) and subprocess.run(["scontrol", "ping"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not slurm_answers(), reason="no Slurm here")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one notebook, whose .venv is this interpreter's."""
    root = tmp_path / "checkout"
    shutil.copytree(paths.REPOSITORY / "labreport", root / "labreport", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(paths.REPOSITORY / "slurm", root / "slurm")
    for name in ("Makefile", "requirements.txt", "constraints.txt", "pyproject.toml"):
        shutil.copy(paths.REPOSITORY / name, root)
    (tmp_path / "ready").touch()
    monkeypatch.setenv("MAKEFLAGS", f"-- BIN={Path(sys.executable).parent} READY={tmp_path / 'ready'} DEVICE=cpu")
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("PROFILE", "quick")
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))
    parameters = new_code_cell("profile = seed = data_dir = device = None", metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[parameters, new_code_cell(CELL.format(paused=str(tmp_path / "paused")))])
    (root / "notebooks").mkdir()
    nbformat.write(notebook, root / "notebooks" / "01_one.ipynb")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def submit(checkout, tmp_path):
    jobs = []

    def run(*options: str) -> str:
        log = f"--output={tmp_path / 'log'}"
        jobs.append(output("sbatch", "--parsable", log, *options, "slurm/report.sbatch").strip())
        return jobs[-1]

    yield run
    for job in jobs:
        subprocess.run(["scancel", job], check=False)


def job_is(job: str, state: str, seconds: float = 600, **fields: str) -> dict[str, str]:
    """Wait until the job is in this state, with these fields, and give all of them."""
    end = time.monotonic() + seconds
    while True:
        seen = dict(re.findall(r"(\w+)=(\S*)", output("scontrol", "show", "job", job)))
        if seen["JobState"] == state and fields.items() <= seen.items():
            return seen
        assert time.monotonic() < end, seen
        time.sleep(0.5)


def until_paused(job: str, tmp_path: Path) -> None:
    """Wait until the job's training stands still after its second epoch."""
    while not (tmp_path / "paused").exists():
        assert "JobState=FAILED" not in output("scontrol", "show", "job", job), (tmp_path / "log").read_text()
        time.sleep(0.5)


def test_a_job_goes_on_after_its_time_limit_to_the_end(submit, tmp_path):
    job = submit("--time=60")
    until_paused(job, tmp_path)
    ran = output("squeue", "--noheader", "--format=%M", "--job", job).strip()  # minutes:seconds
    output("scontrol", "update", f"JobId={job}", f"TimeLimit={int(ran.split(':')[0]) + 3}")  # its signal is due soon
    job_is(job, "PENDING", Restarts="1")
    while "DUE TO JOB REQUEUE" not in (log := (tmp_path / "log").read_text()):  # the first life is over
        time.sleep(0.5)
    assert "labreport: unfinished; the same command goes on from epoch 3 of 4 (baseline, seed 0)" in log
    output("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=60")  # not two minutes later
    assert job_is(job, "COMPLETED")["ExitCode"] == "0:0", (tmp_path / "log").read_text()
    (record,) = Store(paths.records("quick")).all()
    assert [(stretch.first, stretch.last) for stretch in record.stretches] == [(1, 2), (3, 4)]
    assert (paths.figures("quick") / "report.pdf").exists()


def test_a_cancelled_job_ends_with_all_its_processes_and_stays_ended(submit, tmp_path):
    job = submit("--time=60")
    until_paused(job, tmp_path)
    output("scancel", job)
    assert job_is(job, "CANCELLED", seconds=30)["ExitCode"] == "75:0"
    assert "goes on from epoch 3 of 4 (baseline, seed 0)" in (tmp_path / "log").read_text()
    mine = [p for p in Path("/proc").glob("[0-9]*/environ") if str(tmp_path / "home").encode() in _read(p)]
    assert [p for p in mine if p.parent.name != str(os.getpid())] == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone meanwhile
        return b""
