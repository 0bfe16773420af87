"""Every test process works in an empty folder of its own, on one thread, without data, network or screen."""

import os
import tempfile

import pytest

# Set before any test module imports torch or matplotlib, and inherited by the kernels and commands that tests start.
os.environ |= {"LABREPORT_OFFLINE": "1", "LABREPORT_PROFILE": "smoke", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
for name in ("LABREPORT_DATA", "LABREPORT_WEIGHTS"):
    os.environ.pop(name, None)

_home = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--campaign", action="store_true", help="tests/faults: many faults of each kind, not a few")


def pytest_configure(config: pytest.Config) -> None:
    """One folder a process, since two notebooks at once must not train into the same one."""
    config.stash[_home] = tempfile.TemporaryDirectory(prefix="labreport-tests-")
    os.environ["LABREPORT_HOME"] = config.stash[_home].name


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_home].cleanup()
