"""CIFAR-10 from disk, against files written here: read, split, checked and named; and the synthetic stand-in."""

import hashlib
import importlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cifar10 import SIZE, batch, write
from fake_cifar10 import numbers as numbers_of

from labreport._torchvision import _import_torchvision, torchvision
from labreport.facts.reported import CIFAR10_CLASSES as CLASSES
from labreport.images import cifar10 as data
from labreport.images import formats
from labreport.images.cifar10 import DataError
from labreport.images.formats import BATCH_FILES
from labreport.lab.session import Lab

pytestmark = pytest.mark.usefixtures("tenth_of_the_size")
OFFICIAL_SIZE = (formats.BATCH_SIZE, formats.N_TRAINVAL)  # before they are patched


def numbers(split: data.Images) -> np.ndarray:
    return numbers_of(split.images.numpy())


def load(folder: Path | None = None) -> data.Data:
    return data.load(folder, val_size=500)


@pytest.fixture(scope="module")
def loaded(written, tenth_of_the_size) -> data.Data:
    """What `load` makes of the written files."""
    return load(written)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_reads_the_official_layout(loaded, written):
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (4_500, 500, 1_000)
    assert (loaded.info.n_train, loaded.info.n_val, loaded.info.n_test) == (4_500, 500, 1_000)
    for split in (loaded.train, loaded.val, loaded.test):
        assert split.images.dtype == torch.uint8 and split.images.shape == (len(split), 3, 32, 32)
        assert split.labels.dtype == torch.int64 and split.labels.shape == (len(split),)
        assert np.array_equal(split.labels.numpy(), numbers(split) % 10)
    assert np.array_equal(numbers(loaded.test), np.arange(5_000, 6_000))
    assert loaded.info.classes == CLASSES
    assert (loaded.format, loaded.place) == ("Python pickles", written / "cifar-10-batches-py")


def test_official_size(monkeypatch, written):
    assert OFFICIAL_SIZE == (10_000, 50_000)
    monkeypatch.setattr(formats, "BATCH_SIZE", 10_000)
    refused(written, "(1000, 3072)", "(10000, 3072)")


def test_planes_are_red_green_blue_rows(root):
    content = batch(5_000)
    content[b"data"][7, 1024 + 32 * 5 + 3] = 200  # second plane, row 5, column 3
    write(root / "cifar-10-batches-py" / "test_batch", content)
    assert load(root).test.images[7, 1, 5, 3] == 200


def test_split_is_disjoint_stratified_and_the_same_each_time(written, loaded):
    train, val = numbers(loaded.train), numbers(loaded.val)
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(5_000))
    assert torch.bincount(loaded.val.labels).tolist() == [50] * 10
    again = load(written)
    assert np.array_equal(val, numbers(again.val)) and np.array_equal(train, numbers(again.train))
    assert again.info == loaded.info
    spread = np.bincount(val // SIZE)  # a choice from all five files, not the first images of each class
    assert spread.min() > 70


def test_validation_size_and_the_fingerprint_of_another_split(written, loaded):
    other = data.load(written, val_size=20)
    assert torch.bincount(other.val.labels).tolist() == [2] * 10
    assert other.info.fingerprint != loaded.info.fingerprint
    for wrong in (0, 15, 5_000):
        with pytest.raises(DataError, match=f"val_size={wrong}"):
            data.load(written, val_size=wrong)


@pytest.mark.parametrize(("key", "place", "value"), [(b"data", (123, 3071), 1), (b"labels", slice(998, 1_000), [9, 8])])
def test_fingerprint_changes_with_one_pixel_or_two_labels(root, loaded, key, place, value):
    content = batch(5_000)
    content[key][place] = value
    write(root / "cifar-10-batches-py" / "test_batch", content)
    fingerprint = load(root).info.fingerprint
    assert fingerprint != loaded.info.fingerprint
    assert len(fingerprint) == 16 and int(fingerprint, 16) >= 0


def test_known_md5s_are_torchvisions():
    cifar10 = torchvision.datasets.CIFAR10
    listed = dict([*cifar10.train_list, *cifar10.test_list])
    assert listed | {cifar10.meta["filename"]: cifar10.meta["md5"]} == formats.OFFICIAL_MD5


def test_md5s_decide_between_official_and_unverified(root, monkeypatch):
    files = (root / "cifar-10-batches-py").iterdir()
    monkeypatch.setattr(formats, "OFFICIAL_MD5", {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in files})
    official = load(root)
    assert (official.info.source, official.caveat) == ("official", "")
    write(root / "cifar-10-batches-py" / "data_batch_4", batch(3_000) | {b"batch_label": b"another"})
    copy = load(root)
    assert (copy.info.source, copy.caveat) == ("unverified copy", "unverified copy of CIFAR-10 (md5 differs)")
    assert copy.info.fingerprint == official.info.fingerprint  # the images are the same


def test_official_images_in_other_files_carry_no_caveat(root, loaded, monkeypatch):
    monkeypatch.setattr(data, "OFFICIAL_FINGERPRINT", loaded.info.fingerprint)
    copy = load(root)
    assert (copy.info.source, copy.caveat) == ("official images, other files", "")
    write(root / "cifar-10-batches-py" / "batches.meta", {b"label_names": [*CLASSES[:8], "truck", "ship"]})
    renamed = load(root)  # the same images and labels, called otherwise
    assert renamed.info.fingerprint == loaded.info.fingerprint
    assert renamed.info.source == "unverified copy"


@pytest.mark.skipif(
    "LABREPORT_OFFICIAL" not in os.environ, reason="set LABREPORT_OFFICIAL to the official files' folder"
)
def test_the_official_files_have_the_official_fingerprint(monkeypatch):
    monkeypatch.setattr(formats, "BATCH_SIZE", 10_000)
    monkeypatch.setattr(formats, "N_TRAINVAL", 50_000)
    official = data.load(Path(os.environ["LABREPORT_OFFICIAL"]))
    assert (official.info.source, official.info.fingerprint) == ("official", data.OFFICIAL_FINGERPRINT)
    data._check_promises(formats.read(Path(os.environ["LABREPORT_OFFICIAL"])))


def test_newer_pickles_and_text_keys_are_read(root):
    content = {key.decode(): value for key, value in batch(5_000).items()}
    (root / "cifar-10-batches-py" / "test_batch").unlink()
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content, protocol=4))
    assert np.array_equal(numbers(load(root).test), np.arange(5_000, 6_000))


