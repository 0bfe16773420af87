"""The compiled training steps against torch's, against the report's own network, and without a compiler."""

import copy
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
BASELINE, FIRST = RECIPES["baseline"], RECIPES["first_optimization"]
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
    """Parameters and, of batch norms, the running statistics and the count of steps."""
    for ours, theirs in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def close_momenta(optimizer, other, tolerance):
    for ours, theirs in zip(*(o.param_groups[0]["params"] for o in (optimizer, other)), strict=True):
        momenta = optimizer.state[ours]["momentum_buffer"], other.state[theirs]["momentum_buffer"]
        torch.testing.assert_close(*momenta, rtol=0, atol=tolerance)


def in_chunks(fast, model, optimizer, inputs, labels, size):
    """The summed loss and the right answers of compiled steps; momenta go on from chunk to chunk."""
    scored = [fast(model, optimizer, x, y) for x, y in zip(inputs.split(size), labels.split(size), strict=True)]
    return sum(loss.item() for loss, _ in scored), sum(hits.item() for _, hits in scored)


def by_torch(model, optimizer, inputs, labels, batch):
    """The same of torch's steps."""
    loss_sum, hits = 0.0, 0
    for x, y in zip(inputs.split(batch), labels.split(batch), strict=True):
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum, hits = loss_sum + loss.item() * batch, hits + (logits.argmax(1) == y).sum().item()
    return loss_sum, hits


def use_source(monkeypatch, path, text, network=models.Baseline):
    """Let `network` be trained by a C++ file of one's own."""
    path.write_text(text)
    monkeypatch.setitem(compiled.KERNELS, network, dataclasses.replace(compiled.KERNELS[network], source=path))


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
    scored = in_chunks(fast, ours, mine, inputs, labels, 13 * batch)
    assert scored == pytest.approx(by_torch(theirs, plain, inputs, labels, batch), rel=1e-13)
    close(ours, theirs, 1e-13)
    close_momenta(mine, plain, 1e-13)


@needs_compiler
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_forty_steps_with_batch_norms_are_torchs(layout, batch=10):
    torch.manual_seed(2)
    ours = models.FirstOptimization().double().to(memory_format=layout)
    with torch.no_grad():
        for norm in (module for module in ours.modules() if isinstance(module, torch.nn.BatchNorm2d)):
            norm.weight.uniform_(-1, 2)  # scales below zero turn the order of the pixels that pooling compares
            norm.bias.uniform_(-1, 1)
    theirs, start = copy.deepcopy(ours), copy.deepcopy(ours)
    fast = compiled.steps_for(FIRST, ours, torch.zeros(100, 32, 32, 3))
    inputs, labels = torch.randn(40 * batch, 3, 32, 32, dtype=torch.float64), torch.randint(10, (40 * batch,))
    mine, plain = (torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9) for model in (ours, theirs))
    scored = in_chunks(fast, ours, mine, inputs, labels, 25 * batch)
    assert scored == pytest.approx(by_torch(theirs, plain, inputs, labels, batch), rel=1e-12)
    close(ours, theirs, 1e-12)
    close_momenta(mine, plain, 1e-12)
    assert (ours.convs[1][0].weight - start.convs[1][0].weight).norm() > 0.1


@needs_compiler
@pytest.mark.parametrize(("network", "batch"), [(models.Baseline, 1), (models.FirstOptimization, 16)])
def test_batches_of_other_sizes_are_taken_and_agree(network, batch):
    recipe, inputs = dataclasses.replace(BASELINE, batch_size=batch), torch.zeros(100, 32, 32, 3)
    fast = compiled.steps_for(recipe, network(), inputs)  # which it would not be without torch's agreement
    assert fast.batch == batch and compiled._difference(fast, network, torch.float32) < 1e-3


@needs_compiler
@pytest.mark.parametrize("recipe", [SMALL, dataclasses.replace(FIRST, lr=1e-3)], ids=lambda recipe: recipe.name)
def test_two_epochs_score_as_without_it(recipe):
    split = DeviceSplit.of(data.synthetic(1_000, 10, 10).train, CPU)
    fast, plain = (started(recipe, split, fast=fast) for fast in (True, False))
    for epoch in range(2):
        ours, theirs = (steps.train_epoch(run, split, epoch) for run in (fast, plain))
        assert ours.n == theirs.n
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert ours.accuracy == pytest.approx(theirs.accuracy, abs=1e-2)  # rounded in another order
    assert ours.loss < 2.29  # less than ln 10: the two have learnt something to agree on


