"""Heads on the features of a network that keeps its ImageNet weights."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from labreport import paths
from labreport.facts.recipes import KNOWN, RECIPES, UPSCALED, for_profile
from labreport.images import augment
from labreport.images import cifar10 as data
from labreport.lab.session import Lab
from labreport.networks import costs, models
from labreport.networks.pretrained import WeightsUnavailable
from labreport.training import features, trained
from labreport.training.identity import code_of
from labreport.training.run import TrainingError
from labreport.training.train import extract_features, train

CPU = torch.device("cpu")
EXACT = dataclasses.replace(for_profile(UPSCALED["frozen_64"], "smoke"), precision="fp32")


@pytest.fixture(scope="module")
def images():
    return data.synthetic(n_train=100, n_val=40, n_test=60)


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """A ResNet-18 for 1,000 classes whose weights the suite is told to use."""
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    monkeypatch.setenv("LABREPORT_WEIGHTS", str(tmp_path / "mine.safetensors"))
    torch.manual_seed(1)
    resnet = models.resnet18(1000)
    save_file(resnet.state_dict(), tmp_path / "mine.safetensors")
    return resnet.eval()


def test_an_upscaled_network_is_the_plain_one_on_enlarged_images():
    model = models.build("resnet18_at_64").eval()
    small = torch.randn(2, 3, 32, 32)
    enlarged = F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(small), model.resnet(enlarged))


def test_features_are_those_of_the_weights_network_without_its_last_layer(images, weights):
    _, seen = features.frozen_features(EXACT, images, 0, "smoke", CPU, print)
    enlarged = F.interpolate(augment.normalize(images.test.images), scale_factor=2.0, mode="bilinear")
    caught = []
    weights.avgpool.register_forward_hook(lambda module, inputs, output: caught.append(output.flatten(1)))
    with torch.inference_mode():
        weights(enlarged)
    torch.testing.assert_close(seen.test.images, caught[0], rtol=1e-4, atol=1e-5)
    assert seen.train.images.shape == (100, 512)
    assert seen.val.labels is images.val.labels


def test_all_seeds_share_the_features_and_a_record_carries_their_costs(images, weights, monkeypatch):
    recipe = for_profile(UPSCALED["frozen_32"], "smoke")
    first = train(recipe, images, 0, profile="smoke", device="cpu")
    kept = {path.name: path for path in paths.runs("smoke").glob("features-*/*.safetensors")}
    assert sorted(kept) == ["test-00000.safetensors", "train-00000.safetensors", "val-00000.safetensors"]
    monkeypatch.setattr(features, "predict", None)  # nothing is computed again
    second = train(recipe, images, 1, profile="smoke", device="cpu")
    assert first.weights.startswith("other ImageNet weights: mine, sha256 ") and first.weights == second.weights
    assert first.parameters == sum(p.numel() for p in models.resnet18().parameters())  # body and a head for ten classes
    forward = costs.flops_per_input(models.resnet18(), (3, 32, 32))[0]
    assert first.forward_flops == forward
    assert 100 * forward < first.train_flops < 101 * forward  # forward only, once over the training images; and a head
    assert "features" in first.code
    kept["val-00000.safetensors"].write_bytes(kept["val-00000.safetensors"].read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"val-00000\.safetensors: damaged; move it away"):
        train(recipe, images, 2, profile="smoke", device="cpu")


def test_a_trained_head_answers_for_images_with_the_weights_that_it_stands_on(images, weights, tmp_path):
    record = train(dataclasses.replace(EXACT, name="frozen_64"), images, 0, profile="smoke", device="cpu")
    said = trained.load("frozen_64", images, "smoke").predict(images.test.images).probabilities
    torch.testing.assert_close(torch.tensor(said).log(), torch.tensor(record.predictions.log_probabilities).float(),
                               rtol=0, atol=0.01)  # fmt: skip
    save_file(models.resnet18(1000).state_dict(), tmp_path / "mine.safetensors")
    with pytest.raises(trained.WeightsError, match="LABREPORT_WEIGHTS"):
        trained.load("frozen_64", images, "smoke")


def test_other_weights_give_another_run_and_other_features(images, weights, tmp_path):
    recipe = for_profile(UPSCALED["frozen_32"], "smoke")
    first = train(recipe, images, 0, profile="smoke", device="cpu")
    save_file(models.resnet18(1000).state_dict(), tmp_path / "mine.safetensors")
    second = train(recipe, images, 0, profile="smoke", device="cpu")
    assert first.key != second.key
    assert len([path for path in paths.runs("smoke").glob("features-*") if path.is_dir()]) == 2


def test_features_of_fewer_images_are_others(images, weights):
    few = images.first(50)
    for some in (few, images):
        seen = features.frozen_features(EXACT, some, 0, "smoke", CPU, print)[1].train
        assert len(seen.images) == len(seen.labels) == len(some.train)


def test_a_killed_computation_goes_on_from_its_last_file(images, weights, monkeypatch):
    monkeypatch.setattr(features, "A_FILE", 30)
    monkeypatch.setattr(features, "AT_ONCE", 20)
    _, whole = features.frozen_features(EXACT, images, 0, "smoke", CPU, print)
    files = sorted(paths.runs("smoke").glob("features-*/*.safetensors"))
    assert [path.stem for path in files if path.stem.startswith("train")] == [
        f"train-000{i}" for i in ("00", 30, 60, 90)
    ]
    for path in files[3:]:
        path.unlink()
    before = [path.stat().st_mtime_ns for path in files[:3]]
    _, again = features.frozen_features(EXACT, images, 0, "smoke", CPU, print)
    assert [path.stat().st_mtime_ns for path in files[:3]] == before
    for split in ("train", "val", "test"):
        torch.testing.assert_close(getattr(again, split).images, getattr(whole, split).images, rtol=0, atol=0)


def test_without_weights_a_head_is_not_trained(images, monkeypatch, tmp_path):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailable, match="LABREPORT_WEIGHTS"):
        train(for_profile(UPSCALED["frozen_32"], "smoke"), images, profile="smoke", device="cpu")


def test_features_come_from_whatever_a_recipe_trains(images, monkeypatch, tmp_path):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    recipe = dataclasses.replace(for_profile(RECIPES["dnn_softmax"], "smoke"), features_from="fast94")
    seen = extract_features(recipe, images, 0, "smoke", CPU, print)[1]
    assert seen.test.images.shape == (60, 256)  # what its last layer sees
    train(recipe, images, profile="smoke", device="cpu")


def test_the_network_that_features_are_of_is_part_of_a_heads_code(monkeypatch):
    before = code_of(RECIPES["dnn_softmax"])
    with monkeypatch.context() as patch:
        patch.setitem(models.MODELS, "deep_cnn", models.MODELS["fine_tuned"])
        after = code_of(RECIPES["dnn_softmax"])
    assert after["features"] != before["features"]
    assert after | {"features": before["features"]} == before
    monkeypatch.setitem(KNOWN, "deep_cnn", dataclasses.replace(RECIPES["deep_cnn"], lr=0.2))
    assert code_of(RECIPES["dnn_softmax"])["features"] != before["features"]


def test_weights_that_are_named_are_not_replaced_by_stored_runs_of_others(images, weights, tmp_path, monkeypatch):
    recipe = for_profile(UPSCALED["frozen_32"], "smoke")
    train(recipe, images, 0, profile="smoke", device="cpu")
    lab = Lab("smoke", 0, None, "cpu")
    monkeypatch.setattr(Lab, "data", images)
    assert lab.missing_seeds(recipe) == []
    save_file(models.resnet18(1000).state_dict(), tmp_path / "mine.safetensors")
    assert lab.missing_seeds(recipe) == [0]
    monkeypatch.delenv("LABREPORT_WEIGHTS")
    assert lab.missing_seeds(recipe) == []


def test_the_feature_network_is_part_of_a_heads_code():
    codes = {name: code_of(recipe) for name, recipe in UPSCALED.items() if recipe.features_from}
    assert len({code["features"] for code in codes.values()}) == len(codes)
    assert len({code["network"] for code in codes.values()}) == 1


def test_an_upscaled_network_starts_from_the_weights(images, weights):
    recipe = dataclasses.replace(for_profile(UPSCALED["resnet18_pretrained_64"], "smoke"), lr=0.0)
    train(recipe, images, 0, profile="smoke", device="cpu")
    (trained,) = paths.runs("smoke").glob("resnet18_pretrained_64-*.safetensors")
    state = load_file(trained)
    torch.testing.assert_close(state["resnet.conv1.weight"], weights.conv1.weight.detach(), rtol=0, atol=0)
