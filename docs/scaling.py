"""Measures what a training costs besides itself on a Ray cluster, and writes docs/scaling.md's tables.

    python docs/scaling.py

A cluster of this machine alone is asked, many times, for trainings that are stored already: what that takes is
overhead, and storing what came back is added. The seconds of training come from the reference run's records.
"""

from __future__ import annotations

import heapq
import pickle
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch

from labreport import paths
from labreport.facts.recipes import RECIPES, for_profile
from labreport.images.cifar10 import synthetic
from labreport.networks.pretrained import WeightsError, WeightsUnavailable, weights_name
from labreport.records.provenance import environment
from labreport.records.store import Store
from labreport.running.plan import Place, Training, carry_out, missing
from labreport.running.ray import Trained, cluster, keep, needed_files

AGAIN = 20  # times that each stored training is asked for
SEEDS = 100
WORKERS = (1, 8, 64)
FASTER = (1, 10, 100)  # a GPU against the core that the records are of: assumed
LINK = 1.25e9  # bytes a second between driver and nodes, 10 Gbit/s: assumed


@dataclass(frozen=True)
class Overhead:
    """Of one training: the driver's and the worker's seconds, and the bytes that go there and come back."""

    driver: float
    both: float
    there: int
    back: int


@contextmanager
def empty_home() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as home, patch.dict("os.environ", LABREPORT_HOME=home):
        yield


def measure() -> dict[str, Overhead]:
    """Each recipe's, with networks of their real size and predictions for 10,000 test images."""
    data = synthetic(n_train=400, n_val=100, n_test=10_000)
    recipes = [for_profile(recipe, "smoke") for recipe in RECIPES.values()]
    try:
        weights_name()
    except (WeightsUnavailable, WeightsError):
        recipes = [recipe for recipe in recipes if not recipe.pretrained]
    found = {}
    with empty_home():
        store = Store(paths.records("smoke"))
        with cluster(data, store, "smoke", "cpu") as place:
            trainings = missing(recipes, (0,), store, data.info, place, threads=1)
            for outcome in carry_out(trainings, place):
                assert outcome.record, outcome.problem
            for training in trainings:
                driver, both = ask_again(place, training)
                (record,) = store.all(training.recipe.name)
                weights = (paths.runs("smoke") / f"{record.stem}.safetensors").read_bytes()
                sent = (training, needed_files(training, store, data.info, "smoke"))
                there, back = (len(pickle.dumps(packet)) for packet in (sent, Trained(record, weights)))
                storing = seconds_of_storing(Trained(record, weights))
                found[training.recipe.name] = Overhead(driver + storing, both + storing, there, back)
    return found


def ask_again(place: Place, training: Training) -> tuple[float, float]:
    """Seconds of the driver's processors, and by the clock, for one of many requests."""
    place.start(training).result()
    began, used = time.perf_counter(), time.process_time()
    for future in [place.start(training) for _ in range(AGAIN)]:
        future.result()
    return (time.process_time() - used) / AGAIN, (time.perf_counter() - began) / AGAIN


def seconds_of_storing(trained: Trained) -> float:
    times = []
    for _ in range(5):
        with empty_home():
            began = time.perf_counter()
            keep(trained, Store(paths.records("smoke")), "smoke")
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def training_seconds() -> dict[str, float]:
    """Median seconds of each recipe's own training in the reference run."""
    store = Store(paths.REPOSITORY / "figures" / "paper" / "records")
    return {
        name: statistics.median(
            sum(row.seconds for row in record.history)
            for record in store.all(name)
            if record.recipe == recipe.settings()
        )
        for name, recipe in RECIPES.items()
    }


def hours(seconds: dict[str, float], driver: dict[str, float], workers: int, faster: float) -> tuple[float, float]:
    """Hours until all seeds are trained, and the driver's busy share of them.

    Each training goes to the first free worker, in the plan's order; the driver gives them out one by one.
    """
    free = [0.0] * workers
    given, ends, end = 0.0, {}, 0.0
    for name in sorted(seconds, key=lambda name: bool(RECIPES[name].features_from)):
        for seed in range(SEEDS):
            given += driver[name]
            start = max(given, heapq.heappop(free), ends.get((RECIPES[name].features_from, seed), 0.0))
            ends[name, seed] = start + seconds[name] / faster
            heapq.heappush(free, ends[name, seed])
            end = max(end, ends[name, seed])
    return end / 3600, given / end


def limits(seconds: dict[str, float], costs: dict[str, Overhead]) -> pd.DataFrame:
    """How many GPUs are kept busy, at most, by each of what they share."""
    of_a_seed = sum(seconds.values())
    rows = []
    for faster in FASTER:
        driver = of_a_seed / faster / sum(cost.driver for cost in costs.values())
        link = of_a_seed / faster / (sum(cost.there + cost.back for cost in costs.values()) / LINK)
        longest = SEEDS * of_a_seed / max(seconds.values())
        rows.append((f"{faster} ×", *(f"{count:,.0f}" for count in (driver, link, longest))))
    return pd.DataFrame(rows, columns=["GPU against core", "the driver", "its link", "the longest training"])


def main() -> None:
    overheads, seconds = measure(), training_seconds()
    worst = max(overheads.values(), key=lambda overhead: overhead.driver)
    costs = {name: overheads.get(name, worst) for name in seconds}
    table = pd.DataFrame(
        {
            "recipe": seconds,
            "training, s": {name: f"{value:,.0f}" for name, value in seconds.items()},
            "driver, ms": {name: f"{1000 * cost.driver:.0f}" for name, cost in costs.items()},
            "driver and worker, ms": {name: f"{1000 * cost.both:.0f}" for name, cost in costs.items()},
            "sent, MB": {name: f"{cost.there / 1e6:.2f}" for name, cost in costs.items()},
            "back, MB": {name: f"{cost.back / 1e6:.2f}" for name, cost in costs.items()},
        }
    )
    table["recipe"] = table.index
    driver = {name: cost.driver for name, cost in costs.items()}
    rows = []
    for faster in FASTER:
        ideal = SEEDS * sum(seconds.values()) / faster / 3600
        for workers in WORKERS:
            needed, busy = hours(seconds, driver, workers, faster)
            share = ideal / workers / needed
            rows.append((f"{faster} ×", workers, f"{needed:,.2f}", f"{100 * share:.0f} %", f"{100 * busy:.1f} %"))
    scaling = pd.DataFrame(rows, columns=["GPU against core", "GPUs", "hours", "busy GPUs", "busy driver"])
    here = environment(torch.device("cpu"))
    conditions = f"Overhead: n = {AGAIN} each, {here.device}, {here.system}, Python {here.python}."
    path = Path(__file__).with_suffix(".md")
    text = path.read_text()
    tables = {
        "overhead": f"{table.to_markdown(index=False)}\n\n{conditions}",
        "scaling": scaling.to_markdown(index=False),
        "limits": limits(seconds, costs).to_markdown(index=False),
    }
    for mark, made in tables.items():
        before, _, rest = text.partition(f"<!-- {mark} -->\n")
        text = f"{before}<!-- {mark} -->\n{made}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
