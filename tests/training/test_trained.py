"""Trained networks are stored, loaded, checked and asked."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from labreport import paths
from labreport.__main__ import main
from labreport.facts.recipes import RECIPES, for_profile
from labreport.images.cifar10 import synthetic
from labreport.records.store import Store
from labreport.training import trained
from labreport.training.train import train
from labreport.training.trained import WeightsError


@pytest.fixture(scope="module")
def data():
    return synthetic(n_train=400, n_val=100, n_test=200)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def records(data, home):
    """Two systems trained for an epoch, one of them on the features of a third."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABREPORT_HOME", str(home))
        recipes = (for_profile(RECIPES[name], "smoke") for name in ("fine_tuned", "dnn_softmax"))
        return {recipe.name: train(recipe, data, profile="smoke") for recipe in recipes}


@pytest.fixture
def reference(records, data, home, tmp_path, monkeypatch):
    """The folder of the reference run's weights, with theirs in it."""
    monkeypatch.setenv("LABREPORT_HOME", str(home))
    monkeypatch.setattr(trained, "reference_folder", lambda: tmp_path / "weights")
    monkeypatch.setattr(trained, "_found", {})
    for record in (*records.values(), trained._features_of(records["dnn_softmax"])):
        trained.export(record, data, tmp_path / "weights")
    return tmp_path / "weights"


@pytest.mark.parametrize("name", ["fine_tuned", "dnn_softmax"])
def test_what_was_trained_here_answers_as_its_record_says(name, records, data, home, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(home))
    network = trained.load(name, data, "smoke")
    said = network.predict(data.test.images)
    seen = records[name].predictions
    assert np.allclose(said.probabilities, np.exp(seen.log_probabilities), atol=0.02)  # bf16 where the device has it
    assert network.measured.n == 200
    assert network.measured.accuracy == pytest.approx(records[name].test_score.accuracy, abs=0.02)


@pytest.mark.parametrize("name", ["fine_tuned", "dnn_softmax"])
def test_exported_weights_are_half_as_large_and_answer_the_same(name, records, data, reference):
    network = trained.load(name, data)
    assert network.record == records[name].stem
    own = trained.load(name, data, "smoke")
    assert torch.allclose(network.logits(data.test.images), own.logits(data.test.images), atol=0.02)
    path, original = reference / f"{name}.safetensors", paths.runs("smoke") / f"{records[name].stem}.safetensors"
    assert path.stat().st_size < 0.56 * original.stat().st_size
    assert {key: tensor.shape for key, tensor in load_file(path).items()} == {
        key: tensor.shape for key, tensor in load_file(original).items()
    }


def test_the_same_run_gives_the_same_file(records, data, reference, tmp_path):
    again, _ = trained.export(records["fine_tuned"], data, tmp_path / "again")
    assert again.read_bytes() == (reference / "fine_tuned.safetensors").read_bytes()


def test_batch_norms_numbers_keep_their_precision(reference):
    state = load_file(reference / "deep_cnn.safetensors")
    assert state["features.0.weight"].dtype == torch.float16
    assert {t.dtype for key, t in state.items() if key.endswith("running_var")} == {torch.float32}


def test_a_file_that_was_changed_is_refused(reference):
    path = reference / "fine_tuned.safetensors"
    with safe_open(path, "pt") as file:
        said = file.metadata()
    state = load_file(path)
    state["fc2.bias"] = state["fc2.bias"] + 1e-3
    save_file(state, path, said)
    with pytest.raises(WeightsError, match=r"fine_tuned\.safetensors: damaged .*sha256.*git checkout"):
        trained.load("fine_tuned")
    better = json.loads(said["labreport"]) | {"accuracy_of_first": 0.99}
    save_file(load_file(path), path, {"labreport": json.dumps(better)})
    with pytest.raises(WeightsError, match="sha256"):
        trained.load("fine_tuned")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged"):
        trained.load("fine_tuned")


def test_a_network_that_is_no_longer_as_good_as_its_weights_were_is_refused(data, reference, monkeypatch):
    right = trained.load("fine_tuned", data).measured.accuracy
    trained._found.clear()
    monkeypatch.setattr(trained.Network, "logits", lambda self, images: torch.eye(10)[data.test.labels[: len(images)]])
    with pytest.raises(WeightsError, match=f"fine_tuned: 100.0% .*but {right:.1%} were"):
        trained.load("fine_tuned", data)


