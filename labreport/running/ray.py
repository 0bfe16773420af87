"""Trainings on a Ray cluster: the images once in its object store, the records back in this process's own.

Only this file imports Ray, which `pip install -e '.[cluster]'` installs. Every node needs this code at the same path.
Where the nodes see this process's folders (a shared file system), a training that lost its node goes on from its last
checkpoint; elsewhere it starts again.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
import torch

from labreport import paths
from labreport.facts.recipes import RECIPES, Recipe, for_profile
from labreport.files import write_atomically
from labreport.images.splits import Data, Images
from labreport.networks import pretrained
from labreport.records.record import DataInfo, RunRecord
from labreport.records.store import Store
from labreport.running.plan import NotTrained, Place, Training
from labreport.training.identity import code_of, network_of
from labreport.training.train import find, train

RETRIES = 5  # of a training whose node or process died
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Trained:
    """A finished run: its record and the bytes of its weights' file."""

    record: RunRecord
    weights: bytes


@dataclass(frozen=True)
class Home:
    """Where the driver keeps its files, and a file that is there as long as it runs, for others to see whether they do.

    `environment`: the driver's variables that a training follows.
    """

    folder: Path
    token: Path
    environment: dict[str, str]


@contextmanager
def cluster(
    data: Data, store: Store, profile: str, device: str | None = None, jobs: int | None = None
) -> Iterator[Place]:
    """The cluster that `RAY_ADDRESS` names or that this machine belongs to, else a new one of this machine alone.

    Raises:
        ValueError: the device is one of this machine's, and so no node's.
        RuntimeError: there is no such cluster.
    """
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"on Ray the device can be cpu or cuda, not {device!r}: Ray chooses which GPU")
    with ExitStack() as stack:
        _connect()
        stack.callback(ray.shutdown)
        home = stack.enter_context(_home(profile))
        keeper = stack.enter_context(ThreadPoolExecutor(1))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = 0 if device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
        images = {name: ray.put(array) for name, array in packed(data).items()}

        def start(training: Training) -> Future[RunRecord]:
            future: Future[RunRecord] = Future()
            try:
                brought = needed_files(training, store, data.info, profile)
            except Exception as error:
                future.set_exception(error)
                return future
            remote = ray.remote(train_on_node).options(
                name=str(training), num_cpus=training.cpus, num_gpus=training.gpus, max_retries=RETRIES
            )
            result = remote.remote(training, data.info, profile, home, brought, **images).future()
            result.add_done_callback(lambda done: keeper.submit(_settle, done, future, store, profile))
            return future

        yield Place(start, max(int(node.get("CPU", 0)) for node in nodes), gpus, jobs or math.inf)


def _connect() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        address = os.environ.get("RAY_ADDRESS", "this machine")
        raise NotTrained(
            f"no Ray cluster at {address} ({error}); if that is one and asks for a token, set RAY_AUTH_MODE=token"
        ) from error
    signal.signal(signal.SIGTERM, on_term)  # Ray has taken it


@contextmanager
def _home(profile: str) -> Iterator[Home]:
    token = paths.runs(profile) / f"cluster-{uuid.uuid4().hex}.token"
    write_atomically(token, b"")
    left_out = ("LABREPORT_HOME", "LABREPORT_PARENT", "LABREPORT_DATA", "LABREPORT_WEIGHTS")
    environment = {k: v for k, v in os.environ.items() if k.startswith("LABREPORT_") and k not in left_out}
    try:
        yield Home(paths.home(), token, environment)
    finally:
        token.unlink(missing_ok=True)


# --- what goes there -------------------------------------------------------------------------------------------------


def packed(data: Data) -> dict[str, np.ndarray]:
    """Each split's images (N, H, W, C) and labels (N,) as arrays, which Ray's workers read where they lie."""
    arrays = {}
    for name in SPLITS:
        split: Images = getattr(data, name)
        arrays[f"{name}_images"] = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        arrays[f"{name}_labels"] = split.labels.numpy()
    return arrays


