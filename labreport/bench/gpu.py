"""All that a GPU can show of this project, in the time that there is: `python -m labreport gpu --out DIR --minutes 9`.

The steps come in the order of their value, and each one's finding is on disk before the next begins; a training that
would not end in time is not begun. On a CPU the same steps are rehearsed in seconds, on the stand-in, and say so.
"""

from __future__ import annotations

import dataclasses
import io
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from labreport import paths
from labreport.facts.recipes import ABLATIONS, FOR_GPUS, RECIPES, Recipe, for_profile
from labreport.files import write_atomically
from labreport.images import cifar10
from labreport.images.splits import Data
from labreport.images.synthetic import synthetic
from labreport.networks.pretrained import WeightsUnavailable
from labreport.records.provenance import commit, environment
from labreport.training.device import best_device, keep_freed_memory
from labreport.training.run import DeviceSplit, Run
from labreport.training.steps import train_epoch
from labreport.training.together import train_together
from labreport.training.train import train

SEEDS = 10
GRAPHED = ("baseline", "first_optimization", "fine_tuned")
REFERENCE = (
    "resnet18_pretrained",
    "first_optimization",
    "fine_tuned",
    "resnet18",
    "deep_cnn",
    "dnn_softmax",
    "baseline",
)
ARCHIVE_BYTES = 16 * 2**20
GRAPH_ROUNDS = 3


@dataclass(eq=False)
class Session:
    """The time that is left, the device, and what has been found so far."""

    out: Path
    deadline: float  # of time.monotonic()
    device: torch.device
    data: Data
    rehearsal: bool
    findings: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    @property
    def profile(self) -> str:
        return "smoke" if self.rehearsal else "paper"

    def note(self, step: str, finding: Any) -> None:
        """Keep a finding on disk, at once, and print it."""
        self.findings[step] = finding
        write_atomically(self.out / "gpu.json", json.dumps(self.findings, indent=1).encode())
        print(f"{step}: {json.dumps(finding)} ({self.left:.0f} s left)", flush=True)


def main(out: Path, minutes: float, data_dir: Path | None) -> None:
    """Run every step that fits into `minutes`, and leave `gpu.json` and the records in `out`.

    Raises:
        StorageError: `out` cannot be written.
    """
    began, device = time.monotonic(), best_device()
    rehearsal = device.type == "cpu"
    if rehearsal:
        print("no GPU: a rehearsal on the CPU, on the stand-in; its figures mean nothing", flush=True)
    images = synthetic(400, 100, 200) if rehearsal else cifar10.load(data_dir)
    session = Session(out, began + 60 * minutes, device, images, rehearsal)
    keep_freed_memory()
    with (
        tempfile.TemporaryDirectory(prefix="labreport-gpu-") as folder,  # since only the records are wanted
        paths.variables(LABREPORT_HOME=folder),
        torch.random.fork_rng(),
    ):
        try:
            for step in STEPS:
                if session.left > 0:
                    step(session)
        finally:
            archive(session)


# --- the steps ------------------------------------------------------------------------------------------------------


def conditions(session: Session) -> None:
    """The card, the versions and the data."""
    facts = dataclasses.asdict(environment(session.device)) | {"commit": commit(), "rehearsal": session.rehearsal}
    session.note("conditions", facts | {"data": session.data.info.source, "fingerprint": session.data.info.fingerprint})


def cuda_tests(session: Session) -> None:
    """What the tests for GPUs say; in a checkout only, since an installed copy has no tests."""
    tests = paths.REPOSITORY / "tests" / "training" / "test_cuda.py"
    if not tests.exists():
        session.note("tests", "not run: no checkout")
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", str(tests)]
    try:
        limit = max(session.left / 3, 30)
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=paths.REPOSITORY)
    except subprocess.TimeoutExpired:
        session.note("tests", f"not finished after {limit:.0f} s")
        return
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    session.note("tests", {"exit": done.returncode, "last line": lines[-1]})


def graphs(session: Session) -> None:
    """Steps of the tiny-batch networks replayed from a graph against the same steps one by one, images/s."""
    split = DeviceSplit.of(session.data.train, session.device)
    for name in GRAPHED:
        recipe = for_profile(RECIPES[name], session.profile)
        graphed, eager = (Run.start(recipe, 0, split, 10, session.device) for _ in range(2))
        eager.graph_refused = True
        part = DeviceSplit(split.inputs[: 200 * recipe.batch_size], split.labels[: 200 * recipe.batch_size])
        for run in (graphed, eager):  # recorded, and cuDNN's algorithms chosen
            train_epoch(run, part, 0)
        rates = [[_rate(run, part, session.device) for run in (graphed, eager)] for _ in range(GRAPH_ROUNDS)]
        ratio = statistics.median(a / b for a, b in rates)
        medians = [round(statistics.median(side)) for side in zip(*rates, strict=True)]
        found = {"graphed": medians[0], "eager": medians[1], "ratio": round(ratio, 2)}
        session.note(f"graphs {name}", found | {"recorded": graphed.graph is not None})


