"""A CIFAR-10 of a tenth of the size, written in any of the forms in which people hold it.

Each image is of two colours and says in its first four bytes which one it is: 0 to 5,999, the test images last.
"""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from labreport.facts.reported import CIFAR10_CLASSES as CLASSES
from labreport.images.formats import BATCH_FILES

SIZE = 1_000  # images in a batch file


def batch(start: int) -> dict:
    """Images numbered from `start` on, with labels 0, 1, …, 9, 0, …, as a batch file holds them."""
    numbers = np.arange(start, start + SIZE, dtype="<u4")
    pixels = np.full((SIZE, 3072), 255, dtype=np.uint8)
    pixels[:, :4] = numbers.view(np.uint8).reshape(-1, 4)
    return {b"batch_label": b"", b"data": pixels, b"labels": (numbers % 10).tolist(), b"filenames": []}


def numbers(images: np.ndarray) -> np.ndarray:
    """The numbers that `batch` wrote into (N, 3, 32, 32) images."""
    return np.ascontiguousarray(images).reshape(len(images), -1)[:, :4].copy().view("<u4").ravel()


def write(path: Path, content: object) -> None:
    path.unlink(missing_ok=True)  # a link to a shared file, which must stay as it is
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_pickles(folder: Path, classes: tuple[str, ...] = CLASSES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(BATCH_FILES):
        write(folder / name, batch(SIZE * i))
    write(folder / "batches.meta", {b"label_names": [name.encode() for name in classes]})


def write_binaries(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(BATCH_FILES):
        content = batch(SIZE * i)
        rows = np.column_stack([np.array(content[b"labels"], dtype=np.uint8), content[b"data"]])
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")


def pngs(i: int) -> Iterator[tuple[bytes, int]]:
    """Batch i's images as PNG files, with their labels."""
    content = batch(SIZE * i)
    for pixels, label in zip(content[b"data"], content[b"labels"], strict=True):
        file = io.BytesIO()
        Image.fromarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0)).save(file, "png", compress_level=0)
        yield file.getvalue(), label


def write_png_folders(folder: Path) -> None:
    """Named as the widespread archive names them: the place in the split, then the class."""
    for split, batches in (("train", range(5)), ("test", [5])):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
        for place, (content, label) in enumerate(image for i in batches for image in pngs(i)):
            (folder / split / CLASSES[label] / f"{place}_{CLASSES[label]}.png").write_bytes(content)
