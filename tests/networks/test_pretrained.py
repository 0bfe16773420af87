"""ImageNet weights: torchvision's or the user's own, named by their hash; or one sentence on why not."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from labreport import paths
from labreport.networks import models, pretrained
from labreport.networks.pretrained import WeightsError, WeightsUnavailable, start_from_imagenet, weights_name


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """No weights but those that a test brings, and no network."""
    monkeypatch.setenv("LABREPORT_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABREPORT_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def state():
    return models.resnet18(1000).state_dict()


@pytest.fixture
def brought(monkeypatch, tmp_path):
    """A path that LABREPORT_WEIGHTS names."""

    def name(file: str) -> Path:
        monkeypatch.setenv("LABREPORT_WEIGHTS", str(tmp_path / file))
        return tmp_path / file

    return name


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def cached(tmp_path):
    path = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    return path


def test_no_weights_anywhere_are_one_sentence_with_the_way_out():
    for ask in (weights_name, lambda: start_from_imagenet(models.build("resnet18"))):
        with pytest.raises(WeightsUnavailable, match=r"resnet18-f37072fd.*LABREPORT_WEIGHTS"):
            ask()


@pytest.mark.parametrize("file", ["mine.pth", "mine.safetensors"])
def test_a_file_of_ones_own_starts_the_network_and_is_named_by_its_hash(state, brought, file):
    path = brought(file)
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    torch.save(half, path) if path.suffix == ".pth" else save_file(half, path)
    model = models.build("resnet18")
    head = model.fc.weight.clone()
    name = start_from_imagenet(model)
    assert name == weights_name() == f"other ImageNet weights: mine, sha256 {sha256(path)}"
    expected = state["layer4.1.conv2.weight"].half().float()
    torch.testing.assert_close(model.layer4[1].conv2.weight.detach(), expected, rtol=0, atol=0)
    assert model.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(model.fc.weight, head)  # the last layer is for other classes


def test_a_note_beside_the_file_says_what_it_is(state, brought):
    path = brought("mine.safetensors")
    save_file(state, path)
    path.with_suffix(".txt").write_text("trained at home, 69.0 % top-1\nmore about it\n")
    assert weights_name() == f"other ImageNet weights: trained at home, 69.0 % top-1, sha256 {sha256(path)}"


def test_a_file_that_changes_has_another_name(state, brought):
    path = brought("mine.safetensors")
    save_file(state, path)
    before = weights_name()
    save_file(state | {"conv1.weight": state["conv1.weight"] * 2}, path)
    assert weights_name() != before


def test_torchvisions_file_is_known_by_its_hash_and_comes_before_data(state, monkeypatch, tmp_path):
    path = cached(tmp_path)
    torch.save(state, path)
    theirs = sha256(path)
    monkeypatch.setattr(pretrained, "_is_torchvisions", lambda digest: digest[:16] == theirs)
    paths.data().mkdir(parents=True)
    save_file(state, paths.data() / "resnet18-mine.safetensors")
    assert weights_name() == f"torchvision IMAGENET1K_V1, sha256 {theirs}"
    path.unlink()
    assert "resnet18-mine" in weights_name()  # in data/, where torchvision's cannot be had


def test_a_cached_file_with_another_hash_is_not_taken_for_torchvisions(state, tmp_path):
    torch.save(state, cached(tmp_path))
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth.*move it away"):
        start_from_imagenet(models.build("resnet18"))


def test_a_folder_may_be_named_that_holds_one_file(state, brought):
    folder = brought("folder")
    folder.mkdir()
    with pytest.raises(WeightsError, match="holds no resnet18"):
        weights_name()
    save_file(state, folder / "resnet18-a.safetensors")
    assert "resnet18-a" in weights_name()
    save_file(state, folder / "resnet18-b.safetensors")
    with pytest.raises(WeightsError, match=r"several.*resnet18-a.*resnet18-b"):
        weights_name()


class RunsCode:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def damage(path, state, kind):
    if kind == "another architecture":
        torch.save(models.DeepCNN().state_dict(), path)
    elif kind == "deeper":
        torch.save(state | {"layer4.2.conv1.weight": torch.zeros(512, 512, 3, 3)}, path)
    elif kind == "wider":
        torch.save(state | {"conv1.weight": torch.zeros(128, 3, 7, 7)}, path)
    elif kind == "wrapped":
        torch.save({"state_dict": state, "epoch": 3}, path)
    elif kind == "not finite":
        torch.save(state | {"bn1.running_var": torch.full((64,), torch.nan)}, path)
    elif kind == "runs code":
        path.write_bytes(pickle.dumps(RunsCode()))
    elif kind == "runs code in a zip":
        torch.save({"conv1.weight": RunsCode()}, path)
    elif kind == "a whole network":
        torch.save(models.DenseSoftmax(), path)
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif kind == "a folder's name":
        path.mkdir()
    elif kind != "missing":
        raise AssertionError(kind)


BAD = {
    "another architecture": "not of torchvision's ResNet-18",
    "deeper": r"1 of its layers.*layer4\.2\.conv1\.weight",
    "wider": r"conv1\.weight",
    "wrapped": "state_dict",
    "not finite": r"bn1\.running_var.*not finite",
    "runs code": "code",
    "runs code in a zip": "code",
    "a whole network": "state_dict alone",
    "empty": "cut off",
    "text": "state_dict alone|cut off",
    "missing": "does not exist",
    "a folder's name": "holds no resnet18",
}


@pytest.mark.parametrize(("kind", "words"), BAD.items())
def test_bad_weights_are_one_sentence_and_run_nothing(state, brought, monkeypatch, tmp_path, kind, words):
    monkeypatch.chdir(tmp_path)
    path = brought("bad.pth")
    damage(path, state, kind)
    model = models.build("resnet18")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=words) as caught:
        start_from_imagenet(model)
    assert str(path) in str(caught.value)
    assert not Path("ran").exists()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@pytest.mark.parametrize("file", ["cut.pth", "cut.safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_one_sentence(state, brought, file, share):
    path = brought(file)
    torch.save(state, path) if path.suffix == ".pth" else save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=r"cut off|more than tensors"):
        start_from_imagenet(models.build("resnet18"))
