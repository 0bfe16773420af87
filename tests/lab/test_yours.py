"""One's own recipes: compared with the report's, listed, deleted, and with the right caveat."""

import dataclasses
import re

import pytest
from filelock import FileLock
from torch import nn

from labreport import paths
from labreport.evidence import figures, statistics
from labreport.facts.recipes import RECIPES
from labreport.lab import chapters
from labreport.lab.session import Lab
from labreport.networks import models

MINE = dataclasses.replace(RECIPES["fine_tuned"], name="mine", flip="none")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    monkeypatch.delenv("LABREPORT_DATA", raising=False)
    return tmp_path


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda thing, **_: shown.append(thing.data))
    return shown


def test_yours_beside_the_reports(displayed):
    trained = chapters.compare(Lab.open("smoke"), {"the report's": "fine_tuned", "mine": MINE})
    settings, table, picture = displayed
    assert re.search(r"<td[^>]*>flip</td>\s*<td[^>]*>random</td>\s*<td[^>]*>none</td>", settings)
    result = statistics.paired_test(*(statistics.answers(trained[label]) for label in ("mine", "the report's")))
    assert f"{100 * result.difference:+.2f}".replace("-", "−") in table or result.difference == 0
    assert re.search(r"<td[^>]*>mine</td>", table) and 'id="fig:compare-fine_tuned-mine-curves"' in picture
    assert [record.name for record in trained["mine"]] == ["mine"]


def test_a_recipe_that_is_still_the_reports_is_not_trained_again(displayed):
    lab = Lab.open("smoke")
    chapters.compare(lab, {"the report's": "fine_tuned", "mine": dataclasses.replace(MINE, flip="random")})
    assert displayed == []  # and a word only where somebody looks on
    assert {record.name for record in lab.store.all()} == {"fine_tuned"}


def test_a_chapter_trains_a_recipe_of_ones_own(displayed):
    (record,) = chapters.train(Lab.open("smoke"), MINE)
    assert record.title == "Fine-tuning (mine)"
    assert re.search(r"<td[^>]*>flip</td>\s*<td[^>]*>none</td>\s*<td[^>]*>yours</td>", displayed[0])


def test_a_recipe_that_the_profile_leaves_whole_has_no_caveat_of_it():
    lab = Lab.open("quick")
    lab.__dict__["data_caveat"] = ""
    records = [dataclasses.make_dataclass("R", ["name"])("mine")]
    assert lab.about(records).caveat == "shortened schedules, fewer images"
    lab.whole.add("mine")
    assert lab.about(records).caveat == "" and lab.caveat == "shortened schedules, fewer images"


def test_the_table_of_a_network_stands_beside_its_source(displayed, monkeypatch):
    class Mine(nn.Module):
        def __init__(self, num_classes=10):
            super().__init__()
            self.fc = nn.Linear(3072, num_classes)

        def forward(self, images):
            return self.fc(images.flatten(1))

    monkeypatch.setitem(models.MODELS, "mine", Mine)
    chapters.network(Lab.open("smoke"), dataclasses.replace(MINE, model="mine"))
    cells = ("fc", "Linear 3072→10", "10", "30,730", "0.06")
    assert re.search(r"\s*".join(f"<td[^>]*>{cell}</td>" for cell in cells), displayed[0])
    assert "class Mine(nn.Module):" in displayed[0]


def test_the_training_step_is_the_one_that_trains(displayed):
    chapters.training_step(Lab.open("smoke"))
    assert "def train_step(" in displayed[0] and "loss.backward()" in displayed[0]


def test_runs_are_listed_and_one_is_deleted(capsys):
    lab = Lab.open("smoke")
    lab.train("fine_tuned")
    (record,) = lab.train(MINE)
    assert list(lab.runs()["Recipe"]) == ["mine", "fine_tuned"]  # one's own first
    with FileLock(paths.runs("smoke") / f"{record.stem}.lock"), pytest.raises(ValueError, match="under way"):
        lab.runs(delete=record.key)
    assert list(lab.runs(delete=record.key)["Recipe"]) == ["fine_tuned"]
    assert "is deleted" in capsys.readouterr().out
    assert not [path for path in paths.home().rglob(f"*{record.key}*") if path.suffix != ".lock"]
    for key in (record.key, "*"):
        with pytest.raises(ValueError, match="no training"):
            lab.runs(delete=key)


def test_the_reference_run_is_not_deleted(tmp_path):
    lab = Lab.open("paper")
    folder = paths.records("paper")
    folder.mkdir(parents=True)
    (folder / "baseline-seed0-0123456789ab.json").write_text("{}")
    with pytest.raises(ValueError, match="reference run"):
        lab.runs(delete="0123456789ab")
    assert list(folder.iterdir())


def test_an_interrupted_training_is_listed():
    stem = paths.runs("smoke") / "mine-seed3-0123456789ab"
    stem.parent.mkdir(parents=True)
    stem.with_suffix(".checkpoint").write_bytes(b"")
    assert Lab.open("smoke").runs().values.tolist() == [["mine", 3, "interrupted", "—", "—", "—", "0123456789ab"]]


def test_curves_together_of_recipes_of_unequal_length():
    from fake_records import fake_records

    figure = figures.curves_together({"a": fake_records(epochs=5), "b": fake_records("fine_tuned", epochs=8), "c": []})
    left, right = figure.axes
    assert [len(line.get_xdata()) for line in left.lines] == [5, 5, 8, 8]
    assert right.get_ylabel() == "accuracy, %"
