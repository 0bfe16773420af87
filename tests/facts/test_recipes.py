"""Recipes: what is stated is the lab report's, and what a profile shortens says so."""

import dataclasses

import pytest

from labreport.facts.recipes import PROFILES, RECIPES, for_profile


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
