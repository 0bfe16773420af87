"""What only a GPU can show: a replayed graph trains as eager steps do, and its random numbers change."""

import dataclasses

import pytest
import torch

from labreport.facts.recipes import RECIPES
from labreport.images import cifar10 as data
from labreport.networks import models
from labreport.training import cuda_graphs, steps
from labreport.training.branches import Company, train_epoch_in_step
from labreport.training.run import DeviceSplit, Run, TrainingError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")


@pytest.mark.parametrize("name", ["baseline", "first_optimization", "fine_tuned"])
def test_replayed_steps_reach_the_weights_of_eager_steps(name, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", 5)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    recipe = dataclasses.replace(RECIPES[name], lr=1e-3, batch_size=10)
    images = data.synthetic(n_train=235, n_val=10, n_test=10)  # 23 steps: four graphs and three eager ones, twice
    split = DeviceSplit.of(images.train, CUDA)
    graphed, eager = (Run.start(recipe, 0, split, 10, CUDA) for _ in range(2))
    for epoch in range(2):
        assert steps.train_epoch(graphed, split, epoch).n == 230
    assert graphed.graph is not None
    eager.graph_refused = True  # the same chunks, since random flips are drawn a chunk at a time
    for epoch in range(2):
        steps.train_epoch(eager, split, epoch)
    weights_agree(eager, graphed)


def weights_agree(one, other):
    for (key, a), b in zip(one.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3, msg=lambda m, key=key: f"{key}: {m}")


def test_branches_of_one_graph_reach_the_weights_of_eager_steps(monkeypatch):
    """Without dropout; the second company's graph is recorded after the first one's has gone."""
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", 5)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    recipe = dataclasses.replace(RECIPES["baseline"], lr=1e-3)
    split = DeviceSplit.of(data.synthetic(n_train=235, n_val=10, n_test=10).train, CUDA)
    for count in (3, 2):
        company = Company([Run.start(recipe, seed, split, 10, CUDA) for seed in range(count)])
        alone = [Run.start(recipe, seed, split, 10, CUDA) for seed in range(count)]
        for epoch in range(2):
            assert all(score.n == 230 for score in train_epoch_in_step(company, split, epoch))
        assert company.graph is not None
        for run, other in zip(alone, company.runs, strict=True):
            run.graph_refused = True
            for epoch in range(2):
                steps.train_epoch(run, split, epoch)
            weights_agree(run, other)


class Waits(torch.nn.Module):
    """Its forward pass waits for a number from the device."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.fc = torch.nn.Linear(3072, num_classes)

    def forward(self, images):
        logits = self.fc(images.flatten(1))
        return logits if logits.sum().item() < 1e9 else -logits


def test_a_network_that_no_graph_records_trains_step_by_step_and_the_next_one_is_recorded(monkeypatch, capsys):
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", 5)
    monkeypatch.setitem(models.MODELS, "waits", Waits)
    recipe = dataclasses.replace(RECIPES["baseline"], model="waits")
    split = DeviceSplit.of(data.synthetic(n_train=200, n_val=10, n_test=10).train, CUDA)
    run = Run.start(recipe, 0, split, 10, CUDA)
    assert steps.train_epoch(run, split, 0).n == 200
    assert run.graph is None and "wait for the device" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="train them one by one"):
        train_epoch_in_step(Company([Run.start(recipe, seed, split, 10, CUDA) for seed in range(2)]), split, 0)
    run = Run.start(RECIPES["baseline"], 0, split, 10, CUDA)
    steps.train_epoch(run, split, 0)
    assert run.graph is not None


def test_dropout_draws_anew_in_every_step_and_replay():
    masks = []

    def step(inputs, labels):
        mask = torch.nn.functional.dropout(inputs, 0.5)
        masks.append(mask)
        return mask.mean(), labels.sum()

    ones, labels = torch.ones(4, 1000, device=CUDA), torch.zeros(4, dtype=torch.int64, device=CUDA)
    steps = cuda_graphs.GraphedSteps([step], [ones], [labels], batch=2)
    replays = []
    for _ in range(2):
        steps([ones], [labels])
        replays.append([mask.clone() for mask in masks])
    drawn = [mask for replay in replays for mask in replay]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    torch.manual_seed(5)
    steps([ones], [labels])
    first = masks[0].clone()
    torch.manual_seed(5)
    steps([ones], [labels])
    assert torch.equal(first, masks[0])  # and reseeding brings the same masks back


def test_the_learning_rate_changes_under_a_recorded_graph(monkeypatch):
    """Replays move the weights in the second epoch, at half the rate, and leave them alone in the third, at none."""
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", 5)
    recipe = dataclasses.replace(RECIPES["baseline"], lr=1e-2, schedule="step", step_size=1, gamma=0.5, momentum=0.0)
    images = data.synthetic(n_train=200, n_val=10, n_test=10)
    split = DeviceSplit.of(images.train, CUDA)
    run = Run.start(recipe, 0, split, 10, CUDA)
    states = []
    for epoch in range(2):
        steps.train_epoch(run, split, epoch)
        states.append(run.model.fc2.weight.detach().clone())
    assert run.graph is not None
    assert not torch.equal(*states)
    run.recipe = dataclasses.replace(recipe, gamma=0.0)
    steps.train_epoch(run, split, 2)
    assert torch.equal(run.model.fc2.weight.detach(), states[1])


def test_a_checkpoint_from_a_cpu_goes_on_in_a_graph(monkeypatch, tmp_path):
    """The optimiser keeps what a graph needs of it."""
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", 5)
    recipe = dataclasses.replace(RECIPES["fine_tuned"], batch_size=10)
    images, cpu = data.synthetic(n_train=200, n_val=10, n_test=10), torch.device("cpu")
    split = DeviceSplit.of(images.train, cpu)
    started = Run.start(recipe, 0, split, 10, cpu)
    steps.train_epoch(started, split, 0)
    started.save(tmp_path / "checkpoint", {})
    split = DeviceSplit.of(images.train, CUDA)
    run = Run.start(recipe, 0, split, 10, CUDA)
    run.resume(tmp_path / "checkpoint", {})
    steps.train_epoch(run, split, 1)
    assert run.graph is not None
    assert run.optimizers[0].param_groups[0]["lr"].is_cuda


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_a_second_gpu_trains_in_graphs_of_its_own(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", 5)
    second = torch.device("cuda:1")
    split = DeviceSplit.of(data.synthetic(n_train=200, n_val=10, n_test=10).train, second)
    run = Run.start(RECIPES["baseline"], 0, split, 10, second)
    assert steps.train_epoch(run, split, 0).loss > 0.5
    assert run.graph is not None