def test_an_image_whose_first_row_only_is_of_one_colour_is_fine(root):
    content = batch(1_000)
    content[b"data"][5].reshape(3, 32, 32)[:, 0] = 7
    write(root / "cifar-10-batches-py" / "data_batch_2", content)
    assert load(root).info.source == "unverified copy"


# --- bad files -------------------------------------------------------------------------------------------------------


def refused(root: Path, *fragments: str) -> None:
    """Loading `root` fails with one line that holds every fragment."""
    with pytest.raises(DataError) as caught:
        load(root)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_a_pickle_that_runs_code_is_refused_and_not_run(root, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'was here'}",)

    write(root / "cifar-10-batches-py" / "data_batch_2", {b"data": Attack(), b"labels": []})
    refused(root, "data_batch_2", f"{os.name}.system")
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("harmless", [eval, pickle.loads, np.load, getattr])
def test_other_globals_are_refused(root, harmless):
    write(root / "cifar-10-batches-py" / "batches.meta", {b"label_names": harmless})
    refused(root, "batches.meta", harmless.__name__)


@pytest.mark.parametrize("length", [0, 1, 100, 1_000_000, -1])
def test_truncated_batch(root, length):
    path = root / "cifar-10-batches-py" / "data_batch_1"
    content = path.read_bytes()[:length]
    path.unlink()
    path.write_bytes(content)
    refused(root, "data_batch_1", "truncated")


def test_file_of_another_kind(root):
    path = root / "cifar-10-batches-py" / "data_batch_1"
    path.unlink()
    path.write_text("<html>404</html>")
    refused(root, "data_batch_1", "damaged")
    write(path, [1, 2])
    refused(root, "data_batch_1", "list")
    write(path, {b"coarse_labels": [1]})
    refused(root, "data_batch_1", "'data'")


def test_wrong_sizes(root):
    path = root / "cifar-10-batches-py" / "data_batch_1"
    good = batch(0)
    write(path, good | {b"data": good[b"data"][:-1], b"labels": good[b"labels"][:-1]})
    refused(root, "data_batch_1", "(999, 3072)", "(1000, 3072)")
    write(path, good | {b"labels": good[b"labels"][:-1]})
    refused(root, "data_batch_1", "999 labels")
    write(path, good | {b"data": good[b"data"].astype(np.int8)})
    refused(root, "data_batch_1", "int8")


@pytest.mark.parametrize("label", [10, -1, 3.5, b"cat", True])
def test_labels_outside_0_to_9(root, label):
    content = batch(0)
    content[b"labels"][17] = label
    write(root / "cifar-10-batches-py" / "data_batch_1", content)
    refused(root, "data_batch_1", "image 17", repr(label))


@pytest.mark.parametrize("name", [*BATCH_FILES, "batches.meta"])
def test_missing_file(root, name):
    (root / "cifar-10-batches-py" / name).unlink()
    refused(root, name, "missing")


