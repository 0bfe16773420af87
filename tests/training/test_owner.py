"""Two processes at one run: one trains, the other waits, says so, and takes the finished record."""

import time
from pathlib import Path

import pytest
from faults import processes

from labreport import paths
from labreport.facts.recipes import RECIPES, for_profile
from labreport.images.synthetic import synthetic
from labreport.records.store import Store
from labreport.training.owner import in_progress, owned
from labreport.training.progress import Stage
from labreport.training.train import train


def train_slowly(home: Path, name: str) -> None:
    """Train once the other is there, too, and write down how many epochs this process did, and of which run."""
    (home / f"{name} is here").touch()
    while len(list(home.glob("* is here"))) < 2:
        time.sleep(0.01)
    epochs = []

    def slowly(run):
        epochs.append(len(run.history))
        time.sleep(1)

    record = train(for_profile(RECIPES["fine_tuned"], "quick"), synthetic(200, 50, 50), on_epoch=slowly)
    (home / f"{name} has ended").write_text(f"{len(epochs)} {record.key}")


def test_a_second_process_waits_and_takes_the_first_ones_record(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("LABREPORT_HOME", str(home))
    pair = [processes.start(home, train_slowly, home, name) for name in ("one", "other")]
    assert [processes.ended(process) for process in pair] == [0, 0], processes.said(home).read_text()
    found = [path.read_text().split() for path in home.glob("* has ended")]
    assert sorted(int(epochs) for epochs, _ in found) == [0, 3]  # one of the two did all of it
    assert len({key for _, key in found}) == 1
    waited = processes.said(home).read_text()
    assert "in progress in another process" in waited and "waiting for it" in waited
    assert len(Store(paths.records("quick")).all()) == 1


STAGE = Stage("A run", 3, 300, 45_000, since="2026-01-01 00:00", seen=900, rate=45.5, left=12.0, running=((0.5, 2.3),))


def test_a_waiting_process_is_told_how_far_the_owner_is(tmp_path):
    here = []
    with owned(tmp_path / "run", STAGE, here.append) as tell:
        tell(STAGE)
        assert in_progress(tmp_path / "run") == STAGE
    assert here == [STAGE]
    assert in_progress(tmp_path / "run") is None


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"stage": {"history": 1}}', b'{"stage": {}}', b'{"stage": []}'])
def test_a_stage_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "run.progress.json").write_bytes(text)
    assert in_progress(tmp_path / "run") is None


def test_a_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), owned(tmp_path / "run", STAGE, print):
        raise RuntimeError
    with owned(tmp_path / "run", STAGE, print):
        pass
