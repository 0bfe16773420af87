"""CIFAR-10: found on disk, downloaded, verified and split; and a synthetic stand-in for where it cannot be had.

`load()` returns three splits as uint8 tensors. The data is looked for in the folder that the caller or `LABREPORT_DATA`
names, then in `data/`, then on torchvision's server (unless `LABREPORT_OFFLINE=1`). A copy whose md5 sums are not the
official ones is read all the same, by an unpickler that builds arrays and plain values only, and says so wherever it is
used.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import pickle
import shutil
import socket
import ssl
import sys
import tarfile
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labreport import paths
from labreport.records import CAVEATS, DataInfo

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
BATCH_SIZE = 10_000  # images in each of the six batch files
PIXELS = 3 * 32 * 32  # bytes of an image: red plane, green plane, blue plane, row by row
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILE = "test_batch"
N_TRAINVAL = len(TRAIN_FILES) * BATCH_SIZE
META_FILE = "batches.meta"
OFFICIAL_MD5 = {  # as torchvision.datasets.CIFAR10 lists them; a test compares the two
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
SPLIT_SEED = 10  # of the validation split; not a run's seed, so that all runs are measured on the same images
SOCKET_TIMEOUT = 20.0  # seconds of silence after which a server counts as unreachable
WAY_OUT = "restore it from the official archive, or delete the folder to download the data again"
SHAPES = ("disc", "ring", "square", "frame", "triangle", "cross", "stripes", "checkers", "crescent", "star")


class DataError(ValueError):
    """The data that was asked for cannot be used; the message names the file and the way out."""


class _UnreachableError(Exception):
    """The server cannot be reached."""


@dataclass(frozen=True, eq=False)
class Images:
    """One split. images: (N, 3, 32, 32) uint8, red, green, blue, of any memory order; labels: (N,) int64 in [0, 9]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Data:
    """The three splits, and where they come from."""

    train: Images
    val: Images
    test: Images
    info: DataInfo

    @property
    def caveat(self) -> str:
        """What a reader must know about the images; empty for official CIFAR-10."""
        return CAVEATS[self.info.source]


def load(folder: Path | None = None, *, download: bool = True, val_size: int = 5_000) -> Data:
    """CIFAR-10 as training, validation and test images, or the synthetic stand-in where there is no way to get it.

    Args:
        folder: holds `cifar-10-batches-py` or its archive, or is that folder; `LABREPORT_DATA` when None. A folder that
            is named in either way must be good. When none is named, `data/` is looked in.
        download: whether to fetch what `data/` lacks.
        val_size: validation images, the same number a class, taken from the 50,000 training images.

    Raises:
        DataError: the folder has no data, a file in it is missing or damaged, or a download arrived damaged.
    """
    if not (0 < val_size < N_TRAINVAL and val_size % 10 == 0):
        raise DataError(f"val_size={val_size}: must be a multiple of 10 between 10 and 49,990")
    named = folder or os.environ.get("LABREPORT_DATA")
    if named:
        return _read(_find(Path(named).expanduser(), required=True), val_size)
    found = _find(paths.data())
    reason = "no download was to be tried"
    if found is None and download and os.environ.get("LABREPORT_OFFLINE", "0") in ("", "0"):
        try:
            found = _download(paths.data())
        except _UnreachableError as error:
            reason = str(error)
    if found is None:
        print(f"WARNING: no CIFAR-10 in {paths.data()} and {reason}: using the synthetic stand-in", file=sys.stderr)
        return synthetic()
    return _read(found, val_size)


def synthetic(n_train: int = 8_000, n_val: int = 1_000, n_test: int = 2_000, seed: int = 0) -> Data:
    """The stand-in: ten classes of drawn shapes (`SHAPES`) with random place, size, turn, colours and noise.

    The same arguments give the same pixels; each split is drawn from a random stream of its own.
    """
    sizes = (n_train, n_val, n_test)
    if min(sizes) < 1:
        raise DataError(f"synthetic data of {sizes} images: every split needs at least 1 image")
    splits = [_draw(n, np.random.default_rng([seed, i])) for i, n in enumerate(sizes)]
    return _data("synthetic stand-in", SHAPES, *splits)


