"""Plausible run records from a random generator, for tests of what reads records. No network was trained for them."""

from __future__ import annotations

import dataclasses

import numpy as np

from labreport.facts.recipes import KNOWN, RECIPES
from labreport.facts.reported import CIFAR10_CLASSES
from labreport.records.record import DataInfo, Environment, Epoch, Predictions, RunRecord, Score, Stretch, run_key
from labreport.training.evaluate import rounded

# name: test accuracy, parameters, forward FLOPs, seconds
SUITE = {
    "baseline": (0.672, 48_122, 3_000_000, 9000.0),
    "first_optimization": (0.694, 75_186, 4_400_000, 2400.0),
    "fine_tuned": (0.789, 541_094, 9_700_000, 400.0),
    "resnet18": (0.741, 11_181_642, 74_000_000, 900.0),
    "deep_cnn": (0.902, 2_400_000, 280_000_000, 1500.0),
    "dnn_softmax": (0.899, 2_600_000, 280_000_000, 1600.0),
    "fast94": (0.941, 1_990_000, 160_000_000, 700.0),
}
OTHER_WEIGHTS = "other ImageNet weights: trained at home, sha256 0123456789abcdef"
FAKE_MACHINE = Environment("A processor", "AVX2", 1, "fp32", "2.0", "3.11", "Linux x86_64")
EASE = np.array([0.5, 0.9, -0.6, -1.1, -0.2, -0.7, 0.5, 0.4, 1.0, 0.6])  # ships easy, cats hard


def fake_predictions(accuracy: float, seed: int, system: int, n_test: int, num_classes: int) -> Predictions:
    """Answers with exactly `accuracy` (to one image); hard images are hard for every seed and system."""
    shared = np.random.default_rng(1)
    labels = np.arange(n_test) % num_classes
    difficulty = shared.normal(0, 1.2, n_test)
    rng = np.random.default_rng([seed, system, 11])
    margin = np.resize(EASE, num_classes)[labels] - difficulty + rng.normal(0, 0.8, n_test)
    n_correct = round(accuracy * n_test)
    margin -= np.sort(margin)[::-1][n_correct - 1]
    correct = margin >= 0
    wrong = (labels + rng.integers(1, num_classes, n_test)) % num_classes
    predicted = np.where(correct, labels, wrong)
    confidence = 1 / num_classes + (1 - 1 / num_classes) / (1 + np.exp(1 - 2 * np.abs(margin + 0.2)))
    true_probability = np.where(
        correct, confidence, np.minimum(confidence, 1 - confidence) * rng.uniform(0.1, 1, n_test)
    )
    right, missed = np.flatnonzero(correct), np.flatnonzero(~correct)
    best = [right[labels[right] == k][:1] for k in range(num_classes)]
    examples = np.concatenate([*best, missed[np.argsort(-confidence[missed])][:num_classes]])
    probabilities = np.repeat((1 - confidence - ~correct * true_probability)[:, None], num_classes, axis=1)
    probabilities /= num_classes - 1 - ~correct[:, None]
    probabilities[np.arange(n_test), labels] = true_probability
    probabilities[np.arange(n_test), predicted] = confidence
    log_probabilities = rounded(np.log(np.maximum(probabilities, 1e-6)))
    return Predictions(
        labels=labels.astype(np.uint8),
        log_probabilities=log_probabilities,
        example_indices=examples,
        example_images=fake_images(len(examples), rng),
        first_kernels=rng.normal(size=(16, 3, 2, 2)).astype(np.float32),
    )


