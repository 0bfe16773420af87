"""The code that decides what a training gives, as digests."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import torch

from labreport.digests import code_digest, network_digest
from labreport.facts.recipes import KNOWN, Recipe
from labreport.images import splits
from labreport.networks import models, pretrained
from labreport.training import branches, compiled, evaluate, features, optimizers, run, steps


def network_of(recipe: Recipe, num_classes: int = 10) -> str:
    """The digest of the recipe's network.

    Raises:
        ValueError: there is no such network.
    """
    builder = models.find(recipe.model)
    with torch.random.fork_rng(devices=[]):
        return network_digest(builder(num_classes), builder)


def code_of(recipe: Recipe, num_classes: int = 10, ways: Collection[str] = ()) -> dict[str, str]:
    """The digests of all code that decides what this recipe's training gives, by part.

    `ways`, of `records.record.WAYS`, are those in which the steps are done: `graphs` on a GPU, `branches` of one graph
    for several seeds, `compiled` where C++ does them.

    Raises:
        ValueError: the recipe names something that does not exist.
    """
    sizes = (Recipe.image_side,) if recipe.low_resolution_epochs else ()
    parts = {
        "network": network_of(recipe, num_classes),
        "split": code_digest(splits.choose_validation),
        "augmentation": code_digest(steps.chunks, *sizes),
        "optimizer": code_digest(optimizers.OPTIMIZERS.get(recipe.optimizer), optimizers.set_rates),
        # Weights that a training starts from are known by their own digest, however they came here.
        "loop": code_digest(
            run.splits_for,
            run.Run.start,
            steps.train_epoch,
            steps.train_step,
            without=(
                pretrained.start_from_imagenet,
                steps.chunks,
                optimizers.set_rates,
                steps.train_replayed,
                steps.train_compiled,
            ),
        ),
        "evaluation": code_digest(evaluate.predict, evaluate.predictions, *sizes),
    }
    if recipe.features_from and recipe.pretrained:
        source = dataclasses.replace(recipe, model=recipe.features_from)
        parts["features"] = code_digest(network_of(source, num_classes), features.feature_network, without=(run.Run,))
    elif recipe.features_from:
        trained = KNOWN[recipe.features_from]
        settings = sorted(map(str, trained.settings().items()))
        parts["features"] = code_digest(*code_of(trained, num_classes).values(), *settings)
    if "graphs" in ways:
        parts["graphs"] = code_digest(steps.train_replayed)
    if "branches" in ways:
        parts["branches"] = code_digest(branches.train_epoch_in_step)
    if "compiled" in ways:
        kernel = compiled.KERNELS[models.find(recipe.model)]
        parts["compiled"] = code_digest(compiled.CompiledSteps, kernel.code(), compiled.FLAGS)
    return parts