def test_features_of_another_run_are_refused(records, data, reference):
    path = reference / "deep_cnn.safetensors"
    with safe_open(path, "pt") as file:
        said = json.loads(file.metadata()["labreport"]) | {"record": "deep_cnn-seed7-0123456789ab"}
    del said["sha256"]
    state = load_file(path)
    save_file(state, path, {"labreport": json.dumps(said | {"sha256": trained.digest(state, said)})})
    with pytest.raises(WeightsError, match=r"deep_cnn-seed0.*deep_cnn-seed7.*labreport weights"):
        trained.load("dnn_softmax")


def test_large_files_are_not_written(records, data, home, tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(home))
    monkeypatch.setattr(trained, "LARGEST", 1e6)  # fine_tuned has 541,094 parameters of two bytes
    assert trained.export(records["fine_tuned"], data, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_weights_are_measured_on_the_runs_own_data_only(records, tmp_path):
    with pytest.raises(WeightsError, match=r"fine_tuned-seed0.*name its own"):
        trained.export(records["fine_tuned"], synthetic(40, 10, 20), tmp_path)


def test_the_latest_run_of_a_name_is_taken(records, data, home, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(home))
    recipe = dataclasses.replace(for_profile(RECIPES["baseline"], "smoke"), name="mine")
    first = train(recipe, data, profile="smoke")
    second = train(dataclasses.replace(recipe, lr=1e-3), data, profile="smoke")
    for latest, other in ((first, second), (second, first)):
        Store(paths.records("smoke")).save_facts(dataclasses.replace(latest, finished="2026-02-02T00:00:00+00:00"))
        Store(paths.records("smoke")).save_facts(dataclasses.replace(other, finished="2026-01-01T00:00:00+00:00"))
        assert trained.load("mine", data, "smoke").record == latest.stem


def test_an_unknown_name_is_answered_with_those_that_there_are(reference):
    with pytest.raises(WeightsError, match=r"'vgg'.*fine_tuned, deep_cnn, dnn_softmax"):
        trained.load("vgg")
    assert trained.best_known() == "dnn_softmax"


def test_predict_prints_a_table_and_says_that_everything_is_one_of_ten_classes(reference, data, tmp_path, capsys):
    from PIL import Image

    for k in range(2):
        pixels = data.test.images[k].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).resize((320, 320), Image.Resampling.NEAREST).save(tmp_path / f"{k}.png")
    files = [str(tmp_path / f"{k}.png") for k in range(2)]
    assert main(["predict", *files, "--network", "fine_tuned"]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = trained.load("fine_tuned").predict(data.test.images[:2])
    for line, file, answer in zip(lines[1:3], files, said.answers, strict=True):
        assert line.split()[:2] == [file, answer]
    assert any("one of 10 classes (disc, ring" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["no-such.jpg"], "no-such.jpg"), (["/"], "/: a folder"), (["x.jpg", "--network", "vgg"], "'vgg'")],
)
def test_predict_complains_in_a_sentence(arguments, named, reference, capsys):
    assert main(["predict", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and named in err


def test_a_record_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    paths.records("smoke").mkdir(parents=True)
    (paths.records("smoke") / "mine-seed0-0123456789ab.json").write_text("{")
    with pytest.raises(trained.WeightsError, match=r"mine: its record in .* cannot be read"):
        trained._own("mine", "smoke", None)


def test_answers_have_a_table_and_a_picture(reference, data):
    said = trained.load("fine_tuned").predict(data.test.images[:3])
    assert said.probabilities.sum(axis=1) == pytest.approx(1)
    frame = said.table(["a", "b", "c"])
    assert list(frame.columns) == ["picture", "answer", "second", "third"]
    assert [cell.split()[0] for cell in frame["answer"]] == said.answers
    assert len(said.figure().axes) == 6
    assert said._repr_png_().startswith(b"\x89PNG")


def test_without_data_nothing_is_measured_and_with_it_the_first_thousand_images_are(reference, data, monkeypatch):
    assert trained.load("fine_tuned").measured is None
    monkeypatch.setattr(trained.cifar10, "at_hand", lambda: data)
    network = trained.load("fine_tuned")
    assert network.measured.n == 200
    again = f"again: {100 * network.measured.accuracy:.1f} %"
    assert re.search(again + r" \([\d.]+–[\d.]+\) of the first 200", repr(network))
    assert trained.load("fine_tuned", check=False).measured is None
