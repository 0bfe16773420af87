"""A record survives the disk, and a damaged one is told."""

import dataclasses

import numpy as np
import pytest

from labreport.recipes import PROFILES, RECIPES, for_profile
from labreport.records import (
    DataInfo,
    Epoch,
    Predictions,
    RecordError,
    RunRecord,
    Score,
    Store,
    run_key,
    write_atomically,
)


def make_record(seed=0, **changes):
    labels = np.array([0, 1, 2, 3], np.uint8)
    predictions = Predictions(
        labels=labels,
        predicted=np.array([0, 1, 2, 0], np.uint8),
        confidence=np.array([0.9, 0.8, 0.7, 0.6], np.float32),
        nll=np.array([0.1, 0.2, 0.3, 1.5], np.float32),
        example_indices=np.array([0, 3]),
        example_images=np.zeros((2, 3, 32, 32), np.uint8),
        first_kernels=np.ones((2, 3, 2, 2), np.float32),
    )
    info = DataInfo("official", "0123456789abcdef", ("a", "b", "c", "d"), 8, 2, 4)
    settings = RECIPES["baseline"].settings()
    record = RunRecord(
        name="baseline",
        title="Baseline",
        profile="paper",
        seed=seed,
        key=run_key(settings, info.fingerprint, seed),
        recipe=settings,
        data=info,
        environment={"torch": "2"},
        history=(Epoch(1, 0.1, 2.0, 0.2, 1.9, 0.3, 1.5),),
        untrained_val_loss=2.3,
        train_score=Score(1.0, 0.5, 8),
        val_score=Score(1.1, 0.5, 2),
        test_score=Score(0.525, 0.75, 4),
        seconds=1.5,
        parameters=10,
        size_bytes=40,
        forward_flops=100,
        train_flops=2400,
        finished="2026-01-01T00:00:00+00:00",
        predictions=predictions,
    )
    return dataclasses.replace(record, **changes)


def test_round_trip(tmp_path):
    store, record = Store(tmp_path), make_record()
    store.save(record)
    loaded = store.find("baseline", record.recipe, 0, record.data.fingerprint)
    assert loaded == record
    for name, array in vars(record.predictions).items():
        np.testing.assert_array_equal(getattr(loaded.predictions, name), array)
    assert [r.seed for r in store.all()] == [0]


def test_only_the_very_same_run_is_found(tmp_path):
    store, record = Store(tmp_path), make_record()
    store.save(record)
    other = {**record.recipe, "lr": 0.2}
    assert store.find("baseline", other, 0, record.data.fingerprint) is None
    assert store.find("baseline", record.recipe, 1, record.data.fingerprint) is None
    assert store.find("baseline", record.recipe, 0, "f" * 16) is None


@pytest.mark.parametrize("damage", ["cut json", "cut npz", "no npz", "foreign field"])
def test_damaged_record_is_told_by_its_path(tmp_path, damage):
    path = Store(tmp_path).save(make_record())
    arrays = path.with_suffix(".npz")
    if damage == "cut json":
        path.write_text(path.read_text()[:100])
    elif damage == "cut npz":
        arrays.write_bytes(arrays.read_bytes()[:100])
    elif damage == "no npz":
        arrays.unlink()
    else:
        path.write_text(path.read_text().replace('"seconds"', '"sekunden"', 1))
    with pytest.raises(RecordError, match="baseline-seed0"):
        Store(tmp_path).all()


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_identity_is_what_is_computed_not_how_it_is_described():
    recipe = RECIPES["baseline"]
    described = dataclasses.replace(recipe, title="Other", why={"lr": "because"}, stated=())
    assert described.settings() == recipe.settings()
    assert dataclasses.replace(recipe, lr=1e-3).settings() != recipe.settings()


def test_stated_settings_are_the_lab_reports():
    baseline, tuned, resnet = RECIPES["baseline"], RECIPES["fine_tuned"], RECIPES["resnet18"]
    assert (baseline.lr, baseline.momentum, baseline.batch_size, baseline.epochs) == (1e-4, 0.9, 10, 300)
    assert (tuned.optimizer, tuned.lr, tuned.step_size, tuned.gamma) == ("adam", 0.003, 7, 0.1)
    assert (resnet.optimizer, resnet.lr, resnet.epochs, resnet.normalization) == ("adam", 1e-3, 10, "mean")


def test_every_described_setting_exists():
    for recipe in RECIPES.values():
        fields = {field.name for field in dataclasses.fields(recipe)}
        assert {*recipe.stated, *recipe.why} <= fields
        assert all(for_profile(recipe, profile).name == recipe.name for profile in PROFILES)


def test_unknown_profile_is_told():
    with pytest.raises(ValueError, match="fast"):
        for_profile(RECIPES["baseline"], "fast")


def test_a_shortened_setting_is_no_longer_called_stated():
    quick = for_profile(RECIPES["baseline"], "quick")
    assert quick.epochs < 300
    assert "epochs" not in quick.stated
    assert "quick" in quick.why["epochs"]
    assert "momentum" in quick.stated
