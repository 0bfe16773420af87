"""A write is whole or nothing, and what killed writers leave is cleared."""

import os
import subprocess
import sys
import time

import pytest

from labreport.files import StorageError, clear_leftovers, write_atomically


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "figures").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"figures/report\.pdf: cannot be written .*LABREPORT_HOME"):
        write_atomically(tmp_path / "figures" / "report.pdf", b"new")


def leftover(folder, pid, age):
    path = folder / f".record.json.{os.uname().nodename}.{pid}.0123456789ab.partial"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_leftovers_of_dead_processes_are_cleared_and_those_of_living_ones_kept(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, fresh, ours = leftover(tmp_path, ended.pid, 120), leftover(tmp_path, ended.pid + 1, 0), None
    ours = leftover(tmp_path, os.getpid(), 120)
    elsewhere = tmp_path / ".record.json.another-node.1.0123456789ab.partial"
    elsewhere.write_bytes(b"half")
    longer = dead.rename(dead.with_name(dead.name.replace(os.uname().nodename, f"g{os.uname().nodename}")))
    dead = leftover(tmp_path, ended.pid, 120)
    clear_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([fresh, ours, elsewhere, longer])
    assert not dead.exists()
