"""Recipes: what is stated is the lab report's, and what a profile shortens says so."""

import dataclasses

import pytest

from labreport.facts.recipes import PROFILES, RECIPES, SMOKE_IMAGES, for_profile, shortened


def test_identity_is_what_is_computed_not_how_it_is_described():
    recipe = RECIPES["baseline"]
    described = dataclasses.replace(recipe, title="Other", why={"lr": "because"}, stated=())
    assert described.settings() == recipe.settings()
    assert dataclasses.replace(recipe, lr=1e-3).settings() != recipe.settings()


def test_stated_settings_are_the_lab_reports():
    baseline, tuned, resnet = RECIPES["baseline"], RECIPES["fine_tuned"], RECIPES["resnet18"]
    assert (baseline.lr, baseline.momentum, baseline.batch_size, baseline.epochs) == (1e-4, 0.9, 10, 300)
    assert (tuned.optimizer, tuned.lr, tuned.step_size, tuned.gamma) == ("adam", 0.003, 7, 0.1)
    assert (resnet.optimizer, resnet.lr, resnet.epochs, resnet.normalization) == ("adam", 1e-3, 10, "mean")


def test_every_described_setting_exists():
    for recipe in RECIPES.values():
        fields = {field.name for field in dataclasses.fields(recipe)}
        assert {*recipe.stated, *recipe.why} <= fields
        assert all(for_profile(recipe, profile).name == recipe.name for profile in PROFILES)


def test_unknown_profile_is_told():
    with pytest.raises(ValueError, match="fast"):
        for_profile(RECIPES["baseline"], "fast")


def test_a_shortened_setting_is_no_longer_called_stated():
    quick = for_profile(RECIPES["baseline"], "quick")
    assert quick.epochs < 300
    assert "epochs" not in quick.stated
    assert "quick" in quick.why["epochs"]
    assert "momentum" in quick.stated


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "bad/name"}, "'bad/name'.*files are named"),
        ({"name": ""}, "letters"),
        ({"name": ".."}, "begin"),
        ({"name": "lr0.003"}, "'lr0.003'"),  # its files would be those of lr0.001
        ({"epochs": 0}, "epochs is 0.*from 1 up"),
        ({"epochs": 2.5}, "whole number"),
        ({"batch_size": -1}, "batch_size"),
        ({"schedule": "step", "step_size": 0}, "step_size"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"momentum": 1.0}, "below 1"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_told(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(RECIPES["baseline"], **change)


def test_a_recipe_of_ones_own_is_shortened_as_what_it_is_made_from():
    mine = dataclasses.replace(RECIPES["fine_tuned"], name="mine", flip="none")
    quick, parent = (for_profile(recipe, "quick") for recipe in (mine, RECIPES["fine_tuned"]))
    assert dataclasses.replace(quick, name="fine_tuned", flip="random").settings() == parent.settings()
    assert shortened(mine, "quick") and not shortened(mine, "paper")
    assert quick.why["flip"] == "yours" and "quick" in quick.why["epochs"]
    assert quick.title == "Fine-tuning (mine)"


def test_what_its_maker_has_changed_stays():
    rate = dataclasses.replace(RECIPES["baseline"], name="mine", lr=0.01)
    assert for_profile(rate, "quick").lr == 0.01
    assert for_profile(rate, "quick").epochs == for_profile(RECIPES["baseline"], "quick").epochs
    assert "lr" not in for_profile(rate, "paper").stated
    epochs = dataclasses.replace(RECIPES["baseline"], name="mine", epochs=7)
    assert not shortened(epochs, "quick")
    assert for_profile(epochs, "smoke").epochs == 1


def test_smoke_sees_as_few_images_as_it_says():
    assert {for_profile(recipe, "smoke").train_images for recipe in RECIPES.values()} == {SMOKE_IMAGES}
