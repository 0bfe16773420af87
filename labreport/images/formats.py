"""The forms in which people hold CIFAR-10, each read into the same arrays.

| format | what a folder holds |
|---|---|
| Python pickles | `data_batch_1` … `data_batch_5`, `test_batch`, `batches.meta`: official, or Keras's |
| binary files | `data_batch_1.bin` … `data_batch_5.bin`, `test_batch.bin`, `batches.meta.txt` |
| parquet | `train*.parquet`, `test*.parquet` with columns `img` (or `image`) and `label`: Hugging Face; needs pyarrow |
| PNG folders | `train/<class>/*.png`, `test/<class>/*.png` |

What each file says is checked here; what CIFAR-10 as a whole promises, in `cifar10.py`.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labreport.facts.reported import CIFAR10_CLASSES
from labreport.images.download import ARCHIVE, FOLDER, unpack
from labreport.images.splits import DataError

BATCH_SIZE = 10_000  # images in each of the six batch files
PIXELS = 3 * 32 * 32  # bytes of an image: red plane, green plane, blue plane, row by row
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILE = "test_batch"
BATCH_FILES = (*TRAIN_FILES, TEST_FILE)
N_TRAINVAL = len(TRAIN_FILES) * BATCH_SIZE
META_FILE = "batches.meta"
BATCH_LABELS = (*(f"training batch {i} of 5" for i in range(1, 6)), "testing batch 1 of 1")  # what each says it is
OFFICIAL_MD5 = {  # as torchvision.datasets.CIFAR10 lists them; a test compares the two
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
# The first labels of the five official training batches, by which their order is found again: Hugging Face's files
# have them as the archive lists its members, which is 4, 3, 2, 5, 1.
FIRST_LABELS = ("6994112783", "1668834606", "8506928362", "0602721241", "1851574382")
WAY_OUT = "name another copy, or move this one away and name none to download the official files"

# Where in a named folder the files may lie: in itself, unpacked, in either of Keras's caches, or as Hugging Face's
# repositories have them.
BINARY_FOLDER = "cifar-10-batches-bin"
FOLDERS = ("", FOLDER, f"{FOLDER}-target/{FOLDER}", BINARY_FOLDER, "plain_text", "data")
ARCHIVES = {  # each with the folder that it holds; the second and third are Keras's names for the first
    ARCHIVE: FOLDER,
    f"{FOLDER}.tar.gz": FOLDER,
    f"{FOLDER}-target_archive": FOLDER,
    "cifar-10-binary.tar.gz": BINARY_FOLDER,
}
HOLDINGS = f"{FOLDER}, {BINARY_FOLDER}, an archive of either, train*.parquet, or train/<class>/*.png"


@dataclass(frozen=True, eq=False)
class Copy:
    """One copy's images: 50,000 of the training set, then 10,000 of the test set.

    images: (60000, 3, 32, 32) uint8, channels last in memory, as training wants them: it can then use this very array.
    labels: (60000,) int64 in [0, 9]. `official` says that each file has the official md5. `files` are those that the
    training images and the test images came from, in order and in equal parts.
    """

    format: str
    place: Path
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    files: tuple[Sequence[Path], Sequence[Path]]
    official: bool = False

    def name(self, index: int) -> str:
        """The image's file and its place there, for a person."""
        in_test = index >= N_TRAINVAL
        files, n = (self.files[1], BATCH_SIZE) if in_test else (self.files[0], N_TRAINVAL)
        part = n // len(files)
        file, place = divmod(index - N_TRAINVAL * in_test, part)
        return str(files[file]) if part == 1 else f"image {place} of {files[file]}"


def read(folder: Path) -> Copy | None:
    """The copy in or at `folder`, unpacked from its archive if need be, or None where there is none.

    Raises:
        DataError: a file is missing, damaged or not what its name says.
    """
    for place in (folder / name for name in FOLDERS):
        for holds, read_copy in READERS:
            if place.is_dir() and holds(place):
                return read_copy(place)
    for archive, inner in ARCHIVES.items():
        if (folder / archive).is_file():
            return read(unpack(folder / archive, folder, inner))
    return None


def _new_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels to be filled in."""
    n = N_TRAINVAL + BATCH_SIZE
    return np.empty((n, 32, 32, 3), dtype=np.uint8).transpose(0, 3, 1, 2), np.empty(n, dtype=np.int64)


def _splits() -> Iterator[tuple[str, slice, int]]:
    """Each split's name, its part of all images, and how many these are."""
    yield "train", slice(0, N_TRAINVAL), N_TRAINVAL
    yield "test", slice(N_TRAINVAL, N_TRAINVAL + BATCH_SIZE), BATCH_SIZE


