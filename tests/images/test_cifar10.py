"""CIFAR-10 from disk and from a server, against files written here; and the synthetic stand-in.

The files have the official layout with a tenth of the images, which makes the tests ten times as fast;
`test_official_size` sees to the rest, and the tests of the benchmark load files of the whole size.
"""

import contextlib
import hashlib
import http.server
import importlib
import os
import pickle
import socket
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from labreport._torchvision import _import_torchvision, torchvision
from labreport.images import cifar10 as data
from labreport.images import download
from labreport.images.cifar10 import DataError

BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
SIZE = 1_000  # images in a batch file
OFFICIAL_SIZE = (data.BATCH_SIZE, data.N_TRAINVAL)  # before they are patched
NAMES = [f"class {i}".encode() for i in range(10)]


def batch(start: int) -> dict:
    """Black images whose first four bytes are the image's number, with labels 0, 1, …, 9, 0, …"""
    numbers = np.arange(start, start + SIZE, dtype="<u4")
    pixels = np.zeros((SIZE, 3072), dtype=np.uint8)
    pixels[:, :4] = numbers.view(np.uint8).reshape(-1, 4)
    return {b"batch_label": b"", b"data": pixels, b"labels": (numbers % 10).tolist(), b"filenames": []}


def numbers(split: data.Images) -> np.ndarray:
    """The numbers that `batch` wrote into the images."""
    return split.images.reshape(len(split), -1)[:, :4].numpy().copy().view("<u4").ravel()


def load(folder: Path | None = None) -> data.Data:
    return data.load(folder, val_size=500)


def write(path: Path, content: dict) -> None:
    path.unlink(missing_ok=True)  # a link to the shared file, which must stay as it is
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with all seven files in the official layout, and beside it their archive."""
    root = tmp_path_factory.mktemp("written")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for i, name in enumerate(BATCHES):
        write(folder / name, batch(SIZE * i))
    write(folder / "batches.meta", {b"label_names": NAMES})
    with tarfile.open(root / "archive.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(folder, folder.name)
    return root


@pytest.fixture(scope="module", autouse=True)
def tenth_of_the_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "BATCH_SIZE", SIZE)
        patch.setattr(data, "N_TRAINVAL", 5 * SIZE)
        yield


@pytest.fixture(scope="module")
def loaded(written, tenth_of_the_size) -> data.Data:
    """What `load` makes of the written files."""
    return load(written)


@pytest.fixture
def root(written, tmp_path) -> Path:
    """A folder of one test's own that holds the batch files."""
    folder = tmp_path / "own" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for path in (written / "cifar-10-batches-py").iterdir():
        os.link(path, folder / path.name)
    return folder.parent


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    """An empty home: no data in it, none named, and a download is allowed."""
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABREPORT_DATA", raising=False)
    monkeypatch.delenv("LABREPORT_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "home"


# --- reading ---------------------------------------------------------------------------------------------------------


def test_reads_the_official_layout(loaded):
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (4_500, 500, 1_000)
    assert (loaded.info.n_train, loaded.info.n_val, loaded.info.n_test) == (4_500, 500, 1_000)
    for split in (loaded.train, loaded.val, loaded.test):
        assert split.images.dtype == torch.uint8 and split.images.shape == (len(split), 3, 32, 32)
        assert split.labels.dtype == torch.int64 and split.labels.shape == (len(split),)
        assert np.array_equal(split.labels.numpy(), numbers(split) % 10)
    assert np.array_equal(numbers(loaded.test), np.arange(5_000, 6_000))
    assert loaded.info.classes == tuple(f"class {i}" for i in range(10))


def test_official_size(monkeypatch, written):
    assert OFFICIAL_SIZE == (10_000, 50_000)
    monkeypatch.setattr(data, "BATCH_SIZE", 10_000)
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


@pytest.mark.parametrize(("key", "place", "value"), [(b"data", (123, 3071), 1), (b"labels", 999, 0)])
def test_fingerprint_changes_with_one_pixel_or_label(root, loaded, key, place, value):
    content = batch(5_000)
    content[key][place] = value
    write(root / "cifar-10-batches-py" / "test_batch", content)
    fingerprint = load(root).info.fingerprint
    assert fingerprint != loaded.info.fingerprint
    assert len(fingerprint) == 16 and int(fingerprint, 16) >= 0


def test_known_md5s_are_torchvisions():
    cifar10 = torchvision.datasets.CIFAR10
    listed = dict([*cifar10.train_list, *cifar10.test_list])
    assert listed | {cifar10.meta["filename"]: cifar10.meta["md5"]} == data.OFFICIAL_MD5


def test_md5s_decide_between_official_and_unverified(root, monkeypatch):
    files = (root / "cifar-10-batches-py").iterdir()
    monkeypatch.setattr(data, "OFFICIAL_MD5", {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in files})
    official = load(root)
    assert (official.info.source, official.caveat) == ("official", "")
    write(root / "cifar-10-batches-py" / "data_batch_4", batch(3_000) | {b"batch_label": b"another"})
    copy = load(root)
    assert (copy.info.source, copy.caveat) == ("unverified copy", "unverified copy of CIFAR-10 (md5 differs)")
    assert copy.info.fingerprint == official.info.fingerprint  # the images are the same


def test_newer_pickles_and_text_keys_are_read(root):
    content = {key.decode(): value for key, value in batch(5_000).items()}
    (root / "cifar-10-batches-py" / "test_batch").unlink()
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content, protocol=4))
    assert np.array_equal(numbers(load(root).test), np.arange(5_000, 6_000))


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