def _data(source: str, classes: tuple[str, ...], train: Images, val: Images, test: Images) -> Data:
    info = DataInfo(source, _fingerprint(train, val, test), classes, len(train), len(val), len(test))
    return Data(train, val, test, info)


def _fingerprint(*splits: Images) -> str:
    """16 hex digits of a sha256 over every split's length, pixels and labels: another split is another fingerprint."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(len(split).to_bytes(8, "little"))
        for images in split.images.split(1_000):  # channels first, whatever their order in memory
            digest.update(images.contiguous().numpy())
        digest.update(split.labels.numpy().astype(np.uint8))
    return digest.hexdigest()[:16]


# --- reading the official layout -------------------------------------------------------------------------------------


def _find(folder: Path, *, required: bool = False) -> Path | None:
    """The folder of the batch files in or at `folder`, unpacked from the archive if need be.

    Returns None when there is nothing there, or raises DataError if it is `required`.
    """
    if (folder / FOLDER).is_dir():
        return folder / FOLDER
    if folder.name == FOLDER and folder.is_dir():
        return folder
    if (folder / ARCHIVE).is_file():
        return _unpack(folder / ARCHIVE, folder)
    if not required:
        return None
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the one that holds {FOLDER}, or none to download the data")
    raise DataError(f"{folder}: holds neither {FOLDER} nor {ARCHIVE}; name the folder that does")


def _read(folder: Path, val_size: int) -> Data:
    """The splits from a folder of batch files."""
    files = (*TRAIN_FILES, TEST_FILE)
    for name in (*files, META_FILE):
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: this file of CIFAR-10 is missing; {WAY_OUT}")
    classes, meta_md5 = _read_classes(folder / META_FILE)
    # Channels last in memory, as training wants them: it can then use these very arrays, without a copy.
    channels_last = (np.empty((n, 32, 32, 3), dtype=np.uint8) for n in (N_TRAINVAL, BATCH_SIZE))
    train_images, test_images = (array.transpose(0, 3, 1, 2) for array in channels_last)
    train_labels, test_labels = (np.empty(n, dtype=np.int64) for n in (N_TRAINVAL, BATCH_SIZE))
    images = [*np.split(train_images, len(TRAIN_FILES)), test_images]  # views, one a file
    labels = [*np.split(train_labels, len(TRAIN_FILES)), test_labels]

    def read(i: int) -> str:
        pixels, labels[i][:], md5 = _read_batch(folder / files[i])
        for channel in range(3):  # five times as fast as one assignment that transposes
            images[i][:, channel] = pixels[:, channel]
        return md5

    with ThreadPoolExecutor(max_workers=2) as pool:  # reading, hashing and copying release the interpreter's lock
        md5s = dict(zip(files, pool.map(read, range(len(files))), strict=True))
    source = "official" if md5s | {META_FILE: meta_md5} == OFFICIAL_MD5 else "unverified copy"
    in_val = _choose_validation(train_labels, val_size, folder)
    val = _images(train_images[in_val], train_labels[in_val])
    train = _images(_keep(train_images, np.flatnonzero(~in_val)), train_labels[~in_val])
    return _data(source, classes, train, val, _images(test_images, test_labels))


def _images(images: np.ndarray, labels: np.ndarray) -> Images:
    return Images(torch.from_numpy(images), torch.from_numpy(labels))


def _keep(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """`images[indices]` for ascending indices, moved up in place: a copy would take twice the memory and time."""
    for start in range(0, len(indices), 1_000):
        rows = indices[start : start + 1_000]
        images[start : start + len(rows)] = images[rows]  # never overwrites a row that is still to be moved
    return images[: len(indices)]


def _choose_validation(labels: np.ndarray, val_size: int, folder: Path) -> np.ndarray:
    """Which training images become validation images: a seeded choice of `val_size` / 10 of every class."""
    random = np.random.RandomState(SPLIT_SEED)  # its stream is frozen across numpy versions, default_rng's is not
    in_val = np.zeros(len(labels), dtype=bool)
    per_class = val_size // 10
    for label in range(10):
        indices = np.flatnonzero(labels == label)
        if len(indices) <= per_class:
            raise DataError(
                f"{folder}: {len(indices)} training images have label {label}, too few to set {per_class} of them "
                "aside for validation; get the official files"
            )
        in_val[random.permutation(indices)[:per_class]] = True
    return in_val


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """One batch file's images (10000, 3, 32, 32) uint8, its labels (10000,) int64, and the file's md5."""
    batch, md5 = _read_pickle(path)
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
        raise DataError(f"{path}: has no array 'data' and list 'labels', as a CIFAR-10 batch has; {WAY_OUT}")
    if pixels.dtype != np.uint8 or pixels.shape != (BATCH_SIZE, PIXELS):
        raise DataError(
            f"{path}: its images have shape {pixels.shape} and type {pixels.dtype} instead of "
            f"({BATCH_SIZE}, {PIXELS}) and uint8; {WAY_OUT}"
        )
    if len(labels) != BATCH_SIZE:
        raise DataError(f"{path}: has {len(labels)} labels for {BATCH_SIZE} images; {WAY_OUT}")
    for i, label in enumerate(labels):
        if not (isinstance(label, int) and 0 <= label <= 9):
            raise DataError(f"{path}: the label of image {i} is {label!r:.40}, not an integer from 0 to 9; {WAY_OUT}")
    return pixels.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64), md5


def _read_classes(path: Path) -> tuple[tuple[str, ...], str]:
    """The ten class names of `batches.meta`, and the file's md5."""
    meta, md5 = _read_pickle(path)
    names = meta.get("label_names")
    if not isinstance(names, list) or len(names) != 10 or not all(isinstance(name, str | bytes) for name in names):
        raise DataError(f"{path}: has no list of ten 'label_names'; {WAY_OUT}")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names), md5


