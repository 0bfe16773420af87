"""Chapter 1 writes the same files on every processor: it is run again with other instructions and one thread."""

import os
import subprocess
import sys

import pytest

from labreport import paths

# The notebook's code without a kernel; `display` then has nowhere to show its outputs, and the files are what counts.
RUN = """
import contextlib, io, sys
import nbformat
cells = [c for c in nbformat.read(sys.argv[1], as_version=4).cells if c.cell_type == "code"]
with contextlib.redirect_stdout(io.StringIO()):
    exec("\\n".join(cell.source for cell in cells), {})
"""
OTHER_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OMP_NUM_THREADS": "1",
}


def files(home, environment):
    """What chapter 1 leaves in `home`, by name."""
    command = [sys.executable, "-c", RUN, str(paths.NOTEBOOKS / "01_convolution_and_cross_entropy.ipynb")]
    done = subprocess.run(command, env=os.environ | environment | {"LABREPORT_HOME": str(home)}, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = (home / "figures" / "smoke").iterdir()
    return {path.name: path.read_bytes() for path in written if path.suffix in (".csv", ".md", ".svg")}


def test_tables_and_figures_are_the_same_on_another_processor_and_with_one_thread(tmp_path):
    threads = {"OMP_NUM_THREADS": str(min(os.cpu_count(), 4)), "OMP_WAIT_POLICY": "passive"}  # else they wait busily
    here = files(tmp_path / "here", threads)
    there = files(tmp_path / "there", OTHER_PROCESSOR)
    assert {name for name in here if name.startswith("checks-")} >= {"checks-softmax.csv", "checks-cross-entropy.md"}
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []


@pytest.mark.parametrize("name", ["checks-softmax", "checks-cross-entropy", "checks-convolution"])
def test_committed_checks_print_no_measured_difference(name):
    """6e-14 on one machine is 7e-14 on another; what is committed names what is allowed instead."""
    text = (paths.REPOSITORY / "figures" / "paper" / f"{name}.csv").read_text()
    assert text.splitlines()[0] == "Claim,Cases,Largest difference allowed,Verdict"
