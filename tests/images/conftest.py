"""The home of the tests of the data."""

from pathlib import Path

import pytest


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    """An empty home: no data in it, none named, and a download is allowed."""
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABREPORT_DATA", raising=False)
    monkeypatch.delenv("LABREPORT_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "home"