def _read_pickle(path: Path) -> tuple[dict[str, Any], str]:
    """A batch file's dictionary, its keys as text, and the file's md5."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {WAY_OUT}") from error
    try:
        batch = _PlainUnpickler(path, content).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle fails with nearly any type: EOFError, ValueError, UnpicklingError, …
        raise DataError(f"{path}: is truncated or damaged ({error}); {WAY_OUT}") from error
    if not isinstance(batch, dict):
        raise DataError(f"{path}: holds a {type(batch).__name__} instead of a CIFAR-10 dictionary; {WAY_OUT}")
    keys = (key.decode("latin1") if isinstance(key, bytes) else key for key in batch)
    return dict(zip(keys, batch.values(), strict=True)), hashlib.md5(content, usedforsecurity=False).hexdigest()


class _PlainUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain values. Any other global, which could run code, is refused."""

    _ARRAYS = frozenset({("numpy", "ndarray"), ("numpy", "dtype")})
    _BYTES = frozenset({("_codecs", "encode"), ("__builtin__", "bytes"), ("builtins", "bytes")})  # Python 3, protocol 2
    _ARRAY_MODULES = frozenset({"numpy.core.multiarray", "numpy._core.multiarray"})  # before and since numpy 2

    def __init__(self, path: Path, content: bytes):
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if module in self._ARRAY_MODULES and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # numpy's own, whatever module it lives in
        if (module, name) not in self._ARRAYS | self._BYTES:
            raise DataError(
                f"{self._path}: refers to {module}.{name}, which no CIFAR-10 file needs and which could run code; "
                "do not trust this file, and get the official one"
            )
        return super().find_class(module, name)


# --- getting it ------------------------------------------------------------------------------------------------------


