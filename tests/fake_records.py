"""Plausible run records from a random generator, for tests of what reads records. No network was trained for them."""

from __future__ import annotations

import numpy as np

from labreport.recipes import RECIPES
from labreport.records import DataInfo, Epoch, Predictions, RunRecord, Score, run_key
from labreport.reported import CIFAR10_CLASSES

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
    return Predictions(
        labels=labels.astype(np.uint8),
        predicted=predicted.astype(np.uint8),
        confidence=confidence.astype(np.float32),
        nll=-np.log(true_probability).astype(np.float32),
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
    epochs: int = 40,
    n_test: int = 2000,
    classes: tuple[str, ...] = CIFAR10_CLASSES,
    source: str = "official",
    profile: str = "paper",
) -> RunRecord:
    """One record of a recipe of the suite; `accuracy` is that of the test set, exact to one image."""
    mean, parameters, forward_flops, seconds = SUITE.get(name, (0.7, 48_122, 3_000_000, 100.0))
    system = list(RECIPES).index(name) if name in RECIPES else 99
    rng = np.random.default_rng([seed, system, 7])
    accuracy = mean + rng.normal(0, 0.003) if accuracy is None else accuracy
    predictions = fake_predictions(accuracy, seed, system, n_test, len(classes))
    recipe = RECIPES[name].settings() if name in RECIPES else {"name": name}
    data = DataInfo(source, "0123456789abcdef", classes, 45_000, 5_000, n_test)
    return RunRecord(
        name=name,
        title=RECIPES[name].title if name in RECIPES else name,
        profile=profile,
        seed=seed,
        key=run_key(recipe, data.fingerprint, seed),
        recipe=recipe,
        data=data,
        environment={"python": "3.11", "torch": "2.0", "device": "CPU (x86_64)", "threads": 1, "precision": "fp32"},
        history=fake_history(accuracy, epochs, rng),
        untrained_val_loss=float(np.log(len(classes))),
        train_score=Score(0.4, round(min(accuracy + 0.05, 1.0) * 45_000) / 45_000, 45_000),
        val_score=Score(0.6, round(accuracy * 5_000) / 5_000, 5_000),
        test_score=Score(float(predictions.nll.mean(dtype=float)), float(predictions.correct.mean()), n_test),
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
