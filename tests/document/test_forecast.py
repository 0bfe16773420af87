"""What a report says beforehand of its own time: which trainings the notebooks' code asks for, and what they cost."""

import dataclasses

import pytest
import torch
from document.test_report import write_notebook

from labreport import paths
from labreport.document import forecast as forecasts
from labreport.document.forecast import forecast, recipes_trained, told, training_seconds
from labreport.document.report import chapters_in
from labreport.facts.recipes import RECIPES, for_profile
from labreport.images.synthetic import synthetic
from labreport.lab.session import Lab
from labreport.training.train import train

CPU = torch.device("cpu")
IMAGES = synthetic(n_train=300, n_val=100, n_test=100)


def names(notebook):
    return [recipe if isinstance(recipe, str) else recipe.name for recipe in recipes_trained(notebook)]


def test_what_the_chapters_train_is_read_from_their_code():
    trained = {notebook.stem[:2]: names(notebook) for notebook in chapters_in(paths.notebooks())}
    assert trained["01"] == []
    assert trained["02"] == ["baseline"]
    assert trained["03"][:2] == ["first_optimization", "fine_tuned"]
    assert set(trained["06"]) == set(RECIPES)
    assert {"no_flip", "my_net"} <= set(trained["07"])
    assert not {name for found in trained.values() for name in found if name.startswith("my_")} - {"my_net"}


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


def test_seconds_come_from_all_images_that_the_network_sees(monkeypatch):
    """A hundredth of a second an image: the epochs', a third for each that is only classified."""
    monkeypatch.setattr(forecasts, "seconds_per_image", lambda *_: 0.01)
    recipe = dataclasses.replace(RECIPES["fine_tuned"], epochs=2)
    classified = 2 * 100 + 100 + 300 + 100  # validation after each epoch and at the end, training and test images
    assert training_seconds(recipe, IMAGES, CPU) == pytest.approx(0.01 * (2 * 300 + classified / 3))
    few = dataclasses.replace(recipe, train_images=100)
    assert training_seconds(few, IMAGES, CPU) == pytest.approx(0.01 * (2 * 100 + (classified - 200) / 3))
    small = dataclasses.replace(recipe, low_resolution_epochs=1, low_resolution=16)
    classified = (1 / 4 + 1) * 100 + 100 + 300 + 100
    assert training_seconds(small, IMAGES, CPU) == pytest.approx(0.01 * (1.25 * 300 + classified / 3))


@pytest.mark.parametrize("name", ["dnn_softmax", "fast94", "baseline"])
def test_every_kind_of_network_can_be_tried(name):
    assert 0 < training_seconds(for_profile(RECIPES[name], "quick"), IMAGES, CPU) < 600
