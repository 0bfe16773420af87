"""What a training tells of itself, against what it does."""

import dataclasses
import io
import json
import signal

import pytest
import torch
import torch.nn.functional as F
from training.test_train import TINY

from labreport.images.synthetic import synthetic
from labreport.training import train as training
from labreport.training.progress import POINTS, Lines, Stage, each_step, thinned


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def images():
    return synthetic(100, 40, 60)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_that_is_read_from_outside_is_the_steps_own(smoothing):
    torch.manual_seed(0)
    model, seen = torch.nn.Linear(5, 4), []
    inputs, labels = torch.randn(7, 5), torch.arange(7) % 4
    with each_step(model, lambda images, loss: seen.append((images, loss))):
        loss = F.cross_entropy(model(inputs), labels, label_smoothing=smoothing)
        loss.backward()
        with torch.no_grad():
            model(inputs)
        model.eval()(inputs)
    model(inputs)
    assert [images for images, _ in seen] == [7, 0]
    assert seen[1][1] == pytest.approx(loss.item(), rel=1e-5)


def test_a_training_tells_every_epoch_and_ends_with_its_result(images, monkeypatch):
    monkeypatch.setattr("labreport.training.progress.TELL", 0.0)
    stages: list[Stage] = []
    record = training.train(TINY, images, watch=stages.append)
    assert stages[0].history == () and stages[0].images == 100
    shares = [stage.share for stage in stages]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert stages[-1].history == record.history
    assert f"{record.test_score.accuracy:.2%}".replace("%", " %") in stages[-1].ended
    assert {stage.seen for stage in stages} >= {20, 40, 60, 80, 100}
    points = [loss for at, loss in stages[-1].running if at <= 1]
    assert sum(points) / len(points) == pytest.approx(record.history[0].train_loss, rel=0.2)


def test_what_looks_on_changes_nothing(images, monkeypatch, tmp_path):
    monkeypatch.setattr("labreport.training.progress.TELL", 0.0)
    monkeypatch.setattr("labreport.training.progress.LOOK", 0.0)
    looked = training.train(TINY, images, watch=lambda _: None)
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("labreport.training.progress.Progress.count", lambda *_: None)
    alone = training.train(TINY, images)
    assert [row.train_loss for row in looked.history] == [row.train_loss for row in alone.history]
    assert looked.test_score == alone.test_score


def test_an_interrupt_says_what_is_kept_and_the_next_run_where_it_goes_on(images):
    stages: list[Stage] = []

    def interrupt(run):
        if len(run.history) == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(training.Stopped, match="stopped in epoch 3; epoch 2 is kept; run this again to go on"):
        training.train(TINY, images, on_epoch=interrupt, watch=stages.append)
    assert stages[-1].ended.startswith("stopped in epoch 3")
    again: list[Stage] = []
    training.train(TINY, images, watch=again.append)
    assert any("going on after epoch 2 of 3" in stage.beginning for stage in again)
    from_store: list[Stage] = []
    record = training.train(TINY, images, watch=from_store.append)
    assert [stage.ended.partition(":")[0] for stage in from_store] == [
        f"from the store (trained on {record.finished[:10]})"
    ]


def test_lines_are_few_and_have_no_carriage_returns_in_a_file(images):
    stream = io.StringIO()
    training.train(TINY, images, watch=Lines(stream))
    first, last = (line for line in stream.getvalue().splitlines() if ", note: " not in line)
    assert first.startswith("tiny, seed 0: 3 epochs of 100 images on ")
    assert "test" in last and "\r" not in stream.getvalue()


def test_a_stage_survives_its_file():
    stage = Stage("a", 1, 3, 10, history=(), running=((0.5, 2.0),), notes=("x",), left=3.5)
    assert Stage.of(json.loads(json.dumps(dataclasses.asdict(stage)))) == stage


def test_points_are_thinned_to_means_of_neighbours():
    points = tuple((float(i), float(2 * i)) for i in range(POINTS + 1))
    thin = thinned(points)
    assert len(thin) == POINTS // 2 + 1
    assert thin[0] == (0.5, 1.0) and thin[-1] == points[-1]
    assert thinned(points[:-1]) == points[:-1]


def test_a_loss_at_one_class_is_noted(images):
    stages: list[Stage] = []
    wild = dataclasses.replace(TINY, name="wild", lr=1.0)
    training.train(wild, images, watch=stages.append)
    assert any("rate" in note for note in stages[-1].notes)