def _copy_planes(images: np.ndarray, pixels: np.ndarray) -> None:
    """Fill (N, 3, 32, 32) images from (N, 3072) planes."""
    planes = pixels.reshape(-1, 3, 32, 32)
    for channel in range(3):  # five times as fast as one assignment that transposes
        images[:, channel] = planes[:, channel]


def _require(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: this file of CIFAR-10 is missing; {WAY_OUT}")


# --- Python pickles --------------------------------------------------------------------------------------------------


def _holds_pickles(place: Path) -> bool:
    return any((place / name).is_file() for name in BATCH_FILES)


def _read_pickles(place: Path) -> Copy:
    files = [place / name for name in BATCH_FILES]
    _require([*files, place / META_FILE])
    classes, meta_md5 = _read_classes(place / META_FILE)
    images, labels = _new_arrays()

    def fill(i: int) -> str:
        part = slice(i * BATCH_SIZE, (i + 1) * BATCH_SIZE)
        pixels, labels[part], md5 = _read_batch(files[i], BATCH_LABELS[i])
        _copy_planes(images[part], pixels)
        return md5

    with ThreadPoolExecutor(max_workers=2) as pool:  # reading, hashing and copying release the interpreter's lock
        md5s = dict(zip(BATCH_FILES, pool.map(fill, range(len(files))), strict=True))
    official = md5s | {META_FILE: meta_md5} == OFFICIAL_MD5
    return Copy("Python pickles", place, classes, images, labels, (files[:-1], files[-1:]), official)


def _read_batch(path: Path, batch_label: str) -> tuple[np.ndarray, np.ndarray, str]:
    """One batch file's pixels (10000, 3072) uint8, its labels (10000,) int64, and the file's md5."""
    batch, md5 = _read_pickle(path)
    said = batch.get("batch_label", b"")
    said = said.decode("latin1") if isinstance(said, bytes) else said
    if said != batch_label and said in BATCH_LABELS:
        raise DataError(f"{path}: says that it is {said!r}, so files were swapped or copied; {WAY_OUT}")
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
        if type(label) is not int or not 0 <= label <= 9:  # True is an int, too, but no label
            raise DataError(f"{path}: the label of image {i} is {label!r:.40}, not an integer from 0 to 9; {WAY_OUT}")
    return pixels, np.array(labels, dtype=np.int64), md5


def _read_classes(path: Path) -> tuple[tuple[str, ...], str]:
    """The class names of `batches.meta`, and the file's md5."""
    meta, md5 = _read_pickle(path)
    names = meta.get("label_names")
    if not isinstance(names, list) or len(names) != 10 or not all(isinstance(name, str | bytes) for name in names):
        raise DataError(f"{path}: has no list of ten 'label_names'; {WAY_OUT}")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names), md5


def _read_pickle(path: Path) -> tuple[dict[str, Any], str]:
    """A batch file's dictionary, its keys as text, and the file's md5."""
    content = _read_bytes(path)
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


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it readable, or name another copy") from error


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


# --- binary files ----------------------------------------------------------------------------------------------------


def _holds_binaries(place: Path) -> bool:
    return any((place / f"{name}.bin").is_file() for name in BATCH_FILES)


def _read_binaries(place: Path) -> Copy:
    """Each image is its label in one byte, then its planes; the names are the lines of a text file."""
    files, meta = [place / f"{name}.bin" for name in BATCH_FILES], place / f"{META_FILE}.txt"
    _require([*files, meta])
    images, labels = _new_arrays()
    for i, file in enumerate(files):
        rows = np.frombuffer(_read_bytes(file), dtype=np.uint8)
        if rows.size != BATCH_SIZE * (1 + PIXELS):
            raise DataError(f"{file}: has {rows.size} bytes instead of {BATCH_SIZE * (1 + PIXELS)}; {WAY_OUT}")
        rows, part = rows.reshape(BATCH_SIZE, 1 + PIXELS), slice(i * BATCH_SIZE, (i + 1) * BATCH_SIZE)
        if (wrong := np.flatnonzero(rows[:, 0] > 9)).size:
            raise DataError(f"{file}: the label of image {wrong[0]} is {rows[wrong[0], 0]}, not 0 to 9; {WAY_OUT}")
        labels[part] = rows[:, 0]
        _copy_planes(images[part], rows[:, 1:])
    classes = tuple(_read_bytes(meta).decode("utf-8", "replace").split())
    return Copy("binary files", place, classes, images, labels, (files[:-1], files[-1:]))


# --- parquet ---------------------------------------------------------------------------------------------------------


def _parquet_files(place: Path, split: str) -> list[Path]:
    return sorted(place.glob(f"{split}*.parquet")) or sorted((place / split).glob("*.parquet"))


def _holds_parquet(place: Path) -> bool:
    return bool(_parquet_files(place, "train"))


