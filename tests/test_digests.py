"""A digest follows what is computed: code and shapes, not names, comments and layout."""

import importlib.util
import sys
import textwrap

import pytest
import torch
from torch import nn

from labreport.digests import code_digest, network_digest
from labreport.facts.recipes import ABLATIONS, RECIPES
from labreport.networks.models import MODELS
from labreport.training.identity import code_of

SOURCE = """
import torch.nn as nn
import torch.nn.functional as F

SCALE = 2.0

def activation(x):
    return F.relu(x) * SCALE

class Net(nn.Module):
    def __init__(self, num_classes=10, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.fc = nn.Linear(width, num_classes)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        x = activation(self.conv(x))
        return self.fc(self.dropout(x.mean((2, 3))))
"""


@pytest.fixture
def network(tmp_path):
    """The digest of `Net` from a source text, as a module of a user's own."""

    def digest(source, name="Net"):
        path = tmp_path / f"mine{len(list(tmp_path.iterdir()))}.py"
        path.write_text(textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        builder = getattr(module, name)
        return network_digest(builder(), builder)

    return digest


def test_comments_docstrings_annotations_layout_and_names_do_not_count(network):
    other = SOURCE.replace("class Net", "class Other")
    other = other.replace("forward(self, x):", "forward(self, x: object) -> object:\n        'Says what.'  # why")
    other = other.replace("Conv2d(3, width, 3, padding=1)", "Conv2d(\n            3, width, 3, padding=1\n        )")
    assert network(SOURCE) == network(other, "Other")


CHANGES = {
    "a width": ("width=4", "width=64"),
    "a rate of dropout": ("Dropout(0.1)", "Dropout(0.2)"),
    "a padding": ("padding=1", "padding=0"),
    "the forward pass": ("x.mean((2, 3))", "x.amax((2, 3))"),
    "a function that it calls": ("F.relu(x)", "F.tanh(x)"),
    "a constant that this uses": ("SCALE = 2.0", "SCALE = 3.0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_network_changes_its_digest(network, change):
    assert network(SOURCE) != network(SOURCE.replace(*CHANGES[change]))


def test_networks_of_the_suite_differ():
    with torch.random.fork_rng():
        digests = {name: network_digest(build(10), build) for name, build in MODELS.items()}
    assert len(set(digests.values())) == len(MODELS)


def test_a_digest_does_not_depend_on_the_random_weights():
    first, second = (network_digest(nn.Sequential(nn.Linear(2, 2)), nn.Sequential) for _ in range(2))
    assert first == second


def test_only_the_code_that_a_recipe_uses_counts_for_it():
    adam, sgd, muon = (code_of(RECIPES[name]) for name in ("fine_tuned", "baseline", "fast94"))
    assert len({code["optimizer"] for code in (adam, sgd, muon)}) == 3
    assert adam["loop"] == sgd["loop"] == muon["loop"]
    assert code_of(ABLATIONS["fast94_random"])["network"] != muon["network"]
    assert code_of(ABLATIONS["fast94_short"]) == muon


def test_a_function_that_was_edited_in_place_counts_as_it_is_now():
    """As IPython's autoreload does it: the function stays, with other code."""

    def edited(x):
        return x

    def other(x):
        return 2 * x

    before = code_digest(edited)
    edited.__code__ = other.__code__
    assert code_digest(edited) == code_digest(other) != before


def outer(x):
    return inner(x) + 1


def inner(x):
    return x


def test_called_code_counts_unless_it_is_left_out(monkeypatch):
    before, apart = code_digest(outer), code_digest(outer, without=(inner,))

    def changed(x):
        return 2 * x

    monkeypatch.setitem(globals(), "inner", changed)
    assert code_digest(outer) != before
    assert code_digest(outer, without=(changed,)) == apart
