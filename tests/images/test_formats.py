"""The other forms in which people hold CIFAR-10 give the images that the official layout gives."""

import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from fake_cifar10 import SIZE, batch, numbers, pngs, write_binaries, write_pickles, write_png_folders
from PIL import Image

from labreport.facts.reported import CIFAR10_CLASSES as CLASSES
from labreport.images import cifar10, formats
from labreport.images.splits import Data, DataError

pytestmark = pytest.mark.usefixtures("tenth_of_the_size")


def load(folder: Path) -> Data:
    return cifar10.load(folder, val_size=500)


@pytest.fixture(scope="module")
def fingerprint(written, tenth_of_the_size) -> str:
    """Of the same images in the official layout."""
    return load(written).info.fingerprint


def refused(folder: Path, *fragments: str) -> None:
    """Loading `folder` fails with one line that holds every fragment."""
    with pytest.raises(DataError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


# --- Keras's folders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py"])
def test_keras_folders(tmp_path, fingerprint, inner):
    write_pickles(tmp_path / inner)
    (tmp_path / "cifar-10-batches-py-target_archive").write_bytes(b"not needed, since it is unpacked")
    loaded = load(tmp_path)
    assert (loaded.info.fingerprint, loaded.place) == (fingerprint, tmp_path / inner)


# --- binary files ----------------------------------------------------------------------------------------------------


def test_binary_files_and_their_archive(tmp_path, fingerprint, monkeypatch):
    write_binaries(tmp_path / "files" / "cifar-10-batches-bin")
    monkeypatch.setattr(cifar10, "OFFICIAL_FINGERPRINT", fingerprint)
    loaded = load(tmp_path / "files")
    assert (loaded.format, loaded.info.source) == ("binary files", "official images, other files")
    assert (loaded.info.fingerprint, loaded.info.classes) == (fingerprint, CLASSES)
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(tmp_path / "files" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    assert load(tmp_path / "packed").info == loaded.info


def test_bad_binary_files(tmp_path):
    write_binaries(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    refused(tmp_path, "data_batch_2.bin", f"{SIZE * 3073 - 1} bytes", f"{SIZE * 3073}")
    path.write_bytes(good[: 3073 * 7] + b"\x0a" + good[3073 * 7 + 1 :])
    refused(tmp_path, "data_batch_2.bin", "image 7 is 10")
    path.write_bytes((tmp_path / "test_batch.bin").read_bytes())
    refused(tmp_path, "test_batch.bin: is the same as image 0 of", "data_batch_2.bin")
    path.unlink()
    refused(tmp_path, "data_batch_2.bin", "missing")
    path.write_bytes(good)
    (tmp_path / "batches.meta.txt").write_text("cat\n" * 10)
    refused(tmp_path, "cat, cat", "ten different")


# --- PNG folders -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def png_folders(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("png")
    write_png_folders(folder)
    return folder


def test_png_folders_with_numbers_are_in_the_official_order(png_folders, fingerprint, monkeypatch):
    monkeypatch.setattr(cifar10, "OFFICIAL_FINGERPRINT", fingerprint)
    loaded = load(png_folders)
    assert (loaded.format, loaded.info.source) == ("PNG folders", "official images, other files")
    assert (loaded.info.fingerprint, loaded.info.classes) == (fingerprint, CLASSES)


def test_png_folders_in_another_order_are_an_unverified_copy(png_folders, tmp_path, fingerprint, monkeypatch):
    monkeypatch.setattr(cifar10, "OFFICIAL_FINGERPRINT", fingerprint)
    for split in ("train", "test"):
        for folder in (png_folders / split).iterdir():
            (tmp_path / split / folder.name).mkdir(parents=True)
            for i, path in enumerate(sorted(folder.iterdir())):  # by name: 0, 1, 10, 100, …
                (tmp_path / split / folder.name / f"{i:04}.png").hardlink_to(path)
    loaded = load(tmp_path)
    assert loaded.info.source == "unverified copy"
    assert np.array_equal(loaded.test.labels.numpy(), numbers(loaded.test.images.numpy()) % 10)
    assert sorted(numbers(loaded.test.images.numpy())) == list(range(5_000, 6_000))


def test_bad_png_folders(png_folders, tmp_path):
    folder = tmp_path / "png"
    shutil.copytree(png_folders, folder)
    path = folder / "train" / "cat" / "13_cat.png"
    good = path.read_bytes()
    path.write_bytes(good[:100])
    refused(folder, str(path), "no image")
    Image.new("L", (32, 32)).save(path)
    refused(folder, str(path), "red, green and blue")
    Image.new("RGB", (28, 28)).save(path)
    refused(folder, str(path), "32 × 32")
    path.write_bytes((folder / "train" / "cat" / "23_cat.png").read_bytes())
    refused(folder, f"{folder / 'train' / 'cat' / '23_cat.png'}: is the same as {path}")
    path.unlink()
    refused(folder, str(folder / "train"), "4999 PNG files", "5000")
    path.write_bytes(good)
    (folder / "test" / "cat").rename(folder / "test" / "lion")
    refused(folder, str(folder / "test" / "lion"), "no folder of")


# --- parquet ---------------------------------------------------------------------------------------------------------


def write_parquet(folder: Path, order: tuple[int, ...] = (0, 1, 2, 3, 4), column: str = "img", names=CLASSES) -> None:
    """As Hugging Face writes it: structs of the PNG file's bytes and a path; class names in the schema's metadata."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(parents=True)
    features = {"label": {"names": list(names), "_type": "ClassLabel"}}
    for split, batches in (("train", order), ("test", (5,))):
        content, labels = zip(*(image for i in batches for image in pngs(i)), strict=True)
        table = pyarrow.table({column: [{"bytes": png, "path": None} for png in content], "label": list(labels)})
        described = {"huggingface": json.dumps({"info": {"features": features}})}
        parquet.write_table(table.replace_schema_metadata(described), folder / f"{split}-00000-of-00001.parquet")


def test_parquet(tmp_path, fingerprint, monkeypatch):
    monkeypatch.setattr(cifar10, "OFFICIAL_FINGERPRINT", fingerprint)
    write_parquet(tmp_path / "plain_text")
    loaded = load(tmp_path)
    assert (loaded.format, loaded.info.source) == ("parquet", "official images, other files")
    assert (loaded.info.fingerprint, loaded.info.classes) == (fingerprint, CLASSES)


def test_parquet_of_the_archives_order_is_put_in_the_official_one(tmp_path, monkeypatch):
    """Batches with first labels of their own, as the official ones have them."""
    batches = {SIZE * i: batch(SIZE * i) for i in range(6)}
    for i in range(5):
        batches[SIZE * i][b"labels"][:10] = np.roll(range(10), i).tolist()
    starts = tuple("".join(map(str, batches[SIZE * i][b"labels"][:10])) for i in range(5))
    monkeypatch.setattr("fake_cifar10.batch", batches.get)
    monkeypatch.setattr(formats, "FIRST_LABELS", starts)
    write_pickles(tmp_path / "expected" / "cifar-10-batches-py")
    write_parquet(tmp_path / "found", order=(3, 2, 1, 4, 0), column="image")
    assert load(tmp_path / "found").info == load(tmp_path / "expected").info


def test_class_names_of_parquet_count(tmp_path):
    write_parquet(tmp_path / "data", names=["cat"] * 10)
    refused(tmp_path, "cat, cat", "ten different")


def test_bad_parquet(tmp_path):
    write_parquet(tmp_path / "data")
    train, test = (tmp_path / "data" / f"{split}-00000-of-00001.parquet" for split in ("train", "test"))
    good = test.read_bytes()
    test.write_bytes(good[:1_000])
    refused(tmp_path, "test*.parquet", "no table")
    test.write_bytes(train.read_bytes())
    refused(tmp_path, "test*.parquet", "5000 rows", "1000")
    test.unlink()
    refused(tmp_path, "test*.parquet", "missing")


def test_without_pyarrow_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"")
    refused(tmp_path, "train*.parquet", "pip install pyarrow")


def test_first_labels_tell_the_official_batches_apart():
    labels = np.array([int(digit) for start in formats.FIRST_LABELS for digit in start.ljust(SIZE, "0")])
    shuffled = labels.reshape(5, -1)[[3, 2, 1, 4, 0]].ravel()
    assert np.array_equal(shuffled[formats._official_order(shuffled)], labels)
    shuffled[0] = 9  # no longer the official ones
    assert np.array_equal(formats._official_order(shuffled), np.arange(5 * SIZE))
