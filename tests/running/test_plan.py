"""Which trainings are missing, and when a place gets them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from labreport import paths
from labreport.facts.recipes import ABLATIONS, FOR_GPUS, RECIPES, UPSCALED, for_profile
from labreport.images.cifar10 import synthetic
from labreport.records.store import Store
from labreport.running.plan import NotTrained, Place, Training, carry_out, missing, recipes_of
from labreport.training.train import train

NOWHERE = Place(start=None, cpus=8)


def trainings(*names: str, seeds=(0,), cpus: int = 1) -> list[Training]:
    return [Training(RECIPES[name], seed, cpus) for name in names for seed in seeds]


@pytest.fixture
def work():
    """What a place runs: notes in `log`, fails for names in `failing`, meets others at `barrier` if there is one."""

    class Work:
        def __init__(self):
            self.log, self.failing, self.barrier = [], (), None
            self.busy, self.most, self.lock = 0, 0, threading.Lock()

        def __call__(self, training: Training) -> str:
            with self.lock:
                self.log.append(f"{training} begins")
                self.busy += training.cpus
                self.most = max(self.most, self.busy)
            if self.barrier:
                self.barrier.wait(30)
            with self.lock:
                self.busy -= training.cpus
                self.log.append(f"{training} ends")
            if training.recipe.name in self.failing:
                raise NotTrained("the loss is nan")
            return f"the record of {training}"

        def place(self, **of) -> Place:
            pool = ThreadPoolExecutor(8)
            return Place(lambda training: pool.submit(self, training), **of)

    return Work()


def test_the_report_s_recipes_and_more_for_paper():
    assert [recipe.name for recipe in recipes_of("quick", gpus=True)] == list(RECIPES)
    assert recipes_of("quick", gpus=False)[0] == for_profile(RECIPES["baseline"], "quick")
    assert [recipe.name for recipe in recipes_of("paper", gpus=False)] == [*RECIPES, *ABLATIONS, *UPSCALED]
    assert [recipe.name for recipe in recipes_of("paper", gpus=True)] == [*RECIPES, *ABLATIONS, *UPSCALED, *FOR_GPUS]


def test_only_what_the_store_lacks_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    data = synthetic(n_train=100, n_val=20, n_test=20)
    recipes = [for_profile(RECIPES[name], "smoke") for name in ("first_optimization", "fine_tuned")]
    train(recipes[1], data, 1, profile="smoke", device="cpu")
    found = missing(recipes, (0, 1), Store(paths.records("smoke")), data.info, NOWHERE)
    assert list(map(str, found)) == ["first_optimization, seed 0", "first_optimization, seed 1", "fine_tuned, seed 0"]
    other = synthetic(n_train=100, n_val=20, n_test=30).info  # of other images nothing is stored
    assert len(missing(recipes, (0, 1), Store(paths.records("smoke")), other, NOWHERE)) == 4


@pytest.mark.parametrize(
    ("place", "threads", "asked"),
    [
        (Place(None, cpus=8), None, {"baseline": (1, 0), "fine_tuned": (4, 0)}),
        (Place(None, cpus=2), None, {"baseline": (1, 0), "fine_tuned": (2, 0)}),
        (Place(None, cpus=8), 2, {"baseline": (2, 0), "fine_tuned": (2, 0)}),
        (Place(None, cpus=8, gpus=4), None, {"baseline": (1, 1), "fine_tuned": (1, 1)}),
    ],
)
def test_what_a_training_asks_for(tmp_path, place, threads, asked):
    info = synthetic(n_train=100, n_val=20, n_test=20).info
    recipes = [RECIPES[name] for name in asked]
    found = missing(recipes, (0,), Store(tmp_path), info, place, threads)
    assert {t.recipe.name: (t.cpus, t.gpus) for t in found} == asked


def test_a_network_on_features_waits_for_the_one_that_makes_them_of_the_same_seed(work):
    todo = trainings("dnn_softmax", "deep_cnn", seeds=(0, 1))
    list(carry_out(todo, work.place(cpus=1)))
    assert work.log.index("deep_cnn, seed 0 ends") < work.log.index("dnn_softmax, seed 0 begins")
    assert work.log.index("deep_cnn, seed 1 ends") < work.log.index("dnn_softmax, seed 1 begins")
    assert len(work.log) == 8


def test_one_that_is_not_missing_is_not_waited_for(work):
    (outcome,) = carry_out(trainings("dnn_softmax"), work.place(cpus=1))
    assert outcome.record == "the record of dnn_softmax, seed 0"


def test_a_network_on_features_of_given_weights_waits_for_nothing(work):
    work.barrier = threading.Barrier(2)
    todo = [Training(UPSCALED["frozen_32"], 0, 1), *trainings("resnet18")]
    assert len(list(carry_out(todo, work.place(cpus=2)))) == 2


def test_a_failure_is_told_and_costs_only_what_builds_on_it(work):
    work.failing = ("deep_cnn",)
    todo = trainings("deep_cnn", "dnn_softmax", "baseline")
    problems = {outcome.training.recipe.name: outcome.problem for outcome in carry_out(todo, work.place(cpus=1))}
    assert problems == {
        "deep_cnn": "the loss is nan",
        "dnn_softmax": "it needs the network of deep_cnn, seed 0",
        "baseline": "",
    }


def test_a_place_gets_what_its_cpus_have_room_for(work):
    todo = trainings("fine_tuned", seeds=(0, 1), cpus=4) + trainings("baseline", seeds=range(6))
    assert len(list(carry_out(todo, work.place(cpus=6)))) == 8
    assert work.most <= 6
    work.barrier = threading.Barrier(3)  # met only by three at once
    assert len(list(carry_out(trainings("baseline", seeds=range(6)), work.place(cpus=3)))) == 6


def test_or_as_many_as_were_asked_for(work):
    work.barrier = threading.Barrier(2)
    assert len(list(carry_out(trainings("fine_tuned", seeds=range(4), cpus=4), work.place(cpus=1, jobs=2)))) == 4
    assert work.most == 8