@needs_compiler
@pytest.mark.parametrize("recipe", [SMALL, FIRST], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_told(images, value, recipe):
    split = DeviceSplit.of(images.train, CPU)
    run = started(recipe, split, fast=True)
    with torch.no_grad():
        run.model.get_submodule("conv2" if recipe is SMALL else "convs.1.0").weight[0, 0, 0, 0] = value
    with pytest.raises(TrainingError, match="epoch 1"):
        steps.train_epoch(run, split, 0)


@needs_compiler
def test_a_rate_that_is_too_high_is_told(images):
    with pytest.raises(TrainingError, match="lower the learning rate"):
        training.train(dataclasses.replace(SMALL, lr=1e10), images)


# --- records ----------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    "recipe", [SMALL, dataclasses.replace(FIRST, epochs=3, lr=1e-3)], ids=lambda recipe: recipe.name
)
def test_a_resumed_run_is_the_unbroken_one_and_its_record_tells_what_made_it(images, tmp_path, monkeypatch, recipe):
    unbroken = training.train(recipe, images)

    def stop(run):
        if len(run.history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "other"))
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, images, on_epoch=stop)
    epochs = []
    resumed = training.train(recipe, images, on_epoch=lambda run: epochs.append(len(run.history)))
    assert epochs == [3]
    assert (resumed.predictions.nll == unbroken.predictions.nll).all()
    assert [row.train_loss for row in resumed.history] == [row.train_loss for row in unbroken.history]
    assert "compiled" in resumed.ways and resumed.code == code_of(recipe, ways=["compiled"])
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
    for name in RECIPES.keys() - {"baseline", "first_optimization", "dnn_softmax"}:
        assert not taken(RECIPES[name]), name
    assert not taken(BASELINE, Mine())
    assert not taken(BASELINE, models.Baseline(7))
    assert not taken(BASELINE, inputs=inputs[:, :27])
    assert not taken(FIRST, inputs=inputs[:, :31])
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
@pytest.mark.parametrize(
    ("network", "right", "wrong"),
    [
        (models.Baseline, "descend(w, momenta, net->g, lr, momentum)", "descend(w, momenta, net->g, lr, 0)"),
        (models.FirstOptimization, "squares[l] / (N - 1)", "squares[l] / N"),
        (models.FirstOptimization, "level - slope *", "level + slope *"),
    ],
)
def test_a_library_that_finds_other_weights_is_not_used(
    network, right, wrong, images, tmp_path, monkeypatch, capsys, afresh
):
    text = compiled.KERNELS[network].source.read_text()
    assert right in text
    use_source(monkeypatch, tmp_path / "step.cpp", text.replace(right, wrong), network)
    recipe = SMALL if network is models.Baseline else FIRST
    record = training.train(dataclasses.replace(recipe, epochs=1), images)
    assert not record.ways
    assert "its steps differ from torch's" in capsys.readouterr().err


@needs_compiler
def test_comments_do_not_count_for_the_digest_but_code_does(tmp_path, monkeypatch):
    before = code_of(BASELINE, ways=["compiled"])
    assert before.keys() - code_of(BASELINE).keys() == {"compiled"}
    text = compiled.KERNELS[models.Baseline].source.read_text()
    use_source(monkeypatch, tmp_path / "step.cpp", "// Another first line.\n" + text)
    assert code_of(BASELINE, ways=["compiled"]) == before
    use_source(monkeypatch, tmp_path / "step.cpp", text.replace("net->g, lr,", "net->g, 2 * lr,"))
    assert code_of(BASELINE, ways=["compiled"]) != before
    use_source(monkeypatch, tmp_path / "step.cpp", text)
    shared = tmp_path / "step.h"
    shared.write_text(compiled.HEADER.read_text().replace("lr * m[i]", "2 * lr * m[i]"))
    monkeypatch.setattr(compiled, "HEADER", shared)
    assert code_of(BASELINE, ways=["compiled"]) != before
