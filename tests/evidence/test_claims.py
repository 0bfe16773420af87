"""Which claims hold, on records whose truth is known."""

import dataclasses

import numpy as np
import pytest
from fake_records import answering, fake_record, fake_records, fake_suite

from labreport.evidence import claims
from labreport.records.record import Epoch


def verdict_of(start: str, suite: dict) -> str:
    (claim,) = (claim for claim in claims.claims(suite) if claim.text.startswith(start))
    assert claim.verdict in claim.sentence
    return claim.verdict


@pytest.mark.parametrize(("accuracy", "expected"), [(0.85, "holds"), (0.775, "holds"), (0.70, "does not hold")])
def test_whether_the_fine_tuned_network_reaches_78_percent(accuracy, expected):
    suite = {"fine_tuned": [fake_record("fine_tuned", accuracy=accuracy)]}
    assert verdict_of("Larger kernels", suite) == expected


@pytest.mark.parametrize(("gain", "expected"), [(0.05, "holds"), (0.0, "undecided"), (-0.05, "does not hold")])
def test_whether_the_first_optimization_improves(gain, expected):
    suite = {
        "baseline": fake_records(accuracy=0.67),
        "first_optimization": fake_records("first_optimization", accuracy=0.67 + gain),
    }
    assert verdict_of("The first optimization improves on", suite) == expected


def test_claims_of_classes():
    suite = {
        "baseline": fake_records(n_test=20_000),
        "first_optimization": fake_records("first_optimization", n_test=20_000),
    }
    assert verdict_of("Cats", suite) == "holds"
    assert verdict_of("Ships", suite) == "undecided"  # automobiles are as easy in the generator
    swapped = {"baseline": [swap_classes(record, 3, 8) for record in suite["baseline"]]}
    assert verdict_of("Cats", swapped) == verdict_of("Ships", swapped) == "does not hold"


def swap_classes(record, a: int, b: int):
    table = np.arange(10, dtype=np.uint8)
    table[[a, b]] = b, a
    said = record.predictions
    predictions = answering(said, labels=table[said.labels], predicted=table[said.predicted])
    return dataclasses.replace(record, predictions=predictions)


def test_hardly_any_progress_is_a_gain_surely_under_two_points():
    before = {"baseline": fake_records(n_test=20_000, accuracy=0.67)}
    for accuracy, expected in ((0.66, "holds"), (0.74, "does not hold")):
        after = fake_records("first_optimization", n_test=20_000, accuracy=accuracy)
        assert verdict_of("The first optimization brings", before | {"first_optimization": after}) == expected


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (lambda t: 0.7 - 0.5 * np.exp(-12 * t), "holds"),
        (lambda t: 0.2 + 0.5 * t, "does not hold"),
        (lambda t: 0.7 + 0 * t, "undecided"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_gain_after_half_of_the_epochs(curve, expected, seeds):
    def with_curve(record):
        times = np.linspace(0.01, 1, 300)
        noise = np.random.default_rng(record.seed).normal(0, 1e-3, 300) if expected != "undecided" else np.zeros(300)
        history = [Epoch(i + 1, 0.1, 1, 0.5, 1, float(a), 1) for i, a in enumerate(curve(times) + noise)]
        return dataclasses.replace(record, history=tuple(history))

    assert verdict_of("Beyond", {"baseline": [with_curve(r) for r in fake_records(seeds=seeds)]}) == expected


def test_short_history_is_judged_at_half_and_very_short_ones_not():
    (claim,) = (c for c in claims.claims({"baseline": fake_records(epochs=40)}) if c.text.startswith("Beyond"))
    assert "after epoch 20 (half of 40 epochs)" in claim.evidence
    assert verdict_of("Beyond", {"baseline": fake_records(epochs=4)}) == "undecided"


def test_resnet_does_not_shrink_the_model():
    assert verdict_of("ResNet-18 makes", fake_suite(1)) == "does not hold"


def test_claims_without_runs_are_undecided():
    found = claims.claims({})
    assert {claim.verdict for claim in found} == {"undecided"}
    assert all("not run" in claim.evidence for claim in found)
    assert len(claims.claims_table({})) == len(found)


def test_nothing_about_cifar10_is_judged_on_the_stand_in():
    suite = fake_suite(2, classes=tuple("abcdefghij"), source="synthetic stand-in")
    judged = {claim.text for claim in claims.claims(suite) if claim.verdict != "—"}
    assert judged == {"Pretrained, ResNet-18 improves the accuracy", "ResNet-18 makes the model smaller"}


@pytest.mark.parametrize(("gain", "expected"), [(0.01, "holds"), (0.05, "does not hold")])
def test_a_slight_improvement_is_one_of_two_points_or_less(gain, expected):
    suite = {
        "baseline": fake_records(n_test=20_000, accuracy=0.67),
        "first_optimization": fake_records("first_optimization", n_test=20_000, accuracy=0.67 + gain),
    }
    assert verdict_of("That improvement", suite) == expected


def test_neighbours_in_the_ranking_are_apart_only_where_a_test_says_so():
    suite = {name: fake_records(name, 2, accuracy=a) for name, a in (("baseline", 0.5), ("deep_cnn", 0.8))}
    suite["fine_tuned"] = fake_records("fine_tuned", 2, accuracy=0.8)
    said = claims.ranking(suite)
    assert said.count(" ≈ ") == 1
    assert said.endswith(" (80.00 %) > Origin (50.00 %).")
