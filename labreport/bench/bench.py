"""What the suite's speed is worth, measured: `python -m labreport bench`.

Every comparison runs its two sides in turn, round by round, in one process (or a pair of processes), so that whatever
else slows the machine slows both; the row is the median of the rounds' ratios, with the least and the greatest. The
other side of a training is the loop of the lab report's appendix as a user would write it (`appendix`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fnmatch
import json
import multiprocessing
import os
import pickle
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from labreport import paths
from labreport.bench.appendix import AppendixLoop
from labreport.facts.recipes import RECIPES, Recipe, for_profile
from labreport.files import write_atomically
from labreport.images import cifar10 as data
from labreport.images import formats
from labreport.images.synthetic import SHAPES
from labreport.networks import costs
from labreport.records.provenance import environment, processor
from labreport.training import evaluate, steps
from labreport.training.compiled import steps_for
from labreport.training.device import best_device, keep_freed_memory, supports_bf16, threads_for
from labreport.training.run import DeviceSplit, Run
from labreport.training.train import train
from labreport.training.trial import training_seconds

ROUNDS = 5
ROUND_SECONDS = 0.7  # for each side of a comparison; a step that takes longer is one round
ROW_SECONDS = 5.0  # after which a row begins no other round, so that slow machines end soon, too
N_IMAGES = 45_000  # CIFAR-10's training split, so that neither side finds its images in the cache


@dataclass(frozen=True)
class Row:
    """One line of the table. `values` has one number a round, in `unit`; it is empty where nothing could be measured.

    `what` says what was measured, `detail` what the rounds' medians were. `goal` is a bound on the median: from below
    where `at_least`, else from above.
    """

    name: str
    what: str
    values: tuple[float, ...]
    unit: str
    detail: str
    goal: float | None = None
    at_least: bool = True
    presumes: str = ""  # what the goal presumes and this machine has not; it is then not held against it

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median keeps to the goal; None without a goal that holds here, or without values."""
        if self.goal is None or self.presumes or not self.values:
            return None
        return self.median >= self.goal if self.at_least else self.median <= self.goal

    def as_json(self) -> dict[str, Any]:
        """The row's fields and what follows from them, as plain values."""
        spread = (self.median, min(self.values), max(self.values)) if self.values else (None, None, None)
        return dataclasses.asdict(self) | dict(zip(("median", "min", "max"), spread, strict=True)) | {"met": self.met}


