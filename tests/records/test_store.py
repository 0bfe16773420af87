"""A record survives the disk; one that cannot be read or believed is left out by name, and an older one is read."""

import dataclasses
import json

import numpy as np
import pytest
from fake_records import make_record

from labreport.facts.recipes import RECIPES
from labreport.records.record import SCHEMA, Predictions, run_key
from labreport.records.store import Store


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(tmp_path):
    store, record = Store(tmp_path), make_record()
    store.save(record)
    (loaded,) = store.runs("baseline", record.recipe, 0, record.data.fingerprint)
    assert loaded == record
    for field in dataclasses.fields(Predictions):
        kept, was = (getattr(r.predictions, field.name) for r in (loaded, record))
        np.testing.assert_array_equal(kept, was)
        assert kept.dtype == was.dtype


def test_class_confidence_and_loss_follow_from_the_log_probabilities():
    said = make_record().predictions
    np.testing.assert_array_equal(said.predicted, [0, 1, 2, 0])
    np.testing.assert_allclose(said.confidence, [0.9, 0.8, 0.7, 0.5], rtol=1e-3)
    np.testing.assert_allclose(said.nll[:3], -np.log([0.9, 0.8, 0.7]), rtol=1e-2)
    assert said.score().accuracy == 0.75


def test_only_the_very_same_settings_seed_and_data_are_found(tmp_path):
    store, record = Store(tmp_path), make_record()
    store.save(record)
    assert store.runs("baseline", {**record.recipe, "lr": 0.2}, 0, record.data.fingerprint) == []
    assert store.runs("baseline", record.recipe, 1, record.data.fingerprint) == []
    assert store.runs("baseline", record.recipe, 0, "f" * 16) == []


def test_the_key_knows_the_network_and_the_weights_and_not_the_networks_name():
    settings = RECIPES["baseline"].settings()
    key = run_key(settings, "net", "", "data", 0)
    assert key == run_key({**settings, "model": "renamed"}, "net", "", "data", 0)
    others = {
        run_key(settings, *other) for other in (("n", "", "data", 0), ("net", "w", "data", 0), ("net", "", "d", 0))
    }
    assert len(others | {key}) == 4


DAMAGES = {
    "cut json": lambda path: path.write_text(path.read_text()[:100]),
    "empty json": lambda path: path.write_text(""),
    "not an object": lambda path: path.write_text("[]"),
    "null score": lambda path: edited(path, test_score=None),
    "null history": lambda path: edited(path, history=None),
    "unknown field": lambda path: edited(path, sekunden=1.0),
    "cut npz": lambda path: path.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes()[:100]),
    "empty npz": lambda path: path.with_suffix(".npz").write_bytes(b""),
    "no npz": lambda path: path.with_suffix(".npz").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_left_out_and_named_and_the_others_are_read(tmp_path, damage):
    store = Store(tmp_path)
    path = store.save(make_record())
    store.save(make_record(1, key=run_key(make_record().recipe, "net", "", "0123456789abcdef", 1)))
    DAMAGES[damage](path)
    scan = store.scan()
    assert [record.seed for record in scan.records] == [1]
    (sentence,) = scan.left_out
    assert str(path) in sentence and "left out" in sentence and "delete" not in sentence


def test_a_record_of_a_newer_version_is_named_as_such(tmp_path):
    path = Store(tmp_path).save(make_record())
    edited(path, schema=SCHEMA + 1, something_new=True)
    (sentence,) = Store(tmp_path).scan().left_out
    assert "newer version" in sentence and f"schema {SCHEMA + 1}" in sentence


def swap_arrays(store, path):
    other = store.save(make_record(1, key=run_key(make_record().recipe, "net", "", "0123456789abcdef", 1)))
    path.with_suffix(".npz").write_bytes(other.with_suffix(".npz").read_bytes())
    other.unlink()


def rename(store, path):
    for file in (path, path.with_suffix(".npz")):
        file.rename(file.with_stem(file.stem.replace("seed0", "seed7")))


LIES = {
    "accuracy": lambda store, path: edited(path, test_score={"loss": 0.1, "accuracy": 0.99, "n": 4}),
    "seed": lambda store, path: edited(path, seed=5),
    "settings": lambda store, path: edited(path, recipe={"name": "baseline", "epochs": 1}),
    "network": lambda store, path: edited(path, network="another"),
    "arrays of another run": swap_arrays,
    "name": lambda store, path: [
        p.rename(p.with_stem(p.stem.replace("seed0", "seed7"))) for p in (path, path.with_suffix(".npz"))
    ],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_contradicts_itself_is_left_out(tmp_path, lie):
    store = Store(tmp_path)
    LIES[lie](store, store.save(make_record()))
    scan = store.scan()
    assert scan.records == []
    assert "cannot be believed" in scan.left_out[0]


def test_a_record_of_the_first_schema_is_read(tmp_path):
    """As version 1.0.0 wrote it: the answer, its confidence and the true class's loss of each image."""
    path = Store(tmp_path).save(make_record())
    raw = json.loads(path.read_text())
    for name in ("schema", "network", "weights", "code", "stretches", "verified"):
        del raw[name]
    raw |= {"environment": {"python": "3.11", "torch": "2.0", "device": "CPU", "threads": 1, "precision": "fp32"}}
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    nll = np.append(-np.log(confidence[:3]), 1.5)
    raw["test_score"] = {"loss": nll.mean(), "accuracy": 0.75, "n": 4}
    path.write_text(json.dumps(raw))
    said = make_record().predictions
    arrays = {
        "labels": said.labels,
        "predicted": np.array([0, 1, 2, 0], np.uint8),
        "confidence": confidence.astype(np.float32),
        "nll": nll.astype(np.float32),
        "example_indices": said.example_indices,
        "example_images": said.example_images,
        "first_kernels": said.first_kernels,
    }
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    (record,) = Store(tmp_path).all()
    np.testing.assert_array_equal(record.predictions.predicted, [0, 1, 2, 0])
    np.testing.assert_allclose(record.predictions.nll, nll, rtol=1e-6)
    np.testing.assert_allclose(record.predictions.confidence, confidence, rtol=1e-6)
    assert record.schema == 1 and record.environment.device == "CPU" and record.commit == ""
    assert not record.is_of({"network": "net"})
