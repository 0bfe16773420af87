"""The compiled training step against torch's, against the report's own network, and without a compiler."""

import dataclasses
import math
import shutil

import pytest
import torch
import torch.nn.functional as F

from labreport import paths
from labreport.bench import appendix
from labreport.facts.recipes import RECIPES
from labreport.images import cifar10 as data
from labreport.networks import models
from labreport.records.store import Store
from labreport.running.verify import EXACT, verify
from labreport.training import compiled, steps
from labreport.training import train as training
from labreport.training.identity import code_of
from labreport.training.run import DeviceSplit, Run, TrainingError

CPU = torch.device("cpu")
BASELINE = RECIPES["baseline"]
SMALL = dataclasses.replace(BASELINE, epochs=3, lr=1e-2)
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, compiled.COMPILERS)), reason="no C++ compiler here")


@pytest.fixture(scope="module")
def images():
    return data.synthetic(n_train=200, n_val=40, n_test=60)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    monkeypatch.delenv("LABREPORT_COMPILED")
    return tmp_path


@pytest.fixture
def afresh():
    """No library is known yet, nor after the test."""
    compiled._checked_steps.cache_clear()
    yield
    compiled._checked_steps.cache_clear()


def started(recipe, split, *, fast):
    run = Run.start(recipe, 0, split, 10, CPU)
    run.compiled = compiled.steps_for(recipe, run.model, split.inputs) if fast else None
    assert (run.compiled is not None) == fast
    return run


def close(model, other, tolerance):
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


# --- the same numbers -------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("side", [28, 32])
def test_twenty_steps_are_those_of_the_reports_own_network(side, batch=10):
    torch.manual_seed(1)
    ours, theirs = models.Baseline().double(), appendix.Baseline().double()
    theirs.load_state_dict(ours.state_dict())
    recipe = dataclasses.replace(BASELINE, batch_size=batch)
    fast = compiled.steps_for(recipe, ours, torch.zeros(100, side, side, 3))
    inputs, labels = torch.randn(20 * batch, 3, side, side, dtype=torch.float64), torch.randint(10, (20 * batch,))
    mine, plain = (torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9) for model in (ours, theirs))
    loss_sum, hits, plain_loss, plain_hits = 0.0, 0, 0.0, 0
    for part in (slice(0, 13 * batch), slice(13 * batch, None)):  # momenta go on from chunk to chunk
        chunk_loss, chunk_hits = fast(ours, mine, inputs[part], labels[part])
        loss_sum, hits = loss_sum + chunk_loss.item(), hits + chunk_hits.item()
    for x, y in zip(inputs.split(batch), labels.split(batch), strict=True):
        logits = theirs(x)
        loss = F.cross_entropy(logits, y)
        plain.zero_grad()
        loss.backward()
        plain.step()
        plain_loss, plain_hits = plain_loss + loss.item() * batch, plain_hits + (logits.argmax(1) == y).sum().item()
    close(ours, theirs, 1e-13)
    assert (pytest.approx(loss_sum, rel=1e-13), hits) == (plain_loss, plain_hits)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            mine.state[p]["momentum_buffer"], plain.state[q]["momentum_buffer"], rtol=0, atol=1e-13
        )


@needs_compiler
@pytest.mark.parametrize("batch", [1, 16])
def test_batches_of_other_sizes_are_taken_and_agree(batch):
    recipe, inputs = dataclasses.replace(BASELINE, batch_size=batch), torch.zeros(100, 32, 32, 3)
    fast = compiled.steps_for(recipe, models.Baseline(), inputs)  # which it would not be without torch's agreement
    assert fast.batch == batch and compiled._difference(fast, torch.float32) < 1e-4


@needs_compiler
def test_two_epochs_score_as_without_it():
    split = DeviceSplit.of(data.synthetic(1_000, 10, 10).train, CPU)
    fast, plain = (started(SMALL, split, fast=fast) for fast in (True, False))
    for epoch in range(2):
        ours, theirs = (steps.train_epoch(run, split, epoch) for run in (fast, plain))
        assert ours.n == theirs.n
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert ours.accuracy == pytest.approx(theirs.accuracy, abs=5e-3)
    assert ours.loss < 2.29  # less than ln 10: the two have learnt something to agree on


@needs_compiler
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_told(images, value):
    split = DeviceSplit.of(images.train, CPU)
    run = started(SMALL, split, fast=True)
    with torch.no_grad():
        run.model.conv2.weight[0, 0, 0, 0] = value
    with pytest.raises(TrainingError, match="epoch 1"):
        steps.train_epoch(run, split, 0)


@needs_compiler
def test_a_rate_that_is_too_high_is_told(images):
    with pytest.raises(TrainingError, match="lower the learning rate"):
        training.train(dataclasses.replace(SMALL, lr=1e10), images)


# --- records ----------------------------------------------------------------------------------------------------------


