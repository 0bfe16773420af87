"""What a disk or an editor has spoilt is named and never believed, and never destroys what is good."""

import io
import json
import os
import pickle
import time

import numpy as np
import pytest
import torch
from faults.processes import TINY, ended, killed_in_write, result, said, start, train_tiny
from faults.test_kills import finish

from labreport import paths
from labreport.images.synthetic import synthetic
from labreport.records.doubts import KNOWN_LABELS
from labreport.records.record import SCHEMA
from labreport.records.store import Store
from labreport.training import train as training
from labreport.training.run import TrainingError

torch.set_num_threads(1)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(5_000))


def unit(path):
    torch.save((), path)


def unsafe(path):
    """What torch refuses with the advice to set weights_only=False, which would run the file's code."""
    buffer = io.BytesIO()
    torch.save({"code": Harmful()}, buffer)
    path.write_bytes(buffer.getvalue())


class Harmful:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    "damage", [cut, empty, garbage, unit, unsafe, pickle.dumps], ids=lambda damage: damage.__name__
)
def test_a_damaged_checkpoint_is_named_and_stays(tmp_path, home, unbroken, fault, damage):
    """Nothing of torch's own advice, not even in the traceback; moved away, the run is trained from its start."""
    assert ended(start(home, killed_in_write, 4, "half", train_tiny)) == -9
    (checkpoint,) = (home / "runs" / "quick").glob("*.checkpoint")
    fault(damage.__name__)
    checkpoint.write_bytes(pickle.dumps({"a": 1})) if damage is pickle.dumps else damage(checkpoint)
    left = checkpoint.read_bytes()
    with pytest.raises(TrainingError, match="damaged, or not a checkpoint of this run; move it away") as told:
        train_tiny()
    assert told.value.__cause__ is None and told.value.__suppress_context__
    assert "weights_only" not in str(told.value) and "delete" not in str(told.value)
    assert checkpoint.read_bytes() == left
    checkpoint.unlink()
    assert finish(home) == unbroken[0]