def test_class_names_must_be_ten(root):
    write(root / "cifar-10-batches-py" / "batches.meta", {b"label_names": list(CLASSES[:9])})
    refused(root, "batches.meta", "ten")


# --- where it is looked for ------------------------------------------------------------------------------------------


def test_named_folder_must_hold_data(home, tmp_path, monkeypatch):
    refused(tmp_path / "nowhere", "nowhere", "no such folder")
    refused(tmp_path, "holds none of cifar-10-batches-py")
    monkeypatch.setenv("LABREPORT_DATA", str(tmp_path / "elsewhere"))
    refused(None, "elsewhere", "no such folder")


def test_every_way_to_name_the_folder(root, loaded, home, monkeypatch):
    assert load(root / "cifar-10-batches-py").info == loaded.info
    monkeypatch.setenv("LABREPORT_DATA", str(root))
    assert load().info == loaded.info
    monkeypatch.delenv("LABREPORT_DATA")
    home.mkdir()
    root.rename(home / "data")
    assert data.load(download=False, val_size=500).info == loaded.info


def test_a_link_of_any_name_is_followed(root, loaded, tmp_path):
    """A folder is known by what it holds: neither a link's name nor its target's counts."""
    inside = (root / "cifar-10-batches-py").rename(tmp_path / "elsewhere")
    (root / "cifar-10-batches-py").symlink_to(inside)
    (tmp_path / "link").symlink_to(inside)
    for named in (root, root / "cifar-10-batches-py", inside, tmp_path / "link"):
        assert load(named).info == loaded.info
        assert Lab.open("quick", data_dir=named).data_dir == named  # which is the name that errors give


@pytest.mark.parametrize(
    "name", ["cifar-10-python.tar.gz", "cifar-10-batches-py.tar.gz", "cifar-10-batches-py-target_archive"]
)
def test_archive_is_unpacked(written, loaded, tmp_path, name):
    os.link(written / "archive.tar.gz", tmp_path / name)
    assert load(tmp_path).info == loaded.info
    assert {p.name for p in tmp_path.iterdir()} == {name, "cifar-10-batches-py"}


def test_truncated_archive_leaves_nothing(written, tmp_path):
    content = (written / "archive.tar.gz").read_bytes()
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(content[: len(content) // 2])
    refused(tmp_path, "cifar-10-python.tar.gz", "cannot be unpacked")
    assert [p.name for p in tmp_path.iterdir()] == ["cifar-10-python.tar.gz"]


# --- the stand-in ----------------------------------------------------------------------------------------------------


def test_stand_in_is_deterministic_and_its_splits_differ():
    first, second = data.synthetic(300, 100, 200), data.synthetic(300, 100, 200)
    assert first.info == second.info
    assert (first.info.n_train, first.info.n_val, first.info.n_test) == (300, 100, 200)
    assert first.info.fingerprint != data.synthetic(300, 100, 200, seed=1).info.fingerprint
    assert not torch.equal(first.train.images[:100], first.val.images)
    assert torch.equal(first.val.images, data.synthetic(50, 100, 10).val.images)  # whatever the others' sizes


def test_stand_in_is_balanced_and_named_for_what_it_is():
    loaded = data.synthetic(500, 50, 100)
    for split, per_class in ((loaded.train, 50), (loaded.val, 5), (loaded.test, 10)):
        assert split.images.dtype == torch.uint8 and split.images.shape == (10 * per_class, 3, 32, 32)
        assert torch.bincount(split.labels).tolist() == [per_class] * 10
    assert len(set(loaded.info.classes)) == 10
    assert not set(loaded.info.classes) & {"airplane", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}


def test_stand_in_is_not_solved_by_colours_or_class_means():
    loaded = data.synthetic(2_000, 10, 500)
    train, test = (split.images.flatten(1).float() for split in (loaded.train, loaded.test))
    means = torch.stack([train[loaded.train.labels == label].mean(0) for label in range(10)])
    accuracy = (torch.cdist(test, means).argmin(1) == loaded.test.labels).float().mean()
    assert accuracy < 0.3


def test_stand_in_needs_an_image_in_every_split():
    with pytest.raises(DataError, match="0"):
        data.synthetic(10, 0, 10)


# --- torchvision's import --------------------------------------------------------------------------------------------


def test_torchvision_works_without_its_compiled_operators():
    network = torchvision.models.resnet18(num_classes=10).eval()
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_other_failures_of_the_import_are_not_hidden(monkeypatch):
    def fail(name):
        raise RuntimeError("another reason")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="another reason"):
        _import_torchvision()