@needs_compiler
def test_a_resumed_run_is_the_unbroken_one_and_its_record_tells_what_made_it(images, tmp_path, monkeypatch, capsys):
    unbroken = training.train(SMALL, images)

    def stop(run):
        if len(run.history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "other"))
    with pytest.raises(KeyboardInterrupt):
        training.train(SMALL, images, on_epoch=stop)
    epochs = []
    resumed = training.train(SMALL, images, on_epoch=lambda run: epochs.append(len(run.history)))
    assert epochs == [3]
    assert (resumed.predictions.nll == unbroken.predictions.nll).all()
    assert [row.train_loss for row in resumed.history] == [row.train_loss for row in unbroken.history]
    assert "compiled" in resumed.ways and resumed.code == code_of(SMALL, ways=["compiled"])
    assert "step compiled by" in resumed.environment.precision

    (check,) = verify(Store(paths.records("quick")), [resumed], images, "cpu", again=True)
    assert (check.same_code, check.verdict) == (True, EXACT)


@needs_compiler
def test_a_plain_run_is_of_another_kind_and_its_checkpoint_is_not_gone_on_with(images, monkeypatch, capsys):
    def stop(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(SMALL, images, on_epoch=stop)
    monkeypatch.setenv("LABREPORT_COMPILED", "0")
    plain = training.train(SMALL, images)
    assert not plain.ways and plain.code == code_of(SMALL) and plain.environment.precision == "fp32"
    said = "".join(capsys.readouterr())
    assert "starts over, since of its checkpoint its 1 epochs were trained by other code (compiled)" in said
    monkeypatch.delenv("LABREPORT_COMPILED")
    run = started(SMALL, DeviceSplit.of(images.train, CPU), fast=True)
    assert not run.environment().same_kind(plain.environment)
    (check,) = verify(Store(paths.records("quick")), [plain], images, "cpu", again=True)
    assert check.verdict == EXACT  # found again by the plain steps that it was trained by


# --- when it is taken -------------------------------------------------------------------------------------------------


def test_every_other_training_is_torchs():
    inputs = torch.zeros(100, 32, 32, 3, dtype=torch.uint8)

    def taken(recipe, model=None, inputs=inputs):
        return compiled.steps_for(recipe, model or models.build(recipe.model, 10), inputs) is not None

    class Mine(models.Baseline):
        pass

    other_settings = {
        "nesterov": True, "weight_decay": 1e-4, "label_smoothing": 0.1, "batch_size": 17, "momentum": 0.0,
        "optimizer": "adam", "precision": "bf16", "schedule": "linear", "low_resolution_epochs": 1,
    }  # fmt: skip
    for name, value in other_settings.items():
        assert not taken(dataclasses.replace(BASELINE, **{name: value})), name
    for name in RECIPES.keys() - {"baseline", "dnn_softmax"}:
        assert not taken(RECIPES[name]), name
    assert not taken(BASELINE, Mine())
    assert not taken(BASELINE, models.Baseline(7))
    assert not taken(BASELINE, inputs=inputs[:, :27])
    assert not taken(BASELINE, models.Baseline().half())


@pytest.mark.parametrize("compiler", [None, "#!/bin/sh\necho 'no such thing' >&2\nexit 1\n", "not a program"])
def test_without_a_working_compiler_torch_trains(compiler, images, tmp_path, monkeypatch, capsys, afresh):
    folder = tmp_path / "bin"
    folder.mkdir()
    if compiler:
        (folder / "c++").write_text(compiler)
        (folder / "c++").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    record = training.train(dataclasses.replace(SMALL, epochs=1), images)
    assert not record.ways and record.environment.precision == "fp32"
    lines = [line for line in capsys.readouterr().err.splitlines() if "compiled" in line]
    assert len(lines) == (compiler is not None)
    assert all("torch trains" in line and str(folder) in line for line in lines)
    assert not paths.compiled().exists()


@needs_compiler
def test_a_library_that_finds_other_weights_is_not_used(images, tmp_path, monkeypatch, capsys, afresh):
    wrong = tmp_path / "step.cpp"
    wrong.write_text(compiled.SOURCE.read_text().replace("momentum * m[i] + g[i]", "g[i]"))
    monkeypatch.setattr(compiled, "SOURCE", wrong)
    record = training.train(dataclasses.replace(SMALL, epochs=1), images)
    assert not record.ways
    assert "its steps differ from torch's" in capsys.readouterr().err


@needs_compiler
def test_comments_do_not_count_for_the_digest_but_code_does(tmp_path, monkeypatch):
    before = code_of(BASELINE, ways=["compiled"])
    assert before.keys() - code_of(BASELINE).keys() == {"compiled"}
    text = compiled.SOURCE.read_text()
    monkeypatch.setattr(compiled, "SOURCE", tmp_path / "step.cpp")
    compiled.SOURCE.write_text("// Another first line.\n" + text)
    assert code_of(BASELINE, ways=["compiled"]) == before
    compiled.SOURCE.write_text(text.replace("lr * m[i]", "2 * lr * m[i]"))
    assert code_of(BASELINE, ways=["compiled"]) != before