def _read_parquet(place: Path) -> Copy:
    images, labels = _new_arrays()
    names: list[Path] = []
    for split, part, n in _splits():
        name = place / f"{split}*.parquet"
        encoded, numbers, classes = _read_table(_parquet_files(place, split), name, n)
        order = _official_order(numbers) if split == "train" else np.arange(len(numbers))
        labels[part] = numbers[order]
        _decode([io.BytesIO(encoded[i]) for i in order], images[part], [f"{name}, row {i}" for i in order])
        names.append(name)
    return Copy("parquet", place, classes, images, labels, (names[:1], names[1:]))


def _read_table(files: list[Path], name: Path, n: int) -> tuple[list[bytes], np.ndarray, tuple[str, ...]]:
    """The n encoded images of one split, their labels (n,) int64, and the class names."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{name}: reading parquet needs pyarrow: pip install pyarrow, or name another copy") from error
    if not files:
        _require([name])
    try:
        table = pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in files])
        column = table["img" if "img" in table.column_names else "image"].combine_chunks()
        encoded, labels = column.field("bytes").to_pylist(), table["label"].to_numpy().astype(np.int64)
        described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        names = described.get("info", {}).get("features", {}).get("label", {}).get("names", CIFAR10_CLASSES)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # arrow's own are of these types
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: is no table of columns img (with bytes) and label ({reason}); {WAY_OUT}") from error
    if len(labels) != n or not all(isinstance(image, bytes) for image in encoded):
        raise DataError(f"{name}: has {len(labels)} rows, of which some may lack an image, instead of {n}; {WAY_OUT}")
    if not ((labels >= 0) & (labels <= 9)).all():
        raise DataError(f"{name}: has labels from {labels.min()} to {labels.max()}, not 0 to 9; {WAY_OUT}")
    return encoded, labels, tuple(map(str, names))


def _official_order(labels: np.ndarray) -> np.ndarray:
    """Where each training image of the official order lies, when `labels` are the official batches in some order."""
    starts = ["".join(map(str, batch[:10])) for batch in labels.reshape(len(TRAIN_FILES), -1)]
    if sorted(starts) != sorted(FIRST_LABELS):
        return np.arange(len(labels))
    batches = np.arange(len(labels)).reshape(len(TRAIN_FILES), -1)
    return np.concatenate([batches[starts.index(start)] for start in FIRST_LABELS])


# --- PNG folders -----------------------------------------------------------------------------------------------------


def _holds_pngs(place: Path) -> bool:
    return all((place / split).is_dir() and any((place / split).glob("*/*.png")) for split in ("train", "test"))


def _read_pngs(place: Path) -> Copy:
    """The classes are the folders' names, sorted, which is CIFAR-10's own order of them.

    The images come in the order of the numbers in their names: the official one, where these count all images.
    """
    classes = tuple(sorted(folder.name for folder in (place / "train").iterdir() if folder.is_dir()))
    images, labels = _new_arrays()
    files: list[list[Path]] = []
    for split, part, n in _splits():
        found = sorted((place / split).glob("*/*.png"), key=lambda path: (_numbers(path), path))
        if strange := sorted({path.parent.name for path in found} - set(classes)):
            raise DataError(f"{place / split / strange[0]}: no folder of {place / 'train'} has this name; {WAY_OUT}")
        if len(found) != n:
            raise DataError(f"{place / split}: holds {len(found)} PNG files instead of {n}; {WAY_OUT}")
        labels[part] = [classes.index(path.parent.name) for path in found]
        _decode(found, images[part], found)
        files.append(found)
    return Copy("PNG folders", place, classes, images, labels, (files[0], files[1]))


def _numbers(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", path.stem)]


def _decode(sources: Sequence[Path] | Sequence[io.BytesIO], images: np.ndarray, names: Sequence[object]) -> None:
    """Fill (N, 3, 32, 32) images from N encoded ones, which errors call by their `names`."""

    def fill(i: int) -> None:
        try:
            with Image.open(sources[i]) as image:
                pixels = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's, for what is truncated, damaged or no image
            raise DataError(f"{names[i]}: is no image that can be read ({error}); {WAY_OUT}") from error
        if pixels.shape != (32, 32, 3) or pixels.dtype != np.uint8:
            raise DataError(f"{names[i]}: is not of 32 × 32 pixels in red, green and blue, 8 bits each; {WAY_OUT}")
        images[i] = pixels.transpose(2, 0, 1)

    with ThreadPoolExecutor(max_workers=2) as pool:  # decoding releases the interpreter's lock
        for _ in pool.map(fill, range(len(sources)), chunksize=1_000):
            pass


READERS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Copy]], ...] = (
    (_holds_pickles, _read_pickles),
    (_holds_binaries, _read_binaries),
    (_holds_parquet, _read_parquet),
    (_holds_pngs, _read_pngs),
)