@dataclass(frozen=True)
class Bench:
    """The conditions that all rows share. `folder` is for what a row has to write."""

    device: torch.device
    folder: Path
    rounds: int = ROUNDS
    seconds: float = ROUND_SECONDS
    n_images: int = N_IMAGES

    @cached_property
    def data(self) -> data.Data:
        """Stand-in images: speed depends on their number and size, not on what they show."""
        return data.synthetic(self.n_images, 10, 10)

    @cached_property
    def split(self) -> DeviceSplit:
        return DeviceSplit.of(self.data.train, self.device)

    @cached_property
    def files(self) -> Path:
        """A folder with stand-in images in CIFAR-10's official layout and size."""
        write_stand_in_files(self.folder)
        return self.folder

    def interleave(self, *sides: Callable[[], float]) -> list[tuple[float, ...]]:
        """Run the sides in turn, `rounds` times or until they have taken `ROW_SECONDS`: one tuple of rates a round."""
        began, rates = time.perf_counter(), [tuple(side() for side in sides)]
        while len(rates) < self.rounds and time.perf_counter() - began < ROW_SECONDS:
            rates.append(tuple(side() for side in sides))
        return rates

    def paced(self, run: Callable[[int], None], batch_size: int) -> Callable[[], float]:
        """A function that calls `run` with about `seconds` worth of images, and returns images a second.

        Their number, a multiple of `batch_size` up to `n_images`, comes from trials, after a first one that warms up
        and waits for the loop's process.
        """
        trial = min(max(256 // batch_size, 1) * batch_size, self.n_images)
        run(trial)
        while trial / (rate := _rate(run, trial)) < self.seconds / 4 and trial * 4 <= self.n_images:
            trial *= 4
        images = min(rate * self.seconds, self.n_images)
        return partial(_rate, run, max(int(images) // batch_size, 1) * batch_size)


def _rate(run: Callable[[int], None], images: int) -> float:
    start = time.perf_counter()
    run(images)
    return images / (time.perf_counter() - start)


# --- the two sides of a training -------------------------------------------------------------------------------------


class OurLoop:
    """`steps.train_epoch` on the first images of a split, with what `train()` sets up around it."""

    def __init__(self, recipe: Recipe, split: DeviceSplit, device: torch.device):
        keep_freed_memory()
        self.recipe, self.split = recipe, split
        self.state = Run.start(recipe, 0, split, 10, device)
        self.state.compiled = steps_for(recipe, self.state.model, split.inputs)
        # The last epoch is the one whose images have their full size, in a recipe that begins with smaller ones.
        self.epoch = recipe.epochs - 1

    def run(self, images: int, threads: int | None = None) -> None:
        """Train on `images` images, with the number of threads that `train()` would use, or with `threads`."""
        part = DeviceSplit(self.split.inputs[:images], self.split.labels[:images])
        with threads_for(self.recipe, self.state.device, threads):
            steps.train_epoch(self.state, part, self.epoch)

    def close(self) -> None:
        """Nothing is left to end."""


def start_method() -> Literal["spawn", "forkserver"]:
    """How a loop's process starts: as one that has nothing of this one, but where that can be the imports at once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload([__name__])
    return "forkserver"


class LoopProcess:
    """A training loop in a process of its own, so that neither side of a comparison has what the other set up."""

    def __init__(self, loop: Callable[..., OurLoop | AppendixLoop], *args: Any):
        context: Any = torch.multiprocessing.get_context(start_method())  # hands tensors over as shared memory
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, loop, *args))
        self._process.start()
        theirs.close()  # so that a process that dies is an EOFError here, not a wait without end

    def start(self, images: int, *args: Any) -> None:
        self._connection.send((images, *args))

    def wait(self) -> None:
        self._connection.recv()

    def run(self, images: int, *args: Any) -> None:
        self.start(images, *args)
        self.wait()

    def __enter__(self) -> LoopProcess:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._connection.send(None)
        self._process.join(timeout=5)
        self._process.kill()


def _serve(connection: Connection, loop: Callable[..., OurLoop | AppendixLoop], *args: Any) -> None:
    """Run the loop whenever the other side says with what, and answer when it is done; until told None."""
    multiprocessing.set_start_method(None, force=True)  # a DataLoader's workers start as they do in a user's process
    served = loop(*args)
    while (order := connection.recv()) is not None:
        served.run(*order)
        connection.send("done")
    served.close()


def train_row(name: str, goal: float, bench: Bench) -> Row:
    """Images a second of our loop over the appendix's, with the better number of workers in each round."""
    recipe = RECIPES[name]
    images = bench.data.train
    with (
        LoopProcess(OurLoop, recipe, bench.split, bench.device) as ours,
        LoopProcess(AppendixLoop, recipe, images, 0, bench.device) as alone,
        LoopProcess(AppendixLoop, recipe, images, 2, bench.device) as with_workers,
    ):
        sides = [bench.paced(loop.run, recipe.batch_size) for loop in (ours, alone, with_workers)]
        rates = bench.interleave(*sides)
    mine, *others = (statistics.median(side) for side in zip(*rates, strict=True))
    workers = "0 workers" if others[0] >= others[1] else "2 workers"
    return Row(
        name=f"train-{name}",
        what=f"training images/s at batch {recipe.batch_size}: our loop over the appendix's",
        values=tuple(rate[0] / max(rate[1:]) for rate in rates),
        unit="×",
        detail=f"ours {mine:,.0f}, the appendix's loop {max(others):,.0f} images/s ({workers})",
        goal=goal,
    )


# --- seeds side by side ----------------------------------------------------------------------------------------------


def _run_all(loops: Sequence[LoopProcess], images: int) -> None:
    """Let each process train its share of `images` with one thread, and wait for all."""
    for loop in loops:
        loop.start(images // len(loops), 1)
    for loop in loops:
        loop.wait()


def seeds_row(name: str, n: int, goal: float, bench: Bench) -> Row:
    """Total images a second of `n` seeds over that of `n` copies of the appendix's loop, all `n` at once."""
    recipe = RECIPES[name]
    with contextlib.ExitStack() as processes:
        ours, theirs = (
            [processes.enter_context(LoopProcess(loop, recipe, *arguments, bench.device)) for _ in range(n)]
            for loop, arguments in ((OurLoop, (bench.split,)), (AppendixLoop, (bench.data.train, 0)))
        )
        sides = [bench.paced(partial(_run_all, loops), n * recipe.batch_size) for loops in (ours, theirs)]
        rates = bench.interleave(*sides)
    mine, other = (statistics.median(side) for side in zip(*rates, strict=True))
    return Row(
        name=f"seeds-{name}",
        what=f"total images/s of {n} processes at once, one thread each: ours over the appendix's loop",
        values=tuple(a / b for a, b in rates),
        unit="×",
        detail=f"{n} seeds at once {mine:,.0f}, {n} of the appendix's loops {other:,.0f} images/s in total",
        goal=goal,
    )


# --- the hardware's share --------------------------------------------------------------------------------------------


def matmul_flops(dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    """FLOP/s of this machine's fastest matrix product among those that fit in `seconds` (at least two)."""
    n = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    best, end = float("inf"), time.perf_counter() + seconds
    torch.mm(a, b, out=out)
    while best == float("inf") or time.perf_counter() < end:
        _synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        _synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flops_row(name: str, goal: float | None, bench: Bench) -> Row:
    """Achieved FLOP/s of a training over the machine's matmul peak in the same precision."""
    recipe = RECIPES[name]
    loop = OurLoop(recipe, bench.split, bench.device)
    flops = costs.flops_per_input(loop.state.model, (3, 32, 32))[1]
    dtype = torch.bfloat16 if loop.state.autocast else torch.float32
    achieved = bench.paced(loop.run, recipe.batch_size)
    rates = bench.interleave(achieved, partial(matmul_flops, dtype, bench.device, bench.seconds / 2))
    images, peak = (statistics.median(side) for side in zip(*rates, strict=True))
    precision = "bf16" if loop.state.autocast else "fp32"
    return Row(
        name=f"flops-{name}",
        what=f"training FLOP/s at batch {recipe.batch_size}, over the matrix product's peak in the same precision",
        values=tuple(rate * flops / peak for rate, peak in rates),
        unit="×",
        detail=f"training {images * flops / 1e9:,.0f}, matrix product {peak / 1e9:,.0f} GFLOP/s in {precision}",
        goal=goal,
        presumes="" if loop.state.autocast or recipe.precision != "bf16" else "bf16",
    )


# --- waiting times ---------------------------------------------------------------------------------------------------


def in_fresh_process(function: Callable, *args: Any) -> Any:
    """`function(*args)` in a new Python process, which has imported this module and done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def write_stand_in_files(folder: Path) -> None:
    """Seven files of the official layout and size, with random images."""
    folder = folder / formats.FOLDER
    folder.mkdir(parents=True)
    random, labels = np.random.default_rng(0), (np.arange(formats.BATCH_SIZE) % 10).tolist()
    for name in formats.BATCH_FILES:
        pixels = random.integers(0, 256, (formats.BATCH_SIZE, formats.PIXELS), dtype=np.uint8)
        # Protocol 3 writes pixels as plain bytes, as Python 2 wrote the official files; 2 would write them as UTF-8.
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, protocol=3))
    (folder / formats.META_FILE).write_bytes(pickle.dumps({b"label_names": list(SHAPES)}, protocol=3))


def first_batch_seconds(folder: Path, device: torch.device) -> float:
    """From the call that reads the files to the first augmented images on the device."""
    start = time.perf_counter()
    split = DeviceSplit.of(data.load(folder).train, device)
    next(steps.chunks(RECIPES["fine_tuned"], split, 0, 0, steps.CHUNK))
    _synchronize(device)
    return time.perf_counter() - start


def data_row(bench: Bench) -> Row:
    """Seconds to the first batch, each round in a fresh process."""
    rounds = range(min(bench.rounds, 3))  # a process takes longer to start than what is measured
    values = tuple(in_fresh_process(first_batch_seconds, bench.files, bench.device) for _ in rounds)
    what = "60,000 images from disk to the first augmented batch, torch being imported"
    return Row("data", what, values, "s", "disk to first batch, files in the page cache", goal=3.0, at_least=False)


def import_row(bench: Bench) -> Row:
    """Seconds of `import labreport`, each round in a fresh interpreter."""
    code = (
        "import sys, time; start = time.perf_counter(); import labreport; "
        "print(time.perf_counter() - start, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    answers = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(bench.rounds)]
    seconds, with_torch = zip(*(answer.stdout.split() for answer in answers), strict=True)
    detail = "it imports torch, and must not" if "True" in with_torch else "without torch"
    values = tuple(float(value) for value in seconds)
    return Row("import", "import labreport in a fresh interpreter", values, "s", detail, goal=0.5, at_least=False)


FORECAST = ("resnet18", "fine_tuned", "fast94")  # each takes seconds: what surrounds a training hardly counts


def quick_row(bench: Bench) -> Row:
    """Trainings as in `quick`, of fewer images: the time that they take over its forecast, or the inverse."""
    images = data.synthetic(2_000, 500, 500)
    ratios, said = [], []
    with paths.variables(LABREPORT_HOME=str(bench.folder / "quick")):
        for name in FORECAST:
            recipe = dataclasses.replace(for_profile(RECIPES[name], "quick"), train_images=0)
            predicted = training_seconds(recipe, images, bench.device)
            began = time.perf_counter()
            train(recipe, images, profile="smoke", device=bench.device, watch=lambda stage: None)
            measured = time.perf_counter() - began
            ratios.append(max(measured / predicted, predicted / measured))
            said.append(f"{name} {predicted:.1f} → {measured:.1f}")
    detail = f"seconds predicted → measured: {', '.join(said)}"
    what = "time of a training over the forecast of it, or its inverse"
    return Row("quick", what, tuple(ratios), "×", detail, goal=1.5, at_least=False)


def report_row(bench: Bench) -> Row:
    """Seconds to rebuild the paper report from its committed records, once, in a folder of its own."""
    row = Row("report", "the paper report rebuilt from its records", (), "s", "", goal=45.0, at_least=False)
    records = paths.REPOSITORY / "figures" / "paper" / "records"
    n_records = len(list(records.glob("*.json")))
    if not n_records:
        return dataclasses.replace(row, detail=f"no records in {records.relative_to(paths.REPOSITORY)}")
    home = bench.folder / "home"
    shutil.copytree(records, home / "figures" / "paper" / "records")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LABREPORT_")}
    environment |= {"LABREPORT_HOME": str(home), "LABREPORT_OFFLINE": "1"}
    code = "from labreport.document.report import build_report; build_report('paper')"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        return dataclasses.replace(row, detail=f"failed: {done.stderr.strip().splitlines()[-1]}")
    return dataclasses.replace(row, values=(seconds,), detail=f"{n_records} records, one round")


# --- memory ----------------------------------------------------------------------------------------------------------


def peak_memory() -> int:
    """The most memory, in bytes, that this process has held.

    Linux's `ru_maxrss` starts from the parent's peak in a process that was forked, so `VmHWM` is asked where it exists.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line:
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB


def training_memory(name: str, folder: Path, device: torch.device) -> tuple[int, int, int]:
    """Peak bytes of a training, how much of it the imports had taken, and the size of its images and labels.

    It does all that `train()` does, but only a few times: memory does not grow with the number of steps.
    """
    keep_freed_memory()
    imported = peak_memory()
    loaded = data.load(folder)
    train, val, test = (DeviceSplit.of(split, device) for split in (loaded.train, loaded.val, loaded.test))
    recipe = RECIPES[name]
    run = Run.start(recipe, 0, train, 10, device)
    inputs, labels = next(steps.chunks(recipe, train, 0, recipe.epochs - 1, steps.CHUNK))
    for start in (0, recipe.batch_size):
        batch = slice(start, start + recipe.batch_size)
        steps.train_step(run, inputs[batch], labels[batch])
    few = slice(evaluate.EVAL_BATCH)
    evaluate.predict(run, DeviceSplit(test.inputs[few], test.labels[few]), recipe.tta)
    with tempfile.TemporaryDirectory() as checkpoints:
        run.save(Path(checkpoints) / "checkpoint", {})
    size = sum(split.inputs.nbytes + split.labels.nbytes for split in (train, val, test))
    return peak_memory(), imported, size


def memory_row(name: str, bench: Bench) -> Row:
    """Peak memory of a training in a process of its own, over the size of its data."""
    peak, imported, size = in_fresh_process(training_memory, name, bench.files, bench.device)
    mib = 2**20
    return Row(
        name=f"memory-{name}",
        what="peak memory of a training's process over the size of its data",
        values=(peak / size,),
        unit="×",
        detail=f"peak {peak / mib:,.0f} MiB, imports {imported / mib:,.0f} of it, data {size / mib:,.0f}; one round",
    )


# --- the table -------------------------------------------------------------------------------------------------------

ROWS: dict[str, Callable[[Bench], Row]] = {
    "train-baseline": partial(train_row, "baseline", 2.0),
    "train-fine_tuned": partial(train_row, "fine_tuned", 2.0),
    "train-first_optimization": partial(train_row, "first_optimization", 2.0),
    "train-resnet18": partial(train_row, "resnet18", 1.5),
    "seeds-baseline": partial(seeds_row, "baseline", 5, 3.0),
    "flops-fine_tuned": partial(flops_row, "fine_tuned", None),
    "flops-resnet18": partial(flops_row, "resnet18", None),
    "flops-fast94": partial(flops_row, "fast94", 0.6),
    "data": data_row,
    "import": import_row,
    "quick": quick_row,
    "report": report_row,
    **{
        f"memory-{name}": partial(memory_row, name)
        for name in ("baseline", "resnet18", "fast94")  # the others differ little from the first two
    },
}


def chosen(rows: Sequence[str] | None) -> list[str]:
    """The names in `ROWS` that `rows` names, by itself or by a pattern such as `train-*`; all of them for None.

    Raises:
        ValueError: a name or pattern fits none.
    """
    for wanted in rows or ():
        if not fnmatch.filter(ROWS, wanted):
            raise ValueError(f"no row of the benchmark is named {wanted!r}; there are {', '.join(ROWS)}")
    return [name for name in ROWS if not rows or any(fnmatch.fnmatch(name, wanted) for wanted in rows)]


def conditions(bench: Bench) -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    cuda = bench.device.type == "cuda"
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(bench.device) if cuda else "cpu",
        "extensions": environment(bench.device).extensions,
        "bf16": supports_bf16(bench.device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "rounds": bench.rounds,
        "seconds_per_round": bench.seconds,
    }


HEADER = f"{'row':<25} {'median [min, max]':<23} {'goal':<8} {'met':<4} rounds' medians"


def table_line(row: Row) -> str:
    """One line of the printed table."""
    spread = "–"
    if row.values:
        spread = f"{row.median:.2f} {row.unit}"
        if len(row.values) > 1:
            spread += f" [{min(row.values):.2f}, {max(row.values):.2f}]"
    goal = "–" if row.goal is None else f"{'≥' if row.at_least else '≤'} {row.goal:g}"
    goal += f" with {row.presumes}" if row.presumes and row.goal is not None else ""
    met = {True: "yes", False: "NO", None: "–"}[row.met]
    return f"{row.name:<25} {spread:<23} {goal:<8} {met:<4} {row.detail}"


def main(
    json_path: Path | None = None,
    rows: Sequence[str] | None = None,
    *,
    rounds: int = ROUNDS,
    seconds: float = ROUND_SECONDS,
    n_images: int = N_IMAGES,
) -> None:
    """Measure the rows (all by default), print each as it is done, and write all of them to `json_path`.

    Raises:
        ValueError: `rows` names a row that does not exist.
    """
    names = chosen(rows)
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(best_device(), Path(folder), rounds, seconds, n_images)
        facts = conditions(bench)
        print(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()))
        if facts["load_average"] > 0.5:
            print(
                f"WARNING: the load average is {facts['load_average']}: other programs run, and the figures are noisy"
            )
        print(HEADER, flush=True)
        for name in names:
            measured.append(ROWS[name](bench))
            print(table_line(measured[-1]), flush=True)
    if json_path:
        content = {"conditions": facts, "rows": [row.as_json() for row in measured]}
        write_atomically(Path(json_path), (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
