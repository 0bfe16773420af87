"""A disk that is full or cannot be written: one sentence, exit 1, nothing older lost, and the same call goes on."""

import os
import resource

import pytest
from document.test_report import write_notebook
from faults.processes import (
    NO_MOUNT,
    command,
    disk_full_at,
    ended,
    limited,
    mounted,
    remount,
    result,
    said,
    start,
    train_tiny,
)
from faults.test_kills import WRITES, finish

from labreport import paths
from labreport.document import report
from labreport.files import StorageError


def pytest_generate_tests(metafunc):
    if "number" in metafunc.fixturenames:
        many = metafunc.config.getoption("--campaign")
        metafunc.parametrize("number", range(1, WRITES + 1) if many else (1, 7, WRITES))


def sentence(home):
    """The last line that was said, once it is known to be one of ours."""
    line = said(home).read_text().splitlines()[-1]
    assert line.startswith("labreport: ") and "Traceback" not in said(home).read_text(), said(home).read_text()
    return line


def told(function, *arguments):
    """What `main` does: the sentence of an error of ours, and exit 1."""
    try:
        function(*arguments)
    except StorageError as error:
        print(f"labreport: {error}", flush=True)
        return 1
    return 0


def test_full_at_every_write_of_a_training(tmp_path, unbroken, fault, number):
    """Checkpoints, progress, weights, predictions and record: what was there before stays, and the run goes on."""
    home = tmp_path / "home"
    fault(f"disk full at write {number}")
    assert ended(start(home, told, disk_full_at, number, train_tiny)) == 1
    assert "cannot be written (No space left on device); make room" in sentence(home)
    assert finish(home) == unbroken[0]


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_a_limit_on_file_sizes(tmp_path, fault, size):
    """`ulimit -f`: a thousand bytes stop the first checkpoint, and so do a hundred thousand."""
    home = tmp_path / "home"
    fault(f"files limited to {size} bytes")
    assert ended(start(home, limited, size, "train", "fine_tuned")) == 1
    assert ".checkpoint: cannot be written (File too large)" in sentence(home)
    assert ended(start(home, command, "train", "fine_tuned")) == 0


def small_disk() -> int:
    """Full at the checkpoint; then with room for one, the training goes on."""
    assert told(train_tiny) == 1
    remount("size=200m")
    assert told(train_tiny) == 0
    result(paths.home())
    return 0


def read_only() -> int:
    train_tiny()
    before = sorted(paths.home().rglob("*"))
    remount("ro")
    train_tiny()  # the record is there, and is answered
    assert told(train_tiny, 1) == 1
    assert sorted(paths.home().rglob("*")) == before
    return 0


@pytest.mark.parametrize(
    ("options", "function", "words"),
    [("size=2m", small_disk, "No space left on device"), ("size=200m", read_only, "Read-only file system")],
)
def test_a_small_disk_and_a_read_only_one(tmp_path, fault, options, function, words):
    home = tmp_path / "home"
    fault(words)
    status = ended(start(home, mounted, options, function))
    if status == NO_MOUNT:
        pytest.skip("this machine does not let a test mount a file system")
    assert status == 0, said(home).read_text()
    assert f"cannot be written ({words})" in said(home).read_text()


@pytest.mark.parametrize("folder", ["runs", "figures", "build"])
def test_a_file_where_a_folder_should_be(tmp_path, fault, folder):
    words = ["report"] if folder == "build" else ["train", "fine_tuned"]
    home = tmp_path / "home"
    home.mkdir()
    (home / folder).write_text("mine")
    fault(f"{folder} is a file")
    assert ended(start(home, command, *words)) == 1
    assert f"/home/{folder}" in sentence(home) and "LABREPORT_HOME" in sentence(home)
    assert (home / folder).read_text() == "mine"


def build(folder):
    """A report of one small notebook that draws a figure."""
    draw = "import matplotlib.pyplot as plt\nfrom labreport import Lab\nlab = Lab.open(profile)\n"
    draw += "lab.show(plt.figure(), 'empty', 'An empty figure.')"
    report.build_report("paper", notebooks=[write_notebook(folder / "01_figure.ipynb", draw)])
    return 0


def building(folder, size):
    """The report, where no file may be larger; in the kernel, too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        return build(folder)
    except RuntimeError as error:
        assert type(error).__module__.startswith("labreport."), repr(error)
        print(f"labreport: {error}", flush=True)
        return 1


def test_a_limit_on_the_sizes_of_figure_and_pdf(tmp_path, fault):
    """The figure (a kilobyte), the PDF (more than the web page has): the older report stays as it is."""
    home = tmp_path / "home"
    assert ended(start(home, build, tmp_path)) == 0, said(home).read_text()
    older = {path: path.read_bytes() for path in home.rglob("report.*")}
    figure, pdf = home / "figures/paper/empty.svg", home / "build/paper/report.pdf"
    assert pdf.exists() and figure.exists()
    for path, size in ((figure, 1_000), (pdf, pdf.stat().st_size - 1)):
        fault(f"files limited to {size} bytes")
        assert ended(start(home, building, tmp_path, size)) == 1
        assert "cannot be written (File too large)" in sentence(home)
        assert {path: path.read_bytes() for path in older} == older
    assert os.fspath(pdf) in sentence(home) or "report.html" in sentence(home)
