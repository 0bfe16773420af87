"""How many threads a training had changes its rounding, and that within the tolerance that README states."""

import dataclasses

import pytest
import torch

from labreport.facts.recipes import RECIPES
from labreport.images.synthetic import synthetic
from labreport.records.record import Epoch
from labreport.running.verify import DIFFERENT, compare
from labreport.training import steps
from labreport.training.device import threads_for
from labreport.training.run import DeviceSplit, Run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split():
    return DeviceSplit.of(synthetic(n_train=400, n_val=10, n_test=10).train, CPU)


def trained(recipe, split, threads):
    with threads_for(recipe, CPU, threads):
        run = Run.start(recipe, 0, split, 10, CPU)
        assert run.environment().threads == threads
        return run, steps.train_epoch(run, split, 0)


@pytest.mark.parametrize(("name", "tolerance"), [("baseline", 1e-5), ("fine_tuned", 1e-5), ("resnet18", 1e-2)])
def test_a_step_with_one_and_two_threads_agrees(split, name, tolerance):
    """Loss and gradient, by their norms; batch norm in eighteen layers makes more of rounding."""
    recipe = dataclasses.replace(RECIPES[name], precision="fp32", batch_size=100)
    part = DeviceSplit(split.inputs[:100], split.labels[:100])
    (one, first), (two, second) = (trained(recipe, part, threads) for threads in (1, 2))
    assert second.loss == pytest.approx(first.loss, rel=1e-5)
    before, after = (torch.cat([p.grad.flatten() for p in run.model.parameters()]) for run in (one, two))
    assert (after - before).norm() <= tolerance * before.norm()


def test_an_epoch_with_one_and_two_threads_is_the_same_result_to_verify(split):
    recipe = dataclasses.replace(RECIPES["fine_tuned"], batch_size=20)
    rows = [
        Epoch(1, recipe.lr, found.loss, found.accuracy, None, None, 0.0)
        for _, found in (trained(recipe, split, threads) for threads in (1, 2))
    ]
    assert compare(*rows, same_kind=False) != DIFFERENT
