"""Which trainings are missing, what each asks for, and all of them carried out in one place: this machine or a cluster.

A place starts one training and gives a future of its record; `carry_out` decides when each is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from labreport.facts.recipes import ABLATIONS, FOR_GPUS, RECIPES, UPSCALED, Recipe, for_profile
from labreport.networks.pretrained import named_weights
from labreport.records.record import DataInfo, RunRecord
from labreport.records.store import Store
from labreport.training.device import TINY_BATCH
from labreport.training.identity import network_of
from labreport.training.train import find

# Large batches use a few CPUs well. Their memory, up to 3.2 GiB a training, is then less than 1 GiB a CPU.
CPUS_OF_LARGE_BATCHES = 4


class NotTrained(RuntimeError):
    """A training was tried in another process and left no record; the message says why."""


@dataclass(frozen=True)
class Training:
    """A recipe as its profile runs it, a seed, and the CPUs and GPUs that it asks for."""

    recipe: Recipe
    seed: int
    cpus: int
    gpus: int = 0

    def __str__(self) -> str:
        return f"{self.recipe.name}, seed {self.seed}"

    def builds_on(self, other: Training) -> bool:
        """Whether it needs the network that `other` trains."""
        trained = "" if self.recipe.pretrained else self.recipe.features_from  # a pretrained one is not trained here
        return (trained, self.seed) == (other.recipe.name, other.seed)


@dataclass(frozen=True)
class Outcome:
    """A training's record, or the problem that left it without one."""

    training: Training
    record: RunRecord | None
    problem: str = ""


@dataclass(frozen=True)
class Place:
    """Where trainings run. `cpus` are its largest machine's, `gpus` all of its own.

    `jobs` trainings are started at once, whatever they ask for; by default as many as there are CPUs and GPUs for.
    """

    start: Callable[[Training], Future[RunRecord]]
    cpus: int
    gpus: int = 0
    jobs: float | None = None


def recipes_of(profile: str, *, gpus: bool) -> list[Recipe]:
    """All that a profile's report shows, as it runs it: `paper` has ablations and enlarged images, and more on GPUs."""
    recipes = RECIPES
    if profile == "paper":
        recipes = recipes | ABLATIONS | UPSCALED | (FOR_GPUS if gpus else {})
    return [for_profile(recipe, profile) for recipe in recipes.values()]


def missing(
    recipes: Iterable[Recipe],
    seeds: Sequence[int],
    store: Store,
    info: DataInfo,
    place: Place,
    threads: int | None = None,
) -> list[Training]:
    """The trainings whose records the store lacks, each with what it asks for in this place.

    `threads` CPUs each; by default one on a GPU or for tiny batches, where a second gains little, else a few.
    """
    trainings = []
    for recipe in recipes:
        network = network_of(recipe, len(info.classes))
        weights = named_weights() if recipe.pretrained else None
        small = place.gpus or recipe.batch_size <= TINY_BATCH
        cpus = min(threads or (1 if small else CPUS_OF_LARGE_BATCHES), place.cpus)
        trainings += [
            Training(recipe, seed, cpus, gpus=min(place.gpus, 1))
            for seed in seeds
            if find(store, recipe, seed, info, network, weights) is None
        ]
    return trainings


def carry_out(trainings: Iterable[Training], place: Place, poll: Callable[[], None] | None = None) -> Iterator[Outcome]:
    """Each training's outcome as it ends. One that builds on another waits for it, and is given up where it failed.

    `poll` is called once a second meanwhile.
    """
    waiting = list(trainings)
    running: dict[Future[RunRecord], Training] = {}
    while waiting or running:
        for training in [t for t in waiting if not any(map(t.builds_on, [*waiting, *running.values()]))]:
            if _fits(training, list(running.values()), place):
                waiting.remove(training)
                running[place.start(training)] = training
        if poll:
            while not wait(running, timeout=1.0, return_when=FIRST_COMPLETED).done:
                poll()
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            training = running.pop(future)
            if (error := future.exception()) is None:
                yield Outcome(training, future.result())
                continue
            yield Outcome(training, None, str(error))
            for other in [t for t in waiting if t.builds_on(training)]:
                waiting.remove(other)
                yield Outcome(other, None, f"it needs the network of {training}")


def _fits(training: Training, running: Sequence[Training], place: Place) -> bool:
    if place.jobs:
        return len(running) < place.jobs
    cpus, gpus = (sum(getattr(t, name) for t in [training, *running]) for name in ("cpus", "gpus"))
    return cpus <= place.cpus and gpus <= place.gpus
