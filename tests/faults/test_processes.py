"""Commands asked to end, or killed, amid a training: how soon, with whom, and from where they go on.

One is started as a shell does it, and so is `make`; the others are forked from a process that has loaded torch. What
they start in turn, trainings side by side and kernels, are processes of their own.
"""

import os
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
from faults import processes
from nbformat.v4 import new_code_cell, new_notebook

from labreport import build_report, paths
from labreport.images import cifar10
from labreport.records.store import Store
from labreport.running.signals import ends_when_asked

WITHIN = 10  # seconds
WORDS = ("train", "fine_tuned", "--profile", "quick", "--device", "cpu")
# A third of the stand-in's images: an epoch takes seconds, and there are three.
SMALL = "cifar10.synthetic(n_train=2_500, n_val=100, n_test=100)"
TRAIN = f"""
import sys
from labreport.__main__ import main
from labreport.images import cifar10
data = {SMALL}
cifar10.synthetic = lambda: data
sys.exit(main(sys.argv[1:]))
"""


def train_small(*words: str) -> int:
    """What `TRAIN` does."""
    small = cifar10.synthetic(n_train=2_500, n_val=100, n_test=100)
    cifar10.synthetic = lambda: small
    return processes.command(*WORDS, *words)


def train_deaf() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return train_small()


def report_on(notebook: Path) -> None:
    with ends_when_asked():
        build_report("quick", device="cpu", notebooks=[notebook])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def start(tmp_path):
    """Start a command in its own session; what is left of it at the test's end is killed."""
    started = []

    def run(*command: str, **options) -> subprocess.Popen:
        log = (tmp_path / "log").open("w")
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **options)
        log.close()
        started.append(process)
        return process

    yield run
    for process in started:
        for one in family(process):
            one.kill()
        process.wait()


class Forked:
    """A function in a process that is forked, to be waited for and sent signals as one of `subprocess`."""

    def __init__(self, home: Path, function: Callable, *arguments):
        self._process = processes.start(home, function, *arguments)
        self.pid = self._process.pid

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = WITHIN) -> int:
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"still there after {seconds} s"
        return self._process.exitcode

    def end(self) -> None:
        for one in family(self):
            one.kill()
        self._process.join()


@pytest.fixture
def fork(home):
    """Fork a function; what is left of it at the test's end is killed."""
    started = []

    def run(function: Callable, *arguments) -> Forked:
        started.append(Forked(home, function, *arguments))
        return started[-1]

    yield run
    for process in started:
        process.end()


def family(process: subprocess.Popen | Forked) -> list[psutil.Process]:
    """The process and all that descend from it."""
    try:
        top = psutil.Process(process.pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def is_kernel(process: psutil.Process) -> bool:
    try:
        return "ipykernel" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # ended since it was found, or a zombie
        return False


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


def log(home: Path) -> str:
    """What all processes of this home have said, started or forked."""
    return "".join(path.read_text() for path in (home / "log", processes.said(home)) if path.exists())


def goes_on_from(text: str) -> dict[int, int]:
    """By seed, the epoch that the sentence names."""
    (sentence,) = re.findall("labreport: unfinished; the same command goes on from (.*)", text)
    return {int(seed): int(epoch) for epoch, seed in re.findall(r"epoch (\d+) of \d \(\w+, seed (\d+)\)", sentence)}


def whole_epochs() -> dict[int, int]:
    """By seed, the epochs that its checkpoint holds."""
    found = {int(re.search(r"seed(\d+)", path.name)[1]): path for path in checkpoints()}
    return {seed: len(torch.load(path, weights_only=True)["history"]) for seed, path in found.items()}


def all_in_the_campaign(*numbers: signal.Signals) -> list:
    """The first signal in `make test`, too."""
    return [numbers[0], *(pytest.param(number, marks=pytest.mark.campaign) for number in numbers[1:])]


@pytest.mark.parametrize("number", all_in_the_campaign(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
def test_a_training_ends_at_its_last_whole_epoch_and_goes_on_from_there(start, fork, home, number, fault):
    fault("a signal to a process with children")
    cold = number == signal.SIGTERM
    process = start(sys.executable, "-c", TRAIN, *WORDS) if cold else fork(train_small)
    until(checkpoints)
    process.send_signal(number)
    assert process.wait(WITHIN) == (130 if number == signal.SIGINT else 75)
    (epochs,) = whole_epochs().values()
    assert goes_on_from(log(home)) == {0: epochs + 1}
    assert fork(train_small).wait(240) == 0
    (record,) = Store(paths.records("quick")).all()
    assert [(stretch.first, stretch.last) for stretch in record.stretches] == [(1, epochs), (epochs + 1, 3)]
    assert not checkpoints()


@pytest.mark.parametrize("number", all_in_the_campaign(signal.SIGUSR1, signal.SIGKILL))
def test_trainings_side_by_side_end_with_their_parent(fork, home, number, fault):
    fault("a signal to a process with children")
    words = ("train", "baseline", "--profile", "quick", "--device", "cpu", "--seeds", "0", "1", "--jobs", "2")
    process = fork(processes.command, *words)
    until(lambda: len(checkpoints()) == 2)
    everyone = family(process)
    assert len(everyone) == 3
    process.send_signal(number)
    status = process.wait(WITHIN)
    assert left(everyone) == []
    if number != signal.SIGKILL:
        assert status == 75
        assert goes_on_from(log(home)) == {seed: n + 1 for seed, n in whole_epochs().items()}


def notebook(path):
    parameters = new_code_cell("profile = seed = data_dir = device = None", metadata={"tags": ["parameters"]})
    cell = new_code_cell(
        "from labreport import Lab\nfrom labreport.images import cifar10\n"
        f"lab = Lab.open(profile, seed, data_dir, device)\nlab.__dict__['data'] = {SMALL}\nlab.train('fine_tuned')"
    )
    nbformat.write(new_notebook(cells=[parameters, cell]), path)
    return path


@pytest.mark.parametrize("number", all_in_the_campaign(signal.SIGKILL, signal.SIGTERM))
def test_a_report_ends_with_its_kernel(fork, home, number, fault):
    fault("a signal to a process with children")
    process = fork(report_on, notebook(home / "01_one.ipynb"))
    until(checkpoints)
    everyone = family(process)
    assert any(map(is_kernel, everyone))
    process.send_signal(number)
    status = process.wait(WITHIN)
    assert left(everyone) == []
    if number != signal.SIGKILL:
        assert status == 75
        assert goes_on_from(log(home)) == {seed: n + 1 for seed, n in whole_epochs().items()}


@pytest.mark.parametrize("number", all_in_the_campaign(signal.SIGTERM, signal.SIGKILL))
def test_a_report_ends_with_make(start, home, number, fault):
    fault("a signal to a process with children")
    ready = home / "ready"
    ready.touch()  # instead of a new .venv
    variables = [f"READY={ready}", f"BIN={Path(sys.executable).parent}", "PROFILE=smoke", "DEVICE=cpu"]
    process = start("make", "report", *variables, cwd=paths.REPOSITORY)
    until(lambda: any(map(is_kernel, family(process))))
    everyone = family(process)
    process.send_signal(number)
    process.wait(WITHIN)
    assert left(everyone) == []
    assert "unfinished; the same command goes on from" in log(home)


def test_a_signal_that_the_shell_ignores_stays_ignored(fork, home, fault):
    """As in a script's `command &`, which the terminal's Ctrl-C is not meant for."""
    fault("a signal to a process with children")
    process = fork(train_deaf)
    until(checkpoints)
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 0
