"""What a report says beforehand of its own time: which trainings the notebooks' code asks for, and what they cost."""

import pytest
from document.test_report import write_notebook

from labreport import paths
from labreport.document import forecast as forecasts
from labreport.document.forecast import forecast, recipes_trained, told
from labreport.document.report import chapters_in
from labreport.facts.recipes import ABLATIONS, RECIPES, UPSCALED
from labreport.lab.session import Lab
from labreport.training.train import train


def names(notebook):
    return [recipe if isinstance(recipe, str) else recipe.name for recipe in recipes_trained(notebook, "quick")]


def test_what_the_chapters_train_is_read_from_their_code():
    trained = {notebook.stem[:2]: names(notebook) for notebook in chapters_in(paths.notebooks())}
    assert trained["01"] == []
    assert trained["02"] == ["baseline"]
    assert trained["03"][:2] == ["first_optimization", "fine_tuned"]
    assert set(trained["06"]) == set(RECIPES)
    assert {"no_flip", "my_net"} <= set(trained["07"])
    assert not {name for found in trained.values() for name in found if name.startswith("my_")} - {"my_net"}


def test_the_profile_paper_trains_ablations_and_enlarged_images_too():
    trained = {notebook.stem[:2]: recipes_trained(notebook, "paper") for notebook in chapters_in(paths.notebooks())}
    assert ABLATIONS.keys() <= set(trained["05"]) and UPSCALED.keys() <= set(trained["04"])


def test_a_report_is_not_complete_while_these_are_missing(monkeypatch, tmp_path):
    lab = Lab("paper", 0, tmp_path, "cpu")
    monkeypatch.setattr(Lab, "missing_seeds", lambda self, recipe: [0] * (recipe.name == "fast94_short"))
    assert not lab.complete
    monkeypatch.setattr(Lab, "missing_seeds", lambda self, recipe: [0] * (recipe.name == "frozen_64"))
    assert lab.complete  # nobody has named weights
    monkeypatch.setenv("LABREPORT_WEIGHTS", str(tmp_path))
    assert not lab.complete


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("lab.train('fast94')", ["fast94"]),
        ("%matplotlib inline\nruns = chapters.train(lab, 'baseline')", ["baseline"]),
        ("print('baseline')", []),
        ("mine = replace(RECIPES['fine_tuned'], name='mine', lr=0.1)", ["mine"]),
        ("mine = replace(RECIPES['fine_tuned'], name='mine', lr=3e-3)", []),  # which is the report's own
        ("mine = replace(RECIPES['fine_tuned'], name='mine', lr=rate)", []),  # not known before it runs
        ("lab.train(", []),
    ],
)
def test_cells(tmp_path, cell, expected):
    assert names(write_notebook(tmp_path / "01_a.ipynb", cell)) == expected


def test_the_forecast_counts_what_is_missing_once_and_nothing_that_is_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(forecasts, "training_seconds", lambda *_: 100.0)
    first = write_notebook(tmp_path / "01_a.ipynb", "lab.train('baseline')")
    second = write_notebook(tmp_path / "02_b.ipynb", "lab.train('baseline'); lab.train('fine_tuned')")
    lab = Lab("smoke", 0, None, "cpu")
    expected = forecast([first, second], lab)
    assert [one.trains for one in expected] == [("baseline",), ("fine_tuned",)]
    assert [one.training_seconds for one in expected] == [100.0, 100.0]
    lines = list(told(expected, lab))
    assert lines[0].startswith("about 4.1 min on ") and "3.3 min of it" in lines[0]
    assert lines[2] == "  02_b, 1.9 min: fine_tuned"
    train(lab.recipe("baseline"), lab.data, profile="smoke", device="cpu")
    assert [one.trains for one in forecast([first, second], lab)] == [(), ("fine_tuned",)]
