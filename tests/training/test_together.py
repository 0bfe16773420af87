"""Seeds that train in step, on the CPU: each gives what it gives alone, and nothing is lost when one of them fails."""

import dataclasses

import pytest
import torch

from labreport import paths
from labreport.facts.recipes import RECIPES
from labreport.images.synthetic import synthetic
from labreport.records.store import Store
from labreport.training import together
from labreport.training.branches import Company, train_epoch_in_step
from labreport.training.run import DeviceSplit, Run, TrainingError
from labreport.training.steps import train_epoch
from labreport.training.together import pays, train_together
from labreport.training.train import Stopped

CPU = torch.device("cpu")
IMAGES = synthetic(n_train=230, n_val=50, n_test=60)
# Without dropout, whose masks are others in step than alone.
SMALL = dataclasses.replace(RECIPES["baseline"], name="small", epochs=3)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    return tmp_path


def in_step(seeds=(0, 1), recipe=SMALL, **options):
    return train_together(recipe, IMAGES, seeds, profile="smoke", device="cpu", **options)


def facts(record):
    rows = [dataclasses.replace(row, seconds=0) for row in record.history]
    return rows, record.test_score, record.predictions.log_probabilities.tobytes()


def test_an_epoch_in_step_leaves_the_weights_of_epochs_alone():
    split = DeviceSplit.of(IMAGES.train, CPU)
    alone, beside = ([Run.start(SMALL, seed, split, 10, CPU) for seed in range(3)] for _ in range(2))
    expected = [train_epoch(run, split, 0) for run in alone]
    found = train_epoch_in_step(Company(beside), split, 0)
    assert [(score.accuracy, score.n) for score in found] == [(score.accuracy, score.n) for score in expected]
    assert [score.loss for score in found] == pytest.approx([score.loss for score in expected], rel=1e-6)
    for one, other in zip(alone, beside, strict=True):
        for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)


def test_the_records_are_stored_and_say_that_the_time_was_shared(home):
    records = in_step()
    assert [record.seed for record in records] == [0, 1]
    assert all("2 seeds in step, the time shared" in record.environment.precision for record in records)
    assert all(record.ways == ("branches",) for record in records)
    stored = Store(paths.records("smoke")).all()
    assert [record.stem for record in stored] == [record.stem for record in records]
    weights = {path.stem for path in paths.runs("smoke").glob("*.safetensors")}
    assert weights == {record.stem for record in records}
    assert not list(paths.runs("smoke").glob("*.checkpoint"))


def test_what_the_store_has_is_not_trained_again(monkeypatch):
    (first,) = in_step((1,))
    epochs = []
    again = in_step((0, 1), on_epoch=epochs.append)
    assert facts(again[1]) == facts(first) and again[1].finished == first.finished
    assert epochs == [1, 2, 3] and again[0].environment.precision == "fp32"
    monkeypatch.setattr(together, "_fit", lambda members, *_: pytest.fail("trained") if members else [])
    assert [facts(record) for record in in_step((0, 1))] == [facts(record) for record in again]


def test_stopped_between_two_epochs_it_goes_on_to_the_same_records(monkeypatch, tmp_path):
    unbroken = [facts(record) for record in in_step()]
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "other"))

    def stop(epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match=r"stopped in epoch 3; epoch 2 is kept; run this again to go on"):
        in_step(on_epoch=stop)
    assert not Store(paths.records("smoke")).all()
    assert [facts(record) for record in in_step()] == unbroken


def test_killed_between_two_checkpoints_the_one_ahead_waits(monkeypatch, tmp_path):
    unbroken = [facts(record) for record in in_step()]
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "other"))
    saved, save = [], Run.save

    def killed(run, path, code):
        if len(saved) == 3:  # the first seed is at epoch 2, the second at epoch 1
            raise SystemExit
        saved.append(path)
        save(run, path, code)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Run, "save", killed)
        in_step()
    assert [facts(record) for record in in_step()] == unbroken


def test_a_seed_whose_loss_is_not_finite_takes_no_other_along(monkeypatch):
    start = Run.start.__func__

    def spoilt(cls, recipe, seed, *rest):
        run = start(cls, recipe, seed, *rest)
        if seed == 1:
            next(run.model.parameters()).data.fill_(float("nan"))
        return run

    monkeypatch.setattr(Run, "start", classmethod(spoilt))
    with pytest.raises(
        TrainingError, match=r"^small, seed 1: the loss is not finite in epoch 1; lower the learning rate"
    ):
        in_step((0, 1, 2))
    assert [record.seed for record in Store(paths.records("smoke")).all()] == [0, 2]


def test_it_pays_on_a_gpu_where_a_graph_can_be_replayed_from_random_weights():
    assert pays(RECIPES["baseline"], "cuda") and pays(RECIPES["fine_tuned"], "cuda:1")
    assert not pays(RECIPES["baseline"], "cpu")
    assert not any(pays(RECIPES[name], "cuda") for name in ("resnet18_pretrained", "fast94", "dnn_softmax"))
