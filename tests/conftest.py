"""Every test process works in an empty folder of its own, on one thread, without data, network or screen."""

import os
import tarfile
import tempfile
from pathlib import Path

import pytest

# Set before any test module imports torch or matplotlib, and inherited by the kernels and commands that tests start.
# Each home would compile the step anew, longer than its tiny trainings take; the compiled step has tests of its own.
os.environ |= {"LABREPORT_OFFLINE": "1", "LABREPORT_PROFILE": "smoke", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
os.environ |= {"LABREPORT_COMPILED": "0"}
for name in ("LABREPORT_DATA", "LABREPORT_WEIGHTS"):
    os.environ.pop(name, None)

_home = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--campaign", action="store_true", help="tests/faults: many faults of each kind, not a few")


def pytest_configure(config: pytest.Config) -> None:
    """One folder a process; and one of all, where a notebook takes from the store what another one has trained."""
    worker = hasattr(config, "workerinput")
    config.stash[_home] = tempfile.TemporaryDirectory(prefix="labreport-tests-")
    shared = os.environ["LABREPORT_HOME"] if worker else config.stash[_home].name
    os.environ["LABREPORT_HOME"] = config.stash[_home].name
    config.pluginmanager.register(Notebooks(shared))


class Notebooks:
    """Notebooks that nbmake runs work in `home`, of all processes. Who wants a run that is under way waits for it."""

    def __init__(self, home: str):
        self._home = home

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        with pytest.MonkeyPatch.context() as patch:
            if item.path.suffix == ".ipynb":
                patch.setenv("LABREPORT_HOME", self._home)
            return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_home].cleanup()


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """A folder with all seven files in the official layout, and beside it their archive."""
    from fake_cifar10 import write_pickles

    root = tmp_path_factory.mktemp("written")
    write_pickles(root / "cifar-10-batches-py")
    with tarfile.open(root / "archive.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
    return root


@pytest.fixture(scope="module")
def tenth_of_the_size():
    """`written` has a tenth of the images, ten times as fast to test; `test_official_size` sees to the rest."""
    from labreport.images import formats

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "BATCH_SIZE", 1_000)
        patch.setattr(formats, "N_TRAINVAL", 5_000)
        yield


@pytest.fixture
def root(written, tmp_path) -> Path:
    """A folder of one test's own that holds the batch files."""
    folder = tmp_path / "own" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for path in (written / "cifar-10-batches-py").iterdir():
        os.link(path, folder / path.name)
    return folder.parent
