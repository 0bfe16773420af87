"""Commands at once, killed, misspelt, or without a stream: each ends with a result or a sentence."""

import json
import os
import random
import signal
import subprocess
import sys

import pytest
from document.test_report import write_notebook
from faults.processes import NO_MOUNT, command, ended, mounted, said, start
from faults.test_disk import sentence

from labreport import paths
from labreport.document import execute, report
from labreport.document.errors import ReportError
from labreport.records.store import Store

TRAINS = """
from dataclasses import replace
from labreport import RECIPES, Lab
from labreport.images.synthetic import synthetic
lab = Lab.open(profile, seed, data_dir, device)
lab.__dict__["data"] = synthetic(n_train=100, n_val=40, n_test=60)
tiny = replace(RECIPES["fine_tuned"], name="tiny", epochs=3, batch_size=20)
lab.say(f"{lab.train(tiny)[0].test_score.accuracy}")
"""


def pytest_generate_tests(metafunc):
    if "chain" in metafunc.fixturenames:
        metafunc.parametrize("chain", range(4 if metafunc.config.getoption("--campaign") else 1))


def report_of(folder):
    """A report of one notebook that trains."""
    report.build_report("smoke", notebooks=[folder / "01_train.ipynb"])


def facts(home):
    (record,) = Store(home / "figures" / "smoke" / "records").all()
    return record.key, record.test_score, record.train_score, record.predictions.log_probabilities.tobytes()


SECONDS = 10  # about what that report takes; later it has ended
OLDER = b"%PDF-1.7\n%%EOF\n"


def notebook_alone():
    exec(TRAINS, {"profile": "smoke", "seed": 0, "data_dir": None, "device": None})


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """The folder of a notebook that trains, and what its record holds where no report is in the way."""
    folder = tmp_path_factory.mktemp("built")
    write_notebook(folder / "01_train.ipynb", TRAINS)
    home = folder / "home"
    assert ended(start(home, notebook_alone)) == 0, said(home).read_text()
    return folder, facts(home)


def test_a_report_killed_at_random_moments(tmp_path, training, fault, chain, pytestconfig):
    """Five times (once in `make test`), each time over an older PDF, which stays whole; then it is built."""
    folder, expected = training
    home, moments = tmp_path / "home", random.Random(chain)
    pdf = home / "figures/smoke/report.pdf"
    pdf.parent.mkdir(parents=True)
    pdf.write_bytes(OLDER)
    for _ in range(5 if pytestconfig.getoption("--campaign") else 1):
        process = start(home, report_of, folder)
        process.join(moments.uniform(0, SECONDS))
        fault("SIGKILL of a report")
        process.kill()
        assert ended(process) in (-signal.SIGKILL, 0)
        content = pdf.read_bytes()
        assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
        assert Store(home / "figures/smoke/records").scan().left_out == []
    assert ended(start(home, report_of, folder)) == 0, said(home).read_text()
    assert facts(home) == expected
    assert pdf.read_bytes() != OLDER


PAIRS = [("train", "fine_tuned", "--seeds", "0", "1"), ("verify", "--again"), ("data",), ("show",)]


@pytest.mark.parametrize("words", PAIRS, ids=lambda words: words[0])
def test_two_of_a_command_at_once(tmp_path, fault, words):
    home = tmp_path / "home"
    if words[0] in ("verify", "show"):
        assert ended(start(home, command, "train", "fine_tuned")) == 0
        (path,) = home.glob("figures/smoke/records/*.json")
        words = ("show", str(path)) if words[0] == "show" else words
    fault(f"two of {words[0]} at once")
    pair = [start(home, command, *words) for _ in range(2)]
    assert [ended(process) for process in pair] == [0, 0], said(home).read_text()
    scan = Store(home / "figures/smoke/records").scan()
    assert scan.left_out == []
    assert len(scan.records) == {"train": 2, "data": 0}.get(words[0], 1)


@pytest.mark.campaign
def test_two_reports_at_once(tmp_path, training, fault):
    """One waits for the other, whose pages it would else write over."""
    folder, expected = training
    home = tmp_path / "home"
    fault("two reports at once")
    pair = [start(home, report_of, folder) for _ in range(2)]
    assert [ended(process) for process in pair] == [0, 0], said(home).read_text()
    assert facts(home) == expected
    assert "another report is being built" in said(home).read_text()
    assert (home / "figures/smoke/report.pdf").read_bytes().rstrip().endswith(b"%%EOF")


WRITER = """
import sys
from pathlib import Path
from labreport.files import write_atomically
for i in range(1500):
    write_atomically(Path(sys.argv[1]), sys.argv[2].encode() * (1 + i % 50_000))
"""