def fake_images(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 3, 32, 32) uint8: a soft blob of one colour on another."""
    y, x = np.mgrid[0:32, 0:32]
    centre = rng.uniform(10, 22, (n, 2, 1, 1))
    blob = np.exp(-((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2) / 60)[:, None]
    front, back = rng.uniform(0, 255, (2, n, 3, 1, 1))
    return (front * blob + back * (1 - blob)).astype(np.uint8)


def fake_history(accuracy: float, epochs: int, rng: np.random.Generator) -> tuple[Epoch, ...]:
    """A rise towards `accuracy` that is mostly over after a third of the epochs."""
    rows = []
    for epoch in range(1, epochs + 1):
        reached = accuracy - (accuracy - 0.2) * np.exp(-6 * epoch / epochs) + rng.normal(0, 0.003)
        train = min(reached + 0.08 * epoch / epochs, 1.0)
        rows.append(Epoch(epoch, 1e-4, 2.5 * (1 - train) + 0.1, train, 2.5 * (1 - reached) + 0.15, reached, 30.0))
    return tuple(rows)


def fake_record(
    name: str = "baseline",
    seed: int = 0,
    *,
    accuracy: float | None = None,
    epochs: int | None = None,
    n_test: int = 2000,
    classes: tuple[str, ...] = CIFAR10_CLASSES,
    source: str = "official",
    fingerprint: str = "0123456789abcdef",
    profile: str = "paper",
    weights: str = "",
) -> RunRecord:
    """One record of a recipe of the suite; `accuracy` is that of the test set, exact to one image."""
    mean, parameters, forward_flops, seconds = SUITE.get(name, (0.7, 48_122, 3_000_000, 100.0))
    system = list(RECIPES).index(name) if name in RECIPES else 99
    rng = np.random.default_rng([seed, system, 7])
    accuracy = mean + rng.normal(0, 0.003) if accuracy is None else accuracy
    predictions = fake_predictions(accuracy, seed, system, n_test, len(classes))
    recipe = KNOWN[name].settings() if name in KNOWN else {"name": name}
    epochs = epochs or recipe.setdefault("epochs", 40)
    history = fake_history(accuracy, epochs, rng)
    data = DataInfo(source, fingerprint, classes, 45_000, 5_000, n_test)
    return RunRecord(
        name=name,
        title=RECIPES[name].title if name in RECIPES else name,
        profile=profile,
        seed=seed,
        key=run_key(recipe, "fake", weights, data.fingerprint, seed),
        recipe=recipe,
        network="fake",
        weights=weights,
        code={},
        data=data,
        stretches=(Stretch(1, epochs, sum(row.seconds for row in history), "0123456789ab", FAKE_MACHINE),),
        history=history,
        untrained_val_loss=float(np.log(len(classes))),
        train_score=Score(0.4, round(min(accuracy + 0.05, 1.0) * 45_000) / 45_000, 45_000),
        val_score=Score(0.6, round(accuracy * 5_000) / 5_000, 5_000),
        test_score=predictions.score(),
        seconds=seconds,
        parameters=parameters,
        size_bytes=4 * parameters,
        forward_flops=forward_flops,
        train_flops=3 * forward_flops * epochs * 45_000,
        finished="2026-01-01T00:00:00+00:00",
        predictions=predictions,
    )


def fake_records(name: str = "baseline", seeds: int = 3, **settings) -> list[RunRecord]:
    """One record a seed."""
    return [fake_record(name, seed, **settings) for seed in range(seeds)]


def fake_suite(seeds: int = 3, **settings) -> dict[str, list[RunRecord]]:
    """Records of the whole suite in its order; the pretrained ResNet is missing, as where its weights cannot be had."""
    return {name: fake_records(name, seeds, **settings) if name in SUITE else [] for name in RECIPES}


def answering(said: Predictions, *, predicted=None, confidence=None, labels=None) -> Predictions:
    """`said` with other answers, confidences or labels; the rest of the probability is spread evenly."""
    predicted = said.predicted if predicted is None else predicted
    confidence = said.confidence if confidence is None else confidence
    num_classes = said.log_probabilities.shape[1]
    log_probabilities = np.repeat(np.log((1 - confidence) / (num_classes - 1) + 1e-6)[:, None], num_classes, axis=1)
    log_probabilities[np.arange(len(predicted)), predicted] = np.log(confidence)
    labels = said.labels if labels is None else labels
    return dataclasses.replace(said, labels=labels, log_probabilities=log_probabilities)


# A record of four images that can be read at a glance.
PROBABILITIES = np.array([[0.9, 0.1, 0, 0], [0.1, 0.8, 0.1, 0], [0, 0.2, 0.7, 0.1], [0.5, 0, 0.25, 0.25]])


def make_record(seed=0, **changes):
    predictions = Predictions(
        labels=np.array([0, 1, 2, 3], np.uint8),
        log_probabilities=np.log(PROBABILITIES + 1e-6).astype(np.float16),
        example_indices=np.array([0, 3]),
        example_images=np.zeros((2, 3, 32, 32), np.uint8),
        first_kernels=np.ones((2, 3, 2, 2), np.float32),
    )
    info = DataInfo("official", "0123456789abcdef", ("a", "b", "c", "d"), 8, 2, 4)
    settings = RECIPES["baseline"].settings()
    history = tuple(Epoch(epoch, 0.1, 2.0, 0.2, 1.9, 0.3, 1.5) for epoch in range(1, settings["epochs"] + 1))
    info = changes.pop("data", info)
    record = RunRecord(
        name="baseline",
        title="Baseline",
        profile="paper",
        seed=seed,
        key=run_key(settings, "net", "", info.fingerprint, seed),
        recipe=settings,
        network="net",
        weights="",
        code={"network": "net", "loop": "0"},
        data=info,
        stretches=(Stretch(1, len(history), 1.5 * len(history), "0123456789ab", FAKE_MACHINE),),
        history=history,
        untrained_val_loss=2.3,
        train_score=Score(1.0, 0.5, 8),
        val_score=Score(1.1, 0.5, 2),
        test_score=predictions.score(),
        seconds=1.5 * len(history),
        parameters=10,
        size_bytes=40,
        forward_flops=100,
        train_flops=2400,
        finished="2026-01-01T00:00:00+00:00",
        predictions=predictions,
    )
    return dataclasses.replace(record, **changes)
