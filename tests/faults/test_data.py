"""Data that are read without an error and cannot be CIFAR-10: what CIFAR-10 promises is checked before they train."""

from pathlib import Path

import numpy as np
import pytest
from fake_cifar10 import SIZE, batch, write
from images.test_cifar10 import refused

from labreport.facts.reported import CIFAR10_CLASSES as CLASSES
from labreport.images.formats import BATCH_FILES

pytestmark = pytest.mark.usefixtures("tenth_of_the_size")


@pytest.fixture(autouse=True)
def counted(fault, request):
    fault(request.node.name)


def change(root: Path, name: str, **changes: object) -> None:
    """Give a batch file other contents: `start`, the number of its first image, or another value of a key."""
    content = batch(changes.pop("start", SIZE * BATCH_FILES.index(name)))
    write(root / "cifar-10-batches-py" / name, content | {key.encode(): value for key, value in changes.items()})


def test_a_test_batch_that_is_a_training_batch_is_refused(root):
    change(root, "test_batch", start=0)
    refused(root, "image 0 of ", "test_batch: is the same as image 0 of ", "data_batch_1")


def test_a_training_batch_twice_is_refused(root):
    change(root, "data_batch_4", start=1_000)
    refused(root, "data_batch_4: is the same as image 0 of ", "data_batch_2")


def test_one_test_image_among_the_training_images_is_refused(root):
    pixels = batch(5_000)[b"data"]
    pixels[321] = batch(2_000)[b"data"][77]
    change(root, "test_batch", data=pixels)
    refused(root, "image 321 of ", "test_batch: is the same as image 77 of ", "data_batch_3")


@pytest.mark.parametrize("rgb", [(0, 0, 0), (200, 10, 30)])
def test_images_of_one_colour_are_refused(root, rgb):
    pixels = batch(1_000)[b"data"]
    pixels[5] = np.repeat(np.array(rgb, dtype=np.uint8), 1_024)
    change(root, "data_batch_2", data=pixels)
    refused(root, "image 5 of ", "data_batch_2: is of one colour")


@pytest.mark.parametrize(("name", "split"), [("test_batch", "test"), ("data_batch_3", "training")])
def test_other_numbers_of_images_a_class_are_refused(root, name, split):
    labels = [3 if label == 4 else label for label in batch(0)[b"labels"]]
    change(root, name, labels=labels)
    expected = SIZE // 10 if split == "test" else SIZE // 2
    refused(root, f"{expected + 100} {split} images have label 3 (cat), CIFAR-10 has {expected} of each")


@pytest.mark.parametrize("names", [["cat"] * 10, [*CLASSES[:9], "ship"]])
def test_class_names_must_differ(root, names):
    write(root / "cifar-10-batches-py" / "batches.meta", {b"label_names": names})
    refused(root, ", ".join(names), "ten different")


@pytest.mark.parametrize("said", [b"testing batch 1 of 1", "training batch 2 of 5"])
def test_files_that_call_themselves_otherwise_are_refused(root, said):
    change(root, "data_batch_1", batch_label=said)
    refused(root, "data_batch_1", "swapped")
