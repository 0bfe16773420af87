"""The GPU's programme, rehearsed on the CPU: every step leaves its finding, and it stops in time with what it has."""

import json
import os
import tarfile

import pytest

from labreport.__main__ import main
from labreport.bench import gpu
from labreport.facts.recipes import RECIPES

FAST = ("fine_tuned", "baseline")


@pytest.fixture
def short(monkeypatch):
    """Two recipes for all, and no tests within the test."""
    monkeypatch.setattr(gpu, "REFERENCE", FAST)
    monkeypatch.setattr(gpu, "ABLATIONS", {})
    monkeypatch.setattr(gpu, "FOR_GPUS", {"fast96": RECIPES["fine_tuned"]})
    monkeypatch.setattr(gpu, "cuda_tests", lambda session: session.note("tests", "left out"))
    monkeypatch.setattr(
        gpu, "STEPS", (gpu.conditions, gpu.cuda_tests, gpu.graphs, gpu.fast96, gpu.branches, gpu.reference)
    )


def findings(folder):
    return json.loads((folder / "gpu.json").read_text())


def test_a_rehearsal_leaves_every_steps_finding_and_the_records(short, tmp_path, capsys):
    home = os.environ["LABREPORT_HOME"]
    assert main(["gpu", "--out", str(tmp_path / "out"), "--minutes", "5"]) == 0
    found = findings(tmp_path / "out")
    assert found["conditions"]["rehearsal"] is True
    assert "mean nothing" in capsys.readouterr().out
    for name in gpu.GRAPHED:
        assert found[f"graphs {name}"]["ratio"] > 0
    for name in FAST:
        assert found[f"in step {name}"]["seeds"] == 2
    assert {f"training {name}" for name in FAST} <= set(found)
    with tarfile.open(tmp_path / "out" / "records.tar.gz") as tar:
        names = tar.getnames()
    assert sorted(name.split("-seed")[0] for name in names if name.endswith(".json")) == sorted(2 * FAST)
    assert os.environ["LABREPORT_HOME"] == home


def test_what_does_not_fit_is_not_begun_and_what_was_found_is_kept(short, tmp_path):
    gpu.main(tmp_path, 0.0, None)
    assert findings(tmp_path) == {"archive": {"records": 0, "files": 1}}


def test_a_second_training_that_would_not_end_in_time_is_skipped(tmp_path, monkeypatch):
    session = gpu.Session(tmp_path, float("inf"), gpu.best_device(), None, rehearsal=False)
    session.findings["training fine_tuned"] = [{"seed": 0, "wall": 100.0}]
    session.deadline = gpu.time.monotonic() + 90
    monkeypatch.setattr(gpu, "train", lambda *_, **__: pytest.fail("begun"))
    gpu.trainings(session, RECIPES["fine_tuned"], 2, first=1)
    assert "from seed 1 on" in findings(tmp_path)["skipped fine_tuned"]