def unpacked(info: DataInfo, arrays: dict[str, np.ndarray]) -> Data:
    """The data again, its tensors on the arrays' own memory."""
    with warnings.catch_warnings(action="ignore"):  # torch's, that they are read-only: nothing writes into images
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    train, val, test = (
        Images(tensors[f"{n}_images"].permute(0, 3, 1, 2), tensors[f"{n}_labels"]) for n in ("train", "val", "test")
    )
    return Data(train, val, test, info)


def needed_files(training: Training, store: Store, info: DataInfo, profile: str) -> Trained | dict[str, bytes] | None:
    """What a training needs besides images: the run that it builds on, or the file of weights that it starts from.

    Raises:
        WeightsUnavailable, WeightsError: there is no such file.
        NotTrained: the run that it builds on is not stored.
    """
    recipe = training.recipe
    if recipe.pretrained:
        path = pretrained.find_file()
        return {file.name: file.read_bytes() for file in (path, path.with_suffix(".txt")) if file.is_file()}
    if not recipe.features_from:
        return None
    source = for_profile(RECIPES[recipe.features_from], profile)
    record = find(store, source, training.seed, info, network_of(source, len(info.classes)), weights=None)
    path = paths.runs(profile) / f"{record.stem if record else source.name}.safetensors"
    if record is None or not path.exists():
        raise NotTrained(f"it needs the trained network of {source.name}, seed {training.seed}, and {path} is missing")
    return Trained(record, path.read_bytes())


# --- there -----------------------------------------------------------------------------------------------------------


def train_on_node(
    training: Training,
    info: DataInfo,
    profile: str,
    home: Home,
    brought: Trained | dict[str, bytes] | None,
    **arrays: np.ndarray,
) -> Trained:
    """One training in a worker of Ray's, in the driver's folders where this node sees them, else in its own."""
    os.environ.update(home.environment)
    torch.set_num_threads(training.cpus)
    with tempfile.TemporaryDirectory(prefix="labreport-") as own:
        os.environ["LABREPORT_HOME"] = str(home.folder if home.token.exists() else own)
        if isinstance(brought, Trained):
            keep(brought, Store(paths.records(profile)), profile)
        elif brought:
            for name, content in brought.items():
                (Path(own) / name).write_bytes(content)
            os.environ["LABREPORT_WEIGHTS"] = str(Path(own) / next(iter(brought)))
        device = "cuda" if training.gpus else "cpu"
        record = train(training.recipe, unpacked(info, arrays), training.seed, profile=profile, device=device)
        return Trained(record, (paths.runs(profile) / f"{record.stem}.safetensors").read_bytes())


# --- and back --------------------------------------------------------------------------------------------------------


def keep(trained: Trained, store: Store, profile: str) -> None:
    """Store a run's record and weights where they are not stored yet; the record last, as `train` does."""
    stem = trained.record.stem
    weights = paths.runs(profile) / f"{stem}.safetensors"
    if not weights.exists():
        write_atomically(weights, trained.weights)
    if not (store.folder / f"{stem}.json").exists():
        store.save(trained.record)


def _settle(done: Future[Trained], future: Future[RunRecord], store: Store, profile: str) -> None:
    """Store what came back, and tell the one who waits for it."""
    try:
        trained = done.result()
        record = trained.record
        if not record.is_of(code_of(Recipe(**record.recipe), len(record.data.classes), record.ways)):
            raise NotTrained(f"{record.stem}: its node has other code than this one; install the same there")
        keep(trained, store, profile)
        future.set_result(record)
    except ray.exceptions.RayTaskError as error:  # a sentence of ours, or else a bug with its traceback
        ours = type(error.cause).__module__.startswith("labreport.")
        future.set_exception(NotTrained(str(error.cause if ours else error)))
    except ray.exceptions.RayError as error:
        future.set_exception(NotTrained(f"its process or node died {RETRIES + 1} times ({str(error).splitlines()[0]})"))
    except Exception as error:
        future.set_exception(error)