def _rate(run: Run, part: DeviceSplit, device: torch.device) -> float:
    began = time.perf_counter()
    seen = train_epoch(run, part, 0).n  # reads the loss at the end, so the device has finished
    return seen / (time.perf_counter() - began)


def fast94(session: Session) -> None:
    """Ten seeds of the fast recipe, after one epoch to warm up."""
    warm_up = dataclasses.replace(for_profile(RECIPES["fast94"], session.profile), name="warm_up", epochs=1)
    train(warm_up, session.data, profile="smoke", device=session.device)
    trainings(session, RECIPES["fast94"], SEEDS)


def fast96(session: Session) -> None:
    """The wide recipe, as many seeds as a fifth of the time allows, one at least."""
    trainings(session, FOR_GPUS["fast96"], SEEDS, seconds=session.left / 5)


def branches(session: Session) -> None:
    """The small networks of the reference run: the seeds of each as branches of one graph, if the tests bear it out."""
    tested = session.findings.get("tests")
    if isinstance(tested, dict) and tested["exit"]:
        session.note("skipped branches", "since the tests for GPUs failed")
        return
    for name in (name for name in REFERENCE if name in GRAPHED):
        together(session, RECIPES[name], range(2 if session.rehearsal else SEEDS))


def reference(session: Session) -> None:
    """The reference run's recipes, ten seeds each, seed by seed, so that the same seeds of all are there at any end."""
    for seed in range(1 if session.rehearsal else SEEDS):
        for name in REFERENCE:
            trainings(session, RECIPES[name], seed + 1, first=seed)


def ablations(session: Session) -> None:
    """Three seeds of every ablation."""
    for recipe in ABLATIONS.values():
        trainings(session, recipe, 1 if session.rehearsal else 3)


class OutOfTime(Exception):
    """A training would not end in time."""


def together(session: Session, recipe: Recipe, seeds: Sequence[int]) -> None:
    """Train the seeds in step, unless their first epochs show that there is no time for the rest."""
    recipe, began = for_profile(recipe, session.profile), time.monotonic()

    def in_time(epochs: int) -> None:
        left = (recipe.epochs - epochs) * (time.monotonic() - began) / epochs
        if epochs >= 2 and left > session.left:  # the first epoch also records the graph
            raise OutOfTime(f"after epoch {epochs}: {left:.0f} s to go")

    try:
        records = train_together(
            recipe, session.data, seeds, profile=session.profile, device=session.device, on_epoch=in_time
        )
    except (OutOfTime, RuntimeError) as error:  # torch's own, too: the next step may still work
        session.note(f"failed {recipe.name} in step", str(error))
        return
    wall = round(time.monotonic() - began, 2)
    tests = [round(record.test_score.accuracy, 4) for record in records]
    session.note(f"in step {recipe.name}", {"seeds": len(records), "wall": wall, "test": tests})


def trainings(session: Session, recipe: Recipe, seeds: int, first: int = 0, seconds: float = float("inf")) -> None:
    """Train seeds until one more would not end in time; what each took and reached is noted."""
    recipe, until = for_profile(recipe, session.profile), min(session.deadline, time.monotonic() + seconds)
    key = f"training {recipe.name}"
    found = session.findings.get(key, [])
    for seed in range(first, 1 if session.rehearsal else seeds):
        expected = max((one["wall"] for one in found), default=0.0)
        if time.monotonic() + 1.1 * expected > until:
            session.note(f"skipped {recipe.name}", f"from seed {seed} on: {expected:.0f} s each")
            return
        began = time.monotonic()
        try:
            record = train(recipe, session.data, seed, profile=session.profile, device=session.device)
        except (RuntimeError, WeightsUnavailable) as error:  # ours and torch's: the next step may still work
            session.note(f"failed {recipe.name}", str(error))
            return
        wall, accuracy = round(time.monotonic() - began, 2), record.test_score.accuracy
        found = [*found, {"seed": seed, "seconds": round(record.seconds, 2), "wall": wall, "test": round(accuracy, 4)}]
        session.note(key, found)


def archive(session: Session) -> None:
    """The records in one file, or in several where one would be over 16 MiB."""
    files = sorted(paths.records(session.profile).glob("*.*"))
    parts: list[list[Path]] = [[]]
    for file in files:
        if sum(f.stat().st_size for f in (*parts[-1], file)) > 0.95 * ARCHIVE_BYTES:
            parts.append([])
        parts[-1].append(file)
    for number, part in enumerate(filter(None, parts), start=1):
        name = "records.tar.gz" if len(parts) == 1 else f"records-{number}.tar.gz"
        write_atomically(session.out / name, _packed(part))
    session.note("archive", {"records": sum(file.suffix == ".json" for file in files), "files": len(parts)})


def _packed(files: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for file in files:
            tar.add(file, arcname=file.name)
    return buffer.getvalue()


STEPS: tuple[Callable[[Session], None], ...] = (
    conditions,
    cuda_tests,
    graphs,
    fast94,
    fast96,
    branches,
    reference,
    ablations,
)
