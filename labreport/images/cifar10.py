"""CIFAR-10: found on disk, downloaded, verified and split; and a synthetic stand-in for where it cannot be had.

`load()` returns three splits as uint8 tensors. The data is looked for in the folder that the caller or `LABREPORT_DATA`
names, then in `data/`, then on torchvision's server (unless `LABREPORT_OFFLINE=1`). A copy whose md5 sums are not the
official ones is read all the same, by an unpickler that builds arrays and plain values only, and says so wherever it is
used.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labreport import paths
from labreport.images.download import ARCHIVE, FOLDER, UnreachableError, unpack
from labreport.images.download import download as fetch
from labreport.images.splits import Data, DataError, Images, choose_validation, make_data
from labreport.images.synthetic import synthetic

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
WAY_OUT = "restore it from the official archive, or delete the folder to download the data again"


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
            found = fetch(paths.data())
        except UnreachableError as error:
            reason = str(error)
    if found is None:
        print(f"WARNING: no CIFAR-10 in {paths.data()} and {reason}: using the synthetic stand-in", file=sys.stderr)
        return synthetic()
    return _read(found, val_size)


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
        return unpack(folder / ARCHIVE, folder)
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
    in_val = choose_validation(train_labels, val_size, folder)
    val = _images(train_images[in_val], train_labels[in_val])
    train = _images(_keep(train_images, np.flatnonzero(~in_val)), train_labels[~in_val])
    return make_data(source, classes, train, val, _images(test_images, test_labels))


def _images(images: np.ndarray, labels: np.ndarray) -> Images:
    return Images(torch.from_numpy(images), torch.from_numpy(labels))


def _keep(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """`images[indices]` for ascending indices, moved up in place: a copy would take twice the memory and time."""
    for start in range(0, len(indices), 1_000):
        rows = indices[start : start + 1_000]
        images[start : start + len(rows)] = images[rows]  # never overwrites a row that is still to be moved
    return images[: len(indices)]


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
