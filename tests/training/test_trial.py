"""Networks that cannot be trained, or hardly: each is told in a sentence, before a training."""

import dataclasses

import pytest
import torch
from torch import nn

from labreport.facts.recipes import RECIPES, for_profile
from labreport.images.synthetic import synthetic
from labreport.networks import models
from labreport.training import trial
from labreport.training.trial import NetworkError, training_seconds, try_network

SHAPE = (3, 32, 32)


class Net(nn.Module):
    """A flat linear network, which the tests below spoil."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, num_classes)

    def forward(self, images):
        return self.fc(images.flatten(1))


def net(**members):
    """A class like `Net` with other members."""
    return type("Other", (Net,), members)


def init(layers):
    def __init__(self, num_classes=10):
        nn.Module.__init__(self)
        for name, layer in layers(num_classes).items():
            setattr(self, name, layer)

    return __init__


def small(self, num_classes=10):
    Net.__init__(self, num_classes)
    self.fc = nn.Linear(512, num_classes)


def no_classes(self):
    Net.__init__(self, 10)


FAULTS = {
    "no num_classes": (net(__init__=no_classes), r"cannot be built.*num_classes=10"),
    "raises": (net(__init__=lambda self, n=10: 1 / 0), r"cannot be built \(ZeroDivisionError"),
    "no module": (lambda n=10: "net", r"is a str, and must be a torch\.nn\.Module"),
    "no parameters": (lambda n=10: nn.Flatten(), "no parameters"),
    "lazy": (net(__init__=init(lambda n: {"fc": nn.LazyLinear(n)})), r"lazy layer, fc \(LazyLinear\).*Linear\(3072"),
    "five outputs": (lambda n=10: Net(5), r"\(8, 5\) for 8 images.*\(8, 10\)"),
    "wrong width": (net(__init__=small), r"in its layer fc \(Linear\).*takes 512 numbers an image"),
    "a tuple": (net(forward=lambda self, x: (self.fc(x.flatten(1)),)), "gives a tuple"),
    "classes": (net(forward=lambda self, x: self.fc(x.flatten(1)).argmax(1)), r"\(8,\) for 8 images"),
    "not finite": (net(forward=lambda self, x: self.fc(x.flatten(1)) / 0), "not finite"),
    "detached": (net(forward=lambda self, x: self.fc(x.flatten(1)).detach()), "passes no gradient"),
}


def tried(monkeypatch, builder, **settings):
    monkeypatch.setitem(models.MODELS, "mine", builder)
    return try_network(dataclasses.replace(RECIPES["fine_tuned"], name="mine", model="mine", **settings), 10, SHAPE)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_network_that_cannot_be_trained_is_told(monkeypatch, fault):
    builder, words = FAULTS[fault]
    with pytest.raises(NetworkError, match=words) as told:
        tried(monkeypatch, builder)
    assert "\n" not in str(told.value) and "'mine'" in str(told.value)


def test_a_softmax_at_the_end_is_a_hint(monkeypatch):
    (hint,) = tried(monkeypatch, net(forward=lambda self, x: self.fc(x.flatten(1)).softmax(1)))
    assert "softmax" in hint and "sums to 1" in hint
    assert tried(monkeypatch, net(forward=lambda self, x: self.fc(x.flatten(1)).log_softmax(1))) == ()


def test_a_layer_that_is_not_used_is_a_hint(monkeypatch):
    (hint,) = tried(monkeypatch, net(__init__=init(lambda n: {"fc": nn.Linear(3072, n), "extra": nn.Linear(2, 2)})))
    assert "extra.weight and 1 more takes no part" in hint


@pytest.mark.parametrize("settings", [{"whiten": True}, {"optimizer": "muon"}])
def test_what_only_the_fast_network_has_is_told(monkeypatch, settings):
    with pytest.raises(NetworkError, match=r"fast94"):
        tried(monkeypatch, Net, **settings)


def test_small_images_of_the_first_epochs_are_tried_too(monkeypatch):
    with pytest.raises(NetworkError, match=r"\(8, 3, 16, 16\)"):
        tried(monkeypatch, Net, low_resolution_epochs=1, low_resolution=16)


@pytest.mark.parametrize("name", RECIPES)
def test_the_suites_own_networks_need_no_hint(name):
    recipe = RECIPES[name]
    shape = (256,) if recipe.features_from else SHAPE
    state = torch.get_rng_state()
    assert try_network(recipe, 10, shape) == ()
    assert torch.equal(torch.get_rng_state(), state)


CPU = torch.device("cpu")
IMAGES = synthetic(n_train=300, n_val=100, n_test=100)


def test_seconds_come_from_all_images_that_the_network_sees(monkeypatch):
    """A hundredth of a second an image: the epochs', a third for each that is only classified."""
    monkeypatch.setattr(trial, "seconds_per_image", lambda *_: 0.01)
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
