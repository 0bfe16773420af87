"""Faults are counted, in every process of the tests; the campaign's last line says how many, and what was lost."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from faults import processes

COUNTS: Counter[str] = Counter()


@pytest.fixture
def fault(record_property):
    """To call before each fault that is injected, with its name."""
    return lambda name: record_property("fault", name)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """What the tiny training gives when nothing happens to it, and the CPU seconds that it takes."""
    home = tmp_path_factory.mktemp("unbroken") / "home"
    process = processes.start(home, processes.train_tiny)
    seconds = 0.0
    while process.is_alive():
        seconds = max(seconds, min(processes.cpu_seconds(process.pid), 1e3))
        time.sleep(0.002)
    assert processes.ended(process) == 0, processes.said(home).read_text()
    return processes.result(home), seconds


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("campaign") and not item.config.getoption("--campaign"):
        pytest.skip("takes long: `make faults` runs it")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        COUNTS["injected"] += sum(name == "fault" for name, _ in report.user_properties)
    COUNTS["lost"] += report.failed


def pytest_unconfigure(config: pytest.Config) -> None:
    if config.getoption("--campaign") and not hasattr(config, "workerinput"):
        writer = config.get_terminal_writer()
        writer.line(f"{COUNTS['injected']} faults injected, {COUNTS['lost']} results lost")
