"""What only a GPU can show: a replayed graph trains as eager steps do, and its random numbers change."""

import dataclasses

import pytest
import torch

from labreport import cuda_graphs, data, training
from labreport.recipes import RECIPES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")


@pytest.mark.parametrize("name", ["baseline", "first_optimization"])
def test_replayed_steps_reach_the_weights_of_eager_steps(name, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", 5)
    recipe = dataclasses.replace(RECIPES[name], lr=1e-3)
    images = data.synthetic(n_train=205, n_val=10, n_test=10)
    split = training.DeviceSplit.of(images.train, CUDA)
    graphed, eager = (training.Run.start(recipe, 0, split, 10, CUDA) for _ in range(2))
    for epoch in range(2):
        assert training.train_epoch(graphed, split, epoch).n == 200
    assert graphed.graph is not None
    monkeypatch.setattr(training, "use_graphs", lambda run: False)
    for epoch in range(2):
        training.train_epoch(eager, split, epoch)
    for (key, expected), got in zip(eager.model.state_dict().items(), graphed.model.state_dict().values(), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3, msg=lambda m, key=key: f"{key}: {m}")


def test_dropout_draws_anew_in_every_step_and_replay():
    masks = []

    def step(inputs, labels):
        mask = torch.nn.functional.dropout(inputs, 0.5)
        masks.append(mask)
        return mask.mean(), labels.sum()

    ones, labels = torch.ones(4, 1000, device=CUDA), torch.zeros(4, dtype=torch.int64, device=CUDA)
    steps = cuda_graphs.GraphedSteps(step, ones, labels, batch=2)
    replays = []
    for _ in range(2):
        steps(ones, labels)
        replays.append([mask.clone() for mask in masks])
    drawn = [mask for replay in replays for mask in replay]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    torch.manual_seed(5)
    steps(ones, labels)
    first = masks[0].clone()
    torch.manual_seed(5)
    steps(ones, labels)
    assert torch.equal(first, masks[0])  # and reseeding brings the same masks back


def test_the_learning_rate_changes_under_a_recorded_graph(monkeypatch):
    """A rate of zero in the second epoch must leave the weights where the first epoch brought them."""
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", 5)
    recipe = dataclasses.replace(RECIPES["baseline"], lr=1e-2, schedule="step", step_size=1, gamma=0.0, momentum=0.0)
    images = data.synthetic(n_train=200, n_val=10, n_test=10)
    split = training.DeviceSplit.of(images.train, CUDA)
    run = training.Run.start(recipe, 0, split, 10, CUDA)
    training.train_epoch(run, split, 0)
    before = run.model.fc2.weight.detach().clone()
    training.train_epoch(run, split, 1)
    torch.testing.assert_close(run.model.fc2.weight.detach(), before, atol=0, rtol=0)
