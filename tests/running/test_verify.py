"""A record of earlier code is believed again once its first epoch has been found, and never otherwise."""

import dataclasses
import json

import pytest
from fake_records import FAKE_MACHINE

from labreport import paths
from labreport.__main__ import main
from labreport.facts.recipes import RECIPES
from labreport.images.synthetic import synthetic
from labreport.lab.session import Lab
from labreport.records.record import Epoch
from labreport.records.store import Store
from labreport.running import verify


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    (found,) = Lab.open("smoke").train("fine_tuned")
    return found


def path_of(record):
    return paths.records("smoke") / f"{record.stem}.json"


def edit(record, **changes):
    raw = json.loads(path_of(record).read_text())
    path_of(record).write_text(json.dumps(raw | changes))


def test_unchanged_code_trains_nothing(record, capsys, monkeypatch):
    monkeypatch.setattr(verify, "first_epoch", lambda *_: pytest.fail("trained"))
    assert main(["verify", "--profile", "smoke"]) == 0
    assert "same code" in capsys.readouterr().out


def test_a_first_epoch_found_again_is_stamped_with_todays_code(record, capsys):
    edit(record, code=record.code | {"loop": "of another day"})
    lab = Lab.open("smoke")
    assert lab.of_earlier_code(lab.records()) == {"fine_tuned": 1}
    assert main(["verify", "--profile", "smoke"]) == 0
    assert verify.EXACT in capsys.readouterr().out
    assert lab.of_earlier_code(lab.records()) == {}
    (stored,) = Store(paths.records("smoke")).all()
    assert stored.verified[0].exact and stored.verified[0].code == record.code


def test_a_record_whose_first_epoch_is_another_one_fails(record, capsys):
    row = dataclasses.asdict(record.history[0]) | {"train_loss": record.history[0].train_loss + 1e-6}
    edit(record, code={"loop": "of another day"}, history=[row])
    assert main(["verify", "--profile", "smoke"]) == 1
    assert verify.DIFFERENT in capsys.readouterr().out
    assert Store(paths.records("smoke")).all()[0].verified == ()


@pytest.mark.parametrize(
    ("loss", "accuracy", "same_kind", "verdict"),
    [
        (2.0, 0.30, True, verify.EXACT),
        (2.0, 0.30, False, verify.EXACT),
        (2.01, 0.31, False, verify.CLOSE),
        (2.01, 0.31, True, verify.DIFFERENT),
        (2.2, 0.30, False, verify.DIFFERENT),
        (2.0, 0.33, False, verify.DIFFERENT),
    ],
)
def test_the_tolerance_is_for_other_machines_only(loss, accuracy, same_kind, verdict):
    stored = Epoch(1, 0.1, 2.0, 0.30, None, None, 1.0)
    assert verify.compare(stored, Epoch(1, 0.1, loss, accuracy, None, None, 2.0), same_kind) == verdict


def test_another_number_of_threads_is_another_kind_of_machine():
    assert FAKE_MACHINE.same_kind(dataclasses.replace(FAKE_MACHINE, python="3.12"))
    assert not FAKE_MACHINE.same_kind(dataclasses.replace(FAKE_MACHINE, threads=2))


def test_a_check_that_could_not_be_made_is_no_success(record, capsys, monkeypatch):
    edit(record, code={"loop": "of another day"})
    monkeypatch.setattr(Lab, "data", synthetic(n_train=100, n_val=50, n_test=50, seed=1))
    assert main(["verify", "--profile", "smoke"]) == 1
    assert "not checked: it is of other images" in capsys.readouterr().out


def test_unknown_names_are_told(record, capsys):
    assert main(["verify", "--profile", "smoke", "vgg"]) == 2
    assert "vgg" in capsys.readouterr().err


def test_show_prints_what_a_record_knows(record, capsys):
    assert main(["show", record.key]) == 0
    out = capsys.readouterr().out
    for known in (record.network, record.environment.device, record.data.fingerprint, *record.code.values()):
        assert known in out
    assert main(["show", "no-such-key"]) == 2
    assert "no-such-key" in capsys.readouterr().err


def test_every_recipe_can_be_made_from_its_settings():
    for recipe in RECIPES.values():
        assert type(recipe)(**recipe.settings()).settings() == recipe.settings()


def test_a_head_on_another_networks_features_is_found_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    Lab.open("smoke").train("dnn_softmax")
    assert main(["verify", "--profile", "smoke", "--again", "dnn_softmax"]) == 0
    assert verify.EXACT in capsys.readouterr().out
