"""Real commands asked to end, or killed, amid a training: how soon, with whom, and from where they go on."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from labreport import paths
from labreport.records.store import Store

WITHIN = 10  # seconds
TRAIN = [sys.executable, "-m", "labreport", "train", "fine_tuned", "--profile", "quick", "--device", "cpu"]
REPORT = """
import sys
from pathlib import Path
from labreport import build_report
from labreport.running.signals import ends_when_asked
if __name__ == "__main__":
    with ends_when_asked():
        build_report("quick", device="cpu", notebooks=[Path(sys.argv[1])])
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def start(tmp_path):
    """Start a command in its own session; what is left of it at the test's end is killed."""
    started = []

    def run(*command: str, on_interrupt=signal.default_int_handler, **options) -> subprocess.Popen:
        log = (tmp_path / "log").open("w")
        options |= {"preexec_fn": lambda: signal.signal(signal.SIGINT, on_interrupt), "start_new_session": True}
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        log.close()
        started.append(process)
        return process

    yield run
    for process in started:
        for one in family(process):
            one.kill()
        process.wait()


def family(process: subprocess.Popen) -> list[psutil.Process]:
    """The process and all that descend from it."""
    try:
        top = psutil.Process(process.pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to this"
        time.sleep(0.05)


def checkpoints() -> list:
    return sorted(paths.runs("quick").glob("*.checkpoint"))


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those but the first, our own child, that are still there after the time that they have."""
    return psutil.wait_procs(processes[1:], timeout=WITHIN)[1]


def goes_on_from(text: str) -> dict[int, int]:
    """By seed, the epoch that the sentence names."""
    (sentence,) = re.findall("labreport: unfinished; the same command goes on from (.*)", text)
    return {int(seed): int(epoch) for epoch, seed in re.findall(r"epoch (\d+) of 3 \(\w+, seed (\d+)\)", sentence)}


def whole_epochs() -> dict[int, int]:
    """By seed, the epochs that its checkpoint holds."""
    found = {int(re.search(r"seed(\d+)", path.name)[1]): path for path in checkpoints()}
    return {seed: len(torch.load(path, weights_only=True)["history"]) for seed, path in found.items()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_training_ends_at_its_last_whole_epoch_and_goes_on_from_there(start, home, number, fault):
    fault("a signal to a process with children")
    process = start(*TRAIN)
    until(checkpoints)
    process.send_signal(number)
    assert process.wait(WITHIN) == (130 if number == signal.SIGINT else 75)
    (epochs,) = whole_epochs().values()
    assert goes_on_from((home / "log").read_text()) == {0: epochs + 1}
    subprocess.run(TRAIN, check=True, capture_output=True)
    (record,) = Store(paths.records("quick")).all()
    assert [(stretch.first, stretch.last) for stretch in record.stretches] == [(1, epochs), (epochs + 1, 3)]
    assert not checkpoints()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_trainings_side_by_side_end_with_their_parent(start, home, number, fault):
    fault("a signal to a process with children")
    process = start(*TRAIN, "--seeds", "0", "1", "--jobs", "2")
    until(lambda: len(checkpoints()) == 2)
    everyone = family(process)
    assert len(everyone) == 3
    process.send_signal(number)
    status = process.wait(WITHIN)
    assert left(everyone) == []
    if number != signal.SIGKILL:
        assert status == 75
        assert goes_on_from((home / "log").read_text()) == {seed: n + 1 for seed, n in whole_epochs().items()}


def notebook(path):
    parameters = new_code_cell("profile = seed = data_dir = device = None", metadata={"tags": ["parameters"]})
    cell = new_code_cell("from labreport import Lab\nLab.open(profile, seed, data_dir, device).train('fine_tuned')")
    nbformat.write(new_notebook(cells=[parameters, cell]), path)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_report_ends_with_its_kernel(start, home, number, fault):
    fault("a signal to a process with children")
    (home / "report.py").write_text(REPORT)
    process = start(sys.executable, str(home / "report.py"), str(notebook(home / "01_one.ipynb")))
    until(checkpoints)
    everyone = family(process)
    assert any("ipykernel" in " ".join(one.cmdline()) for one in everyone)
    process.send_signal(number)
    status = process.wait(WITHIN)
    assert left(everyone) == []
    if number != signal.SIGKILL:
        assert status == 75
        assert goes_on_from((home / "log").read_text()) == {seed: n + 1 for seed, n in whole_epochs().items()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_report_ends_with_make(start, home, number, fault):
    fault("a signal to a process with children")
    ready = home / "ready"
    ready.touch()  # instead of a new .venv
    variables = [f"READY={ready}", f"BIN={Path(sys.executable).parent}", "PROFILE=smoke", "DEVICE=cpu"]
    process = start("make", "report", *variables, cwd=paths.REPOSITORY)
    until(lambda: any("ipykernel" in " ".join(one.cmdline()) for one in family(process)))
    everyone = family(process)
    process.send_signal(number)
    process.wait(WITHIN)
    assert left(everyone) == []
    assert "unfinished; the same command goes on from" in (home / "log").read_text()


def test_a_signal_that_the_shell_ignores_stays_ignored(start, home, fault):
    """As in a script's `command &`, which the terminal's Ctrl-C is not meant for."""
    fault("a signal to a process with children")
    process = start(*TRAIN, on_interrupt=signal.SIG_IGN)
    until(checkpoints)
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 0
