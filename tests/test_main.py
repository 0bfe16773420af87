"""The command line: what it says, where it says it, and how it exits."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import labreport
from labreport import Lab
from labreport.__main__ import main
from labreport.cpus import available_cpus
from labreport.facts import recipes
from labreport.facts.recipes import RECIPES
from labreport.records.store import Store
from labreport.running import local
from labreport.training import train as training
from labreport.training.run import TrainingError


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def complaint(capsys) -> str:
    """What was printed to stderr, once it is known to be one line and nothing else was printed."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("labreport: ")
    assert err.count("\n") == 1
    return err


def test_importing_the_package_loads_no_torch():
    code = "import sys, labreport; labreport.RECIPES, labreport.Lab, dir(labreport); print('torch' in sys.modules)"
    assert python("-c", code).stdout == "False\n"


def test_every_public_name_is_there():
    assert [name for name in labreport.__all__ if getattr(labreport, name, None) is None] == []
    assert labreport.__version__ == version("labreport")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = labreport.no_such_name


def test_help_loads_no_torch():
    done = python("-X", "importtime", "-m", "labreport", "train", "--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in RECIPES)
    assert "| torch\n" not in done.stderr


@pytest.mark.parametrize("command", ["report", "train", "data", "bench"])
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"python -m labreport {command}" in capsys.readouterr().out.split("examples:")[1]


def test_an_unknown_recipe_is_answered_with_the_recipes(capsys):
    assert main(["train", "resnet"]) == 2
    said = complaint(capsys)
    assert "'resnet'" in said
    assert all(name in said for name in RECIPES)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["report", "--profile", "fast"], "'fast'"),
        (["report", "--seed", "-1"], "-1"),
        (["report", "--device", "abacus"], "'abacus'"),
        (["report", "--data", "/no/such/folder"], "/no/such/folder"),
        (["train", "baseline", "--data", "/no/such/folder"], "/no/such/folder"),
        (["train", "baseline", "--seeds", "0", "-3"], "seeds"),
        (["train", "baseline", "--jobs", "0"], "jobs"),
        (["train"], "--all"),
        (["train", "baseline", "--all"], "--all"),
        (["data", "--data", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_bad_input_is_one_sentence_that_names_it(arguments, named, capsys):
    assert main(arguments) == 2
    assert named in complaint(capsys)


def test_a_folder_without_cifar10_is_refused(tmp_path, capsys):
    assert main(["data", "--data", str(tmp_path)]) == 2
    assert str(tmp_path) in complaint(capsys)


def test_a_closed_pipe_is_no_traceback(monkeypatch):
    monkeypatch.setenv("LABREPORT_PROFILE", "smoke")
    command = [sys.executable, "-m", "labreport", "data"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # as `head` does, once it has its lines
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_failed_training_is_one_sentence(monkeypatch, capsys):
    def fail(*_, **__):
        raise TrainingError("the loss is\nnan")

    monkeypatch.setattr(training, "train", fail)
    assert main(["train", "baseline", "--profile", "smoke"]) == 1
    assert complaint(capsys) == "labreport: the loss is nan\n"


def test_a_librarys_error_is_a_bug_and_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(training, "train", lambda *_, **__: int("twelve"))
    with pytest.raises(ValueError, match="invalid literal"):
        main(["train", "baseline", "--profile", "smoke"])


def test_an_interruption_says_how_to_go_on(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupt)
    assert main(["train", "baseline", "--profile", "smoke"]) == 130
    assert "goes on" in complaint(capsys)


def test_data_counts_every_split(capsys, monkeypatch):
    monkeypatch.setenv("LABREPORT_PROFILE", "smoke")
    assert main(["data"]) == 0
    out = capsys.readouterr().out
    assert "synthetic stand-in" in out
    assert out.splitlines()[-1].split() == ["all", "400", "100", "200"]


def test_train_side_by_side_leaves_a_record_a_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    assert main(["train", "fine_tuned", "--profile", "smoke", "--seeds", "3", "5", "3", "--jobs", "2"]) == 0
    stored = Store(tmp_path / "figures" / "smoke" / "records").all()
    assert [(record.name, record.seed) for record in stored] == [("fine_tuned", 3), ("fine_tuned", 5)]
    assert {record.environment.threads for record in stored} == {1}


def test_without_ray_a_cluster_is_refused_with_the_way_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("labreport.__main__.find_spec", lambda name: None)
    assert main(["train", "baseline", "--profile", "smoke", "--on", "ray"]) == 2
    assert "pip install -e '.[cluster]'" in complaint(capsys)


def test_a_notebook_trains_seeds_of_a_tiny_batch_side_by_side(tmp_path, monkeypatch):
    """Every seed's record is there afterwards, each from a process of its own with one thread."""
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    monkeypatch.setitem(recipes.SEEDS, "smoke", 2)
    monkeypatch.setattr(local, "jobs_for", lambda recipe, device: 2)
    monkeypatch.setattr(training, "train", None)  # nothing is trained in this process
    found = Lab.open("smoke").train("fine_tuned")
    assert [record.seed for record in found] == [0, 1]
    assert {record.environment.threads for record in found} == {1}


def test_how_many_seeds_at_once():
    cores = available_cpus()
    assert local.jobs_for(recipes.RECIPES["baseline"], "cpu") == cores
    assert local.jobs_for(recipes.RECIPES["fine_tuned"], "cpu") == 1
    assert local.jobs_for(recipes.RECIPES["baseline"], "cuda") == 1