def _download(folder: Path) -> Path:
    """Fetch the archive by torchvision (progress bar, md5) and unpack it in `folder`.

    Raises:
        _UnreachableError: there is no network, or the server does not answer.
        DataError: what arrived is not the official archive, or it cannot be written.
    """
    from labreport._torchvision import torchvision  # takes more than a second, and only a download needs it

    source = torchvision.datasets.CIFAR10
    try:
        with _temporary_folder(folder) as partial, _socket_timeout(SOCKET_TIMEOUT):
            torchvision.datasets.utils.download_url(source.url, partial, ARCHIVE, source.tgz_md5)
            return _unpack(partial / ARCHIVE, folder)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _UnreachableError(f"{source.url} cannot be reached ({error})") from error
    except RuntimeError as error:
        raise DataError(
            f"{source.url}: what arrived is not the official archive (its md5 is not {source.tgz_md5}); nothing was "
            "kept: try again, or name a folder that holds the data"
        ) from error
    except OSError as error:
        raise DataError(
            f"{folder}: the download cannot be written there ({error}); make room, or name a folder"
        ) from error


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack the batch files of `archive` into `folder`/cifar-10-batches-py, all of them or nothing."""
    target = folder / FOLDER
    try:
        with _temporary_folder(folder) as partial:
            with tarfile.open(archive) as tar:
                tar.extractall(partial, filter="data")
            if not (partial / FOLDER).is_dir():
                raise DataError(f"{archive}: holds no folder {FOLDER}; replace it by the official archive")
            try:
                (partial / FOLDER).rename(target)
            except OSError:
                if not target.is_dir():  # else another process unpacked the same archive first
                    raise
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive}: cannot be unpacked in {folder} ({error}); delete it and get it again") from error
    return target


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder inside `folder`, so that renaming out of it is atomic; removed in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".cifar-10-*.partial"):  # by a process that was killed; a day is longer than any download
        if time.time() - left.stat().st_mtime > 86_400:
            shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=".cifar-10-", suffix=".partial", dir=folder))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Let every new socket fail after `seconds` of silence: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# --- the stand-in ----------------------------------------------------------------------------------------------------


def _draw(n: int, random: np.random.Generator) -> Images:
    """`n` images of shapes, brighter or darker than their ground, the classes in random order and equally frequent."""
    labels = random.permutation(np.arange(n) % 10)
    u, v = _shape_coordinates(n, random)
    masks = np.empty((n, 32, 32), dtype=bool)
    for label, shape in enumerate(SHAPES):
        masks[labels == label] = _inside(shape, u[labels == label], v[labels == label])
    sign = random.choice(np.array([-1, 1], dtype=np.int16), (n, 1, 1, 1))
    contrast = random.integers(30, 120, (n, 3, 1, 1), dtype=np.int16) * sign
    ground = 128 - contrast // 2 + random.integers(-50, 51, (n, 3, 1, 1), dtype=np.int16)
    # Each class is tinted a little: a network learns that first, and the shapes later.
    hue = 2 * np.pi * (labels[:, None] / 10 + np.arange(3) / 3)
    figure = ground + contrast + (32 * np.cos(hue)).astype(np.int16)[:, :, None, None]
    noise = random.integers(-40, 41, (n, 3, 32, 32), dtype=np.int16)
    pixels = np.clip(np.where(masks[:, None], figure, ground) + noise, 0, 255).astype(np.uint8)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


def _shape_coordinates(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's place in its shape's own frame: two (n, 32, 32) arrays, in which the shape fills [-1, 1]²."""
    centre = random.uniform(11, 20, (2, n, 1, 1)).astype(np.float32)
    radius = random.uniform(6, 13, (n, 1, 1)).astype(np.float32)
    angle = random.uniform(-0.5, 0.5, (n, 1, 1)).astype(np.float32)  # radians
    axis = np.arange(32, dtype=np.float32)
    y, x = (axis[:, None] - centre[0]) / radius, (axis - centre[1]) / radius
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which pixels belong to a shape, from their coordinates in its frame."""
    distance = np.hypot(u, v)
    side = np.maximum(np.abs(u), np.abs(v))
    match shape:
        case "disc":
            return distance < 0.9
        case "ring":
            return (distance < 1.0) & (distance > 0.6)
        case "square":
            return side < 0.8
        case "frame":
            return (side < 0.9) & (side > 0.5)
        case "triangle":
            return (v < 0.8) & (np.abs(u) < (v + 1.0) / 1.8)
        case "cross":
            return (side < 1.0) & (np.minimum(np.abs(u), np.abs(v)) < 0.3)
        case "stripes":
            return (side < 0.9) & (np.sin(7.0 * u) > 0)
        case "checkers":
            return (side < 0.9) & (np.sin(5.0 * u) * np.sin(5.0 * v) > 0)
        case "crescent":
            return (distance < 1.0) & (np.hypot(u - 0.5, v) > 0.8)
        case "star":
            return distance < 0.65 + 0.35 * np.cos(5.0 * np.arctan2(u, -v))
    raise ValueError(f"{shape}: not one of the shapes {SHAPES}")
