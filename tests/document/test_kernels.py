"""Forked kernels beside those that jupyter_client starts."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from nbformat import write
from nbformat.v4 import new_code_cell, new_notebook

from labreport.document import execute, kernels
from labreport.document.errors import ReportError
from labreport.lab.session import Lab

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
FACTS = """
import os, signal, sys
print(os.getcwd(), __name__, sys.argv[0].endswith("ipykernel_launcher.py") or sys.argv[0], sys.path[0])
print(os.environ["MARK"], os.getpgid(0) == os.getpid(), [signal.getsignal(n) for n in (signal.SIGCHLD, signal.SIGINT)])
print(os.system("exit 3") >> 8, os.environ["LABREPORT_HEADLESS"])
"""
WAITS = """
from pathlib import Path
from labreport.document import execute, kernels
from labreport.lab.session import Lab
with kernels.forking() as manager:
    execute.execute(Path({0!r}), Lab.open("smoke"), manager)
"""


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    """Of forked kernels, for all tests, as `execute_all` has it."""
    home = str(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LABREPORT_HOME": home, "MARK": "seen"}.items():
            patch.setenv(name, value)
        patch.delenv("MPLBACKEND", raising=False)
        with execute.headless(Lab.open("smoke")), kernels.forking() as manager:
            yield manager


def notebook(path, *sources):
    write(new_notebook(cells=list(map(new_code_cell, sources))), path)
    return path


def run(path, manager):
    ran = execute.execute(path, Lab.open("smoke"), manager)
    outputs = [output for cell in ran.cells for output in cell.outputs]
    return "".join(output.get("text") or f"{sorted(output.data)}\n" for output in outputs)


def test_a_forked_kernel_is_as_one_that_was_started(tmp_path, manager):
    path = notebook(
        tmp_path / "a.ipynb", FACTS, "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.title('A line')"
    )
    forked = run(path, manager)
    started = run(path, kernels.AsyncKernelManager)
    assert forked.replace("ipykernel_launcher", "True") == started
    assert "seen" in forked and "\n3 1\n" in forked and "image/png" in forked


def test_kernels_share_no_state_and_come_with_what_notebooks_import(tmp_path, manager):
    first = notebook(tmp_path / "a.ipynb", "import sys, torch; torch.mine = 1; print('torchvision' in sys.modules)")
    second = notebook(
        tmp_path / "b.ipynb", "import torch; print(hasattr(torch, 'mine'), torch.ones(99, 99).sum().item())"
    )
    assert (run(first, manager), run(second, manager)) == ("True\n", "False 9801.0\n")


def test_kernels_end_with_the_command(tmp_path):
    """Also where it is killed: nobody is left to stop them then."""
    path = notebook(tmp_path / "a.ipynb", f"open({str(tmp_path / 'there')!r}, 'w'); import time; time.sleep(600)")
    command = subprocess.Popen([sys.executable, "-c", WAITS.format(str(path))])
    while not (tmp_path / "there").exists():
        assert command.poll() is None
        time.sleep(0.1)
    others = psutil.Process(command.pid).children(recursive=True)
    assert len(others) == 2
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    assert psutil.wait_procs(others, timeout=30)[1] == []


def test_a_forked_kernel_that_dies_and_a_process_that_forks_no_more(tmp_path, manager):
    """The last test, since it ends that process."""
    dies = notebook(tmp_path / "a.ipynb", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ReportError, match=r"a\.ipynb stopped because its kernel died"):
        run(dies, manager)
    (server,) = (child for child in psutil.Process().children() if "serve(" in " ".join(child.cmdline()))
    server.kill()
    with pytest.raises(ReportError, match=r"kernel python3 does not start .*the process that forks kernels has ended"):
        run(dies, manager)
