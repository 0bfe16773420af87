"""A copy that was installed elsewhere than the checkout: its notebooks come along, and it imports its own code."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from labreport import paths


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package in a folder of its own, built from the checkout."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("labreport", "notebooks", "docs", "figures/paper/records"):  # a build leaves files beside them
        shutil.copytree(paths.REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(paths.REPOSITORY / name, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def run(installed, *arguments, cwd):
    environment = {k: v for k, v in os.environ.items() if k != "LABREPORT_HOME"} | {"PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_new_writes_the_notebooks_and_work_stays_in_that_folder(installed, tmp_path):
    done = run(installed, "-m", "labreport", "new", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "mine" / "notebooks").iterdir()}
    assert names == {path.name for path in paths.NOTEBOOKS.glob("*.ipynb")}
    code = "import labreport; from labreport import paths; print(labreport.__file__, paths.home(), paths.notebooks())"
    for place in (tmp_path / "mine", tmp_path / "mine" / "notebooks"):
        home = tmp_path.resolve() / "mine"
        expected = [str(installed.resolve() / "labreport" / "__init__.py"), str(home), str(home / "notebooks")]
        assert run(installed, "-c", code, cwd=place).stdout.split() == expected


def test_new_overwrites_nothing(installed, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = run(installed, "-m", "labreport", "new", "mine", cwd=tmp_path)
    assert done.returncode == 2 and "not empty" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_installed_copy_has_the_reference_run(installed, tmp_path):
    code = "from labreport import Lab; print(len(Lab.open('paper').reference()['fine_tuned']))"
    done = run(installed, "-c", code, cwd=tmp_path)
    assert int(done.stdout) >= 3, done.stderr


def test_what_the_package_needs_is_what_is_pinned():
    project = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", name)[0] for name in project["dependencies"]}
    lines = (paths.REPOSITORY / "requirements.txt").read_text().split("# tests and style")[0].splitlines()
    assert needed == {line.partition("==")[0] for line in lines if "==" in line and not line.startswith("#")}


def test_a_notebooks_kernel_imports_the_code_that_runs_it():
    from labreport.document.execute import headless
    from labreport.lab.session import Lab

    with headless(Lab.open("smoke")):
        assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(Path(paths.PACKAGE).parent)