def newer(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": SCHEMA + 1}))


RECORDS = {
    "cut": (cut, ".json"),
    "empty": (empty, ".json"),
    "garbage": (garbage, ".json"),
    "newer": (newer, ".json"),
    "cut predictions": (cut, ".npz"),
    "empty predictions": (empty, ".npz"),
    "flipped predictions": (flipped, ".npz"),
}


@pytest.mark.parametrize("damage", RECORDS)
def test_a_damaged_record_is_trained_again_and_kept(home, unbroken, fault, capsys, damage):
    train_tiny()
    (path,) = (home / "figures" / "quick" / "records").glob("*.json")
    spoil, suffix = RECORDS[damage]
    fault(f"record: {damage}")
    spoil(path.with_suffix(suffix))
    left = path.with_suffix(suffix).read_bytes()
    (sentence,) = Store(path.parent).scan().left_out
    assert str(path) in sentence and "delete" not in sentence
    capsys.readouterr()
    train_tiny()
    assert "is kept as" in capsys.readouterr().err
    assert result(home) == unbroken[0]
    assert path.with_name(f"{path.stem}{suffix}.left-out").read_bytes() == left


@pytest.mark.parametrize("spoil", [cut, empty, lambda path: path.unlink()], ids=["cut", "empty", "gone"])
def test_damaged_weights_lose_no_record(home, fault, spoil):
    """A recipe that needs them says so in a sentence; the record stays."""
    from labreport.facts.recipes import RECIPES, for_profile

    data = synthetic(n_train=100, n_val=40, n_test=60)
    backbone = training.train(for_profile(RECIPES["deep_cnn"], "smoke"), data, profile="smoke")
    (weights,) = (home / "runs" / "smoke").glob("*.safetensors")
    fault("weights")
    spoil(weights)
    with pytest.raises(TrainingError, match=r"needs the weights of .* restore that file, or move"):
        training.train(for_profile(RECIPES["dnn_softmax"], "smoke"), data, profile="smoke")
    assert Store(paths.records("smoke")).all() == [backbone]


def edited(path, change):
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def other_seed(path):
    """Another seed's JSON under this name."""
    train_tiny(1)
    (other,) = path.parent.glob("tiny-seed1-*.json")
    path.write_text(other.read_text())
    other.unlink()


def other_predictions(path):
    train_tiny(1)
    (other,) = path.parent.glob("tiny-seed1-*.npz")
    path.with_suffix(".npz").write_bytes(other.read_bytes())
    other.with_suffix(".json").unlink()


def other_labels(path):
    """Two labels exchanged, and the scores made to agree: only the data can tell."""
    with np.load(path.with_suffix(".npz")) as archive:
        arrays = dict(archive)
    labels = arrays["labels"]
    second = int(np.flatnonzero(labels != labels[0])[0])
    labels[[0, second]] = labels[[second, 0]]
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    said = arrays["log_probabilities"]
    nll = -said[np.arange(len(labels)), labels].astype(np.float32)
    score = {
        "loss": float(nll.mean(dtype=float)),
        "accuracy": float((said.argmax(1) == labels).mean()),
        "n": len(labels),
    }
    edited(path, lambda raw: raw.update(test_score=score))


LIES = {
    "accuracy": lambda path: edited(path, lambda raw: raw["test_score"].update(accuracy=0.99)),
    "validation accuracy": lambda path: edited(path, lambda raw: raw["val_score"].update(accuracy=0.99)),
    "a null score": lambda path: edited(path, lambda raw: raw["test_score"].update(loss=None)),
    "a null number": lambda path: edited(path, lambda raw: raw.update(parameters=None)),
    "a number as text": lambda path: edited(path, lambda raw: raw.update(seconds="1.5")),
    "not a number": lambda path: edited(path, lambda raw: raw["history"][0].update(train_loss=float("nan"))),
    "an unknown data source": lambda path: edited(path, lambda raw: raw["data"].update(source="a friend")),
    "a shorter history": lambda path: edited(path, lambda raw: raw["history"].pop()),
    "faster epochs": lambda path: edited(path, lambda raw: raw["history"][0].update(seconds=1e-3)),
    "another recipe's name": lambda path: edited(path, lambda raw: raw.update(name="baseline")),
    "another seed's record": other_seed,
    "another run's predictions": other_predictions,
    "other labels": other_labels,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_cannot_be_true_is_not_believed(home, fault, lie):
    train_tiny()
    data = synthetic(n_train=100, n_val=40, n_test=60)
    store = Store(paths.records("quick"), {data.info.fingerprint: data.test.labels.numpy()})
    (path,) = store.folder.glob("*.json")
    fault(f"record: {lie}")
    LIES[lie](path)
    scan = store.scan()
    assert scan.records == []
    assert str(path) in scan.left_out[0] and "left out" in scan.left_out[0]


def test_the_official_labels_are_known():
    """The digest against the labels of the official files, where these are."""
    from labreport.images.cifar10 import load
    from labreport.images.splits import DataError

    folder = os.environ.get("CIFAR10") or paths.REPOSITORY / "data"
    try:
        info = load(paths.Path(folder), download=False)
    except DataError:
        pytest.skip("CIFAR-10 is not at hand; CIFAR10= names its folder")
    from hashlib import sha256

    digest = sha256(info.test.labels.numpy().astype(np.uint8).tobytes()).hexdigest()[:16]
    assert KNOWN_LABELS[info.info.fingerprint] == digest


def test_leftovers_of_a_killed_write_go_at_the_next_write(home, fault):
    fault("SIGKILL in a write")
    assert ended(start(home, killed_in_write, 3, "half", train_tiny)) == -9, said(home).read_text()
    (partial,) = home.rglob(".*.partial")
    os.utime(partial, (time.time() - 120,) * 2)
    train_tiny()
    assert not list(home.rglob(".*.partial"))
    assert TINY.name in {record.name for record in Store(paths.records("quick")).all()}
