"""CIFAR-10: found on disk or downloaded, verified and split; and a synthetic stand-in for where it cannot be had.

`load()` returns three splits as uint8 tensors. The data is looked for in the folder that the caller or `LABREPORT_DATA`
names, then in `data/`, then on the servers that `download.py` lists (unless `LABREPORT_OFFLINE=1`). Files whose md5 is
not the official one are read all the same, in any form that `formats.py` knows, and checked for what CIFAR-10 promises;
unless their images turn out to be the official ones, every result says that they are an unverified copy.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from labreport import paths
from labreport.facts.reported import CIFAR10_CLASSES
from labreport.images import formats
from labreport.images.download import UnreachableError
from labreport.images.download import download as fetch
from labreport.images.formats import HOLDINGS, WAY_OUT, Copy
from labreport.images.splits import Data, DataError, Images, choose_validation, make_data
from labreport.images.synthetic import synthetic

VAL_SIZE = 5_000
OFFICIAL_FINGERPRINT = "5c092fbd3a0ac3c3"  # of the official images and labels, split with VAL_SIZE


def load(folder: Path | None = None, *, download: bool = True, val_size: int = VAL_SIZE) -> Data:
    """CIFAR-10 as training, validation and test images, or the synthetic stand-in where there is no way to get it.

    Args:
        folder: holds CIFAR-10 in a form that `formats.py` knows, or its archive; `LABREPORT_DATA` when None. A folder
            that is named in either way must be good. When none is named, `data/` is looked in.
        download: whether to fetch what `data/` lacks.
        val_size: validation images, the same number a class, taken from the 50,000 training images. Official images in
            other files are known as such with the default only.

    Raises:
        DataError: the folder has no data, a file in it is missing or damaged, what it holds is not what CIFAR-10
            promises, or a download arrived damaged.
    """
    if not (0 < val_size < formats.N_TRAINVAL and val_size % 10 == 0):
        raise DataError(f"val_size={val_size}: must be a multiple of 10 between 10 and 49,990")
    if named := folder or os.environ.get("LABREPORT_DATA"):
        return _split(_read_named(Path(named).expanduser()), val_size)
    found = formats.read(paths.data())
    reason = "no download was to be tried"
    if found is None and download and os.environ.get("LABREPORT_OFFLINE", "0") in ("", "0"):
        try:
            found = formats.read(fetch(paths.data()))
        except UnreachableError as error:
            reason = str(error)
    if found is None:
        print(f"WARNING: no CIFAR-10 in {paths.data()} and {reason}: using the synthetic stand-in", file=sys.stderr)
        return synthetic()
    return _split(found, val_size)


def at_hand() -> Data | None:
    """CIFAR-10 where it is on disk, in the folder that `LABREPORT_DATA` names or in `data/`, else None.

    Raises:
        DataError: as `load`.
    """
    if os.environ.get("LABREPORT_DATA"):
        return load()
    found = formats.read(paths.data())
    return _split(found, VAL_SIZE) if found else None


def _read_named(folder: Path) -> Copy:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the one that holds CIFAR-10, or none to download the data")
    if (found := formats.read(folder)) is None:
        raise DataError(f"{folder}: holds none of {HOLDINGS}; name the folder that does")
    return found


def _split(copy: Copy, val_size: int) -> Data:
    """The three splits of a copy, once it is known to be what CIFAR-10 promises."""
    if not copy.official:
        _check_promises(copy)
    n = formats.N_TRAINVAL
    images, labels = copy.images[:n], copy.labels[:n]
    in_val = choose_validation(labels, val_size, copy.place)
    val = _images(images[in_val], labels[in_val])
    train = _images(_keep(images, np.flatnonzero(~in_val)), labels[~in_val])
    data = make_data("unverified copy", copy.classes, train, val, _images(copy.images[n:], copy.labels[n:]))
    known = data.info.fingerprint == OFFICIAL_FINGERPRINT and copy.classes == CIFAR10_CLASSES
    source = "official" if copy.official else "official images, other files" if known else data.info.source
    return replace(data, info=replace(data.info, source=source), format=copy.format, place=copy.place)


def _images(images: np.ndarray, labels: np.ndarray) -> Images:
    return Images(torch.from_numpy(images), torch.from_numpy(labels))


def _keep(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """`images[indices]` for ascending indices, moved up in place: a copy would take twice the memory and time."""
    for start in range(0, len(indices), 1_000):
        rows = indices[start : start + 1_000]
        images[start : start + len(rows)] = images[rows]  # never overwrites a row that is still to be moved
    return images[: len(indices)]


def _check_promises(copy: Copy) -> None:
    """Raise DataError unless the copy has what the official files have, each of which was counted on them.

    Ten different class names; 5,000 images a class to train with and 1,000 to test with; no image of one colour; no
    image twice, and so none of the test set in the training set.
    """
    if not len(set(copy.classes)) == len(copy.classes) == 10:
        raise DataError(
            f"{copy.place}: its class names are {', '.join(copy.classes)}, not ten different ones; {WAY_OUT}"
        )
    n = formats.N_TRAINVAL
    for split, labels in (("training", copy.labels[:n]), ("test", copy.labels[n:])):
        expected = len(labels) // 10
        for label, count in enumerate(np.bincount(labels, minlength=10)):
            if count != expected:
                raise DataError(
                    f"{copy.place}: {count} {split} images have label {label} ({copy.classes[label]}), CIFAR-10 has "
                    f"{expected} of each; files are swapped or labels wrong; {WAY_OUT}"
                )
    pixels = copy.images.transpose(0, 2, 3, 1)  # (60000, 32, 32, 3), as they lie in memory
    plain = (pixels[:, 0] == pixels[:, 0, :1]).all(axis=(1, 2))  # in their first rows, which is quickly seen
    for index in np.flatnonzero(plain).tolist():
        if (pixels[index] == pixels[index, 0, 0]).all():
            raise DataError(f"{copy.name(index)}: is of one colour, as no image of CIFAR-10 is; {WAY_OUT}")
    seen: dict[int, int] = {}
    for index, image in enumerate(pixels):
        first = seen.setdefault(hash(image.tobytes()), index)
        if first != index and np.array_equal(image, pixels[first]):
            raise DataError(
                f"{copy.name(index)}: is the same as {copy.name(first)}, and CIFAR-10 has no image twice; {WAY_OUT}"
            )
