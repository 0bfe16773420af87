"""Written files in the official layout with a tenth of the images, which makes the tests ten times as fast.

`test_official_size` sees to the rest, and the tests of the benchmark load files of the whole size.
"""

import os
import tarfile
from pathlib import Path

import pytest
from fake_cifar10 import SIZE, write_pickles

from labreport.images import formats


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """A folder with all seven files in the official layout, and beside it their archive."""
    root = tmp_path_factory.mktemp("written")
    write_pickles(root / "cifar-10-batches-py")
    with tarfile.open(root / "archive.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
    return root


@pytest.fixture(scope="module")
def tenth_of_the_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "BATCH_SIZE", SIZE)
        patch.setattr(formats, "N_TRAINVAL", 5 * SIZE)
        yield


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
