"""How long a report will take on this machine, said before its first training.

What the notebooks would train is read from their code, and what an image of it takes is tried here, for a fifth of a
second a recipe; so the forecast holds for this machine and these networks.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import torch
from IPython.core.inputtransformer2 import TransformerManager

from labreport.evidence.tables import duration
from labreport.facts.recipes import ABLATIONS, RECIPES, UPSCALED, Recipe
from labreport.images.splits import Data
from labreport.lab.session import Lab
from labreport.networks import costs, models, pretrained
from labreport.training.device import best_device, place
from labreport.training.trial import input_shape, training_seconds

NOTEBOOK_SECONDS = 17.0  # of kernel, figures and tables, on two cores of 2021 that are left alone
TYPESET_SECONDS = 10.0
TRAINS = ("train", "compare")  # functions that train what the store lacks
IN_PAPER = {"ablation": ABLATIONS, "upscaled": UPSCALED}  # and those that train more, in the profile `paper` only


@dataclass(frozen=True)
class Forecast:
    """One notebook's trainings: their names, FLOPs and seconds; `seconds` of the whole notebook."""

    notebook: str
    trains: tuple[str, ...]
    flops: float
    training_seconds: float

    @property
    def seconds(self) -> float:
        return self.training_seconds + NOTEBOOK_SECONDS

    def __str__(self) -> str:
        trains = f": {', '.join(self.trains)}" if self.trains else ""
        return f"  {self.notebook}, {duration(self.seconds)}{trains}"


def forecast(notebooks: Sequence[Path], lab: Lab) -> list[Forecast]:
    """What each notebook will take, when they run one after the other."""
    device = torch.device(lab.device) if lab.device else best_device()
    expected, done = [], set[str]()
    for notebook in notebooks:
        recipes = [lab.recipe(recipe) for recipe in recipes_trained(notebook, lab.profile)]
        missing = {recipe: _missing(recipe, lab) for recipe in recipes if recipe.name not in done}
        missing = {recipe: seeds for recipe, seeds in missing.items() if seeds}
        done |= {recipe.name for recipe in missing}
        flops = sum(seeds * _flops(recipe, lab.data) for recipe, seeds in missing.items())
        seconds = sum(seeds * training_seconds(_known(recipe), lab.data, device) for recipe, seeds in missing.items())
        if features := sum(_feature_flops(recipe, lab.data) for recipe in missing):
            like = RECIPES["resnet18"]
            seconds += features * training_seconds(like, lab.data, device) / _flops(like, lab.data)
            flops += features
        expected.append(Forecast(notebook.stem, tuple(recipe.name for recipe in missing), flops, seconds))
    return expected


def _missing(recipe: Recipe, lab: Lab) -> int:
    """How many seeds are to be trained."""
    if recipe.pretrained:
        try:
            pretrained.weights_name()
        except (pretrained.WeightsUnavailable, pretrained.WeightsError):  # the notebook will say so
            return 0
    return len(lab.missing_seeds(recipe)) if recipe.model in models.MODELS else len(lab.seeds)


def told(expected: Sequence[Forecast], lab: Lab) -> Iterator[str]:
    """The forecast in lines."""
    device = torch.device(lab.device) if lab.device else best_device()
    flops = sum(one.flops for one in expected)
    seconds = sum(one.seconds for one in expected) + TYPESET_SECONDS
    training = sum(one.training_seconds for one in expected)
    rate = f", at {flops / training / 1e9:.0f} GFLOP/s" if training else ""
    yield (
        f"about {duration(seconds)} on {place(device)}: {duration(training)} of it for {flops / 1e15:.3f} PFLOP of "
        f"training{rate}, as tried here"
    )
    yield from map(str, expected)


def recipes_trained(notebook: Path, profile: str) -> list[str | Recipe]:
    """What the notebook's cells train, as far as its code says: the suite's recipes, and variants of them.

    A variant that changes nothing but the name is not trained, and one of a network of the notebook's own is taken to
    cost as much as what it is made from.
    """
    found: dict[str, str | Recipe] = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        try:
            tree = ast.parse(TransformerManager().transform_cell(cell.source))
        except SyntaxError:  # the run will say so
            continue
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        found |= {recipe.name: recipe for recipe in map(_variant, calls) if recipe}
        called = {getattr(call.func, "attr", "") for call in calls}
        if profile == "paper":
            found |= {name: name for function in called & IN_PAPER.keys() for name in IN_PAPER[function]}
        if called & {*TRAINS}:
            strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            every = any(isinstance(c.iter, ast.Name) and c.iter.id == "RECIPES" for c in _loops(tree))
            found |= {name: name for name in RECIPES if every or name in strings}
    return list(found.values())


def _loops(tree: ast.AST) -> list[ast.comprehension | ast.For]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.comprehension | ast.For)]


def _variant(call: ast.Call) -> Recipe | None:
    """The recipe that `replace(RECIPES["…"], name="…", …)` makes, where it differs in more than its name."""
    if getattr(call.func, "id", None) != "replace" or not call.args or not isinstance(call.args[0], ast.Subscript):
        return None
    try:
        origin = RECIPES[ast.literal_eval(call.args[0].slice)]
        settings = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
        variant = dataclasses.replace(origin, **settings | {"family": origin.name})
    except (ValueError, TypeError, KeyError):
        return None
    same = {**variant.settings(), "name": ""} == {**origin.settings(), "name": ""}
    return None if same else variant


def _known(recipe: Recipe) -> Recipe:
    """The recipe, or one with a known network where its own is a notebook's."""
    return recipe if recipe.model in models.MODELS else dataclasses.replace(recipe, model=RECIPES[recipe.family].model)


def _feature_flops(recipe: Recipe, data: Data) -> int:
    """Of a head's frozen network, which sees every image once, for all seeds."""
    if not (recipe.pretrained and recipe.features_from):
        return 0
    network, images = models.build(recipe.features_from), data.first(recipe.train_images)
    each = costs.flops_per_input(network, tuple(data.train.images.shape[1:]))[0]
    return each * (len(images.train) + len(images.val) + len(images.test))


def _flops(recipe: Recipe, data: Data) -> int:
    recipe = _known(recipe)
    few, num_classes = data.first(recipe.train_images), len(data.info.classes)
    shape = input_shape(recipe, num_classes, tuple(data.train.images.shape[1:]))
    return costs.training_flops(recipe, models.build(recipe.model, num_classes), shape, len(few.train))
