"""Real trainings on a Ray cluster of two nodes on this machine, one of which goes away."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from labreport import paths
from labreport.facts.recipes import RECIPES, for_profile
from labreport.images.cifar10 import synthetic
from labreport.records.store import Store
from labreport.training.run import DeviceSplit
from labreport.training.train import train

pytest.importorskip("ray", reason="Ray is not installed (pip install -e '.[cluster]')")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

from ray.cluster_utils import Cluster  # noqa: E402
from training.test_train import TINY, same  # noqa: E402

from labreport.running import ray as on_ray  # noqa: E402
from labreport.running.plan import Training  # noqa: E402

EPOCHS = for_profile(RECIPES["baseline"], "quick").epochs
COMMAND = [sys.executable, "-m", "labreport", "train", "--on", "ray"]
BASELINES = [*COMMAND, "baseline", "--profile", "quick", "--seeds", "0", "1"]


def node() -> dict:
    """What a node of one CPU is started with; its agents' ports are chosen here, since Ray is slow at that."""
    names = ("metrics_export_port", "metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: one.getsockname()[1] for name, one in zip(names, sockets, strict=True)}
    for one in sockets:
        one.close()
    return {"num_cpus": 1, "object_store_memory": 100_000_000, **ports}


@pytest.fixture(scope="module")
def cluster():
    made = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **node()})
    yield made
    made.shutdown()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def driver(cluster, monkeypatch):
    """Start a command that finds the cluster, and see that it does not outlive the test."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    started = []

    def run(command: list[str]) -> subprocess.Popen:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def until(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to this"
        time.sleep(0.05)


def checkpoints() -> list[Path]:
    return sorted(paths.runs("quick").glob("*.checkpoint"))


def test_a_node_that_goes_away_costs_a_retry_and_no_result(cluster, driver):
    second = cluster.add_node(**node())
    process = driver(BASELINES)
    until(lambda: len(checkpoints()) == 2)  # one on each node
    cluster.remove_node(second, allow_graceful=False)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    records = Store(paths.records("quick")).all("baseline")
    assert [record.seed for record in records] == [0, 1]
    assert sum("baseline, seed" in line for line in said.splitlines()) == 2, said
    stretches = sorted([(s.first, s.last) for s in record.stretches] for record in records)
    assert stretches[1] == [(1, EPOCHS)]  # undisturbed
    assert [first for first, _ in stretches[0]] == [1, stretches[0][0][1] + 1]  # went on from its checkpoint
    assert not list(paths.runs("quick").glob("*.token"))


def test_all_that_is_missing_is_trained_and_what_cannot_be_is_told(driver, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))  # no pretrained weights
    monkeypatch.delenv("LABREPORT_WEIGHTS", raising=False)
    said, _ = driver([*COMMAND, "--all", "--profile", "smoke"]).communicate(timeout=400)
    lines = [line for line in said.splitlines() if line.startswith("[")]
    assert len(lines) == 8, said
    (problem,) = [line for line in lines if "not trained" in line]
    assert "resnet18_pretrained, seed 0: not trained; resnet18-f37072fd.pth is not in torch's cache" in problem
    names = {record.name for record in Store(paths.records("smoke")).all()}
    assert len(names) == 7 and {"deep_cnn", "dnn_softmax"} <= names


def test_a_driver_that_is_asked_to_end_ends_its_trainings_and_goes_on_later(driver):
    process = driver(BASELINES[:-1])
    until(checkpoints)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 75
    epochs = len(torch.load(checkpoints()[0], weights_only=True)["history"])
    assert f"goes on from epoch {epochs + 1} of {EPOCHS} (baseline, seed 0)" in said
    mine = psutil.Process().children(recursive=True)
    busy = [p for p in mine if "baseline" in " ".join(p.cmdline())]  # Ray shows a task's name there
    assert psutil.wait_procs(busy, timeout=10)[1] == []
    said, _ = driver(BASELINES[:-1]).communicate(timeout=300)
    (record,) = Store(paths.records("quick")).all()
    assert [(s.first, s.last) for s in record.stretches] == [(1, epochs), (epochs + 1, EPOCHS)], said


def test_images_are_read_where_they_lie(home):
    data = synthetic(n_train=50, n_val=20, n_test=20)
    arrays = on_ray.packed(data)
    for array in arrays.values():
        array.setflags(write=False)  # as in Ray's object store
    again = on_ray.unpacked(data.info, arrays)
    on_device = DeviceSplit.of(again.train, torch.device("cpu"))
    assert on_device.inputs.data_ptr() == arrays["train_images"].ctypes.data
    assert on_device.labels.data_ptr() == arrays["train_labels"].ctypes.data
    torch.testing.assert_close(again.test.images, data.test.images)


def test_a_node_that_does_not_see_the_driver_s_folders_sends_all_of_it_back(home, monkeypatch, tmp_path):
    """As on another machine: nothing is written here but what comes back, and it is what a training here gives."""
    data = synthetic(n_train=100, n_val=40, n_test=60)
    elsewhere = on_ray.Home(tmp_path / "not" / "here", tmp_path / "no.token", {})
    trained = on_ray.train_on_node(Training(TINY, 3, 1), data.info, "quick", elsewhere, None, **on_ray.packed(data))
    assert os.environ["LABREPORT_HOME"] != str(home)
    monkeypatch.setenv("LABREPORT_HOME", str(home))
    assert not list(home.rglob("*.safetensors"))
    on_ray.keep(trained, Store(paths.records("quick")), "quick")
    (stored,) = Store(paths.records("quick")).all()
    (weights,) = paths.runs("quick").glob("*.safetensors")
    monkeypatch.setenv("LABREPORT_HOME", str(home / "here"))
    torch.set_num_threads(1)
    same(stored, train(TINY, data, 3, device="cpu"))
    np.testing.assert_equal(weights.read_bytes(), (paths.runs("quick") / weights.name).read_bytes())
