"""SIGKILL at any moment of a training: what is there is whole, and the same call ends with the unbroken result."""

import os
import random
import signal
import time

from faults.processes import (
    TINY,
    command,
    cpu_seconds,
    ended,
    kill_after,
    killed_in_write,
    result,
    said,
    start,
    train_tiny,
)

from labreport import paths
from labreport.images.synthetic import synthetic
from labreport.records.store import Store
from labreport.training import train as training
from labreport.training.identity import network_of

WRITES = (
    10  # of the tiny training: first progress, checkpoint and progress of three epochs, weights, predictions, record
)
PLACES = [(number, when) for number in range(1, WRITES + 1) for when in ("half", "before", "after")] + [(WRITES, "end")]


def pytest_generate_tests(metafunc):
    """A few faults, or with --campaign many."""
    many = metafunc.config.getoption("--campaign")
    if "trial" in metafunc.fixturenames:
        metafunc.parametrize("trial", range(24 if many else 3))
    if "place" in metafunc.fixturenames:
        metafunc.parametrize("place", PLACES if many else PLACES[::4], ids=lambda place: f"{place[1]} {place[0]}")


def finish(home):
    """Go on to the end, and what that gives; nothing of the training is left but what belongs there."""
    assert ended(start(home, train_tiny)) == 0, said(home).read_text()
    kept = {path.suffix for path in (home / "runs" / "quick").iterdir() if path.suffix != ".partial"}
    assert kept == {".safetensors", ".lock"}
    return result(home)


def test_killed_at_a_random_moment(tmp_path, unbroken, fault, trial):
    """Twice, as the second kill may meet what the first one left."""
    expected, seconds = unbroken
    home, moments = tmp_path / "home", random.Random(trial)
    for _ in range(2):
        process = start(home, train_tiny)
        began = min(cpu_seconds(process.pid), seconds)
        fault("SIGKILL")
        assert kill_after(process, began + moments.uniform(0, seconds)) in (-signal.SIGKILL, 0)
    assert finish(home) == expected


def test_killed_in_a_write(tmp_path, unbroken, fault, place):
    home = tmp_path / "home"
    fault(f"SIGKILL {place[1]} write {place[0]}")
    assert ended(start(home, killed_in_write, *place, train_tiny)) == -signal.SIGKILL, said(home).read_text()
    assert finish(home) == unbroken[0]


def test_a_checkpoint_left_beside_a_record_goes_when_the_record_is_looked_up(tmp_path, fault, monkeypatch):
    """Killed between record and clean-up: a notebook that finds the record does not train, and clears up."""
    home = tmp_path / "home"
    fault("SIGKILL before the clean-up")
    assert ended(start(home, killed_in_write, WRITES, "end", train_tiny)) == -signal.SIGKILL
    assert list((home / "runs" / "quick").glob("*.checkpoint"))
    assert ended(start(home, look_up)) == 0, said(home).read_text()
    assert not list((home / "runs" / "quick").glob("*.checkpoint"))


def look_up() -> None:
    """As a notebook does that shows stored records."""
    data = synthetic(n_train=100, n_val=40, n_test=60)
    assert training.find(Store(paths.records("quick")), TINY, 0, data.info, network_of(TINY))


def test_interrupted_by_the_keyboard(tmp_path, fault):
    """Ctrl-C: the sentence that says how to go on, and then the same command does."""
    home = tmp_path / "home"
    words = ("train", "fine_tuned", "--seeds", "0", "1", "2")
    process = start(home, command, *words)
    while process.is_alive() and not list(home.glob("figures/smoke/records/*.json")):
        time.sleep(0.001)
    fault("SIGINT")
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == 130
    assert "the same command goes on from" in said(home).read_text().splitlines()[-1]
    assert ended(start(home, command, *words)) == 0
    assert len(list(home.glob("figures/smoke/records/*.json"))) == 3