def test_writers_of_two_pid_namespaces_tear_no_file(tmp_path, fault):
    """Both are process 1 of their machine, as on two nodes."""
    apart = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test make PID namespaces")
    path = tmp_path / "file"
    path.write_bytes(b"a")
    fault("two writers with one PID")
    pair = [subprocess.Popen([*apart, sys.executable, "-c", WRITER, path, letter]) for letter in "ab"]
    torn = 0
    while any(process.poll() is None for process in pair):
        torn += len(set(path.read_bytes())) != 1
    assert [process.returncode for process in pair] == [0, 0]
    assert torn == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("given", "status"), [("sed", 1), pytest.param("seed", 0, marks=pytest.mark.campaign)])
def test_a_misspelt_parameter_is_an_error_in_a_notebook(tmp_path, fault, given, status):
    """By papermill itself, which only logs it."""
    if given == "sed":
        fault("a misspelt parameter")
    path = write_notebook(
        tmp_path / "a.ipynb", "from labreport import Lab\nlab = Lab.open(profile, seed, data_dir, device)"
    )
    words = [
        "-m",
        "papermill",
        path,
        tmp_path / "b.ipynb",
        "-k",
        "python3",
        "-l",
        "python",
        "-p",
        given,
        "1",
        "--no-progress-bar",
    ]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert ("papermill was given sed, which this notebook does not have" in done.stderr) == bool(status)


KERNELS = [["sleep", "60"], ["/no/such/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]]


@pytest.mark.parametrize("argv", KERNELS, ids=["silent", "gone"])
def test_a_kernel_that_does_not_answer_or_start(tmp_path, monkeypatch, fault, argv):
    """As with the loopback network down, or with a kernelspec of an interpreter that was removed."""
    fault("a kernel that does not answer or start")
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "python3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(execute, "START_TIMEOUT", 1)
    notebook = write_notebook(tmp_path / "01_a.ipynb", "print(1)")
    with pytest.raises(ReportError, match=r"01_a\.ipynb: the kernel python3 does not start or does not answer \("):
        report.build_report("smoke", notebooks=[notebook])


CELLS = {
    "a tuple": ("profile, seed = None, 0\ndata_dir = device = None", None),
    "a magic": ("%matplotlib inline\nprofile = data_dir = device = None\nseed: int = 0", None),
    "a misspelt name": ("profile = data_dir = device = None\nsed = 0", r"a\.ipynb: .* sets sed; is seed meant\?"),
    "no Python": ("profile = None\nseed = = 0", r"is not Python \(line 2: invalid syntax\)"),
}


@pytest.mark.parametrize("cell", CELLS)
def test_the_parameters_cell_of_ones_own_notebook(tmp_path, fault, cell):
    source, words = CELLS[cell]
    fault(f"a parameters cell with {cell}")
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=source)
    if words is None:
        assert execute.parameters_of(notebook) == execute.PARAMETERS
        return
    with pytest.raises(ReportError, match=words):
        execute.parameters_of(notebook)


UNGUARDED = """
from labreport import build_report
build_report("paper", notebooks=[{0!r}, {0!r}])
"""


@pytest.mark.campaign
def test_a_script_without_a_guard_builds_its_report(tmp_path, fault):
    """Notebooks run side by side in processes that do not import it."""
    fault("a script without a guard")
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED.format(str(write_notebook(tmp_path / "01_a.ipynb"))))
    environment = os.environ | {"LABREPORT_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "build/paper/report.pdf").exists()


def test_a_closed_stderr_stops_no_training(tmp_path, fault):
    """The first file that is opened afterwards does not become the new stderr, either: all of them can be read."""
    home = tmp_path / "home"
    fault("2>&-")
    line = 'exec "$0" -m labreport train fine_tuned --profile smoke 2>&-'
    environment = os.environ | {"LABREPORT_HOME": str(home)}
    done = subprocess.run(["sh", "-c", line, sys.executable], env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    scan = Store(home / "figures/smoke/records").scan()
    assert (len(scan.records), scan.left_out) == (1, [])


def in_checkout(*words: str) -> int:
    """A command without LABREPORT_HOME, in a checkout that lies where its home was."""
    paths.REPOSITORY = paths.home()
    del os.environ["LABREPORT_HOME"]
    return command(*words)


@pytest.mark.parametrize("words", [("train", "fine_tuned"), ("report",)], ids=lambda words: words[0])
def test_a_read_only_checkout(tmp_path, fault, words):
    home = tmp_path / "home"
    fault("read-only checkout")
    status = ended(start(home, mounted, "ro", in_checkout, *words))
    if status == NO_MOUNT:
        pytest.skip("this machine does not let a test mount a file system")
    assert status == 1
    assert "cannot be written (Read-only file system)" in sentence(home) and "LABREPORT_HOME" in sentence(home)
