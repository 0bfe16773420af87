"""Two processes at one run: one trains, the other waits, says so, and takes the finished record."""

import subprocess
import sys

import pytest

from labreport import paths
from labreport.records.store import Store
from labreport.training.owner import in_progress, owned
from labreport.training.progress import Stage

TRAINS = """
import sys, time, torch
torch.set_num_threads(1)
from labreport.facts.recipes import RECIPES, for_profile
from labreport.images.synthetic import synthetic
from labreport.training.train import train
print("ready", flush=True); sys.stdin.readline()
epochs = []
def slowly(run):
    epochs.append(len(run.history)); time.sleep(1)
record = train(for_profile(RECIPES["fine_tuned"], "quick"), synthetic(200, 50, 50), on_epoch=slowly)
print(len(epochs), record.key, flush=True)
"""


def test_a_second_process_waits_and_takes_the_first_ones_record(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pair = [subprocess.Popen([sys.executable, "-c", TRAINS], **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in pair] == ["ready\n"] * 2
    for process in pair:
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=120) for process in pair]
    trained = sorted(int(out.split()[0]) for out, _ in ended)
    assert trained == [0, 3]  # one of the two did all of it
    assert len({out.split()[1] for out, _ in ended}) == 1
    waited = "".join(err for _, err in ended)
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