@pytest.mark.parametrize("label", [10, -1, 3.5, b"cat"])
def test_labels_outside_0_to_9(root, label):
    content = batch(0)
    content[b"labels"][17] = label
    write(root / "cifar-10-batches-py" / "data_batch_1", content)
    refused(root, "data_batch_1", "image 17", repr(label))


def test_too_few_images_of_a_class(root):
    content = batch(0)
    content[b"labels"] = [3 if label == 4 else label for label in content[b"labels"]]
    for path in (root / "cifar-10-batches-py").glob("data_batch_*"):
        write(path, content)
    refused(root, "0 training images", "label 4")


@pytest.mark.parametrize("name", [*BATCHES, "batches.meta"])
def test_missing_file(root, name):
    (root / "cifar-10-batches-py" / name).unlink()
    refused(root, name, "missing")


def test_class_names_must_be_ten(root):
    write(root / "cifar-10-batches-py" / "batches.meta", {b"label_names": NAMES[:9]})
    refused(root, "batches.meta", "ten")


# --- where it is looked for ------------------------------------------------------------------------------------------


def test_named_folder_must_hold_data(home, tmp_path, monkeypatch):
    refused(tmp_path / "nowhere", "nowhere", "no such folder")
    refused(tmp_path, "neither")
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


def test_archive_is_unpacked(written, loaded, tmp_path):
    os.link(written / "archive.tar.gz", tmp_path / "cifar-10-python.tar.gz")
    assert load(tmp_path).info == loaded.info
    assert {p.name for p in tmp_path.iterdir()} == {"cifar-10-python.tar.gz", "cifar-10-batches-py"}


def test_truncated_archive_leaves_nothing(written, tmp_path):
    content = (written / "archive.tar.gz").read_bytes()
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(content[: len(content) // 2])
    refused(tmp_path, "cifar-10-python.tar.gz", "cannot be unpacked")
    assert [p.name for p in tmp_path.iterdir()] == ["cifar-10-python.tar.gz"]


# --- downloading -----------------------------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` on 127.0.0.1, but only its first `limit` bytes: then the line is cut."""

    daemon_threads = True

    def __init__(self, content: bytes):
        self.content, self.limit, self.requests = content, len(content), 0
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/cifar-10-python.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # torchvision hangs up once before it downloads
            self.wfile.write(self.server.content[: self.server.limit])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(written, home, monkeypatch):
    content = (written / "archive.tar.gz").read_bytes()
    with Server(content) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", server.url)
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", hashlib.md5(content).hexdigest())
        yield server
        server.shutdown()


def test_download_once(server, loaded, home, capsys):
    timeout = socket.getdefaulttimeout()
    assert load().info == loaded.info
    requests = server.requests
    assert load().info == loaded.info
    assert server.requests == requests
    assert [p.name for p in (home / "data").iterdir()] == ["cifar-10-batches-py"]
    assert "100%" in capsys.readouterr().err  # the progress bar
    assert socket.getdefaulttimeout() == timeout


def test_wrong_md5_from_the_server_is_an_error(server, home, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", "0" * 32)
    refused(None, server.url, "md5", "0" * 32)
    assert list((home / "data").iterdir()) == []


def test_interrupted_transfer_is_an_error_and_a_retry_succeeds(server, loaded, home):
    server.limit = len(server.content) // 2
    refused(None, server.url, "try again")
    assert list((home / "data").iterdir()) == []
    server.limit = len(server.content)
    assert load().info == loaded.info


def test_what_a_killed_download_leaves_is_not_taken_as_good(server, loaded, home):
    left = home / "data" / ".cifar-10-killed.partial" / "cifar-10-batches-py"
    left.mkdir(parents=True)
    (left / "data_batch_1").write_bytes(b"half")
    old = left.parent.with_name(".cifar-10-older.partial")
    old.mkdir()
    os.utime(old, (0, 0))
    assert load().info == loaded.info
    assert server.requests > 0
    assert not old.exists()  # and what lies there for long is removed
    assert left.exists()


def is_stand_in(loaded: data.Data, output: str, reason: str) -> None:
    assert loaded.info.source == "synthetic stand-in"
    assert loaded.caveat == "synthetic stand-in, not CIFAR-10"
    assert output.count("\n") == 1 and output.startswith("WARNING") and reason in output


def test_no_network_gives_the_stand_in_with_one_warning(home, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"http://127.0.0.1:{port}/cifar-10-python.tar.gz")
    is_stand_in(load(), capsys.readouterr().err, "refused")


def test_server_that_never_answers_does_not_hang(home, monkeypatch, capsys):
    monkeypatch.setattr(download, "SOCKET_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cifar-10-python.tar.gz"
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)
        is_stand_in(load(), capsys.readouterr().err, "timed out")


def test_no_download_when_told_so(server, monkeypatch, capsys):
    is_stand_in(data.load(download=False, val_size=500), capsys.readouterr().err, "no download")
    monkeypatch.setenv("LABREPORT_OFFLINE", "1")
    is_stand_in(load(), capsys.readouterr().err, "no download")
    assert server.requests == 0


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
